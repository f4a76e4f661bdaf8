"""Rows of interval charts, in percent: accuracies and differences from the reference, best first."""

from __future__ import annotations

from collections.abc import Sequence

from lurefs.comparing.estimates import Estimate, Scope
from lurefs.comparing.groups import Group
from lurefs.comparing.texts import count, p_value
from lurefs.comparing.verdict_words import control_label
from lurefs.comparing.verdicts import Verdicts
from lurefs.reporting.charts.curves import Interval

MAX_ROWS = 100
"""Of more rows a chart has the highest ones alone."""
_SCOPES: tuple[Scope, ...] = ("pool", "classes", "seeds")


def accuracy_intervals(groups: Sequence[Group], judged: Sequence[Verdicts]) -> list[Interval]:
    """Return the accuracies of groups by the first probe, best first, or of a single run by all its probes.

    The controls by the first probe come last. `judged` has the verdicts on one benchmark, one per probe.
    """
    first = judged[0]
    controls = [_interval(control_label(control), control.accuracy, style=-1) for control in first.controls]
    if len(groups) == 1 and not groups[0].is_pooled:
        [alone] = groups
        by_probe = {verdicts.probe: verdicts.accuracies.get(alone.label) for verdicts in judged}
        return [*(_interval(probe, found, style=0) for probe, found in by_probe.items() if found), *controls]
    found = [
        _interval(group.label, first.accuracies[group.label], style=group.style)
        for group in groups
        if group.label in first.accuracies
    ]
    return [*sorted(found, key=lambda row: -row.value), *controls]


def difference_intervals(groups: Sequence[Group], verdicts: Verdicts) -> list[Interval]:
    """Return the differences from the reference, best first, with their corrected p-values as notes."""
    found = []
    for group in groups:
        verdict = verdicts.against_reference(group.label)
        if verdict is not None and verdict.difference is not None:
            noted = " / ".join(p_value(verdict.p[scope]) for scope in _SCOPES if scope in verdict.p)
            found.append(_interval(group.label, verdict.difference, style=group.style, note=noted))
    return sorted(found, key=lambda row: -row.value)


def highest(rows: Sequence[Interval]) -> tuple[list[Interval], str]:
    """Return the rows of a chart, of too many the highest ones and the controls, and words for its caption."""
    controls = [row for row in rows if row.style < 0]
    found = [row for row in rows if row.style >= 0]
    if len(found) <= MAX_ROWS:
        return list(rows), ""
    return [*found[:MAX_ROWS], *controls], f", the {MAX_ROWS} highest of {count(len(found))}"


def tested(verdicts: Verdicts) -> list[tuple[Scope, ...]]:
    """Return the combinations of scopes whose p-values appear in the notes, each once."""
    found = [verdicts.against_reference(group.label) for group in verdicts.groups]
    scopes = [tuple(scope for scope in _SCOPES if scope in verdict.p) for verdict in found if verdict is not None]
    return list(dict.fromkeys(combination for combination in scopes if combination))


def _interval(label: str, estimate: Estimate, *, style: int, note: str = "") -> Interval:
    """Return an estimate as a row; its bar has no width if it has no interval."""
    width, classes = estimate.half_width, estimate.half_widths.get("classes")
    return Interval(
        label=label,
        value=100 * estimate.mean,
        inner=0.0 if width is None else 100 * width,
        outer=None if classes is None else 100 * classes,
        style=style,
        note=note,
    )
