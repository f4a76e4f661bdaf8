"""All runs of a grid or a recipe: checked before any of them starts, finished ones left alone.

They run one after another in this process, where progress shows, or in several processes, where one that fails costs no
other.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lurefs import console
from lurefs.config.schema import RunConfig, digest, run_identity
from lurefs.errors import UserError
from lurefs.ranks import ranks_of
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import reset_in_words
from lurefs.stages.plan import Plan, make_plan
from lurefs.sweeps.grid import of_run
from lurefs.sweeps.workers import Call, Failure, Workers

Elsewhere = Callable[[Mapping[str, Call]], Iterator[tuple[str, Any]]]
"""Makes calls somewhere; yields each one's key with its result or a `Failure`, as they are done."""
Directories = Mapping[str, RunDirectory]
LEARNING = ("run", "pretrain")
"""Stages in which a backbone learns."""


def plan_runs(configs: Sequence[RunConfig]) -> dict[str, Plan]:
    """Return the plan of each run by its name.

    Raises:
        UserError: The data cannot give what a run asks of them.
    """
    plans = {}
    for config in configs:
        try:
            plans[config.name] = make_plan(config)
        except UserError as error:
            if len(configs) == 1:
                raise
            raise of_run(config.name, error) from error
    return plans


def is_finished(plan: Plan, directory: RunDirectory) -> bool:
    """Say whether a directory holds all that the plan would lead to, without loading what would do it.

    Raises:
        UserError: A file that it is found by is damaged.
    """
    if not all(path.is_file() for path in directory.result_paths(plan.config, len(plan.chunks))):
        return False
    summary = directory.read_summary()
    dataset = directory.read_identity().get("dataset")
    return (
        summary.get("run", {}).get("digest") == digest(run_identity(plan.config))
        and dataset == json.loads(json.dumps(to_mapping(dict(plan.dataset.identity))))
        and len(directory.read_outcomes()) == len(plan.chunks)
        and (not plan.config.controls or _has_controls(summary, directory))
    )


def unfinished(plans: Mapping[str, Plan], directories: Directories) -> dict[str, Plan]:
    """Return the plans of the runs that are not finished."""
    return {name: plan for name, plan in plans.items() if not is_finished(plan, directories[name])}


def run_here(plans: Mapping[str, Plan], directories: Directories, stage: str, *, with_page: bool) -> None:
    """Do a stage of the runs in this process, one run after another, or all stages where it is `run`.

    Raises:
        UserError: A run cannot be run as it is; or see `lurefs.stages.run.run_stage`; the runs after it are not done.
    """
    from lurefs.stages.run import run_stage

    for name in plans:
        directories[name].check_writable()
    refuse(check_runs([plan.config for plan in plans.values()], is_here=True), len(plans))
    if stage in LEARNING and ranks_of().is_first:
        for text in padding_notes([plan.config for plan in plans.values()]):
            console.note(text)
    for name, plan in plans.items():
        run_stage(plan, directories[name], stage, with_page=with_page)
    if ranks_of().is_first:
        _tell_idle_resets(plans, directories, stage)


def run_in_workers(
    plans: Mapping[str, Plan],
    directories: Directories,
    stage: str,
    *,
    n_workers: int,
    elsewhere: Elsewhere | None = None,
) -> dict[str, Failure]:
    """Do a stage of the runs in other processes; return why some have no results. None writes a page of its own.

    Args:
        plans: By name.
        directories: Likewise.
        stage: See `lurefs.stages.run.run_stage`.
        n_workers: How many processes of this machine.
        elsewhere: Does the runs in place of these processes.

    Raises:
        UserError: A run cannot be run as it is; nothing was run then.
    """
    for name in plans:
        directories[name].check_writable()
    configs = {name: plan.config for name, plan in plans.items()}
    failures = {}
    with Workers(n_workers if elsewhere is None else 1) as workers:
        refuse(_check_in(workers, list(configs.values()), is_here=elsewhere is None), len(plans))
        if stage in LEARNING:
            ((_, notes),) = workers.results({"notes": Call(padding_notes, (list(configs.values()),))})
            for text in [] if isinstance(notes, Failure) else notes:
                console.note(text)
        calls = {name: Call(run_one, (config, directories[name], stage)) for name, config in configs.items()}
        results = (elsewhere or workers.results)(calls)
        for name, result in console.track_results(results, len(calls), _words):
            if isinstance(result, Failure):
                failures[name] = result
    _tell_idle_resets([name for name in plans if name not in failures], directories, stage)
    return failures


