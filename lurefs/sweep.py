"""All cells of a grid: checked before anything runs, finished ones left alone, one that fails costs no other."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lurefs import console
from lurefs.config import RunConfig, digest, run_identity
from lurefs.errors import UserError
from lurefs.grid import Cell, of_cell
from lurefs.plan import Plan, make_plan
from lurefs.records import to_mapping
from lurefs.results import RunDirectory
from lurefs.workers import Call, Failure, Workers

Run = Callable[[Mapping[str, Call]], Iterator[tuple[str, Any]]]
"""Makes calls somewhere; yields each one's key with its result or a `Failure`, as they are done."""


def plan_cells(cells: Sequence[Cell]) -> dict[str, Plan]:
    """Return the plan of each cell by its name.

    Raises:
        UserError: The data cannot give what a cell asks of them.
    """
    plans = {}
    for cell in cells:
        try:
            plans[cell.name] = make_plan(cell.config)
        except UserError as error:
            raise of_cell(cell.name, error) from error
    return plans


def directory_of(name: str, root: Path) -> RunDirectory:
    """Return where a cell's files go."""
    return RunDirectory(root / name)


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


def unfinished(plans: Mapping[str, Plan], root: Path) -> dict[str, Plan]:
    """Return the plans of the cells that are not finished."""
    return {name: plan for name, plan in plans.items() if not is_finished(plan, directory_of(name, root))}


def run_cells(
    plans: Mapping[str, Plan], root: Path, *, n_workers: int, elsewhere: Run | None = None
) -> dict[str, Failure]:
    """Run the cells that are not finished; return why others have no results.

    Args:
        plans: By name.
        root: Where their directories are.
        n_workers: How many processes of this machine.
        elsewhere: Runs the cells in place of these processes.

    Raises:
        UserError: A cell cannot be run as it is; nothing was run then.
    """
    waiting = {name: plan.config for name, plan in unfinished(plans, root).items()}
    console.note(f"{len(plans)} cells, {len(plans) - len(waiting)} of them finished")
    if not waiting:
        return {}
    failures = {}
    with Workers(n_workers) as workers:
        _check(waiting, root, workers)
        calls = {name: Call(run_cell, (config, root)) for name, config in waiting.items()}
        results = (elsewhere or workers.results)(calls)
        for name, result in console.track_results(results, len(calls), _words):
            if isinstance(result, Failure):
                failures[name] = result
    return failures


def check_cells(configs: Sequence[RunConfig]) -> tuple[str, UserError] | None:
    """Return the first cell that the libraries refuse, and why; cells that differ by their seed alone are one."""
    from lurefs.run import check

    checked = set()
    for config in configs:
        key = digest({name: value for name, value in run_identity(config).items() if name != "seed"})
        if key in checked:
            continue
        checked.add(key)
        try:
            check(make_plan(config))
        except UserError as error:
            return config.name, error
    return None


def padding_notes(configs: Sequence[RunConfig]) -> list[str]:
    """Return the notes of `lurefs.run.padding_notes` on all cells."""
    from lurefs.run import padding_notes

    return padding_notes([make_plan(config) for config in configs])


def run_cell(config: RunConfig, root: Path) -> dict[str, float]:
    """Do all stages of a cell; return the mean accuracy of its first probe on each benchmark.

    What is said meanwhile goes to the cell's log, since the cells share one terminal.
    """
    directory = directory_of(config.name, root)
    with _stderr_in(directory.log_path):
        from lurefs.run import run_stage

        run_stage(make_plan(config), directory, "run")
    benchmarks = directory.read_summary()["benchmarks"]
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
    """Return 0 if all cells have results, 2 if a user can put right what failed, else 1."""
    if not failures:
        return 0
    return 2 if all(failure.is_user_error for failure in failures.values()) else 1


def tell_failures(failures: Mapping[str, Failure]) -> None:
    """Print each reason once, with the cells that have it."""
    for reason in dict.fromkeys(failure.reason for failure in failures.values()):
        names = [name for name, failure in failures.items() if failure.reason == reason]
        console.note(f"failed: {', '.join(names)}\n{reason}")


def _check(waiting: Mapping[str, RunConfig], root: Path, workers: Workers) -> None:
    for name in waiting:
        directory_of(name, root).check_writable()
    ((_, wrong),) = workers.results({"check": Call(check_cells, (list(waiting.values()),))})
    if isinstance(wrong, Failure):
        raise UserError("the cells cannot be checked: " + wrong.headline, "libraries that can be loaded", wrong.reason)
    if wrong is not None:
        raise of_cell(*wrong)
    ((_, notes),) = workers.results({"notes": Call(padding_notes, (list(waiting.values()),))})
    for text in [] if isinstance(notes, Failure) else notes:
        console.note(text)


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
    return ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in result.items())
