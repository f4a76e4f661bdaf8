"""The rows of interval charts, in percent: accuracies, and differences from the reference, the best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from episodes.summary import MIN_SEEDS, Summary, summarise_seeds
from lurefs.comparing.groups import Group
from lurefs.comparing.texts import p_value
from lurefs.comparing.verdict_words import control_label
from lurefs.comparing.verdicts import Scope, Verdicts
from lurefs.reporting.charts.curves import Interval

_SCOPES: tuple[Scope, ...] = ("pool", "classes", "seeds")


def accuracy_intervals(groups: Sequence[Group], judged: Sequence[Verdicts]) -> list[Interval]:
    """Return the accuracies to chart: several groups by the first probe, the best first, or one run by all its probes.

    Of several seeds it is their mean, and its interval is over seeds. The controls by the first probe come last.

    Args:
        groups: All of the page.
        judged: The verdicts on one benchmark, by each probe.
    """
    first, benchmark = judged[0], judged[0].benchmark
    controls = [_level(control_label(control), control.mean, control.summary) for control in first.controls]
    if len(groups) == 1 and not groups[0].is_pooled:
        rows = [(verdicts.probe, groups[0].runs[0].accuracy(benchmark, verdicts.probe)) for verdicts in judged]
        return [*(_interval(probe, summary, 0) for probe, summary in rows if summary is not None), *controls]
    found = []
    for group in groups:
        means = group.mean_by_seed(benchmark, first.probe)
        if group.is_pooled and means:
            found.append(_seed_interval(group, means))
        elif (accuracy := group.runs[0].accuracy(benchmark, first.probe)) is not None:
            found.append(_interval(group.label, accuracy, group.style))
    return [*sorted(found, key=lambda row: -row.value), *controls]


def difference_intervals(groups: Sequence[Group], verdicts: Verdicts) -> list[Interval]:
    """Return the differences from the reference, the best first, beside each its corrected p-values."""
    found = []
    for group in groups:
        verdict = verdicts.against_reference(group.label)
        if verdict is None or verdict.mean is None:
            continue
        widths = verdict.half_widths
        found.append(
            Interval(
                label=group.label,
                value=100 * verdict.mean,
                inner=100 * widths.get("pool", widths.get("seeds", 0.0)),
                outer=100 * widths["classes"] if "classes" in widths else None,
                style=group.style,
                note=" / ".join(p_value(verdict.p[scope]) for scope in _SCOPES if scope in verdict.p),
            )
        )
    return sorted(found, key=lambda row: -row.value)


def tested(verdicts: Verdicts) -> list[tuple[Scope, ...]]:
    """Return the scopes of the tests that stand beside the differences, each combination once."""
    found = [verdicts.against_reference(group.label) for group in verdicts.groups]
    scopes = [tuple(scope for scope in _SCOPES if scope in verdict.p) for verdict in found if verdict is not None]
    return list(dict.fromkeys(combination for combination in scopes if combination))


def _level(label: str, mean: float, summary: Summary | None) -> Interval:
    inner = 0.0 if summary is None else 100 * summary.ci95_episodes
    outer = None if summary is None or summary.ci95_classes is None else 100 * summary.ci95_classes
    return Interval(label=label, value=100 * mean, inner=inner, outer=outer, style=-1)


def _seed_interval(group: Group, means: Mapping[int, float]) -> Interval:
    """Return a mean over seeds; its bar has no width where the seeds are too few for an interval."""
    value = 100 * float(np.mean(list(means.values())))
    width = 100 * summarise_seeds(means).ci95_seeds if len(means) >= MIN_SEEDS else 0.0
    return Interval(label=group.label, value=value, inner=width, outer=None, style=group.style)


def _interval(label: str, summary: Summary, style: int) -> Interval:
    return Interval(
        label=label,
        value=100 * summary.mean,
        inner=100 * summary.ci95_episodes,
        outer=None if summary.ci95_classes is None else 100 * summary.ci95_classes,
        style=style,
    )
