"""Calls as tasks of one Slurm array job, with submitit; code and files must be on a disk that all nodes share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lurefs import console
from lurefs.errors import UserError, first_line, not_installed
from lurefs.sweeps.workers import Call, Failure, answer

POLL_SECONDS = 2.0


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` texts into options for sbatch.

    Raises:
        UserError: A text has no key, or the time is missing.
    """
    options = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not key or not sign:
            raise UserError(f"--slurm {text!r} has no 'key='", "an option of sbatch", "e.g. --slurm partition=gpu")
        options[key] = yaml.safe_load(value)
    if not isinstance(options.get("time"), int):
        raise UserError(
            f"--slurm time is {options.get('time')!r}", "the minutes that a cell may take", "e.g. --slurm time=60"
        )
    return options


def results(
    calls: Mapping[str, Call], folder: Path, options: Mapping[str, Any], *, n_at_a_time: int | None
) -> Iterator[tuple[str, Any]]:
    """Submit the calls as one array job and yield each key with its result or a `Failure`, as calls finish.

    An interrupt leaves the jobs in the queue.

    Args:
        calls: One task each.
        folder: Folder for the tasks' scripts and logs.
        options: Options of sbatch, by name.
        n_at_a_time: Maximum number of tasks at a time; None leaves it to the cluster.

    Raises:
        UserError: submitit is not installed, this machine has no Slurm, or Slurm refuses the job.
    """
    try:
        import submitit
    except ImportError as error:
        raise not_installed("--slurm", "slurm", error) from error
    if submitit.SlurmExecutor.affinity() < 0:
        raise UserError(
            "there is no Slurm on this machine: srun is not found",
            "a machine that can submit jobs",
            "run the command there, or leave --slurm out",
        )
    executor = submitit.SlurmExecutor(folder)
    rest = {name: value for name, value in options.items() if name != "time"}
    width = {} if n_at_a_time is None else {"array_parallelism": n_at_a_time}
    executor.update_parameters(job_name="lurefs", time=options["time"], additional_parameters=rest, **width)
    try:
        with executor.batch():
            jobs = [executor.submit(answer, call) for call in calls.values()]
        console.note(f"submitted  job {jobs[0].job_id.partition('_')[0]}; logs in {folder}")
    except submitit.core.utils.FailedJobError as error:
        raise UserError(
            f"Slurm refuses the job: {first_line(error)}", "options that sbatch takes", "change the --slurm options"
        ) from error
    yield from _as_they_end(dict(zip(calls, jobs, strict=True)))


def _as_they_end(jobs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    try:
        while jobs:
            for key, job in list(jobs.items()):
                if job.done():
                    del jobs[key]
                    yield key, _result(job)
            if jobs:
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        console.note(f"{len(jobs)} tasks stay in the queue; when they are done, the same command writes the report")
        raise


def _result(job: Any) -> Any:
    try:
        return job.result()
    except Exception as error:  # submitit has many ways to say that a task was lost
        return Failure(reason=f"task {job.job_id} has no result: {first_line(error)}; its log: {job.paths.stderr}")
