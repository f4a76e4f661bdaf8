"""Errors that a user can fix, with messages in three parts. Any module may raise them; only `cli` exits."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path

_NO_ACCESS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "allow larger files, e.g. with ulimit -f, or choose another folder",
    errno.EACCES: "allow it, or choose another folder",
    errno.EPERM: "allow it, or choose another folder",
    errno.EROFS: "choose another folder",
    errno.ENAMETOOLONG: "give a shorter path or name",
    errno.ELOOP: "give a path without circles of links",
    errno.EIO: "check the disk",
    errno.ESTALE: "mount the file system again",
}
"""Errors of the file system that the user can fix, and how."""
KEYS = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN")
"""Environment variables whose values must not be printed or stored."""
_PASSWORD = re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)|(?<=://)[^/\s:@'\"]{16,}(?=@)")


class UserError(Exception):
    """A mistake in a config, a file or a call that the user can fix.

    Args:
        problem: What was wrong, with the offending value.
        expected: What would have been accepted.
        fix: What to do about it.
    """

    def __init__(self, problem: str, expected: str, fix: str) -> None:
        super().__init__(problem, expected, fix)
        self.problem = problem
        self.expected = expected
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}\n  expected: {self.expected}\n  to fix:   {self.fix}"


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most similar to `word`, or None if none is close."""
    found = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return found[0] if found else None


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or its type's name if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def of_the_machine(error: BaseException) -> UserError | None:
    """Return an error of the file system or of memory that the user can fix in three parts; None for any other."""
    if isinstance(error, UserError):
        return error
    kept = "the same command resumes from the last checkpoint"
    if is_out_of_memory(error):
        return UserError(
            f"the memory of this machine does not suffice: {first_line(error)}",
            "settings and data that fit into it",
            f"lower the batch size, the number of images or of workers; {kept}",
        )
    if isinstance(error, OSError) and error.errno in _NO_ACCESS:
        return UserError(
            f"{error.filename or 'a file'} cannot be used: {error.strerror}",
            "files and folders that can be read and written",
            f"{_NO_ACCESS[error.errno]}; {kept}",
        )
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether Python, NumPy or torch, on a CPU or a GPU, could not get the memory that they asked for."""
    of_torch = "can't allocate memory", "not enough memory", "out of memory"
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in of_torch)
    )


def without_secrets(text: str) -> str:
    """Return a text without passwords in addresses, such as https://user:secret@host, and without keys of services."""
    for name in KEYS:
        if value := os.environ.get(name, "").strip():
            text = text.replace(value, f"<{name}>")
    return _PASSWORD.sub("<password>", text)


def unknown_name(kind: str, name: str, candidates: Iterable[str]) -> UserError:
    """Build the error for a name that is not among `candidates`; it suggests the nearest one."""
    known = sorted(candidates)
    guess = nearest(name, known)
    return UserError(
        f"unknown {kind} {name!r}",
        f"one of {', '.join(known)}" if known else f"a {kind} that exists",
        f"did you mean {guess!r}?" if guess else f"choose a {kind} from this list",
    )


def unwritable(output: Path, error: OSError) -> UserError:
    """Build the error for a folder of results that cannot be written: an `--output`, or a run's own."""
    return UserError(
        f"{output} cannot be written: {error.strerror or error}",
        "a folder that can be created and written to",
        "make it writable, or give another folder: --output, or --run-dir for the page of a run",
    )


def not_installed(setting: str, extra: str, error: ImportError) -> UserError:
    """Build the error for a setting that needs a library of an optional group of lurefs, which cannot be imported."""
    return UserError(
        f"{setting} needs a library that cannot be imported: {first_line(error)}",
        f"lurefs with its optional group {extra!r}",
        f'pip install "lurefs[{extra}]"',
    )
