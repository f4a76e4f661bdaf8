"""Whether runs met the same episodes: refused with what differs, or judged on those that all of them met."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from episodes.comparison import manifest_difference, n_common_prefix
from episodes.summary import summarise, tails
from lurefs.comparing.finished_runs import Run
from lurefs.errors import UserError

MIN_EPISODES = 2
"""Fewer have no interval."""


def on_common_episodes(runs: Sequence[Run], benchmarks: Sequence[str]) -> list[Run]:
    """Return the runs as if each had met only the first episodes of the benchmarks, those that all of them met.

    Raises:
        UserError: They have not even the first episodes in common.
    """
    first = {name: _n_common(runs, name) for name in benchmarks}
    return [_cut(run, {name: n for name, n in first.items() if n is not None and run.benchmark(name)}) for run in runs]


def check_same_episodes(runs: Sequence[Run], benchmarks: Sequence[str]) -> None:
    """Refuse runs that were measured on different episodes of a benchmark of one name.

    Raises:
        UserError: It says what differs, and whether the first episodes are the same.
    """
    for name in benchmarks:
        one, *others = [run for run in runs if run.benchmark(name)]
        for other in others:
            if one.benchmark(name).get("corrupt") != other.benchmark(name).get("corrupt"):
                raise _differ(name, one, other, "the one has its images corrupted, the other not, or otherwise")
            if one.benchmark(name).get("manifest") != other.benchmark(name).get("manifest"):
                manifests = one.manifest(name), other.manifest(name)
                n_common = n_common_prefix(*manifests)
                raise _differ(name, one, other, manifest_difference(*manifests), n_common=n_common)


def _differ(name: str, one: Run, other: Run, difference: str, *, n_common: int = 0) -> UserError:
    setting = difference.partition(" is ")[0]
    fix = f"give both the same settings of benchmarks.{name}"
    if difference.startswith("their images"):
        fix = f"give both the same dataset and class_split, or the same file as benchmarks.{name}.manifest"
    elif difference.startswith("episode"):
        fix = f"give both the same benchmarks.{name}.seed"
    elif setting.isidentifier():
        fix = f"give both the same benchmarks.{name}.{setting}"
    fix += " and run 'lurefs evaluate' again"
    if n_common >= MIN_EPISODES:
        fix = f"add --common-episodes to compare on the first {n_common:,} episodes, which both met; or {fix}"
    return UserError(
        f"{one.label} and {other.label} met different episodes of {name!r}: {difference}",
        "runs that met the same episodes, without which a difference of their means is mostly one of the draws",
        fix,
    )


def _n_common(runs: Sequence[Run], benchmark: str) -> int | None:
    """Return how many first episodes of a benchmark all runs met, None if all met the same ones and nothing is cut."""
    measured = [run for run in runs if run.benchmark(benchmark)]
    distinct = list({run.benchmark(benchmark).get("manifest"): run for run in measured}.values())
    met = {
        accuracy.n
        for run in measured
        for probe in run.benchmark(benchmark).get("probes", {})
        if (accuracy := run.accuracy(benchmark, probe)) is not None
    }
    if len(distinct) == 1 and len(met) == 1:
        return None
    n_common = min(met, default=0)
    for other in distinct[1:]:
        manifests = distinct[0].manifest(benchmark), other.manifest(benchmark)
        n_common = min(n_common, n_common_prefix(*manifests))
        if n_common < MIN_EPISODES:
            raise _differ(benchmark, distinct[0], other, manifest_difference(*manifests))
    return n_common


def _cut(run: Run, first: Mapping[str, int]) -> Run:
    """Return a run whose figures of some benchmarks are those of their first episodes."""
    benchmarks = dict(run.summary.get("benchmarks", {}))
    for name, n in first.items():
        probes = {probe: _first_figures(run, name, probe, n) for probe in benchmarks[name].get("probes", {})}
        manifest = run.manifest(name).prefix(n).hash
        controls = _first_of_controls(run, name, n)
        judged = {"manifest": manifest, "n_episodes": n, "target_ci95": None, "probes": probes, "controls": controls}
        benchmarks[name] = {**benchmarks[name], **judged}
    return replace(run, summary={**run.summary, "benchmarks": benchmarks}, first={**run.first, **first})


def _first_of_controls(run: Run, benchmark: str, n: int) -> dict[str, Any]:
    """Return the accuracies of the controls on the first episodes; those whose episodes are gone are left out."""
    found: dict[str, Any] = {}
    for control, figures in run.benchmark(benchmark).get("controls", {}).items():
        for probe in figures.get("probes", {}):
            try:
                table = run.directory.read_control_accuracies(benchmark, control, probe)
            except UserError:
                continue
            accuracy = asdict(summarise(table.accuracy[:n], table.classes[:n]))
            found.setdefault(control, {"probes": {}})["probes"][probe] = {"accuracy": accuracy}
    return found


def _first_figures(run: Run, benchmark: str, probe: str, n: int) -> dict[str, Any]:
    """Return the figures of the first episodes; calibration, which is pooled over all of them, is left out."""
    table = run.directory.read_episodes(benchmark, probe)
    classes = table.classes[:n]

    def figures(values: Any) -> dict[str, Any] | None:
        return None if math.isnan(values[:n].sum()) else asdict(summarise(values[:n], classes))

    return {
        **(run.result(benchmark, probe) or {}),
        "accuracy": figures(table.accuracy),
        "tails": asdict(tails(table.accuracy[:n], classes)),
        "nll": figures(table.nll),
        "brier": figures(table.brier),
        "ece": None,
        "n_not_converged": int((~table.converged[:n]).sum()),
        "ms_per_episode": float(table.seconds[:n].mean() * 1000),
    }
