"""Check that runs were scored on the same episodes, or cut their results to the first episodes that all share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from episodes.comparison import manifest_difference, n_common_prefix
from lurefs.comparing.finished_runs import Run, benchmarks_of
from lurefs.config.fine_tuning import fine_tunings
from lurefs.errors import UserError
from lurefs.runs.summary import BenchmarkSummary, ProbeSummary, summarise_table

MIN_EPISODES = 2
"""Fewer episodes give no interval."""


def on_common_episodes(runs: Sequence[Run], benchmarks: Sequence[str]) -> list[Run]:
    """Return the runs with their results cut to the first episodes of each benchmark that all runs share.

    Raises:
        UserError: Not even their first episodes are the same.
    """
    first = {name: _n_common(runs, name) for name in benchmarks}
    return [
        _cut(run, {name: n for name, n in first.items() if n is not None and name in run.summary.benchmarks})
        for run in runs
    ]


def check_same_episodes(runs: Sequence[Run], benchmarks: Sequence[str]) -> None:
    """Raise if runs were scored on different episodes of a benchmark.

    Raises:
        UserError: The episodes differ; the message says in what, and whether the first ones are the same.
    """
    for name in benchmarks:
        (one, stated), *others = [(run, found) for run in runs if (found := run.benchmark(name)) is not None]
        for other, found in others:
            if stated.corrupt != found.corrupt:
                raise _differ(name, one, other, "the corruption of their images differs")
            if stated.manifest != found.manifest:
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
        "runs that met the same episodes; otherwise much of the difference of their means is due to the draws",
        fix,
    )


def _n_common(runs: Sequence[Run], benchmark: str) -> int | None:
    """Return how many first episodes all runs share; None if all have the same ones and nothing is cut."""
    distinct = list({found: run for run in runs if (found := run.manifest_hash(benchmark)) is not None}.values())
    met = {
        accuracy.n
        for run in runs
        for probe in _counted(run, benchmark)
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


def _counted(run: Run, benchmark: str) -> list[str]:
    """Return the probes on fixed features, or all if there are none: fine-tuned ones meet fewer episodes by design."""
    measured, tuned = benchmarks_of([run]).get(benchmark, []), fine_tunings(run.config)
    return [probe for probe in measured if probe not in tuned] or measured


def _cut(run: Run, first: Mapping[str, int]) -> Run:
    """Return a run with the figures of the first episodes of some benchmarks."""
    cut = {name: _first_figures(run, name, n) for name, n in first.items()}
    summary = replace(run.summary, benchmarks={**run.summary.benchmarks, **cut})
    return replace(run, summary=summary, first={**run.first, **first})


def _first_figures(run: Run, benchmark: str, n: int) -> BenchmarkSummary:
    """Return the figures of the first episodes, without calibration, which is pooled over all episodes."""
    found, directory = run.summary.benchmarks[benchmark], run.directory
    return replace(
        found,
        manifest=run.manifest(benchmark).prefix(n).hash,
        n_episodes=n,
        target_ci95=None,
        probes={
            probe: replace(summarise_table(directory.read_episodes(benchmark, probe).first(n)), choice=whole.choice)
            for probe, whole in found.probes.items()
        },
        controls={
            name: replace(control, probes=_first_of_control(run, benchmark, name, list(control.probes), n))
            for name, control in found.controls.items()
        },
    )


def _first_of_control(run: Run, benchmark: str, control: str, probes: Sequence[str], n: int) -> dict[str, ProbeSummary]:
    """Return a control's figures of the first episodes by probe; probes whose episodes are missing are left out."""
    found = {}
    for probe in probes:
        with suppress(UserError):
            found[probe] = summarise_table(run.directory.read_control_episodes(benchmark, control, probe).first(n))
    return found
