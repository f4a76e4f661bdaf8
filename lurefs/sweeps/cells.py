"""Running all runs of a grid or a recipe that are not finished, after a check of all of them.

They run one after another in this process, which shows progress, or in several processes. A failure does not stop the
others.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lurefs import cache, console, plugins
from lurefs.config.identity import digest, run_identity
from lurefs.config.load import RunGroup
from lurefs.config.schema import RunConfig, plugin_names
from lurefs.errors import UserError, without_secrets
from lurefs.ranks import ranks_of
from lurefs.records import through_json
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import reset_in_words
from lurefs.runs.summary import RunSummary
from lurefs.stages.places import check_place, files_stamp
from lurefs.stages.plan import Plan, make_plan
from lurefs.sweeps.grid import of_run
from lurefs.sweeps.workers import Call, Failure, Workers, answer
from lurefs.tracking.agent import is_of_agent

Elsewhere = Callable[[Mapping[str, Call]], Iterator[tuple[str, Any]]]
"""Makes calls outside this process; yields each key with its result or a `Failure`, as calls finish."""
Directories = Mapping[str, RunDirectory]
LEARNING = ("run", "pretrain")
"""Stages in which a backbone learns."""


@dataclass(frozen=True, kw_only=True)
class PlannedRuns:
    """The runs of a recipe, checked as far as settings and data go.

    Attributes:
        root: The folder of all runs, or the directory of the only one.
        has_folders: Whether each run has its own folder below `root`.
        plans: By run name.
        directories: By run name.
        waiting: The plans of those that are not finished, or not known to be.
        is_free: Whether no other process waits for this one, so that it may leave out runs, and start processes.
    """

    root: Path
    has_folders: bool
    plans: Mapping[str, Plan]
    directories: Directories
    waiting: Mapping[str, Plan]
    is_free: bool


def plan_group(group: RunGroup, root: Path, stage: str) -> PlannedRuns:
    """Plan one stage (all stages for `run`) of a recipe's runs, with their results in `root`; nothing is written.

    Raises:
        UserError: A run's settings do not fit its data, `root` holds another run, or a file in it is damaged.
    """
    plans = plan_runs(list(group.runs.values()))
    directories = {name: RunDirectory(root / name if group.has_folders else root) for name in plans}
    if group.has_folders and RunDirectory(root).config_path.is_file():
        raise UserError(
            f"{root} holds a run", "a folder for the runs of a group", "give another --run-dir, or move the run"
        )
    is_free = ranks_of().world_size == 1 and not is_of_agent(os.environ)
    waiting = unfinished(plans, directories) if stage == "run" and is_free else plans
    return PlannedRuns(
        root=root,
        has_folders=group.has_folders,
        plans=plans,
        directories=directories,
        waiting=waiting,
        is_free=is_free,
    )


def do_runs(planned: PlannedRuns, stage: str, *, n_workers: int) -> dict[str, Failure]:
    """Do one stage of the waiting runs, in this process or in several; return the failures by run name.

    Raises:
        UserError: A run is refused before all start, or the only one fails.
    """
    if len(planned.waiting) > 1 and n_workers > 1 and planned.is_free:
        return run_in_workers(planned.waiting, planned.directories, stage, n_workers=n_workers)
    if planned.waiting:
        return run_here(planned.waiting, planned.directories, stage, with_page=not planned.has_folders)
    return {}


def plan_runs(configs: Sequence[RunConfig]) -> dict[str, Plan]:
    """Return the plan of each run by name, and print how the data were read where this is not plain.

    Raises:
        UserError: A run's settings do not fit its data.
    """
    plans = {}
    for config in configs:
        try:
            plans[config.name] = make_plan(config)
        except UserError as error:
            if len(configs) == 1:
                raise
            raise of_run(config.name, error) from error
    for text in dict.fromkeys(text for plan in plans.values() for text in plan.notes) if ranks_of().is_first else ():
        console.note(text)
    return plans


def is_finished(plan: Plan, directory: RunDirectory) -> bool:
    """Return whether a directory holds all results of a plan, without loading the learning libraries.

    Raises:
        UserError: A file of the directory is damaged.
    """
    if not all(path.is_file() for path in directory.result_paths(plan.config, len(plan.chunks))):
        return False
    wanted = digest(run_identity(plan.config))
    try:
        stored = digest(run_identity(directory.read_config()))
    except UserError:
        return False  # the run writes it again
    summary = directory.read_summary()
    identity = directory.read_identity()
    return (
        stored == summary.run.digest == wanted
        and identity.get("dataset") == through_json(plan.dataset.identity)
        and identity.get("files") == files_stamp(plan)
        and len(directory.read_outcomes()) == len(plan.chunks)
        and (not plan.config.controls or _has_controls(summary, directory))
    )


def unfinished(plans: Mapping[str, Plan], directories: Directories) -> dict[str, Plan]:
    """Return the plans of the runs that are not finished."""
    return {name: plan for name, plan in plans.items() if not is_finished(plan, directories[name])}


def run_here(plans: Mapping[str, Plan], directories: Directories, stage: str, *, with_page: bool) -> dict[str, Failure]:
    """Do one stage (all stages for `run`) of the runs in this process, one after another; return the failures by name.

    With several processes per run, all of which must do the same, a failure ends the rest.

    Raises:
        UserError: A run is refused before all start, or the only one fails (see `lurefs.stages.run.run_stage`).
    """
    import torch

    from lurefs.stages.run import run_stage

    refuse_early(plans, directories, stage)
    if stage in LEARNING and ranks_of().is_first:
        for text in padding_notes([plan.config for plan in plans.values()]):
            console.note(text)
    n_threads = torch.get_num_threads()
    failures: dict[str, Failure] = {}
    is_alone = len(plans) == 1 or ranks_of().world_size > 1
    try:
        for name, plan in plans.items():
            do = partial(run_stage, plan, directories[name], stage, with_page=with_page)
            result = do() if is_alone else answer(Call(do))
            if isinstance(result, Failure):
                failures[name] = result
    finally:
        torch.set_num_threads(n_threads)  # a run sets its own number, and its caller may go on
    if ranks_of().is_first:
        _tell_idle_resets([name for name in plans if name not in failures], directories, stage)
    return failures


def run_in_workers(
    plans: Mapping[str, Plan],
    directories: Directories,
    stage: str,
    *,
    n_workers: int,
    elsewhere: Elsewhere | None = None,
) -> dict[str, Failure]:
    """Do one stage of the runs in other processes, without pages; return the failures by run name.

    Args:
        plans: By run name.
        directories: By run name.
        stage: See `lurefs.stages.run.run_stage`.
        n_workers: Number of processes on this machine.
        elsewhere: Does the runs instead of these processes.

    Raises:
        UserError: A run is refused; then no run was started.
    """
    check_places(plans, directories, stage)
    configs = {name: plan.config for name, plan in plans.items()}
    folders = plugins.folders_of(name for config in configs.values() for name in plugin_names(config))
    if elsewhere is None and (problem := cache.problem()):  # what workers say is not seen
        console.note_once(f"{problem}; {cache.WITHOUT}")
    failures = {}
    with Workers(n_workers if elsewhere is None else 1) as workers:
        refuse(_check_in(workers, list(configs.values()), folders, stage, is_here=elsewhere is None), len(plans))
        if stage in LEARNING:
            ((_, notes),) = workers.results({"notes": Call(padding_notes, (list(configs.values()),), folders)})
            for text in [] if isinstance(notes, Failure) else notes:
                console.note(text)
        calls = {name: Call(run_one, (config, directories[name], stage), folders) for name, config in configs.items()}
        results = (elsewhere or workers.results)(calls)
        for name, result in console.track_results(results, len(calls), _words):
            if isinstance(result, Failure):
                failures[name] = result
    _tell_idle_resets([name for name in plans if name not in failures], directories, stage)
    return failures


def refuse_early(plans: Mapping[str, Plan], directories: Directories, stage: str, *, is_here: bool = True) -> None:
    """Refuse all runs if one of them, or its directory, cannot be used; `is_here` is as for `check_runs`.

    Raises:
        UserError: What is wrong, with the name of the run if there are several.
    """
    check_places(plans, directories, stage)
    refuse(check_runs([plan.config for plan in plans.values()], stage, is_here=is_here), len(plans))


def check_places(plans: Mapping[str, Plan], directories: Directories, stage: str) -> None:
    """Do `lurefs.stages.places.check_place` for all runs."""
    for name, plan in plans.items():
        try:
            check_place(plan, directories[name], stage)
        except UserError as error:
            refuse((name, error), len(plans))


def check_runs(configs: Sequence[RunConfig], stage: str, *, is_here: bool) -> tuple[str, UserError] | None:
    """Return name and error of the first run that cannot be done as it is; of several seeds only one is checked.

    Args:
        configs: The runs.
        stage: See `lurefs.stages.run.run_stage`.
        is_here: Whether they will run on this machine, so that it must have their devices, and decodes their images.
    """
    from lurefs.learning.backbones import resolve_device
    from lurefs.stages.checks import check
    from lurefs.stages.needed import decode_needed

    for config in distinct(configs):
        try:
            if is_here:
                resolve_device(config.device)
            plan = make_plan(config)
            check(plan)
            if is_here and ranks_of().is_first:
                decode_needed(plan, stage)
        except UserError as error:
            return config.name, error
    return None


def padding_notes(configs: Sequence[RunConfig]) -> list[str]:
    """Return the notes of `lurefs.stages.run.padding_notes` for all runs."""
    from lurefs.stages.run import padding_notes

    return padding_notes([make_plan(config) for config in configs if not config.frozen])


def distinct(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """Return the configurations without those that differ from an earlier one only by the name and the seed."""
    found: dict[str, RunConfig] = {}
    for config in configs:
        found.setdefault(digest(replace(config, name="", seed=0)), config)
    return list(found.values())


def run_one(config: RunConfig, directory: RunDirectory, stage: str) -> dict[str, float]:
    """Do one stage of a run; return the first probe's mean accuracy per benchmark, if it was measured.

    Messages go to the run's log, since the runs share one terminal.
    """
    with _stderr_in(directory.log_path):
        from lurefs.stages.run import run_stage

        run_stage(make_plan(config), directory, stage, with_page=False)
    benchmarks = directory.read_summary().benchmarks if stage in ("run", "evaluate") else {}
    found = {name: next(iter(benchmark.probes.values())).accuracy for name, benchmark in benchmarks.items()}
    return {name: accuracy.mean for name, accuracy in found.items() if accuracy is not None}


@contextmanager
def _stderr_in(path: Path) -> Iterator[None]:
    """Append the stderr of this process, also of C libraries, to a file, and the traceback if the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(2)
    try:
        with path.open("ab") as log:
            os.dup2(log.fileno(), 2)
        yield
    except Exception:
        os.write(2, without_secrets(traceback.format_exc()).encode())
        raise
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)


