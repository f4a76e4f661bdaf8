"""Record of a comparison of runs for W&B: its leaderboard, charts of its intervals, its page.

All is read from the folder of `lurefs compare`; nothing is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lurefs.records import Row
from lurefs.runs.directory import damaged, read_json
from lurefs.tracking.labels import comparison_card, without_none
from lurefs.tracking.records import Chart, Record, Table

T = TypeVar("T")
FILE = "comparison.json"
RUN_COLUMNS = ("backbone", "strategy", "seed", "device")
INTERVAL_COLUMNS = ("run", "cell", "value", "low_episodes", "high_episodes", "low_classes", "high_classes")
ACCURACY_CHART, DIFFERENCE_CHART = "lurefs-accuracy", "lurefs-paired-differences"
"""Names of the charts at W&B; the keys of their tables in a run are `accuracy_table`, `paired_differences_table`."""


def comparison_record(folder: Path) -> Record:
    """Return the record of a comparison from the folder of its `comparison.json` and page.

    Raises:
        UserError: The file is damaged.
    """
    return _read(folder, lambda numbers: _record(numbers, folder / "report.html"))


def compared_paths(folder: Path) -> list[Path]:
    """Return the directories of the compared runs.

    Raises:
        UserError: The file is damaged.
    """
    return _read(folder, lambda numbers: [Path(run["path"]) for run in numbers["runs"]])


def leaderboard(numbers: Mapping[str, Any]) -> Table:
    """Return groups and controls by benchmark and probe: best group first, controls next, unmeasured groups last."""
    about = _about_groups(numbers)
    rows = [*numbers["groups"], *numbers["controls"]]
    columns = ["name", *RUN_COLUMNS, *(name for name in rows[0] if name != "name")] if rows else []
    places = {cell: number for number, cell in enumerate(dict.fromkeys(map(_cell, rows)))}
    ordered = sorted(
        rows,
        key=lambda row: (places[_cell(row)], row["mean"] is None, row["kind"] == "control", -(row["mean"] or 0)),
    )
    full = [{**dict.fromkeys(RUN_COLUMNS), **about.get(row["name"], {}), **row} for row in ordered]
    return Table(columns=columns, rows=[[row[name] for name in columns] for row in full])


def _rankers(numbers: Mapping[str, Any]) -> dict[str, Table]:
    """Return the table of rankers, if there are any; several chosen backbones are joined by ` + `."""
    rows = [{**row, "chosen": " + ".join(row["chosen"])} for row in numbers.get("rankers", [])]
    return {"rankers": Table(columns=list(rows[0]), rows=[list(row.values()) for row in rows])} if rows else {}


def _about_groups(numbers: Mapping[str, Any]) -> dict[str, Row]:
    """Return the facts about each group: those of its first run, without the seed if it has several runs."""
    about: dict[str, Row] = {}
    for run in numbers["runs"]:
        known = {name: run.get(name) for name in RUN_COLUMNS}
        about[run["group"]] = {**known, "seed": None} if run["group"] in about else known
    return about


def intervals(numbers: Mapping[str, Any], value: str, half_widths: str) -> Table:
    """Return one figure of groups and controls in percentage points, with the bounds of its 95 % intervals.

    For several seeds the interval over seeds takes the place of the one over episodes.

    Args:
        numbers: The content of `comparison.json`.
        value: The figure's name; rows without it are left out.
        half_widths: Prefix of the names of its half widths.
    """
    rows = []
    for row in [*numbers["groups"], *numbers["controls"]]:
        if row[value] is not None:
            over_seeds = row[f"{half_widths}ci95_seeds"]
            bounds = [
                None if half is None else 100 * (row[value] + (0 if (row[value], side) == (1, 1) else side * half))
                for half in (
                    row[f"{half_widths}ci95_episodes"] if over_seeds is None else over_seeds,
                    row[f"{half_widths}ci95_classes"],
                )
                for side in (-1, 1)
            ]
            rows.append([row["name"], _cell(row), 100 * row[value], *bounds])
    return Table(columns=INTERVAL_COLUMNS, rows=rows)


def _read(folder: Path, use: Callable[[Mapping[str, Any]], T]) -> T:
    path = folder / FILE
    try:
        return use(read_json(path))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error


def _record(numbers: Mapping[str, Any], page: Path) -> Record:
    charts = {
        "accuracy": Chart(
            name=ACCURACY_CHART, title="Accuracy, %", table=intervals(numbers, "mean", ""), spec=_spec(has_zero=False)
        ),
        "paired_differences": Chart(
            name=DIFFERENCE_CHART,
            title=f"Accuracy minus that of {numbers['reference']}, points",
            table=intervals(numbers, "difference", "difference_"),
            spec=_spec(has_zero=True),
        ),
    }
    return Record(
        card=comparison_card(numbers),
        summary=_summary(numbers),
        tables={"leaderboard": leaderboard(numbers), **_rankers(numbers)},
        charts={key: chart for key, chart in charts.items() if chart.table.rows},
        pages={"report": page.read_text(encoding="utf-8")} if page.is_file() else {},
    )


def _summary(numbers: Mapping[str, Any]) -> Row:
    """Return the best group of each benchmark and probe, with its difference from the reference and its p-values."""
    best: dict[str, Mapping[str, Any]] = {}
    for row in numbers["groups"]:
        if row["mean"] is not None:
            held = best.setdefault(_cell(row), row)
            if row["mean"] > held["mean"]:
                best[_cell(row)] = row
    names = {
        "best_run": "name",
        "best_accuracy": "mean",
        "best_difference": "difference",
        "best_p_pool": "p_episodes",
        "best_p_classes": "p_classes",
        "best_p_seeds": "p_seeds",
        "best_beats_image_statistics": "beats_image_statistics",
        "best_beats_untrained_twin": "beats_untrained_twin",
    }
    figures = {
        f"{what}/{row['benchmark']}/{row['probe']}": row[name] for row in best.values() for what, name in names.items()
    }
    return without_none({"one_training_each": numbers["one_training_each"], **figures})


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['benchmark']}, {row['probe']}"


def _spec(*, has_zero: bool) -> dict[str, Any]:
    """Return a Vega-Lite chart of `INTERVAL_COLUMNS`: one row per group or control, one panel per cell."""
    value = {"field": "${field:value}", "type": "quantitative", "title": None, "scale": {"zero": has_zero}}
    zero = [{"mark": {"type": "rule", "strokeDash": [4, 4]}, "encoding": {"x": {"datum": 0}}}] if has_zero else []
    diamond = {"type": "point", "shape": "diamond", "size": 90, "filled": True, "fill": "white", "stroke": "black"}
    runs = {
        "field": "${field:run}",
        "type": "nominal",
        "title": None,
        "sort": {"field": "${field:value}", "order": "descending"},
    }

    def interval(over: str, width: int) -> dict[str, Any]:
        low, high = ({"field": f"${{field:{side}_{over}}}"} for side in ("low", "high"))
        bounds = {"x": {**low, "type": "quantitative", "scale": {"zero": has_zero}}, "x2": high}
        return {"mark": {"type": "rule", "strokeWidth": width}, "encoding": {"y": runs, **bounds}}

    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": {
            "text": "${string:title}",
            "subtitle": "95 % intervals: thick on this pool, or over seeds if there are several; thin on new classes",
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
                *zero,
                interval("classes", 1),
                interval("episodes", 5),
                {"mark": diamond, "encoding": {"y": runs, "x": value}},
            ],
        },
    }
