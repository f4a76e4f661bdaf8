"""Finished runs side by side: which met the same episodes, how they differ on them, and which cannot be told apart.

Numbers only. `lurefs.reporting.wording` says them in words and `lurefs.report` puts them on a page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from episodes.comparison import (
    PairedDifference,
    compare_tables,
    manifest_difference,
    n_shared_episodes,
    paired_differences,
    tie_groups,
)
from episodes.manifest import Manifest
from lurefs.errors import UserError
from lurefs.reporting.runs import Run, summary_of

MIN_RANKED = 3
FLIP_SEED = 0
"""The p-values of a page are drawn, and equal files must give an equal page."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One run against the reference, on one benchmark, by one probe.

    Attributes:
        benchmark: The benchmark's name.
        probe: The probe's name.
        run: The run.
        reference: What it is compared with.
        paired: Accuracy of the run less that of the reference, fraction; None if they cannot be paired.
        not_paired: Why they cannot; None if they can.
    """

    benchmark: str
    probe: str
    run: Run
    reference: Run
    paired: PairedDifference | None
    not_paired: str | None

    @property
    def is_cut(self) -> bool:
        """Whether one of the two met episodes that they were not paired on."""
        met = [run.accuracy(self.benchmark, self.probe) for run in (self.run, self.reference)]
        n_met = [accuracy.n for accuracy in met if accuracy is not None]
        return self.paired is not None and self.paired.difference.n < max(n_met, default=0)

    @property
    def on_what(self) -> str:
        """Say which episodes the two were paired on."""
        if self.paired is None or not self.is_cut:
            return "on the same episodes"
        return f"on the first {self.paired.difference.n:,} episodes, which both met"


@dataclass(frozen=True, kw_only=True)
class Ties:
    """Letters of the runs that met the same episodes: two of them share one unless a test sets them apart.

    Attributes:
        pool: Run's label -> letters, by the sign-flip tests over episodes of this pool.
        classes: Likewise by the tests over new classes; empty where a pair has none.
    """

    pool: Mapping[str, str]
    classes: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Control:
    """The figures of a control by one probe on one benchmark.

    Attributes:
        name: `untrained_twin` or `image_statistics`.
        runs: The runs that it was measured for; those with the same figures share one entry.
        result: Its figures, with the fields of a probe's.
    """

    name: str
    runs: tuple[Run, ...]
    result: Mapping[str, Any]


_Measured = tuple[Run, str]
"""A run and the benchmark that it was measured on."""


def manifests_of(runs: Sequence[Run], benchmark: str) -> dict[str, list[Run]]:
    """Return the runs that met the same episodes of a benchmark, by the hash of the first one's manifest.

    A run that met only the first ones of another's episodes is with it.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.benchmark(benchmark):
            own = str(run.benchmark(benchmark).get("manifest"))
            known = next(
                (hash for hash, members in groups.items() if _begin_alike((run, benchmark), (members[0], benchmark))),
                own,
            )
            groups.setdefault(known, []).append(run)
    return groups


def compare(run: Run, reference: Run, benchmark: str, probe: str) -> Comparison:
    """Pair the accuracies of two runs episode by episode, or say why that cannot be done.

    Where one of them met more episodes than the other, they are paired on those that both met.
    """
    return compare_pairs([(run, reference)], benchmark, probe)[0]


def compare_pairs(pairs: Sequence[tuple[Run, Run]], benchmark: str, probe: str) -> list[Comparison]:
    """Do for many pairs, run and reference, what `compare` does for one, in a time that grows with the runs.

    Returns:
        One comparison a pair, in their order.
    """
    reasons = [_why_not_paired(*pair, benchmark, probe) for pair in pairs]
    chosen = [pair for pair, reason in zip(pairs, reasons, strict=True) if reason is None]
    runs = list({id(run): run for pair in chosen for run in pair}.values())
    place = {id(run): number for number, run in enumerate(runs)}
    read = [run.accuracies(benchmark, probe) for run in runs]
    paired = paired_differences(
        [table.accuracy for table in read],
        [table.classes for table in read],
        [(place[id(run)], place[id(reference)]) for run, reference in chosen],
        rng=np.random.default_rng(FLIP_SEED),
    )
    return [
        Comparison(
            benchmark=benchmark,
            probe=probe,
            run=run,
            reference=reference,
            paired=None if reason else paired[place[id(run)], place[id(reference)]],
            not_paired=reason,
        )
        for (run, reference), reason in zip(pairs, reasons, strict=True)
    ]


