"""Paired differences of finished runs on the same episodes; `lurefs.comparing.verdicts` draws the conclusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from episodes.arrays import FloatArray
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
"""Fixed seed of the sign flips, so that equal files give an equal page."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One run against another on one benchmark by one probe.

    Attributes:
        run: The run.
        reference: The run that it is compared with.
        paired: Accuracy of the run minus that of the reference, fraction; None if they cannot be paired.
        not_paired: Why they cannot; None if they can.
    """

    run: Run
    reference: Run
    paired: PairedDifference | None
    not_paired: str | None


_Measured = tuple[Run, str]
"""A run and a benchmark."""


def manifests_of(runs: Sequence[Run], benchmark: str) -> dict[str, list[Run]]:
    """Group the runs that share episodes, or the first ones, of a benchmark: manifest hash -> runs."""
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
    """Compare each pair (run, reference) on the episodes that both were scored on; other pairs are left out."""
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
    """Return the accuracy of a run on corrupted minus clean images; None if they cannot be paired."""
    try:
        return _pair((run, corrupted), (run, clean), probe)
    except (UserError, ValueError):
        return None


def clean_benchmark(run: Run, corrupted: str) -> str | None:
    """Return the benchmark with the same episodes as a corrupted one, but clean images; None if there is none."""
    return next(
        (
            name
            for name, found in run.summary.benchmarks.items()
            if found.corrupt is None and _begin_alike((run, corrupted), (run, name))
        ),
        None,
    )


def by_episode(runs: Sequence[Run], benchmark: str, probe: str) -> FloatArray | str | None:
    """Return (n_runs, n_episodes) accuracies on the episodes that all runs met, or why they cannot be read.

    None if the runs met different episodes.
    """
    if len(manifests_of(runs, benchmark)) > 1:
        return None
    try:
        return rows_of_equal_length([run.accuracies(benchmark, probe).accuracy for run in runs])
    except UserError as error:
        return error.problem


def differences_by_episode(run: Run, other: Run, benchmark: str, probe: str) -> FloatArray | str:
    """Return the differences of two runs on the episodes that both met, or why there are none."""
    reason = _why_not_paired(run, other, benchmark, probe)
    if reason is not None:
        return reason
    a, b = rows_of_equal_length([side.accuracies(benchmark, probe).accuracy for side in (run, other)])
    return np.asarray(a - b)


def rows_of_equal_length(rows: Sequence[FloatArray]) -> FloatArray:
    """Return rows that begin with the same episodes as one array, cut to the shortest."""
    n_common = min(map(len, rows))
    return np.stack([row[:n_common] for row in rows])


def _pair(a: _Measured, b: _Measured, probe: str) -> PairedDifference:
    one, other = (run.accuracies(benchmark, probe) for run, benchmark in (a, b))
    return compare_tables(one, other, rng=np.random.default_rng(FLIP_SEED), manifests=_different_manifests(a, b))


def _why_not_paired(run: Run, reference: Run, benchmark: str, probe: str) -> str | None:
    """Return why two runs cannot be paired; None if they can."""
    try:
        one, other = (side.accuracies(benchmark, probe) for side in (run, reference))
        n_shared_episodes(one, other, manifests=_different_manifests((run, benchmark), (reference, benchmark)))
    except UserError as error:
        return error.problem
    except ValueError as error:
        return str(error)
    return None


def _different_manifests(a: _Measured, b: _Measured) -> tuple[Manifest, Manifest] | None:
    """Return two manifests; None if their hashes are equal.

    Raises:
        UserError: A manifest is missing or damaged.
    """
    (run, benchmark), (other, its_benchmark) = a, b
    if run.manifest_hash(benchmark) == other.manifest_hash(its_benchmark):
        return None
    return run.manifest(benchmark), other.manifest(its_benchmark)


def _begin_alike(a: _Measured, b: _Measured) -> bool:
    """Return whether one manifest is a prefix of the other."""
    try:
        manifests = _different_manifests(a, b)
    except UserError:
        return False
    if manifests is None:
        return True
    n_common = min(map(len, manifests))
    return not manifest_difference(*(manifest.prefix(n_common) for manifest in manifests))
