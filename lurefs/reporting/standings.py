"""Runs side by side as numbers: what `lurefs compare` prints and writes, and what others can mirror.

All accuracies, differences and half widths are fractions, all p-values are corrected for the runs that are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import lurefs
from episodes.comparison import holm
from episodes.summary import Summary
from lurefs.errors import unknown_name
from lurefs.reporting.comparison import Comparison, compare_pairs, rank
from lurefs.reporting.over_seeds import OverSeeds, over_seeds
from lurefs.reporting.runs import Run, benchmarks_of, reference_run, train_seconds
from lurefs.reporting.seeds import groups_of

VERSION = 1
"""Of the keys of `comparison.json`; another meaning of a key is another version."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One run on one benchmark by one probe, beside the others. What does not apply or was not measured is None.

    Attributes:
        run: The run's label.
        benchmark: The benchmark's name.
        probe: The probe's name.
        n_episodes: How many episodes its mean is over.
        mean: Mean accuracy, fraction.
        ci95_episodes: Half width of its 95 % interval on this pool of classes, fraction.
        ci95_classes: Half width of its 95 % interval on new classes of this kind, fraction.
        n_paired: On how many episodes it is compared with the reference: the first ones, that both met.
        difference: Mean of its accuracy less that of the reference on the same episode, fraction.
        difference_ci95_episodes: Half width of its 95 % interval on this pool of classes, fraction.
        difference_ci95_classes: Half width of its 95 % interval on new classes of this kind, fraction.
        p_episodes: Two-sided p of no difference on this pool of classes, by flips of signs over episodes, corrected for
            the number of runs that are compared with the reference on this benchmark by this probe (Holm).
        p_classes: Likewise on new classes of this kind, by the jackknife.
        n_wins: Episodes in which it is better than the reference.
        n_ties: Episodes in which the two are equal.
        n_losses: Episodes in which the reference is better.
        correlation: Of its accuracy with that of the reference, over episodes.
        ties_pool: Letters on this pool: runs that share one are not told apart, all pairs corrected together (Holm,
            5 %); the best has `a`.
        ties_classes: Likewise on new classes of this kind.
        n_parameters: Parameters of its backbone, head included.
        n_macs: Multiply-adds of embedding one image.
        images_per_second: Images that were embedded a second, on the run's own device.
        ms_per_episode: Milliseconds of fit and prediction an episode.
        train_seconds: Seconds of all its training epochs.
        note: Why it has no figures or no difference, or why the difference is not of the features alone; mostly "".
    """

    run: str
    benchmark: str
    probe: str
    n_episodes: int | None = None
    mean: float | None = None
    ci95_episodes: float | None = None
    ci95_classes: float | None = None
    n_paired: int | None = None
    difference: float | None = None
    difference_ci95_episodes: float | None = None
    difference_ci95_classes: float | None = None
    p_episodes: float | None = None
    p_classes: float | None = None
    n_wins: int | None = None
    n_ties: int | None = None
    n_losses: int | None = None
    correlation: float | None = None
    ties_pool: str = ""
    ties_classes: str = ""
    n_parameters: int | None = None
    n_macs: int | None = None
    images_per_second: float | None = None
    ms_per_episode: float | None = None
    train_seconds: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """Which run a label stands for.

    Attributes:
        run: Its label.
        path: Its directory, as it was named.
        digest: Of its configuration.
        seed: Its seed.
        backbone: timm's name of its backbone.
        strategy: Its unlearn strategy.
        version: The version of lurefs that measured it.
        device: Where its images were embedded; None if that is not known.
        n_threads: With how many threads.
    """

    run: str
    path: str
    digest: str | None
    seed: int
    backbone: str
    strategy: str
    version: str | None
    device: str | None
    n_threads: int | None


@dataclass(frozen=True, kw_only=True)
class Standings:
    """Runs side by side.

    Attributes:
        reference: Label of the run that the others are compared with; None for a single run.
        runs: The runs, in the order in which they were named.
        manifests: Benchmark -> hash of the episodes that the runs were judged on.
        cut: Benchmark -> number of first episodes that all runs were cut to; only those that were cut.
        rows: One a run, benchmark and probe; those of one benchmark and probe stand together, runs in order.
        over_seeds: One a group of runs that differ only by their seed, benchmark and probe.
    """

    reference: str | None
    runs: tuple[ComparedRun, ...]
    manifests: Mapping[str, str]
    cut: Mapping[str, int]
    rows: tuple[Standing, ...]
    over_seeds: tuple[OverSeeds, ...]

    def cells(self) -> dict[tuple[str, str], list[Standing]]:
        """Return the rows by benchmark and probe."""
        cells: dict[tuple[str, str], list[Standing]] = {}
        for row in self.rows:
            cells.setdefault((row.benchmark, row.probe), []).append(row)
        return cells

    def to_mapping(self) -> dict[str, Any]:
        """Return what `comparison.json` holds: these fields, and what wrote them; fractions, seconds, counts."""
        return {"version": VERSION, "lurefs": lurefs.__version__, **asdict(self)}


def standings(runs: Sequence[Run], *, benchmark: str | None = None, probe: str | None = None) -> Standings:
    """Return the runs side by side; those of a benchmark must have met the same episodes, see `same_episodes`.

    Runs that ended at different episodes of one manifest, by their widths, keep their own means, and each is compared
    with the reference on the first episodes, which both met.

    Args:
        runs: At least one.
        benchmark: Only this one.
        probe: Only this one.

    Raises:
        UserError: No run was measured on that benchmark, or by that probe.
    """
    found = chosen_cells(runs, benchmark, probe)
    reference = reference_run(runs)
    groups = groups_of(runs)
    cells = [(name, of_benchmark) for name, probes in found.items() for of_benchmark in probes]
    return Standings(
        reference=reference.label if len(runs) > 1 else None,
        runs=tuple(_card(run) for run in runs),
        manifests={
            name: str(next(run.benchmark(name).get("manifest") for run in runs if run.benchmark(name)))
            for name in found
        },
        cut={name: run.first[name] for name in found for run in runs if name in run.first},
        rows=tuple(row for cell in cells for row in _rows(runs, reference, *cell)),
        over_seeds=tuple(row for cell in cells for row in over_seeds(groups, reference, *cell)),
    )


def chosen_cells(runs: Sequence[Run], benchmark: str | None, probe: str | None) -> dict[str, list[str]]:
    """Return the probes by benchmark that are compared: all that any run was measured by, or the chosen ones.

    Raises:
        UserError: No run was measured on that benchmark, or by that probe.
    """
    found = benchmarks_of(runs)
    if benchmark is not None:
        if benchmark not in found:
            raise unknown_name("benchmark", benchmark, found)
        found = {benchmark: found[benchmark]}
    if probe is not None:
        known = dict.fromkeys(name for probes in found.values() for name in probes)
        if probe not in known:
            raise unknown_name("probe", probe, known)
        found = {name: [probe] for name, probes in found.items() if probe in probes}
    return found


def _rows(runs: Sequence[Run], reference: Run, benchmark: str, probe: str) -> list[Standing]:
    measured = [run for run in runs if run is not reference and run.accuracy(benchmark, probe) is not None]
    is_paired = reference.accuracy(benchmark, probe) is not None
    # With the reference last, the combinations hold each run less the reference.
    ranked = [*measured, reference] if is_paired else measured
    comparisons = compare_pairs(list(combinations(ranked, 2)), benchmark, probe)
    ranking = rank(ranked, comparisons) if comparisons else None
    differences = {entry.run.label: entry for entry in comparisons if is_paired and entry.reference is reference}
    p_values = _corrected(differences)
    return [
        Standing(
            run=run.label,
            benchmark=benchmark,
            probe=probe,
            **_mean(run.accuracy(benchmark, probe)),
            **_difference(differences.get(run.label)),
            **p_values.get(run.label, {}),
            ties_pool=ranking.pool.get(run.label, "") if ranking else "",
            ties_classes=ranking.classes.get(run.label, "") if ranking else "",
            **_cost(run, benchmark, probe),
            note=_note(run, reference, benchmark, probe, differences.get(run.label)),
        )
        for run in runs
    ]


def _mean(accuracy: Summary | None) -> dict[str, Any]:
    if accuracy is None:
        return {}
    return {
        "n_episodes": accuracy.n,
        "mean": accuracy.mean,
        "ci95_episodes": accuracy.ci95_episodes,
        "ci95_classes": accuracy.ci95_classes,
    }


def _difference(comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None or comparison.paired is None:
        return {}
    paired = comparison.paired
    return {
        "n_paired": paired.difference.n,
        "difference": paired.difference.mean,
        "difference_ci95_episodes": paired.difference.ci95_episodes,
        "difference_ci95_classes": paired.difference.ci95_classes,
        "n_wins": paired.n_wins,
        "n_ties": paired.n_ties,
        "n_losses": paired.n_losses,
        "correlation": None if math.isnan(paired.correlation) else paired.correlation,
    }


def _corrected(differences: Mapping[str, Comparison]) -> dict[str, dict[str, Any]]:
    """Return both p-values of each run, each corrected for the number of those that there are."""
    paired = {label: entry.paired for label, entry in differences.items() if entry.paired is not None}
    p_values: dict[str, dict[str, Any]] = {label: {} for label in paired}
    for name in ("p_episodes", "p_classes"):
        found = {label: p for label, entry in paired.items() if (p := getattr(entry, name)) is not None}
        for label, p in zip(found, holm(list(found.values())), strict=True):
            p_values[label][name] = p
    return p_values


def _cost(run: Run, benchmark: str, probe: str) -> dict[str, Any]:
    n_parameters = run.identity.get("backbone", {}).get("n_parameters")
    return {
        "n_parameters": run.cost.get("n_parameters", n_parameters),
        "n_macs": run.cost.get("n_macs"),
        "images_per_second": run.cost.get("images_per_second"),
        "ms_per_episode": (run.result(benchmark, probe) or {}).get("ms_per_episode"),
        "train_seconds": train_seconds(run) if run.outcomes else None,
    }


def _note(run: Run, reference: Run, benchmark: str, probe: str, comparison: Comparison | None) -> str:
    if not run.benchmark(benchmark):
        return "not measured on this benchmark"
    if run.accuracy(benchmark, probe) is None:
        return "not measured by this probe"
    if comparison is not None and comparison.not_paired:
        return comparison.not_paired
    if comparison is not None:
        settings = [side.config.probes.get(probe) for side in (run, reference)]
        return "" if settings[0] == settings[1] else f"its probe has other settings than that of {reference.label}"
    return "" if run is reference else f"no difference: the reference {reference.label} was not measured"


def _card(run: Run) -> ComparedRun:
    stated = run.summary.get("run", {})
    return ComparedRun(
        run=run.label,
        path=str(run.directory.path),
        digest=stated.get("digest"),
        seed=run.config.seed,
        backbone=run.config.backbone.name,
        strategy=run.config.unlearn.name,
        version=stated.get("version"),
        device=run.cost.get("device"),
        n_threads=run.cost.get("n_threads"),
    )
