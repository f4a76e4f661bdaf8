from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from lurefs.comparing.exports import to_csv, to_latex, to_markdown, write_exports
from lurefs.comparing.finished_runs import read_runs
from lurefs.comparing.standing_rows import Standing
from lurefs.comparing.standings import Standings, standings
from lurefs.comparing.text_tables import TextTable, legend, text_tables
from lurefs.runs.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]
TABLE = TextTable(
    title="all of it, 50 %",
    columns=("run", "accuracy %", "± pool"),
    rows=((r"a_b&c#d$e{f}~^\g|<h>", "−1.25", "–"), ("x", "100.00", "0.5")),
    notes=("x: *not* said",),
)


@pytest.fixture
def found(make_run: MakeRun) -> Standings:
    runs = [
        make_run("lure_1", gain=0.9),
        make_run("warm", unlearn="nothing"),
        make_run("other", unlearn="from_scratch"),
    ]
    return standings(read_runs(runs))


def test_json_and_csv_hold_the_same_rows(found: Standings, tmp_path: Path) -> None:
    paths = write_exports(found, tmp_path / "out")
    stored = json.loads(paths["JSON"].read_text())
    rows = list(csv.DictReader(io.StringIO(paths["CSV"].read_text())))
    assert (stored["version"], stored["reference"]) == (2, "warm")
    assert [run["path"] for run in stored["runs"]] == [str(tmp_path / "runs" / row["name"]) for row in rows]
    for row, of_csv, of_json in zip(found.rows, rows, stored["rows"], strict=True):
        assert of_csv["reference"] == "warm"
        for field in fields(Standing):
            value = getattr(row, field.name)
            assert of_json[field.name] == value
            assert of_csv[field.name] == ("" if value is None else str(value))


def test_equal_runs_give_equal_bytes(found: Standings, tmp_path: Path) -> None:
    one, other = (write_exports(found, tmp_path / name) for name in ("one", "other"))
    assert [path.read_bytes() for path in one.values()] == [path.read_bytes() for path in other.values()]


def test_what_is_not_known_is_null_and_empty(found: Standings) -> None:
    assert found.to_mapping()["rows"][1]["difference"] is None
    assert list(csv.DictReader(io.StringIO(to_csv(found))))[1]["difference"] == ""


def test_results_stand_with_the_best_first_in_percent(found: Standings) -> None:
    results, costs = text_tables(found)
    best = next(row for row in found.rows if row.name == "lure_1")
    assert best.mean is not None and best.difference is not None
    assert results.title == "novel, centroid, 40 episodes; difference from warm, points"
    assert results.rows[0][:2] == ("lure_1", f"{100 * best.mean:.2f}")
    assert results.rows[0][5] == f"+{100 * best.difference:.2f}"
    assert results.rows[0][-1] == f"{best.n_wins}/{best.n_ties}/{best.n_losses}"
    assert results.notes == (
        "p: corrected for all 3 pairs (Shaffer)",
        "these trained models, one training each: another seed may change the order",
    )
    assert [row[0] for row in costs.rows] == ["lure_1", "warm", "other"]


def test_costs_of_several_machines_are_told_apart(make_run: MakeRun) -> None:
    card = {"n_parameters": 2_500_000, "n_macs": 1_820_000_000, "images_per_second": 1234.5, "n_threads": 1}
    runs = [make_run("lure", cost={**card, "device": "cpu"}), make_run("warm", cost={**card, "device": "a GPU"})]
    costs = text_tables(standings(read_runs(runs)))[-1]
    assert costs.rows[0][:5] == ("lure", "2.5", "1,820", "1,234", "2.00")
    assert costs.notes == ("Speeds were measured on several machines: cpu, 1 thread; a GPU, 1 thread",)


def test_markdown_is_aligned_and_its_signs_are_escaped() -> None:
    lines = to_markdown([TABLE], []).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({len(line) for line in table}) == 1
    assert table[1] == f"| :{'-' * 23} | ---------: | -----: |"
    assert table[2].startswith(r"| a\_b&c#d$e{f}~^\\g\|\<h> |")
    assert r"x: \*not\* said" in lines


def test_latex_escapes_what_it_would_read() -> None:
    text = to_latex([TABLE], [])
    row = next(line for line in text.splitlines() if line.strip().startswith("a"))
    name, mean, width = row.strip().removesuffix(r" \\").split(" & ")
    assert name == (
        r"a\_b\&c\#d\$e\{f\}\textasciitilde{}\textasciicircum{}\textbackslash{}g\textbar{}\textless{}h\textgreater{}"
    )
    assert (mean, width) == ("$-$1.25", "--")
    assert r"\caption{all of it, 50 \%. x: *not* said." in text


def test_latex_is_balanced_and_says_its_scope(found: Standings) -> None:
    text = to_latex(text_tables(found), legend(found))
    opened, closed = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert opened == ["table", "tabular"] * 2
    assert closed == ["tabular", "table"] * 2
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert text.isascii()
    body = re.findall(r"^    .* \\\\$", text, flags=re.MULTILINE)
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body] == [10] * 4 + [5] * 4
    assert "on average over new classes of this kind ($\\pm$ new)" in text
