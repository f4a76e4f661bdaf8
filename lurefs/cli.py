"""The command `lurefs`: arguments to one call. Only here a process exits, or prints an error without a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lurefs import __version__
from lurefs.commands import compare, episodes, push, views
from lurefs.commands.listing import LISTS, _list
from lurefs.commands.report import _report
from lurefs.commands.run import STAGES, _run
from lurefs.commands.sweep import _sweep
from lurefs.errors import UserError

EXIT_FAILURE = 1
EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 not all of it, 2 something that the user can put right, 130 interrupted."""
    try:
        code = _dispatch(_parser().parse_args(arguments))
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:  # who read the output, e.g. `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    if code:
        sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lurefs",
        description="Pre-train image backbones online with Learn, Unlearn, Relearn, and measure how they transfer "
        "from a handful of labels.",
    )
    parser.add_argument("--version", action="version", version=f"lurefs {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stage, words in STAGES.items():
        command = commands.add_parser(stage, help=words, description=words.capitalize() + ".")
        command.add_argument("--config", metavar="NAME_OR_FILE", help="a recipe's name or a YAML file")
        command.add_argument("--run-dir", type=Path, metavar="DIR", help="where the results go (default: runs/<name>)")
        if stage == "run":
            command.add_argument(
                "--run-root", type=Path, metavar="DIR", help="name the run and its directory in DIR by its settings"
            )
        command.add_argument("--workers", type=int, metavar="N", help="processes that do a file's variants and seeds")
        command.add_argument("--dry-run", action="store_true", help="check everything and say what would be done")
        command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="settings that win over the file")
    sweep = commands.add_parser(
        "sweep", help="run a grid: backbones, strategies, seeds", description="Run all cells of a W&B sweep file."
    )
    sweep.add_argument("--config", required=True, metavar="NAME_OR_FILE", help="a sweep file's name or path")
    sweep.add_argument("--run-root", type=Path, metavar="DIR", help="where the runs go (default: what the file says)")
    sweep.add_argument("--workers", type=int, metavar="N", help="processes, or tasks of the Slurm array, at a time")
    sweep.add_argument(
        "--slurm", action="append", metavar="key=value", help="an option of sbatch: one array job, a task a cell"
    )
    sweep.add_argument("--dry-run", action="store_true", help="check everything and say what would be done")
    sweep.add_argument("overrides", nargs="*", metavar="key=value", help="values of the grid, settings of all cells")
    reproduce = commands.add_parser(
        "reproduce", help="run a finished run again and compare every number", description="Run again and compare."
    )
    reproduce.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a finished run")
    reproduce.add_argument("--output", type=Path, metavar="DIR", help="keep the new run here (default: it is deleted)")
    report = commands.add_parser("report", help="write one page from finished runs", description="Write report.html.")
    report.add_argument("runs", nargs="+", metavar="RUN", help="a run, a folder of runs, a pattern, or a run's name")
    report.add_argument("--output", type=Path, metavar="DIR", help="where the page goes (default: the first RUN)")
    compare.add_parser(commands)
    push.add_parser(commands)
    views.add_parser(commands)
    lists = commands.add_parser(
        "list", help="names and settings that a config can use", description="List names or settings."
    )
    lists.add_argument("kind", choices=["backbones", *LISTS, "settings"])
    lists.add_argument("pattern", nargs="?", default="", help="only what holds this text in its name")
    episodes.add_parser(commands)
    return parser


def _dispatch(arguments: argparse.Namespace) -> int:
    if arguments.command == "list":
        _list(arguments.kind, arguments.pattern)
    elif arguments.command == "episodes":
        episodes.run_action(arguments)
    elif arguments.command == "report":
        _report(arguments.runs, arguments.output)
    elif arguments.command == "compare":
        compare.run_command(arguments)
    elif arguments.command == "sweep":
        return _sweep(arguments)
    elif arguments.command == "reproduce":
        from lurefs.commands.reproduce import reproduce

        return 0 if reproduce(arguments.run_dir, arguments.output) else 1
    elif arguments.command == "push":
        return EXIT_FAILURE if push.run_command(arguments) else 0
    elif arguments.command == "views":
        views.run_command(arguments)
    else:
        return _run(arguments)
    return 0
