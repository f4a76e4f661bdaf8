"""Standings of runs as numbers: the content of `comparison.json`, and of what `lurefs compare` prints.

Accuracies, differences and half widths are fractions. P-values and letters come from `lurefs.comparing.verdicts`:
they are corrected for all pairs of training procedures on a benchmark by a probe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import lurefs
from lurefs.comparing.across_sets import AcrossSets, across_sets
from lurefs.comparing.finished_runs import Run, benchmarks_of, reference_run
from lurefs.comparing.groups import groups_of
from lurefs.comparing.rankers import Ranking, rankings
from lurefs.comparing.standing_rows import Pair, Standing, control_row, group_row, pair_row, run_row
from lurefs.comparing.verdicts import Cell, Verdicts, judge_all
from lurefs.errors import unknown_name

VERSION = 2
"""Version of the keys of `comparison.json`; it changes with the meaning of a key."""


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """Facts about one compared run.

    Attributes:
        run: Its label.
        group: Label of its group: all runs that differ from it only by their seed.
        path: Its directory, as the user named it.
        digest: Digest of its configuration.
        seed: Its seed.
        backbone: timm's name of its backbone.
        strategy: Its unlearn strategy.
        version: The version of lurefs that measured it.
        device: Device that embedded its images; None if unknown.
        n_threads: Number of threads that embedded them; None if unknown.
    """

    run: str
    group: str
    path: str
    digest: str
    seed: int
    backbone: str
    strategy: str
    version: str
    device: str | None
    n_threads: int | None


@dataclass(frozen=True, kw_only=True)
class Standings:
    """Comparison of runs.

    Attributes:
        reference: Label of the group that the others are compared with; None for a single one.
        one_training_each: Whether a single training is compared, whose place may change with its seed.
        runs: The runs, in the order in which they were named.
        manifests: Benchmark -> hash of the episodes of the comparison.
        cut: Benchmark -> number of first episodes to which all runs were cut; only those that were cut.
        groups: The main result: one row per benchmark, probe and group of runs that differ only by their seed. A
            single run is a group too.
        controls: One row per benchmark, probe and control: the mean over runs, which share image statistics.
        rows: One row per benchmark, probe and run.
        pairs: One per benchmark, probe and pair of groups.
        across: Benchmarks of one form on several data sets, with means over these; empty if there are none.
        rankings: Rankers that choose a backbone without episodes, by benchmark; empty for few backbones.
        verdicts: The verdicts behind all of these.
    """

    reference: str | None
    one_training_each: bool
    runs: tuple[ComparedRun, ...]
    manifests: Mapping[str, str]
    cut: Mapping[str, int]
    groups: tuple[Standing, ...]
    controls: tuple[Standing, ...]
    rows: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    across: tuple[AcrossSets, ...]
    rankings: tuple[Ranking, ...]
    verdicts: Mapping[Cell, Verdicts]

    def to_mapping(self) -> dict[str, Any]:
        """Return the content of `comparison.json`: the versions, and all fields but `verdicts`.

        The key `across_sets` is left out without several data sets, and `rankers` for few backbones.
        """
        parts = {name: getattr(self, name) for name in ("reference", "one_training_each", "manifests", "cut")}
        lists = {
            name: [asdict(entry) for entry in getattr(self, name)]
            for name in ("runs", "groups", "controls", "rows", "pairs")
        }
        across = {"across_sets": [entry.to_mapping() for entry in self.across]} if self.across else {}
        rankers = [asdict(row) for ranking in self.rankings for row in ranking.rows]
        more = across | ({"rankers": rankers} if rankers else {})
        return {"version": VERSION, "lurefs": lurefs.__version__, **parts, **lists, **more}


def standings(runs: Sequence[Run], *, benchmark: str | None = None, probe: str | None = None) -> Standings:
    """Return the standings of runs that met the same episodes, see `same_episodes`.

    Runs that stopped at different episodes of one manifest keep their own means; pairs of them are compared on the
    first episodes, which both met.

    Args:
        runs: At least one.
        benchmark: Only this one; all if None.
        probe: Only this one; all if None.

    Raises:
        UserError: No run was measured on that benchmark, or by that probe.
    """
    chosen = chosen_cells(runs, benchmark, probe)
    reference, groups = reference_run(runs), groups_of(runs)
    verdicts = judge_all(runs, [(name, by) for name, probes in chosen.items() for by in probes])
    group_of = {run.label: group for group in groups for run in group.runs}
    found = verdicts.values()
    rows = [group_row(group, entry, reference) for entry in found for group in groups]
    of_group = {(row.name, row.benchmark, row.probe): row for row in rows}
    return Standings(
        reference=group_of[reference.label].label if len(groups) > 1 else None,
        one_training_each=any(entry.has_single_trainings for entry in found),
        runs=tuple(_card(run, group_of[run.label].label) for run in runs),
        manifests={
            name: next(hash for run in runs if (hash := run.manifest_hash(name)) is not None) for name in chosen
        },
        cut={name: run.first[name] for name in chosen for run in runs if name in run.first},
        groups=tuple(rows),
        controls=tuple(control_row(control, entry) for entry in found for control in entry.controls),
        rows=tuple(
            run_row(run, group_of[run.label], of_group[group_of[run.label].label, entry.benchmark, entry.probe])
            for entry in found
            for run in runs
        ),
        pairs=tuple(pair_row(pair, entry) for entry in found for pair in entry.pairs),
        across=tuple(across_sets(runs, verdicts)),
        rankings=tuple(rankings(verdicts)),
        verdicts=verdicts,
    )


def chosen_cells(runs: Sequence[Run], benchmark: str | None, probe: str | None) -> dict[str, list[str]]:
    """Return benchmark -> probes to compare: all by which any run was measured, or the chosen ones.

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


def _card(run: Run, group: str) -> ComparedRun:
    stated = run.summary.run
    return ComparedRun(
        run=run.label,
        group=group,
        path=str(run.directory.path),
        digest=stated.digest,
        seed=run.config.seed,
        backbone=run.config.backbone.name,
        strategy=run.config.unlearn.name,
        version=stated.version,
        device=run.cost.get("device"),
        n_threads=run.cost.get("n_threads"),
    )
