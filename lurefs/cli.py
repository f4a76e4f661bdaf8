"""The command line `lurefs`. Only this module exits the process, and prints errors without a traceback."""

from __future__ import annotations

import codecs
import io
import os
import re
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lurefs import __version__
from lurefs.errors import UserError, first_line, of_the_machine, without_secrets
from lurefs.interrupts import ended_by_signals, interruption_first

if TYPE_CHECKING:
    import argparse

EXIT_USER_ERROR = 2
EXIT_UNFORESEEN = 70
EXIT_BROKEN_PIPE = 141


PLAIN_ERRORS = "lurefs.plain"
PLAIN = {"−": "-", "–": "-", "─": "-", "×": "x", "…": ".", "\N{NO-BREAK SPACE}": " ", "\N{NARROW NO-BREAK SPACE}": " "}
"""What a terminal or file without UTF-8 gets in place of a character; all others become "?"."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return the text in place of characters that cannot be shown, and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


codecs.register_error(PLAIN_ERRORS, _plain)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 success, 1 failures or differences, 2 an error that the user can fix.

    Ctrl-C exits with 130, SIGTERM with 143. An error that nobody foresaw ends with 70, one line, and the path of its
    traceback.
    """
    with ended_by_signals(_interrupted(sys.argv[1:] if arguments is None else arguments)):
        _main(arguments)


def _main(arguments: Sequence[str] | None) -> None:
    from lurefs import plugins

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN_ERRORS)
    try:
        parsed = parse(arguments)
        with interruption_first(), plugins.code_allowed(getattr(parsed, "allow_code", False)):
            code = parsed.run(parsed)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {without_secrets(str(error))}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:  # the reader of the output, e.g. `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except Exception as error:
        if (of_machine := of_the_machine(error)) is not None:
            print(f"error: {without_secrets(str(of_machine))}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        print(_report(error, sys.argv[1:] if arguments is None else arguments), file=sys.stderr)
        sys.exit(EXIT_UNFORESEEN)
    if code:
        sys.exit(code)


def _interrupted(arguments: Sequence[str]) -> str:
    """Return what a command says that ends by a signal; of several processes on one run only the first says it."""
    if os.environ.get("RANK", "0") != "0":
        return ""
    kept = "interrupted: all that was finished is kept (chunks, features, scores); the same command resumes"
    if os.environ.get("WORLD_SIZE", "1") != "1":  # the options of torchrun are not known here
        return kept
    started_by = ["uv", "run"] if "UV_RUN_RECURSION_DEPTH" in os.environ else []
    return f"{kept}:\n  {shlex.join([*started_by, 'lurefs', *arguments])}"


def _report(error: Exception, arguments: Sequence[str]) -> str:
    """Save the traceback of an unforeseen error; return one line on it."""
    import tempfile
    import traceback

    text = f"lurefs {__version__}, Python {sys.version}\nlurefs {shlex.join(arguments)}\n"
    saved = "its traceback could not be saved"
    try:
        text += "".join(traceback.format_exception(error))
        with tempfile.NamedTemporaryFile("wb", prefix="lurefs-error-", suffix=".txt", delete=False) as file:
            file.write(without_secrets(text).encode(errors=PLAIN_ERRORS))
            saved = f"please report it with {file.name}"
    except OSError:
        print(without_secrets("".join(traceback.format_exception(error))), file=sys.stderr)
    words = without_secrets(first_line(error))[:200]
    return f"error: lurefs failed ({type(error).__name__}: {words}), which it should not; {saved}"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; the parsed `run` is a function from the arguments to the exit code."""
    import argparse  # late like all that is imported in this file, so that a signal meets a handler early

    from lurefs.commands import (
        cache,
        compare,
        episodes,
        frozen,
        listing,
        plan,
        push,
        report,
        reproduce,
        run,
        sweep,
        views,
    )

    parser = argparse.ArgumentParser(
        prog="lurefs",
        description="Pre-train image backbones online with Learn, Unlearn, Relearn, and measure how they transfer "
        "from a handful of labels.",
    )
    parser.add_argument("--version", action="version", version=f"lurefs {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (run, frozen, sweep, reproduce, report, compare, plan, push, views, listing, episodes, cache):
        command.add_parser(commands)
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; overrides and runs may come before and after options, unlike in plain argparse."""
    for word in sys.argv[1:] if arguments is None else arguments:
        if re.search("[\0\ud800-\udc7f\udd00-\udfff]", word):  # bytes of file names are \udc80 to \udcff
            raise UserError(f"{word!r} is no text", "words without NUL and in UTF-8", "correct it")
    parser = make_parser()
    parsed, rest = parser.parse_known_args(arguments)
    words = next((getattr(parsed, name) for name in ("overrides", "runs") if hasattr(parsed, name)), None)
    if rest and (words is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if words is not None:
        words += rest
    return parsed
