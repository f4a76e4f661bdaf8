"""Calibration of runs on a benchmark, in a sentence or two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lurefs.comparing.groups import Group
from lurefs.comparing.texts import number, percent
from lurefs.runs.summary import CalibrationSummary

FEW_CLASSES = 10
"""A temperature of fewer validation classes may make answers on other classes worse: of 3 it raised ECE by 2 points."""


def calibration_notes(groups: Sequence[Group], benchmark: str, probe: str) -> list[str]:
    """Say which temperatures and coverages the runs of some groups have, and what they did to ECE; empty if none."""
    results = [result for group in groups for run in group.runs if (result := run.result(benchmark, probe)) is not None]
    found = [(result.ece, result.calibration) for result in results if result.calibration is not None]
    scaled = [(before, each) for before, each in found if each.temperature is not None]
    covered = [each.validation_sets.coverage.mean for _, each in found if each.validation_sets is not None]
    parts = []
    if scaled:
        before, after = (_range(values, lambda share: percent(share, 1)) for values in _eces(scaled))
        values = _range([each.temperature.value for _, each in scaled if each.temperature], lambda t: number(t, 3))
        parts = [f"T {values}", f"ECE {before} → {after} %"]
    if covered:
        parts.append(f"prediction sets cover {_range(covered, lambda share: percent(share, 1))} %")
    if not parts:
        return []
    return [f"Calibrated on validation classes: {', '.join(parts)}.", *few_classes(each for _, each in found)]


def few_classes(figures: Iterable[CalibrationSummary]) -> list[str]:
    """Say that temperatures are of few classes, if they are."""
    n_classes = [each.temperature.n_classes for each in figures if each.temperature is not None]
    if not n_classes or min(n_classes) >= FEW_CLASSES:
        return []
    return [
        f"The temperature is from {min(n_classes)} validation classes; one from fewer than {FEW_CLASSES} may raise ECE "
        "on other classes."
    ]


def _eces(scaled: Sequence[tuple[float | None, CalibrationSummary]]) -> tuple[list[float], list[float]]:
    pairs = [(before, each.ece) for before, each in scaled if before is not None and each.ece is not None]
    return [before for before, _ in pairs], [after for _, after in pairs]


def _range(values: Sequence[float], as_text: Callable[[float | None], str]) -> str:
    """Return the lowest and the highest value, or the only one."""
    ends = dict.fromkeys((as_text(min(values, default=None)), as_text(max(values, default=None))))
    return " to ".join(ends)
