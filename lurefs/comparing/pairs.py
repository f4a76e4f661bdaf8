"""Finished runs side by side: which met the same episodes, and how they differ on them.

Numbers only. What may be concluded from them is in `lurefs.comparing.verdicts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from episodes.comparison import (
    PairedDifference,
    compare_tables,
    manifest_difference,
    n_shared_episodes,
    paired_differences,
)
from episodes.manifest import Manifest
from lurefs.comparing.finished_runs import Run
from lurefs.errors import UserError

FLIP_SEED = 0
"""The p-values of a page are drawn, and equal files must give an equal page."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One run against another, on one benchmark, by one probe.

    Attributes:
        run: The run.
        reference: What it is compared with.
        paired: Accuracy of the run less that of the reference, fraction; None if they cannot be paired.
        not_paired: Why they cannot; None if they can.
    """

    run: Run
    reference: Run
    paired: PairedDifference | None
    not_paired: str | None


_Measured = tuple[Run, str]
"""A run and the benchmark that it was measured on."""


def manifests_of(runs: Sequence[Run], benchmark: str) -> dict[str, list[Run]]:
    """Return the runs that met the same episodes of a benchmark, by the hash of the first one's manifest.

    A run that met only the first ones of another's episodes is with it.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if (own := run.manifest_hash(benchmark)) is not None:
            known = next(
                (hash for hash, members in groups.items() if _begin_alike((run, benchmark), (members[0], benchmark))),
                own,
            )
            groups.setdefault(known, []).append(run)
    return groups


def compare_pairs(pairs: Sequence[tuple[Run, Run]], benchmark: str, probe: str) -> list[Comparison]:
    """Pair the accuracies of runs episode by episode, or say why that cannot be done.

    Where one of a pair met more episodes than the other, they are paired on those that both met.

    Args:
        pairs: A run, and what it is compared with.
        benchmark: The benchmark's name.
        probe: The probe's name.

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
    return next(
        (
            name
            for name, found in run.summary.benchmarks.items()
            if found.corrupt is None and _begin_alike((run, corrupted), (run, name))
        ),
        None,
    )


def mean_difference(run: Run, other: Run, benchmark: str, probe: str) -> float | str:
    """Return the mean of a run's accuracy less another's on the episodes that both met, or why there is none."""
    one, two = run.accuracy(benchmark, probe), other.accuracy(benchmark, probe)
    is_one_manifest = run.manifest_hash(benchmark) == other.manifest_hash(benchmark)
    if one is not None and two is not None and is_one_manifest and one.n == two.n:
        return one.mean - two.mean
    reason = _why_not_paired(run, other, benchmark, probe)
    if reason is not None:
        return reason
    a, b = (side.accuracies(benchmark, probe).accuracy for side in (run, other))
    n_common = min(len(a), len(b))
    return float((a[:n_common] - b[:n_common]).mean())


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
    if run.manifest_hash(benchmark) == other.manifest_hash(its_benchmark):
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
