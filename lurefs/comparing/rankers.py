"""Which backbone, without episodes: scores of the features, and the number of parameters, judged by the accuracies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from episodes.arrays import FloatArray, IntArray
from episodes.choice import choice_regret, rank_agreement
from episodes.comparison import LEVEL
from lurefs.comparing.estimates import Scope
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.comparing.pairs import by_episode
from lurefs.comparing.standing_rows import n_parameters
from lurefs.comparing.verdicts import Cell, Verdicts

MIN_BACKBONES = 5
AT_RANDOM = "random choice"


@dataclass(frozen=True, kw_only=True)
class RankerRow:
    """One ranker on one benchmark by one probe.

    Attributes:
        benchmark: The benchmark's name.
        probe: The probe's name.
        ranker: Its name; `AT_RANDOM` for a choice among all at random.
        n_backbones: Number of backbones that it ranks; several seeds of one are one, by their means.
        chosen: Labels of the backbones with its highest score; several only if they are equal.
        accuracy: Accuracy of the chosen, fraction; of several the mean.
        tau: Kendall's tau-b between the scores and the accuracies; None if all scores are equal.
        tau_low: Lower bound of its 95 % interval, see `tau_scope`.
        tau_high: Upper bound.
        tau_scope: Scope of the tests behind these bounds: `classes`, `pool` or `seeds`.
        p: Two-sided p of no relation between scores and accuracies, with the backbones as the sample.
        regret: Accuracy of the best backbone on these episodes minus that of the chosen, fraction.
        regret_low: Lower bound of its 95 % interval, see `regret_scope`.
        regret_high: Upper bound.
        regret_scope: Scope of this interval: `classes` or `pool`.
    """

    benchmark: str
    probe: str
    ranker: str
    n_backbones: int
    chosen: tuple[str, ...]
    accuracy: float
    tau: float | None = None
    tau_low: float | None = None
    tau_high: float | None = None
    tau_scope: Scope
    p: float | None = None
    regret: float
    regret_low: float
    regret_high: float
    regret_scope: Scope


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """All rankers on one benchmark by one probe.

    Attributes:
        benchmark: The benchmark's name.
        probe: The probe's name.
        groups: The ranked backbones, highest accuracy first.
        accuracies: Group -> accuracy on the episodes that all met, fraction.
        scores: Ranker -> group -> score.
        rows: One per ranker, and a choice at random.
        left_out: Labels of measured groups without scores.
    """

    benchmark: str
    probe: str
    groups: tuple[Group, ...]
    accuracies: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]]
    rows: tuple[RankerRow, ...]
    left_out: tuple[str, ...]


def _score(name: str) -> Callable[[Run, str], float | None]:
    def read(run: Run, benchmark: str) -> float | None:
        found = run.benchmark(benchmark)
        return None if found is None else getattr(found.transferability, name, None)

    return read


RANKERS: Mapping[str, Callable[[Run, str], float | None]] = MappingProxyType(
    {
        "LogME": _score("logme"),
        "H-score": _score("h_score"),
        "nearest centroid": _score("nearest_centroid"),
        "parameters": lambda run, _: n_parameters(run),
    }
)
"""Ranker -> its score of a run on a benchmark, higher is better; None if unknown."""


def rankings(verdicts: Mapping[Cell, Verdicts]) -> list[Ranking]:
    """Return the rankers of each benchmark by its first probe, where at least `MIN_BACKBONES` have scores."""
    first: dict[str, Verdicts] = {}
    for (benchmark, _), found in verdicts.items():
        first.setdefault(benchmark, found)
    made = (_ranking(found) for found in first.values())
    return [ranking for ranking in made if ranking is not None]


def _ranking(found: Verdicts) -> Ranking | None:
    benchmark, probe = found.benchmark, found.probe
    by_label = {group.label: _scores(group, benchmark) for group in found.groups}
    ranked = [group for group in found.groups if "LogME" in by_label[group.label]]
    if len(ranked) < MIN_BACKBONES or (met := _by_episode(ranked, benchmark, probe)) is None:
        return None
    accuracies, classes = met
    labels, means = [group.label for group in ranked], accuracies.mean(axis=1).tolist()
    scores = {
        ranker: {label: by_label[label][ranker] for label in labels}
        for ranker in RANKERS
        if all(ranker in by_label[label] for label in labels)
    }
    scope, told_apart = _told_apart(found, labels)
    rows = []
    for ranker, values in [
        *((ranker, list(of_group.values())) for ranker, of_group in scores.items()),
        (AT_RANDOM, []),
    ]:
        best = [place for place in range(len(labels)) if not values or values[place] == max(values)]
        regret = choice_regret(accuracies, best, classes)
        agreement = rank_agreement(values, means, told_apart) if values else None
        rows.append(
            RankerRow(
                benchmark=benchmark,
                probe=probe,
                ranker=ranker,
                n_backbones=len(labels),
                chosen=tuple(labels[place] for place in best),
                accuracy=float(accuracies[best].mean()),
                tau=None if agreement is None else agreement.tau,
                tau_low=None if agreement is None else agreement.low,
                tau_high=None if agreement is None else agreement.high,
                tau_scope=scope,
                p=None if agreement is None else agreement.p,
                regret=regret.mean,
                regret_low=regret.low,
                regret_high=regret.high,
                regret_scope=regret.scope,
            )
        )
    return Ranking(
        benchmark=benchmark,
        probe=probe,
        groups=tuple(ranked),
        accuracies=dict(zip(labels, means, strict=True)),
        scores=scores,
        rows=tuple(rows),
        left_out=tuple(group.label for group in found.groups if group not in ranked),
    )


def _scores(group: Group, benchmark: str) -> dict[str, float]:
    """Return ranker -> mean score over the runs of a group, if all have one."""
    found = {ranker: [score(run, benchmark) for run in group.runs] for ranker, score in RANKERS.items()}
    known = {ranker: [value for value in values if value is not None] for ranker, values in found.items()}
    return {ranker: float(np.mean(values)) for ranker, values in known.items() if len(values) == len(group.runs)}


def _by_episode(groups: Sequence[Group], benchmark: str, probe: str) -> tuple[FloatArray, IntArray] | None:
    """Return the accuracies of each group, its mean over seeds, on the episodes that all met, and their classes.

    None if the runs met different episodes, or a file is missing; the table of results says so.
    """
    measured = [[run for run in group.runs if run.result(benchmark, probe) is not None] for group in groups]
    runs = [run for of_group in measured for run in of_group]
    rows = by_episode(runs, benchmark, probe)
    if rows is None or isinstance(rows, str):
        return None
    ends = np.cumsum([len(of_group) for of_group in measured])
    means = [part.mean(axis=0) for part in np.split(rows, ends[:-1])]
    return np.stack(means), runs[0].accuracies(benchmark, probe).classes[: rows.shape[1]]


def _told_apart(found: Verdicts, labels: Sequence[str]) -> tuple[Scope, dict[tuple[int, int], bool]]:
    """Return pair of places -> whether the corrected tests tell them apart, over new classes if all pairs have that."""
    places = {label: place for place, label in enumerate(labels)}
    pairs = {
        (places[pair.group], places[pair.less]): pair.p
        for pair in found.pairs
        if {pair.group, pair.less} <= places.keys()
    }
    scopes: list[Scope] = ["classes"] if all("classes" in p for p in pairs.values()) else ["seeds", "pool"]
    told = {pair: any(p[scope] < LEVEL for scope in scopes if scope in p) for pair, p in pairs.items()}
    has_seeds = any("seeds" in p for p in pairs.values())
    return ("classes" if scopes == ["classes"] else "seeds" if has_seeds else "pool"), told
