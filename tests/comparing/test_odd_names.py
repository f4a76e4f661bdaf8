"""Names that mean something to spreadsheets, terminals, LaTeX, Markdown or HTML."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from lurefs.comparing.exports import to_csv, to_latex, to_markdown
from lurefs.comparing.finished_runs import read_runs
from lurefs.comparing.standings import Standings, standings
from lurefs.comparing.text_tables import legend, text_tables
from lurefs.console import table_lines
from lurefs.reporting.page import write_page
from lurefs.runs.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)")
NAMES = (*FORMULAS, "[x] a", "50% & $x$ ~ {y} ^_", "😀" * 40, "a" * 200, "שלום עולם", "漢字 " * 20 + "x", "~~gone~~")


@pytest.fixture
def directories(make_run: MakeRun) -> list[RunDirectory]:
    return [make_run(name, folder=str(i), gain=i / 20) for i, name in enumerate(NAMES)]


@pytest.fixture
def found(directories: list[RunDirectory]) -> Standings:
    # Other strategies than the seed tell these runs apart, so that each keeps its name.
    return standings(read_runs(directories))


def test_no_name_becomes_a_formula(found: Standings) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    names = [row["name"] for row in rows]
    assert not [text for row in rows for text in row.values() if re.match(r"[=+@\t\r]|-\D", text)]
    assert set(FORMULAS) <= {name.removeprefix("'") for name in names if name.startswith("'")}
    assert "50% & $x$ ~ {y} ^_" in names


def test_markdown_keeps_its_columns(found: Standings) -> None:
    table = [line for line in to_markdown(text_tables(found), []).splitlines() if line.startswith("|")]
    n_columns = [len(re.findall(r"(?<!\\)\|", line)) for line in table]
    n_rows = len(NAMES) + 2
    assert len(set(n_columns[:n_rows])) == 1 and len(set(n_columns[n_rows:])) == 1


def test_latex_keeps_its_rows(found: Standings) -> None:
    text = to_latex(text_tables(found), legend(found))
    assert text.splitlines()[0].startswith("% needs \\usepackage{booktabs}, and LuaLaTeX")
    assert not re.search(r"\\\\\s*[\[*]", text)
    assert r"50\% \& \$x\$ \textasciitilde{} \{y\} \textasciicircum{}\_ &" in text


@pytest.mark.parametrize("engine", ["lualatex", "pdflatex"])
def test_latex_compiles(directories: list[RunDirectory], engine: str, tmp_path: Path) -> None:
    if shutil.which(engine) is None:
        pytest.skip(f"needs {engine}")
    chosen = [run for run, name in zip(directories, NAMES, strict=True) if engine == "lualatex" or name.isascii()]
    found = standings(read_runs(chosen))
    body = to_latex(text_tables(found), legend(found))
    text = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{body}\\end{{document}}\n"
    (tmp_path / "paper.tex").write_text(text, encoding="utf-8")
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_terminal_of_80_columns_holds_long_and_wide_names(found: Standings) -> None:
    for table in text_tables(found):
        lines = table_lines(table.columns, table.rows, optional=table.optional, width=80)
        assert max(map(cell_len, lines)) <= 80
        assert "".join(line[:30].strip() for line in lines).count("😀") == 40


def test_folders_with_codes_of_a_terminal_are_shown_without_them(make_run: MakeRun) -> None:
    folders = ["a\x1b[31m\nb", "<img src=x onerror=alert(1)>"]
    runs = read_runs(
        [make_run("same", folder=folder, unlearn=of) for folder, of in zip(folders, ("nothing", "redo"), strict=True)]
    )
    assert [run.label for run in runs] == ["a\ufffd[31m\ufffdb", folders[1]]


def test_a_folders_name_cannot_become_html(make_run: MakeRun, tmp_path: Path) -> None:
    folder = "<img src=x onerror=alert(1)>"
    runs = [make_run("same", folder="one"), make_run("same", folder=folder, unlearn="nothing")]
    page = write_page(read_runs(runs), tmp_path / "page").read_text()
    assert folder not in page and "&lt;img src=x onerror=alert(1)&gt;" in page
