"""The command line `lurefs`. Only this module exits the process, and prints errors without a traceback."""

from __future__ import annotations

import argparse
import codecs
import errno
import io
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence

from lurefs import __version__, plugins
from lurefs.commands import cache, compare, episodes, frozen, listing, plan, push, report, reproduce, run, sweep, views
from lurefs.errors import UserError, first_line, without_secrets

COMMANDS = (run, frozen, sweep, reproduce, report, compare, plan, push, views, listing, episodes, cache)
EXIT_USER_ERROR = 2
EXIT_UNFORESEEN = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
NO_ACCESS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EACCES: "allow it, or choose another folder",
    errno.EPERM: "allow it, or choose another folder",
    errno.EROFS: "choose another folder",
    errno.ENAMETOOLONG: "give a shorter path or name",
    errno.ELOOP: "give a path without circles of links",
    errno.EIO: "check the disk",
    errno.ESTALE: "mount the file system again",
}
"""Errors of the file system that the user can fix, and how."""


PLAIN_ERRORS = "lurefs.plain"
PLAIN = {"−": "-", "–": "-", "─": "-", "×": "x", "…": ".", "\N{NO-BREAK SPACE}": " ", "\N{NARROW NO-BREAK SPACE}": " "}
"""What a terminal or file without UTF-8 gets in place of a character; all others become "?"."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return the text in place of characters that cannot be shown, and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


codecs.register_error(PLAIN_ERRORS, _plain)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 success, 1 failures or differences, 2 an error that the user can fix, 130 Ctrl-C.

    An error that nobody foresaw ends with 70, one line, and the path of its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN_ERRORS)
    try:
        parsed = parse(arguments)
        with plugins.code_allowed(getattr(parsed, "allow_code", False)):
            code = parsed.run(parsed)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {without_secrets(str(error))}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:  # the reader of the output, e.g. `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ACCESS:
            print(f"error: {_of_file_system(error)}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        print(_report(error, sys.argv[1:] if arguments is None else arguments), file=sys.stderr)
        sys.exit(EXIT_UNFORESEEN)
    if code:
        sys.exit(code)


def _of_file_system(error: OSError) -> UserError:
    return UserError(
        f"{error.filename or 'a file'} cannot be used: {error.strerror}",
        "files and folders that can be read and written",
        f"{NO_ACCESS[error.errno or 0]}; the same command resumes from the last checkpoint",
    )


def _report(error: Exception, arguments: Sequence[str]) -> str:
    """Save the traceback of an unforeseen error; return one line on it."""
    text = f"lurefs {__version__}, Python {sys.version}\nlurefs {shlex.join(arguments)}\n"
    saved = "its traceback could not be saved"
    try:
        with tempfile.NamedTemporaryFile("w", prefix="lurefs-error-", suffix=".txt", delete=False) as file:
            file.write(without_secrets(text + "".join(traceback.format_exception(error))))
            saved = f"please report it with {file.name}"
    except (OSError, UnicodeError):
        print(without_secrets("".join(traceback.format_exception(error))), file=sys.stderr)
    words = without_secrets(first_line(error))[:200]
    return f"error: lurefs failed ({type(error).__name__}: {words}), which it should not; {saved}"


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
