"""The command line `lurefs`. Only this module exits the process, and prints errors without a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lurefs import __version__
from lurefs.commands import cache, compare, episodes, frozen, listing, plan, push, report, reproduce, run, sweep, views
from lurefs.errors import UserError

COMMANDS = (run, frozen, sweep, reproduce, report, compare, plan, push, views, listing, episodes, cache)
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 success, 1 failures or differences, 2 an error that the user can fix, 130 Ctrl-C."""
    try:
        parsed = parse(arguments)
        code = parsed.run(parsed)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:  # the reader of the output, e.g. `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    if code:
        sys.exit(code)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; the parsed `run` is a function from the arguments to the exit code."""
    parser = argparse.ArgumentParser(
        prog="lurefs",
        description="Pre-train image backbones online with Learn, Unlearn, Relearn, and measure how they transfer "
        "from a handful of labels.",
    )
    parser.add_argument("--version", action="version", version=f"lurefs {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; overrides and runs may come before and after options, unlike in plain argparse."""
    parser = make_parser()
    parsed, rest = parser.parse_known_args(arguments)
    words = next((getattr(parsed, name) for name in ("overrides", "runs") if hasattr(parsed, name)), None)
    if rest and (words is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if words is not None:
        words += rest
    return parsed