def check_runs(configs: Sequence[RunConfig], *, is_here: bool = False) -> tuple[str, UserError] | None:
    """Return the first run that the libraries refuse, and why; runs that differ by their seed alone are one.

    Args:
        configs: The runs.
        is_here: Whether they will run on this machine, so that it must have their devices.
    """
    from lurefs.learning.backbones import resolve_device
    from lurefs.stages.checks import check

    for config in distinct(configs):
        try:
            if is_here:
                resolve_device(config.device)
            check(make_plan(config))
        except UserError as error:
            return config.name, error
    return None


def padding_notes(configs: Sequence[RunConfig]) -> list[str]:
    """Return the notes of `lurefs.stages.run.padding_notes` on all runs."""
    from lurefs.stages.run import padding_notes

    return padding_notes([make_plan(config) for config in configs])


def distinct(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """Return the configurations without those that differ from an earlier one by their seed alone."""
    found: dict[str, RunConfig] = {}
    for config in configs:
        key = digest({name: value for name, value in run_identity(config).items() if name != "seed"})
        found.setdefault(key, config)
    return list(found.values())


def run_one(config: RunConfig, directory: RunDirectory, stage: str) -> dict[str, float]:
    """Do a stage of a run; return the mean accuracy of its first probe on each benchmark, as far as it is measured.

    What is said meanwhile goes to the run's log, since the runs share one terminal.
    """
    with _stderr_in(directory.log_path):
        from lurefs.stages.run import run_stage

        run_stage(make_plan(config), directory, stage, with_page=False)
    benchmarks = directory.read_summary()["benchmarks"] if stage in ("run", "evaluate") else {}
    return {
        name: next(iter(benchmark["probes"].values()))["accuracy"]["mean"] for name, benchmark in benchmarks.items()
    }


@contextmanager
def _stderr_in(path: Path) -> Iterator[None]:
    """Append what this process says on stderr to a file, libraries in C included, and the reason if the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(2)
    try:
        with path.open("ab") as log:
            os.dup2(log.fileno(), 2)
        yield
    except Exception:
        os.write(2, traceback.format_exc().encode())
        raise
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)


def exit_code(failures: Mapping[str, Failure]) -> int:
    """Return 0 if all runs have results, 2 if a user can put right what failed, else 1."""
    if not failures:
        return 0
    return 2 if all(failure.is_user_error for failure in failures.values()) else 1


def tell_failures(failures: Mapping[str, Failure]) -> None:
    """Print each reason once, with the runs that have it."""
    for reason in dict.fromkeys(failure.reason for failure in failures.values()):
        names = [name for name, failure in failures.items() if failure.reason == reason]
        console.note(f"failed: {', '.join(names)}\n{reason}")


def _check_in(workers: Workers, configs: Sequence[RunConfig], *, is_here: bool) -> tuple[str, UserError] | None:
    """Do `check_runs` in the processes that will do the runs, each a part, so that they load the libraries at once."""
    of_settings = distinct(configs)
    parts = [of_settings[start :: workers.n_workers] for start in range(min(workers.n_workers, len(of_settings)))]
    check_part = partial(check_runs, is_here=is_here)
    found = {}
    for _, wrong in workers.results({part[0].name: Call(check_part, (part,)) for part in parts}):
        if isinstance(wrong, Failure):
            raise UserError(
                "the runs cannot be checked: " + wrong.headline, "libraries that can be loaded", wrong.reason
            )
        if wrong is not None:
            found[wrong[0]] = wrong
    return next((found[config.name] for config in of_settings if config.name in found), None)


def refuse(wrong: tuple[str, UserError] | None, n_runs: int) -> None:
    """Raise what `check_runs` found; of several runs with the name of the one that it is about."""
    if wrong is not None:
        raise of_run(*wrong) if n_runs > 1 else wrong[1]


def _tell_idle_resets(names: Iterable[str], directories: Directories, stage: str) -> None:
    """Say which runs' resets changed no prediction, where no table and no page will."""
    for name in names if stage == "pretrain" else ():
        if words := reset_in_words(directories[name].read_outcomes()):
            console.note(f"{name}: {words}")


def _has_controls(summary: Mapping[str, Any], directory: RunDirectory) -> bool:
    return all(
        benchmark["controls"]
        and all(
            directory.control_path(name, control, probe).is_file()
            for control, found in benchmark["controls"].items()
            for probe in found["probes"]
        )
        for name, benchmark in summary["benchmarks"].items()
    )


def _words(result: Any) -> str:
    if isinstance(result, Failure):
        return f"failed: {result.headline}"
    if not result:
        return "done"
    return ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in result.items())