def exit_code(failures: Mapping[str, Failure]) -> int:
    """Return 0 if no run failed, 2 if the user can fix all failures, otherwise 1."""
    if not failures:
        return 0
    return 2 if all(failure.is_user_error for failure in failures.values()) else 1


def tell_failures(failures: Mapping[str, Failure]) -> None:
    """Print each reason for a failure once, with the names of its runs."""
    for reason in dict.fromkeys(failure.reason for failure in failures.values()):
        names = [name for name, failure in failures.items() if failure.reason == reason]
        console.note(f"failed: {', '.join(names)}\n{reason}")


def _check_in(
    workers: Workers, configs: Sequence[RunConfig], folders: tuple[Path, ...], stage: str, *, is_here: bool
) -> tuple[str, UserError] | None:
    """Run `check_runs` on parts of the runs in worker processes, which load the libraries in parallel."""
    of_settings = distinct(configs)
    parts = [of_settings[start :: workers.n_workers] for start in range(min(workers.n_workers, len(of_settings)))]
    check_part = partial(check_runs, stage=stage, is_here=is_here)
    found = {}
    for _, wrong in workers.results({part[0].name: Call(check_part, (part,), folders) for part in parts}):
        if isinstance(wrong, Failure):
            raise UserError(
                "the runs cannot be checked: " + wrong.headline, "libraries that can be loaded", wrong.reason
            )
        if wrong is not None:
            found[wrong[0]] = wrong
    return next((found[config.name] for config in of_settings if config.name in found), None)


def refuse(wrong: tuple[str, UserError] | None, n_runs: int) -> None:
    """Raise the error that `check_runs` found, with the name of the run if there are several."""
    if wrong is not None:
        raise of_run(*wrong) if n_runs > 1 else wrong[1]


def _tell_idle_resets(names: Iterable[str], directories: Directories, stage: str) -> None:
    """After `pretrain`, which makes no table or page, print which runs' resets changed no prediction."""
    for name in names if stage == "pretrain" else ():
        if words := reset_in_words(directories[name].read_outcomes()):
            console.note(f"{name}: {words}")


def _has_controls(summary: RunSummary, directory: RunDirectory) -> bool:
    return all(
        benchmark.controls
        and all(
            directory.control_path(name, control, probe).is_file()
            for control, found in benchmark.controls.items()
            for probe in found.probes
        )
        for name, benchmark in summary.benchmarks.items()
    )


def _words(result: Any) -> str:
    if isinstance(result, Failure):
        return f"failed: {result.headline}"
    if not result:
        return "done"
    return ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in result.items())
