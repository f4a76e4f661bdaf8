"""All runs at one look: a row a group of runs, with its accuracy on each benchmark, its difference and its cost.

Runs that differ only by their seed are one row. What the numbers are is told by `lurefs.reporting.wording`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from episodes.comparison import p_over_seeds, tie_groups
from episodes.summary import MIN_SEEDS, SeedSummary, summarise_seeds
from lurefs.reporting.chart_style import glyph_of
from lurefs.reporting.comparison import MIN_RANKED, Comparison, manifests_of, ties
from lurefs.reporting.over_seeds import difference_over_seeds
from lurefs.reporting.runs import Run
from lurefs.reporting.seeds import Group
from lurefs.reporting.series import n_images_seen, seconds_spent
from lurefs.reporting.wording import MISSING, count, duration, number, percent, points

Row = dict[str, Any]
MAX_LETTERS = 4
Ties = tuple[tuple[str, str], ...]
"""(letters, what they are over) each."""
Comparisons = Mapping[tuple[str, str], Sequence[Comparison]]
"""The runs against the reference, by benchmark and probe."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A cost that accuracy is set against; less of it is better. None is a time, which would chart the machine's noise.

    Attributes:
        name: Of its chart's file.
        title: What it is, within a sentence.
        label: What it is, with its unit.
        value: Its value of a run; None if it is not known.
    """

    name: str
    title: str
    label: str
    value: Callable[[Run], float | None]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A value with its intervals, as people read them.

    Attributes:
        value: What it is; a dash if there is none.
        number: The same to sort by; None if there is none.
        intervals: (half width, what it is over) each.
        why_not: The reason if there is none.
    """

    value: str
    number: float | None
    intervals: tuple[tuple[str, str], ...] = ()
    why_not: str = ""


def rows(
    groups: Sequence[Group],
    reference: Run,
    benchmarks: Mapping[str, Sequence[str]],
    comparisons: Comparisons,
) -> dict[str, list[Row]]:
    """Return one row a group, by probe; the highest on the first benchmark that the probe measured comes first.

    Args:
        groups: All of the page.
        reference: What the others are set against.
        benchmarks: The probes that any run was measured by, by benchmark.
        comparisons: The runs against the reference.
    """
    probes = dict.fromkeys(probe for measured in benchmarks.values() for probe in measured)
    return {probe: _of_probe(groups, reference, list(benchmarks), probe, comparisons) for probe in probes}


def mean_accuracy(group: Group, benchmark: str, probe: str) -> float | None:
    """Return the mean over seeds of a group's accuracy, a fraction; None if one of its runs was not measured."""
    means = [None if accuracy is None else accuracy.mean for accuracy in _accuracies(group, benchmark, probe)]
    return None if None in means else float(np.mean([mean for mean in means if mean is not None]))


def _of_probe(
    groups: Sequence[Group], reference: Run, benchmarks: Sequence[str], probe: str, comparisons: Comparisons
) -> list[Row]:
    ranks = {benchmark: _ranks(groups, benchmark, probe) for benchmark in benchmarks}
    letters = {
        benchmark: letters_or_places(_letters(groups, benchmark, probe), ranks[benchmark]) for benchmark in benchmarks
    }
    found = [
        {
            "label": group.label,
            "style": group.style,
            "glyph": glyph_of(group.style),
            "is_reference": reference in group.runs,
            "cells": [
                {
                    "benchmark": benchmark,
                    "rank": ranks[benchmark].get(group.label, MISSING),
                    "ties": letters[benchmark].get(group.label, ()),
                    "accuracy": _accuracy(group, benchmark, probe),
                    "difference": _difference(groups, group, reference, comparisons.get((benchmark, probe), ())),
                }
                for benchmark in benchmarks
            ],
            "costs": _costs(group, benchmarks, probe),
        }
        for group in groups
        if any(_accuracies(group, benchmark, probe) != [None] * len(group.runs) for benchmark in benchmarks)
    ]
    return sorted(found, key=lambda row: [-(cell["accuracy"].number or 0) for cell in row["cells"]])


