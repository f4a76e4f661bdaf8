"""Calibrated answers of a benchmark: temperatures, and prediction sets with their coverage, as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from episodes.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, Temperature
from episodes.conformal import SetSummary
from episodes.metrics import Reliability
from lurefs.comparing.calibration_words import few_classes
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.texts import MISSING, half_width, number, percent
from lurefs.errors import UserError
from lurefs.records import Row
from lurefs.runs.calibration import read_calibration
from lurefs.runs.summary import CalibrationSummary, ProbeSummary, known

MAX_SIZES = 3
"""Sets of this many classes and more are counted together."""


def section(runs: Sequence[Run], benchmark: str, probes: Sequence[str]) -> dict[str, Any]:
    """Return the tables of temperatures and of prediction sets by probe, and notes; empty if no run has any."""
    found = {probe: _measured(runs, benchmark, probe) for probe in probes}
    found = {probe: of_probe for probe, of_probe in found.items() if of_probe}
    if not found:
        return {}
    temperatures = {
        probe: [_temperature_row(run, result, figures) for run, result, figures in of_probe if figures.temperature]
        for probe, of_probe in found.items()
    }
    return {
        "temperatures": {probe: rows for probe, rows in temperatures.items() if rows},
        "sets": {probe: _set_rows(benchmark, of_probe) for probe, of_probe in found.items()},
        "notes": _notes(found),
    }


def scaled(runs: Sequence[Run], benchmark: str, probe: str) -> dict[str, Reliability]:
    """Return label -> counts of scaled answers by confidence, for each run that has a temperature."""
    found = {}
    for run in runs:
        result = run.result(benchmark, probe)
        if result is None or result.calibration is None:
            continue
        try:
            counts = read_calibration(run.directory, benchmark, probe).reliability
        except UserError:
            continue
        if counts is not None:
            found[run.label] = counts
    return found


Measured = list[tuple[Run, ProbeSummary, CalibrationSummary]]


def _measured(runs: Sequence[Run], benchmark: str, probe: str) -> Measured:
    results = [(run, run.result(benchmark, probe)) for run in runs]
    return [(run, each, each.calibration) for run, each in results if each is not None and each.calibration is not None]


def _temperature_row(run: Run, result: ProbeSummary, figures: CalibrationSummary) -> Row:
    assert figures.temperature is not None
    before = known(result.nll), known(result.brier)
    after = known(figures.nll), known(figures.brier)
    pairs = [[None if each is None else each.mean for each in of_both] for of_both in zip(before, after, strict=True)]
    return {
        "run": run.label,
        "temperature": number(figures.temperature.value, 3),
        "interval": _interval(figures.temperature),
        "nll": " → ".join(number(value, 3) for value in pairs[0]),
        "brier": " → ".join(number(value, 3) for value in pairs[1]),
        "ece": " → ".join(percent(value, 1) for value in (result.ece, figures.ece)),
    }


def _interval(found: Temperature) -> str:
    if found.low is None or found.high is None:
        return "at a bound" if found.value in (MIN_TEMPERATURE, MAX_TEMPERATURE) else MISSING
    return f"{number(found.low, 3)} to {number(found.high, 3)} (over {found.over})"


def _set_rows(benchmark: str, measured: Measured) -> list[Row]:
    """Return the rows of sets from validation classes, and of those from the support that are not full."""
    rows = []
    for run, _, figures in measured:
        if figures.validation_sets is not None:
            rows.append(_set_row(run, benchmark, "validation classes", figures.validation_sets))
        if figures.alpha >= figures.least_alpha:
            rows.append(_set_row(run, benchmark, "own support", figures.support_sets))
    return rows


def _set_row(run: Run, benchmark: str, source: str, sets: SetSummary) -> Row:
    shares = [*sets.sizes[:MAX_SIZES], sum(sets.sizes[MAX_SIZES:])]
    return {
        "run": run.label,
        "source": source,
        "coverage": percent(sets.coverage.mean, 1),
        "classes": half_width(sets.coverage.mean, sets.coverage.ci95_classes),
        "lowest": percent(sets.lowest_coverage, 1),
        "lowest_class": run.class_name(benchmark, sets.lowest_class),
        "by_chance": percent(sets.lowest_by_chance, 1),
        "mean_size": number(sets.mean_size, 2),
        "sizes": " / ".join(percent(share, 0) for share in shares),
        "answered": percent(sets.answered, 1),
        "accuracy": percent(sets.accuracy, 1),
    }


def _notes(found: Mapping[str, Measured]) -> list[str]:
    """Say what the sets promise, which of them are full, and which probes have no temperature."""
    figures = [each for measured in found.values() for _, _, each in measured]
    levels = sorted({each.alpha for each in figures})
    promised = " or ".join(f"{percent(1 - alpha, 1).removesuffix('.0')}\u00a0%" for alpha in levels)
    notes = [
        f"Sets from validation classes are made for a coverage of {promised} on further episodes of those classes; on "
        "other classes it is measured here, not guaranteed."
    ]
    if any(each.alpha >= each.least_alpha for each in figures):
        notes.append(f"Sets from an episode's own support are guaranteed to cover each class in {promised} or more.")
    if any(each.validation_sets is not None and each.threshold is None for each in figures):
        notes.append("Sets from validation classes are full where alpha is less than one over the number of episodes.")
    full = [each for each in figures if each.alpha < each.least_alpha]
    if full:
        most = max(each.least_alpha for each in full)
        notes.append(
            f"Sets from an episode's own support are full, since so few labels allow no alpha below {number(most, 3)}; "
            "they are left out."
        )
    notes += few_classes(figures)
    without = [probe for probe, measured in found.items() if all(each.temperature is None for _, _, each in measured)]
    if without:
        notes.append(f"No temperature for {', '.join(without)}: there are no probabilities to scale.")
    return notes
