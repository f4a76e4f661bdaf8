"""The command `lurefs views`: a saved workspace and a report at W&B for finished runs."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from lurefs.commands.push import check_online
from lurefs.errors import not_installed
from lurefs.runs.directory import RunDirectory
from lurefs.runs.find import find_runs


def add_parser(commands: Any) -> None:
    """Add the command `views` to an argument parser's commands."""
    text = "Make a saved workspace and a report at W&B for runs that were sent there."
    parser = commands.add_parser("views", help="a workspace and a report at W&B for these runs", description=text)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run, or a folder of runs")
    parser.add_argument("--dry-run", action="store_true", help="print both as JSON, and save nothing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Save the workspace and the report at W&B, or print them as JSON; return the exit code.

    Raises:
        UserError: wandb-workspaces is not installed, a name leads to no run, or there is no key.
    """
    try:
        from lurefs.tracking import views
    except ImportError as error:
        raise not_installed("lurefs views", "wandb", error) from error
    content = views.read_content([RunDirectory(path) for path in find_runs(arguments.runs)])
    if arguments.dry_run:
        print(json.dumps(views.specifications(content, content.entity or "ENTITY"), indent=2))
        return 0
    check_online(os.environ)
    for label, url in views.save(content).items():
        print(f"{label:<10} {url}")
    return 0