def _accuracy(group: Group, benchmark: str, probe: str) -> Figure:
    mean = mean_accuracy(group, benchmark, probe)
    if mean is None:
        return Figure(value=MISSING, number=None, why_not="not measured")
    if group.is_pooled:
        means = group.mean_by_seed(benchmark, probe)
        if len(means) < MIN_SEEDS:
            return Figure(value=percent(mean), number=mean, why_not=f"no interval: fewer than {MIN_SEEDS} seeds")
        interval = (percent(summarise_seeds(means).ci95_seeds), "new seeds")
        return Figure(value=percent(mean), number=mean, intervals=(interval,))
    accuracy = group.runs[0].accuracy(benchmark, probe)
    assert accuracy is not None
    return Figure(value=percent(mean), number=mean, intervals=_scopes(accuracy.ci95_episodes, accuracy.ci95_classes))


def _difference(groups: Sequence[Group], group: Group, reference: Run, comparisons: Sequence[Comparison]) -> Figure:
    """Return how far a group is from the reference's: episode by episode, or seed by seed if either has several."""
    of_reference = next(other for other in groups if reference in other.runs)
    entry = next((entry for entry in comparisons if entry.run in group.runs), None)
    if group is of_reference or entry is None:
        return Figure(value=MISSING, number=None, why_not="" if group is of_reference else "not measured")
    if group.is_pooled or of_reference.is_pooled:
        over_seeds = difference_over_seeds(group, of_reference, entry.benchmark, entry.probe)
        if not isinstance(over_seeds, SeedSummary):
            return Figure(value=MISSING, number=None, why_not=over_seeds)
        interval = (percent(over_seeds.ci95_seeds), "new seeds")
        return Figure(value=points(over_seeds.mean), number=over_seeds.mean, intervals=(interval,))
    if entry.paired is None:
        return Figure(value=MISSING, number=None, why_not=f"not paired: {entry.not_paired}")
    difference = entry.paired.difference
    return Figure(
        value=points(difference.mean),
        number=difference.mean,
        intervals=_scopes(difference.ci95_episodes, difference.ci95_classes),
    )


def _scopes(pool: float, classes: float | None) -> tuple[tuple[str, str], ...]:
    return ((percent(pool), "this pool"), *(() if classes is None else ((percent(classes), "new classes"),)))


def letters_or_places(letters: Mapping[str, Ties], ranks: Mapping[str, int]) -> Mapping[str, Ties]:
    """Return the letters of ties, or where a group has too many to read, the places that the ties leave open to each.

    A group stays behind those that are better and told apart from it, and before those that are worse and told apart.
    """
    if all(len(_single(text)) <= MAX_LETTERS for of_group in letters.values() for text, _ in of_group):
        return letters
    return {
        label: tuple((_places(label, letters, ranks, scope), name) for scope, (_, name) in enumerate(of_group))
        for label, of_group in letters.items()
    }


def _places(label: str, letters: Mapping[str, Ties], ranks: Mapping[str, int], scope: int) -> str:
    own = _single(letters[label][scope][0])
    apart = [other for other in letters if not own & _single(letters[other][scope][0])]
    n_better = sum(ranks[other] < ranks[label] for other in apart)
    return f"{1 + n_better}–{len(letters) - (len(apart) - n_better)}"


def _single(letters: str) -> set[str]:
    """Return the letters of a group; beyond the alphabet one is a number in brackets."""
    return set(re.findall(r"\(\d+\)|\w", letters))


