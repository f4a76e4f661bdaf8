"""The command `lurefs sweep`: all cells of a grid."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from lurefs.commands.run import _finish, _note_finished, _print_dry_run
from lurefs.config.load import check_workers

if TYPE_CHECKING:
    from lurefs.sweeps.workers import Failure


def _sweep(arguments: argparse.Namespace) -> int:
    """Run a grid's cells, then print and write what all of them came to; return the exit code."""
    from lurefs.runs.directory import RunDirectory
    from lurefs.sweeps import cells, grid

    n_workers = None if arguments.workers is None else check_workers("--workers", arguments.workers)
    asked = grid.read_grid(arguments.config, arguments.overrides, arguments.run_root)
    root, elsewhere = asked.run_root, None
    plans = cells.plan_runs([cell.config for cell in grid.cells_of(asked)])
    directories = {name: RunDirectory(root / name) for name in plans}
    if arguments.slurm is not None:
        from lurefs.sweeps import slurm

        options = slurm.read_options(arguments.slurm)
        elsewhere = partial(slurm.results, folder=root / ".slurm", options=options, n_at_a_time=n_workers)
    waiting = cells.unfinished(plans, directories)
    if arguments.dry_run:
        _print_dry_run(plans, waiting, root, n_shown=1)
        return 0
    _note_finished(plans, waiting)
    failures: dict[str, Failure] = {}
    if waiting:
        failures = cells.run_in_workers(waiting, directories, "run", n_workers=n_workers or 1, elsewhere=elsewhere)
    return _finish("run", directories, root, failures, is_group=True)
