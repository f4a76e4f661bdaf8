"""Leaderboard: one row per group of runs, with its accuracy and difference on each benchmark and its costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from lurefs.comparing.controls import ControlLevel
from lurefs.comparing.estimates import Estimate, Scope
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.comparing.texts import MISSING, count, duration, number, p_value, percent, points, sign_of
from lurefs.comparing.verdict_words import control_label, level_words, not_compared
from lurefs.comparing.verdicts import Cell, Verdicts
from lurefs.records import Row
from lurefs.reporting.charts.style import glyph_of
from lurefs.reporting.series import n_images_seen
from lurefs.runs.outcomes import train_seconds

MAX_LETTERS = 4
Ties = tuple[tuple[str, str], ...]
"""Pairs of (letters, scope)."""
MIN_RANKED = 3
"""Fewer groups are not ranked: their difference says all."""
SCOPES: Mapping[Scope, str] = MappingProxyType({"pool": "this pool", "classes": "new classes", "seeds": "new seeds"})


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A cost that accuracy is charted against; lower is better. Times are left out: they are too noisy.

    Attributes:
        name: Name of its chart's file.
        title: Its name within a sentence.
        label: Its name with the unit.
        value: Returns the cost of a run; None if it is unknown.
    """

    name: str
    title: str
    label: str
    value: Callable[[Run], float | None]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A value with its intervals, as texts.

    Attributes:
        value: The value; a dash if it is missing.
        number: The same as a number to sort by; None if it is missing.
        intervals: Pairs of (half width with its sign, scope).
        tests: Pairs of (corrected p, scope).
        why_not: Why the value is missing, or a remark on it.
    """

    value: str
    number: float | None
    intervals: tuple[tuple[str, str], ...] = ()
    tests: tuple[tuple[str, str], ...] = ()
    why_not: str = ""


def rows(
    groups: Sequence[Group],
    reference: Run,
    benchmarks: Mapping[str, Sequence[str]],
    judged: Mapping[Cell, Verdicts],
) -> dict[str, list[Row]]:
    """Return probe -> one row per group, highest on the first benchmark first, then one per control.

    `benchmarks` is benchmark -> probes by which any run was measured.
    """
    probes = dict.fromkeys(probe for measured in benchmarks.values() for probe in measured)
    found = {}
    for probe in probes:
        by_benchmark = {name: judged[name, probe] for name in benchmarks if (name, probe) in judged}
        of_groups = _of_probe(groups, reference, list(benchmarks), by_benchmark)
        found[probe] = [*of_groups, *_of_controls(list(benchmarks), by_benchmark)]
    return found


def _of_probe(
    groups: Sequence[Group], reference: Run, benchmarks: Sequence[str], judged: Mapping[str, Verdicts]
) -> list[Row]:
    letters = {name: letters_or_places(_letters(verdicts), verdicts.ranks) for name, verdicts in judged.items()}
    found = [
        {
            "label": group.label,
            "style": group.style,
            "glyph": glyph_of(group.style),
            "is_reference": reference in group.runs,
            "is_control": False,
            "cells": [_cell(group, benchmark, judged.get(benchmark), letters) for benchmark in benchmarks],
            "costs": _costs(group, judged),
        }
        for group in groups
        if any(group.label in verdicts.accuracies for verdicts in judged.values())
    ]
    return sorted(found, key=lambda row: [-(cell["accuracy"].number or 0) for cell in row["cells"]])


def _cell(group: Group, benchmark: str, verdicts: Verdicts | None, letters: Mapping[str, Mapping[str, Ties]]) -> Row:
    if verdicts is None or group.label not in verdicts.accuracies:
        missing = Figure(value=MISSING, number=None, why_not="not measured")
        return {"benchmark": benchmark, "rank": MISSING, "ties": (), "accuracy": missing, "difference": missing}
    return {
        "benchmark": benchmark,
        "rank": verdicts.ranks[group.label],
        "ties": letters[benchmark].get(group.label, ()),
        "accuracy": _figure(verdicts.accuracies[group.label]),
        "difference": _difference(group, verdicts),
    }


def _of_controls(benchmarks: Sequence[str], judged: Mapping[str, Verdicts]) -> list[Row]:
    """Return one row per control: its accuracies, without rank, difference and cost."""
    names = dict.fromkeys(control.name for verdicts in judged.values() for control in verdicts.controls)
    found: list[Row] = []
    for name in names:
        levels: dict[str, ControlLevel] = {
            benchmark: control
            for benchmark, verdicts in judged.items()
            for control in verdicts.controls
            if control.name == name
        }
        label = control_label(next(iter(levels.values())))
        cells = [{"benchmark": benchmark, "accuracy": _level(levels.get(benchmark))} for benchmark in benchmarks]
        is_shared = all(level.is_shared for level in levels.values())
        note = "" if is_shared else "each run has its own: mean, lowest to highest"
        found.append({"label": label, "is_control": True, "note": note, "cells": cells})
    return found


def _level(control: ControlLevel | None) -> Figure:
    if control is None:
        return Figure(value=MISSING, number=None, why_not="not measured")
    figure = _figure(control.accuracy)
    return figure if control.is_shared else replace(figure, why_not=level_words(control))


def _figure(accuracy: Estimate) -> Figure:
    return Figure(
        value=percent(accuracy.mean),
        number=accuracy.mean,
        intervals=_intervals(accuracy.half_widths, sign_of(accuracy.mean)),
        why_not=accuracy.note if accuracy.half_widths else accuracy.remarks,
    )


def _difference(group: Group, verdicts: Verdicts) -> Figure:
    """Return the difference of a group from the reference, with its corrected p-values."""
    verdict = verdicts.against_reference(group.label)
    if verdict is None:
        is_reference = group.label == verdicts.reference
        return Figure(value=MISSING, number=None, why_not="" if is_reference else "the reference was not measured")
    if verdict.difference is None:
        return Figure(value=MISSING, number=None, why_not=not_compared(verdict))
    return Figure(
        value=points(verdict.difference.mean),
        number=verdict.difference.mean,
        intervals=_intervals(verdict.difference.half_widths),
        tests=tuple((p_value(verdict.p[scope]), name) for scope, name in SCOPES.items() if scope in verdict.p),
        why_not=verdict.difference.note,
    )


def _intervals(widths: Mapping[Scope, float | None], sign: str = "±") -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"{sign}\u00a0{percent(width)}", SCOPES[scope]) for scope, width in widths.items() if width is not None
    )


def letters_or_places(letters: Mapping[str, Ties], ranks: Mapping[str, int]) -> Mapping[str, Ties]:
    """Return the letters of ties, or if any group has too many of them, the possible places of each group.

    A group is placed behind those that are better and told apart from it, and before those that are worse and told
    apart.
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
    """Return the single letters of a group; after the alphabet they are numbers in brackets."""
    return set(re.findall(r"\(\d+\)|\w", letters))