def loss_by_corruption(run: Run, corrupted: str, clean: str, probe: str) -> PairedDifference | None:
    """Pair a run on a benchmark's corrupted images with itself on the clean ones; None if that cannot be done."""
    try:
        return _pair((run, corrupted), (run, clean), probe)
    except (UserError, ValueError):
        return None


def clean_benchmark(run: Run, corrupted: str) -> str | None:
    """Return the benchmark whose images are clean and whose episodes are those of a corrupted one; None if none is."""
    for name in run.summary.get("benchmarks", {}):
        if not run.benchmark(name).get("corrupt") and _begin_alike((run, corrupted), (run, name)):
            return str(name)
    return None


def ties(runs: Sequence[Run], benchmark: str, probe: str) -> Ties | None:
    """Rank the runs that met the same episodes; None if there are fewer than three, or a pair cannot be compared."""
    measured = [run for run in runs if run.accuracy(benchmark, probe) is not None]
    if len(measured) < MIN_RANKED or len(manifests_of(measured, benchmark)) > 1:
        return None
    return rank(measured, compare_pairs(list(combinations(measured, 2)), benchmark, probe))


def rank(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> Ties | None:
    """Return the letters of runs from their comparisons, one for each combination of two, in the order of the runs.

    None if a pair could not be compared.
    """
    means, p_pool, p_classes = [], {}, {}
    for run in runs:
        accuracy = run.accuracy(comparisons[0].benchmark, comparisons[0].probe)
        means.append(accuracy.mean if accuracy else 0.0)
    for pair, comparison in zip(combinations(range(len(runs)), 2), comparisons, strict=True):
        if comparison.paired is None:
            return None
        p_pool[pair] = comparison.paired.p_episodes
        if comparison.paired.p_classes is not None:
            p_classes[pair] = comparison.paired.p_classes
    labels = [run.label for run in runs]
    return Ties(
        pool=dict(zip(labels, tie_groups(means, p_pool), strict=True)),
        classes=dict(zip(labels, tie_groups(means, p_classes), strict=True)) if len(p_classes) == len(p_pool) else {},
    )


def controls_of(runs: Sequence[Run], benchmark: str, probe: str) -> list[Control]:
    """Return the controls of a benchmark by one probe; runs whose control has the same figures share it."""
    found: dict[tuple[str, str], Control] = {}
    for run in runs:
        for name, figures in run.benchmark(benchmark).get("controls", {}).items():
            result = figures.get("probes", {}).get(probe)
            if result is None or summary_of(result.get("accuracy")) is None:
                continue
            key = (name, json.dumps(result["accuracy"], sort_keys=True))
            shared = found[key].runs if key in found else ()
            found[key] = Control(name=name, runs=(*shared, run), result=result)
    return sorted(found.values(), key=lambda control: control.name, reverse=True)


def _pair(a: _Measured, b: _Measured, probe: str) -> PairedDifference:
    one, other = (run.accuracies(benchmark, probe) for run, benchmark in (a, b))
    return compare_tables(one, other, rng=np.random.default_rng(FLIP_SEED), manifests=_different_manifests(a, b))


def _why_not_paired(run: Run, reference: Run, benchmark: str, probe: str) -> str | None:
    """Return why the two did not meet the same episodes, None if they did."""
    try:
        one, other = (side.accuracies(benchmark, probe) for side in (run, reference))
        n_shared_episodes(one, other, manifests=_different_manifests((run, benchmark), (reference, benchmark)))
    except UserError as error:
        return error.problem
    except ValueError as error:
        return str(error)
    return None


def _different_manifests(a: _Measured, b: _Measured) -> tuple[Manifest, Manifest] | None:
    """Return the episodes of two runs on a benchmark each, or None if they are known to be the same.

    Raises:
        UserError: They are not the same, and a file of them is missing or damaged.
    """
    (run, benchmark), (other, its_benchmark) = a, b
    if run.benchmark(benchmark).get("manifest") == other.benchmark(its_benchmark).get("manifest"):
        return None
    return run.manifest(benchmark), other.manifest(its_benchmark)


def _begin_alike(a: _Measured, b: _Measured) -> bool:
    """Return whether the episodes of the one are the first ones of the other."""
    try:
        manifests = _different_manifests(a, b)
    except UserError:
        return False
    if manifests is None:
        return True
    n_common = min(map(len, manifests))
    return not manifest_difference(*(manifest.prefix(n_common) for manifest in manifests))
