"""Standings as files: JSON and CSV for programs, Markdown and LaTeX for papers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from episodes.files import write_text
from lurefs.comparing.rankers import RankerRow
from lurefs.comparing.standing_rows import Standing
from lurefs.comparing.standings import Standings
from lurefs.comparing.text_tables import TextTable, legend, text_tables
from lurefs.errors import unwritable

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "…": r"\ldots{}",
    "\u00a0": "~",
}
"""LaTeX for characters that have a meaning in LaTeX or that its default fonts lack."""


def write_exports(standings: Standings, folder: Path | str) -> dict[str, Path]:
    """Write `comparison.json`, `.csv`, `.md` and `.tex` into a folder; return format -> path.

    Raises:
        UserError: The folder cannot be written.
    """
    folder = Path(folder)
    tables, explained = text_tables(standings), legend(standings)
    texts = {
        "JSON": ("json", json.dumps(standings.to_mapping(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"),
        "CSV": ("csv", to_csv(standings)),
        "Markdown": ("md", to_markdown(tables, explained)),
        "LaTeX": ("tex", to_latex(tables, explained)),
    }
    paths = {name: folder / f"comparison.{suffix}" for name, (suffix, _) in texts.items()}
    if standings.rankings:
        texts["CSV of rankers"] = ("csv", rankers_to_csv(standings))
        paths["CSV of rankers"] = folder / "rankers.csv"
    try:
        for name, (_, text) in texts.items():
            write_text(paths[name], text)
    except OSError as error:
        raise unwritable(folder, error) from error
    return paths


def to_csv(standings: Standings) -> str:
    """Return one CSV line per run, group of several runs, control and mean over data sets: the fields of `Standing`."""
    text = io.StringIO()
    names = [field.name for field in fields(Standing)]
    writer = csv.DictWriter(text, ["reference", *names], lineterminator="\n")
    writer.writeheader()
    single = {run.run for run in standings.runs if run.run == run.group}
    groups = [row for row in standings.groups if row.name not in single]
    means = [row for across in standings.across for row in across.standings()]
    rows = [*standings.rows, *groups, *standings.controls, *means]
    for row in rows:
        values = {"reference": standings.reference, **asdict(row)}
        writer.writerow({name: _csv_value(value) for name, value in values.items()})
    return text.getvalue()


def rankers_to_csv(standings: Standings) -> str:
    """Return one CSV line per benchmark and ranker: the fields of `RankerRow`; several chosen are joined by ` + `."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(RankerRow)], lineterminator="\n")
    writer.writeheader()
    rows = [row for ranking in standings.rankings for row in ranking.rows]
    writer.writerows({**asdict(row), "chosen": " + ".join(row.chosen)} for row in rows)
    return text.getvalue()


def _csv_value(value: Any) -> Any:
    """Return a text so that no spreadsheet takes it for a formula; other values stay as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def to_markdown(tables: Sequence[TextTable], explained: Sequence[str]) -> str:
    """Return the tables and their explanations in GitHub's Markdown, with aligned columns."""
    return "\n".join([*map(_markdown_table, tables), "\n".join(f"- {line}" for line in explained), ""])


def to_latex(tables: Sequence[TextTable], explained: Sequence[str]) -> str:
    r"""Return the tables as LaTeX floats that need the package booktabs, for `\input` in a document."""
    text = "\n".join(_latex_table(table, explained) for table in tables)
    engine = "" if text.isascii() else ", and LuaLaTeX or XeLaTeX with a font that has the letters of all names"
    return f"% needs \\usepackage{{booktabs}}{engine}\n{text}"


def _markdown_table(table: TextTable) -> str:
    lines = [[_markdown_text(text) for text in row] for row in (table.columns, *table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    rows = [
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in (lines[0], rule, *lines[1:])
    ]
    notes = "".join(f"\n{_markdown_text(note)}\n" for note in table.notes)
    return f"**{_markdown_text(table.title)}**\n\n" + "\n".join(rows) + f"\n{notes}"


def _markdown_text(text: str) -> str:
    return "".join(f"\\{character}" if character in "\\|*_`<[" else character for character in text)


def _latex_table(table: TextTable, explained: Sequence[str]) -> str:
    def line(texts: Sequence[str]) -> str:
        row = " & ".join(map(_latex_text, texts))
        # After the end of the row above, a star or bracket would be an argument.
        return f"    {'{}' if row.startswith(('[', '*')) else ''}{row} \\\\"

    scope = " ".join(explained) if table.is_explained else ""
    caption = ". ".join(text.removesuffix(".") for text in (table.title, *table.notes)) + ". " + scope
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering\small\setlength{\tabcolsep}{4pt}",
            f"  \\caption{{{_latex_text(caption.strip())}}}",
            f"  \\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            r"    \toprule",
            line(table.columns),
            r"    \midrule",
            *map(line, table.rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