def _letters(verdicts: Verdicts) -> dict[str, Ties]:
    """Return each group's letters of ties with their scopes; empty for too few groups."""
    if len(verdicts.groups) < MIN_RANKED:
        return {}
    return {
        group.label: tuple(
            (verdicts.letters[scope][group.label], name) for scope, name in SCOPES.items() if scope in verdicts.letters
        )
        for group in verdicts.groups
    }


def _costs(group: Group, judged: Mapping[str, Verdicts]) -> list[Figure]:
    """Return the costs of a group, means over its seeds: weights, multiply-adds, images seen and times."""
    stated = [
        run.cost.get("n_parameters") or run.identity.get("backbone", {}).get("n_parameters") for run in group.runs
    ]
    episodes = [
        result.ms_per_episode
        for run in group.runs
        for verdicts in list(judged.values())[:1]
        if (result := run.result(verdicts.benchmark, verdicts.probe))
    ]
    why_not = "not measured: the run is older than this measurement"
    if all(run.config.brings_features for run in group.runs):
        why_not = "not measured: the features are those of a file"
    untrained = "not trained here"
    return [
        _cost(stated, lambda value: number(value / 1e6, 2 if value < 1e7 else 1), "not recorded"),
        _cost([_gmacs(run) for run in group.runs], lambda value: number(value, 3 if value < 1 else 2), why_not),
        _cost([_images_seen(run) for run in group.runs], lambda value: count(round(value)), untrained),
        _cost([run.cost.get("images_per_second") for run in group.runs], lambda value: count(round(value)), why_not),
        _cost(episodes, lambda value: number(value, 2), "not measured"),
        _cost([train_seconds(run.outcomes) if run.outcomes else None for run in group.runs], duration, untrained),
    ]


def _cost(values: Sequence[float | None], format_value: Any, why_not: str) -> Figure:
    found = [value for value in values if value is not None]
    if not found:
        return Figure(value=MISSING, number=None, why_not=why_not)
    mean = float(np.mean(found))
    return Figure(value=format_value(mean), number=mean)


def _gmacs(run: Run) -> float | None:
    n_macs = run.cost.get("n_macs")
    return None if n_macs is None else n_macs / 1e9


def _images_seen(run: Run) -> float | None:
    return n_images_seen(run.outcomes) if run.outcomes else None


def _training_tmacs(run: Run) -> float | None:
    """Return the multiply-adds of all training steps, 10^12; a backward pass counts as two forward passes."""
    gmacs, n_images = _gmacs(run), _images_seen(run)
    return None if gmacs is None or n_images is None else 3 * gmacs * n_images / 1e3


COSTS = (
    Cost(name="macs", title="arithmetic", label="GMACs per image (10⁹ multiply-adds)", value=_gmacs),
    Cost(name="images", title="images seen in training", label="images seen in training", value=_images_seen),
    Cost(
        name="training",
        title="arithmetic of training",
        label="training, 10¹² multiply-adds (a step counts as three passes)",
        value=_training_tmacs,
    ),
)
