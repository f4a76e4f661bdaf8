"""A comparison of runs as one W&B run: its rows, the paired differences as a chart, its page.

All is read from the folder that `lurefs compare` wrote; nothing is computed anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lurefs.mirror.cards import Row, comparison_card, without_none
from lurefs.mirror.records import Chart, Record, Table
from lurefs.results import damaged

T = TypeVar("T")
FILE = "comparison.json"
RUN_COLUMNS = ("backbone", "strategy", "seed", "device")
DIFFERENCE_COLUMNS = ("run", "cell", "difference", "low_episodes", "high_episodes", "low_classes", "high_classes")


def comparison_record(folder: Path) -> Record:
    """Return what W&B is told of a comparison.

    Args:
        folder: Where `comparison.json` is, and its page beside it.

    Raises:
        UserError: The file is damaged.
    """
    return _read(folder, lambda numbers: _record(numbers, folder / "report.html"))


def compared_paths(folder: Path) -> list[Path]:
    """Return the directories of the runs that were compared.

    Raises:
        UserError: The file is damaged.
    """
    return _read(folder, lambda numbers: [Path(run["path"]) for run in numbers["runs"]])


def leaderboard(numbers: Mapping[str, Any]) -> Table:
    """Return all rows of a comparison, best first within benchmark and probe; those not measured stand last."""
    about = {run["run"]: run for run in numbers["runs"]}
    columns = ["run", *RUN_COLUMNS, *(name for name in numbers["rows"][0] if name != "run")] if numbers["rows"] else []
    places = {cell: number for number, cell in enumerate(dict.fromkeys(map(_cell, numbers["rows"])))}
    ordered = sorted(numbers["rows"], key=lambda row: (places[_cell(row)], row["mean"] is None, -(row["mean"] or 0)))
    rows = [{**{name: about[row["run"]].get(name) for name in RUN_COLUMNS}, **row} for row in ordered]
    return Table(columns=columns, rows=[[row[name] for name in columns] for row in rows])


def differences(numbers: Mapping[str, Any]) -> Table:
    """Return the differences from the reference in percentage points, with the bounds of both 95 % intervals."""
    rows = []
    for row in numbers["rows"]:
        if row["difference"] is not None:
            bounds = [
                None if half is None else 100 * (row["difference"] + side * half)
                for half in (row["difference_ci95_episodes"], row["difference_ci95_classes"])
                for side in (-1, 1)
            ]
            rows.append([row["run"], _cell(row), 100 * row["difference"], *bounds])
    return Table(columns=DIFFERENCE_COLUMNS, rows=rows)


def _read(folder: Path, use: Callable[[Mapping[str, Any]], T]) -> T:
    path = folder / FILE
    try:
        return use(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error


def _record(numbers: Mapping[str, Any], page: Path) -> Record:
    table = differences(numbers)
    title = f"Accuracy less that of {numbers['reference']}, points"
    chart = Chart(name="lurefs-paired-differences", title=title, table=table, spec=_SPEC)
    return Record(
        card=comparison_card(numbers),
        summary=_summary(numbers),
        tables={"leaderboard": leaderboard(numbers)},
        charts={"paired_differences": chart} if table.rows else {},
        pages={"report": page.read_text(encoding="utf-8")} if page.is_file() else {},
    )


def _summary(numbers: Mapping[str, Any]) -> Row:
    """Return which run is best at each benchmark and probe, and how far ahead of the reference."""
    measured = [row for row in numbers["rows"] if row["mean"] is not None]
    best: dict[str, Mapping[str, Any]] = {}
    for row in measured:
        held = best.setdefault(_cell(row), row)
        if row["mean"] > held["mean"]:
            best[_cell(row)] = row
    figures = {
        f"{what}/{row['benchmark']}/{row['probe']}": row[name]
        for row in best.values()
        for what, name in (("best_run", "run"), ("best_accuracy", "mean"), ("best_difference", "difference"))
    }
    return without_none(figures)


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['benchmark']}, {row['probe']}"


_RUNS = {
    "field": "${field:run}",
    "type": "nominal",
    "title": None,
    "sort": {"field": "${field:difference}", "order": "descending"},
}


def _interval(low: str, high: str, width: int) -> dict[str, Any]:
    bounds = {"x": {"field": f"${{field:{low}}}", "type": "quantitative"}, "x2": {"field": f"${{field:{high}}}"}}
    return {"mark": {"type": "rule", "strokeWidth": width}, "encoding": {"y": _RUNS, **bounds}}


_POINT = {"field": "${field:difference}", "type": "quantitative", "title": "difference, points"}
_DIAMOND = {"type": "point", "shape": "diamond", "size": 90, "filled": True, "fill": "white", "stroke": "black"}
_SPEC: dict[str, Any] = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
    "title": {
        "text": "${string:title}",
        "subtitle": "95 % intervals: thick on this pool of classes, thin on new classes of this kind",
        "anchor": "start",
    },
    "data": {"name": "wandb"},
    "facet": {
        "row": {
            "field": "${field:cell}",
            "type": "nominal",
            "title": None,
            "header": {"labelAngle": 0, "labelOrient": "top", "labelAnchor": "start"},
        }
    },
    "resolve": {"scale": {"y": "independent"}},
    "spec": {
        "width": 420,
        "height": {"step": 24},
        "layer": [
            {"mark": {"type": "rule", "strokeDash": [4, 4]}, "encoding": {"x": {"datum": 0}}},
            _interval("low_classes", "high_classes", 1),
            _interval("low_episodes", "high_episodes", 5),
            {"mark": _DIAMOND, "encoding": {"y": _RUNS, "x": _POINT}},
        ],
    },
}
