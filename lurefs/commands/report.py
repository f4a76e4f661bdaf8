"""The command `lurefs report`: one page from finished runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lurefs import console
from lurefs.runs.directory import RunDirectory
from lurefs.runs.find import find_runs


def add_parser(commands: Any) -> None:
    """Add the command `report` to an argument parser's commands."""
    parser = commands.add_parser("report", help="write one page from finished runs", description="Write report.html.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run, a folder of runs, a pattern, or a run's name")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where the page goes (default: the first RUN)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the page and print its path; return the exit code.

    Raises:
        UserError: A run cannot be found or is unfinished, or the folder cannot be written.
    """
    from lurefs.reporting.page import write_report

    paths = find_runs(arguments.runs)
    first = Path(arguments.runs[0]) if Path(arguments.runs[0]).is_dir() else paths[0]
    page = write_report([RunDirectory(path) for path in paths], arguments.output or first)
    console.print_paths([("report", page)])
    return 0