def _letters(groups: Sequence[Group], benchmark: str, probe: str) -> dict[str, Ties]:
    """Return each group's letters of ties with what they are over; empty where the groups cannot be ranked."""
    measured = [group for group in groups if mean_accuracy(group, benchmark, probe) is not None]
    if not any(group.is_pooled for group in measured):
        found = ties([group.runs[0] for group in measured], benchmark, probe)
        return {
            group.label: tuple(
                (of_scope[group.runs[0].label], scope)
                for of_scope, scope in ((found.pool, "this pool"), (found.classes, "new classes"))
                if of_scope
            )
            for group in (measured if found else [])
            if found
        }
    means = [group.mean_by_seed(benchmark, probe) for group in measured]
    runs = [run for group in measured for run in group.runs]
    is_one_family = len(manifests_of(runs, benchmark)) == 1 and len({frozenset(by_seed) for by_seed in means}) == 1
    if len(measured) < MIN_RANKED or not is_one_family or len(means[0]) < MIN_SEEDS:
        return {}
    p_values = {
        (i, j): p_over_seeds(summarise_seeds({seed: means[i][seed] - means[j][seed] for seed in means[i]}))
        for i, j in combinations(range(len(means)), 2)
    }
    letters = tie_groups([float(np.mean(list(by_seed.values()))) for by_seed in means], p_values)
    return {group.label: ((text, "new seeds"),) for group, text in zip(measured, letters, strict=True)}


def _ranks(groups: Sequence[Group], benchmark: str, probe: str) -> dict[str, int]:
    """Return the place of each group that was measured, by its mean; equal means share a place."""
    means = {group.label: mean_accuracy(group, benchmark, probe) for group in groups}
    measured = [mean for mean in means.values() if mean is not None]
    return {label: 1 + sum(other > mean for other in measured) for label, mean in means.items() if mean is not None}


def _costs(group: Group, benchmarks: Sequence[str], probe: str) -> list[Figure]:
    """Return what a group costs, the mean over its seeds: its size and arithmetic, images seen, and times."""
    stated = [
        run.cost.get("n_parameters") or run.identity.get("backbone", {}).get("n_parameters") for run in group.runs
    ]
    episodes = [
        result.get("ms_per_episode")
        for run in group.runs
        for benchmark in benchmarks[:1]
        if (result := run.result(benchmark, probe))
    ]
    why_not = "not measured: the run is older than this measure"
    untrained = "not trained here"
    return [
        _cost(stated, lambda value: number(value / 1e6, 2 if value < 1e7 else 1), "not recorded"),
        _cost([_gmacs(run) for run in group.runs], lambda value: number(value, 3 if value < 1 else 2), why_not),
        _cost([_images_seen(run) for run in group.runs], lambda value: count(round(value)), untrained),
        _cost([run.cost.get("images_per_second") for run in group.runs], lambda value: count(round(value)), why_not),
        _cost(episodes, lambda value: number(value, 2), "not measured"),
        _cost([seconds_spent(run.outcomes) if run.outcomes else None for run in group.runs], duration, untrained),
    ]


def _cost(values: Sequence[float | None], tell: Any, why_not: str) -> Figure:
    found = [value for value in values if value is not None]
    if not found:
        return Figure(value=MISSING, number=None, why_not=why_not)
    mean = float(np.mean(found))
    return Figure(value=tell(mean), number=mean)


def _gmacs(run: Run) -> float | None:
    n_macs = run.cost.get("n_macs")
    return None if n_macs is None else n_macs / 1e9


def _images_seen(run: Run) -> float | None:
    return n_images_seen(run.outcomes) if run.outcomes else None


def _training_tmacs(run: Run) -> float | None:
    """Return the multiply-adds of all training steps, 10^12: a backward pass counts as two forward ones."""
    gmacs, n_images = _gmacs(run), _images_seen(run)
    return None if gmacs is None or n_images is None else 3 * gmacs * n_images / 1e3


def _accuracies(group: Group, benchmark: str, probe: str) -> list[Any]:
    return [run.accuracy(benchmark, probe) for run in group.runs]


COSTS = (
    Cost(name="macs", title="arithmetic", label="GMACs an image (10⁹ multiply-adds)", value=_gmacs),
    Cost(name="images", title="images seen in training", label="images seen in training", value=_images_seen),
    Cost(
        name="training",
        title="arithmetic of training",
        label="training, 10¹² multiply-adds (each step as three passes)",
        value=_training_tmacs,
    ),
)
