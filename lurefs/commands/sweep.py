"""The command `lurefs sweep`: all cells of a grid."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lurefs import plugins
from lurefs.commands.run import WORDS, finish, note_finished, print_dry_run, take_first_word
from lurefs.config.load import check_workers
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory

if TYPE_CHECKING:
    from lurefs.sweeps.workers import Failure


def add_parser(commands: Any) -> None:
    """Add the command `sweep` to an argument parser's commands."""
    text = "Run all cells of a W&B sweep file, or of a recipe with lists: 'backbone.name=[resnet18, resnet34]'."
    parser = commands.add_parser("sweep", help="run a grid: backbones, strategies, seeds", description=text)
    parser.add_argument("--config", metavar="NAME_OR_FILE", help="name or path of a sweep file or recipe")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where the runs go (default: what the file says)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes, or Slurm tasks, at a time")
    parser.add_argument(
        "--slurm", action="append", metavar="key=value", help="an option of sbatch; submits one array job"
    )
    parser.add_argument("--allow-code", action="store_true", help=plugins.ALLOW_CODE_HELP)
    parser.add_argument("--dry-run", action="store_true", help="check everything and say what would be done")
    parser.add_argument(
        "overrides", nargs="*", metavar=WORDS, help="a grid (as --config), values, settings of all cells"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run a grid's cells, then print and write the results of all; return the exit code.

    Raises:
        UserError: No file is named or it is not a grid, a cell is refused, or Slurm refuses the job.
    """
    from lurefs.sweeps import cells, grid

    n_workers = None if arguments.workers is None else check_workers("--workers", arguments.workers)
    take_first_word(arguments)
    if arguments.config is None:
        raise UserError(
            "no grid is named", "a W&B sweep file, or a recipe and lists of values", "try --config compare_backbones"
        )
    asked = grid.read_grid(arguments.config, arguments.overrides, arguments.run_dir)
    root, elsewhere = asked.run_root, None
    plans = cells.plan_runs(grid.cells_of(asked))
    directories = {name: RunDirectory(root / name) for name in plans}
    if arguments.slurm is not None:
        from lurefs.sweeps import slurm

        options = slurm.read_options(arguments.slurm)
        elsewhere = partial(slurm.results, folder=root / ".slurm", options=options, n_at_a_time=n_workers)
    waiting = cells.unfinished(plans, directories)
    if arguments.dry_run:
        cells.refuse_early(waiting, directories, "run", is_here=elsewhere is None)
        print_dry_run(plans, waiting, root, n_shown=1)
        return 0
    note_finished(plans, waiting)
    failures: dict[str, Failure] = {}
    if waiting:
        failures = cells.run_in_workers(waiting, directories, "run", n_workers=n_workers or 1, elsewhere=elsewhere)
    return finish("run", directories, root, failures, is_group=True)
