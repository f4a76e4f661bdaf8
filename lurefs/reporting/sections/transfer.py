"""Transfer on the report: accuracy against training images a class, one line a run, and the same as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from episodes.transfer.table import SizeSummary, TransferFigure, paired_transfer
from lurefs.comparing.finished_runs import Run, reference_run
from lurefs.comparing.groups import Group
from lurefs.comparing.texts import MISSING, count, number, percent, points
from lurefs.errors import UserError
from lurefs.records import Row
from lurefs.reporting.charts.curves import Line
from lurefs.reporting.charts.log_curves import log_curves
from lurefs.reporting.series import Point, pooled

CAPTION = (
    "Accuracy on the test images of {name} against training images a class. Bars: 95\u00a0% intervals over draws of "
    "the training images; where all are taken there is one fit, and its bar is over test images."
)


def transfers_of(runs: Sequence[Run]) -> list[str]:
    """Return the names of the transfers that any run has."""
    return list(dict.fromkeys(name for run in runs for name in run.summary.transfer))


def label_efficiency(groups: Sequence[Group], name: str) -> str | None:
    """Draw accuracy against training images a class, x on a log2 axis; None if no run has two sizes.

    All training images stand at their mean number a class.
    """
    lines = [line for group in groups if (line := _line(group, name)) is not None and len(np.asarray(line.x)) > 1]
    if not lines:
        return None
    ticks = _ticks([run for group in groups for run in group.runs], name)
    return log_curves(lines, ticks, name=f"transfer-{name}", x_label="training images a class")


def form(runs: Sequence[Run], name: str) -> str:
    """Say in words what is fitted, and how its setting is chosen."""
    found = next(run.summary.transfer[name] for run in runs if name in run.summary.transfer)
    first = next(iter(found.sizes.values()))
    text = f"{found.probe}, {count(found.n_classes)} classes, {count(first.n_test)} test images"
    if (grid := found.grid) is None:
        return f"{text}; its settings are fixed."
    text = f"{text}; {found.parameter} of {len(grid)} values from {grid[0]:g} to {grid[-1]:g}"
    return (
        f"{text}, chosen by {found.choose_by} "
        "on as many validation images a class as training images, or as many as there are; not fitted on these."
    )


def rows(runs: Sequence[Run], name: str) -> list[Row]:
    """Return one row a size and run; differences are paired with the reference on the same draws and test images."""
    reference = reference_run(runs)
    paired = {run.label: _paired(run, reference, name) for run in runs if run is not reference}
    sizes = dict.fromkeys(size for run in runs for size in _sizes(run, name))
    return [
        _row(run, size, _sizes(run, name)[size], paired.get(run.label, {}).get(size))
        for size in sizes
        for run in runs
        if size in _sizes(run, name)
    ]


def _row(run: Run, size: str, found: SizeSummary, difference: TransferFigure | None) -> Row:
    accuracy, nll, ece = found.accuracy, found.nll, found.ece
    return {
        "size": size,
        "run": run.label,
        "accuracy": percent(accuracy.mean),
        "repeats": percent(accuracy.ci95_repeats),
        "images": _range(accuracy.ci95_images),
        "macro": percent(found.macro_accuracy.mean),
        "nll": MISSING if nll is None else number(nll.mean, 3),
        "ece": MISSING if ece is None else percent(ece.mean),
        "chosen": MISSING if found.chosen is None else _chosen(found.chosen, found.n_at_edge),
        "difference": MISSING if difference is None else points(difference.mean),
        "difference_interval": MISSING if difference is None else percent(_half_width(difference) / 100),
    }


def _range(interval: Sequence[float] | None) -> str:
    return MISSING if interval is None else f"{percent(interval[0])} – {percent(interval[1])}"


def _chosen(values: Sequence[float], n_at_edge: int) -> str:
    """Return the values that were chosen, each once, and how many of the choices lie at the grid's edge."""
    text = ", ".join(f"{value:g}" for value in sorted(set(values)))
    return f"{text} ({n_at_edge} of {len(values)} at the edge)" if n_at_edge else text


def _paired(run: Run, reference: Run, name: str) -> dict[str, TransferFigure]:
    try:
        found = paired_transfer(run.directory.read_transfer(name), reference.directory.read_transfer(name))
    except (UserError, ValueError):
        return {}
    return {str(size): figure for size, figure in found.items()}


def _line(group: Group, name: str) -> Line | None:
    return pooled(group, [_points(run, name) for run in group.runs])


def _points(run: Run, name: str) -> dict[str, Point]:
    return {
        size: Point(
            x=_position(run, name, size),
            y=100 * found.accuracy.mean,
            half_width=_half_width(found.accuracy),
        )
        for size, found in _sizes(run, name).items()
    }


def _half_width(accuracy: TransferFigure) -> float:
    if accuracy.ci95_repeats is not None:
        return 100 * accuracy.ci95_repeats
    low, high = accuracy.ci95_images or (0, 0)
    return 50 * (high - low)


def _position(run: Run, name: str, size: str) -> float:
    found = run.summary.transfer[name]
    return found.sizes[size].n_train / found.n_classes if size == "all" else float(size)


def _ticks(runs: Sequence[Run], name: str) -> dict[float, str]:
    found = {_position(run, name, size): size for run in runs for size in _sizes(run, name)}
    return {place: f"all\n{place:.0f}" if size == "all" else size for place, size in sorted(found.items())}


def _sizes(run: Run, name: str) -> Mapping[str, SizeSummary]:
    return run.summary.transfer[name].sizes if name in run.summary.transfer else {}
