"""A command in this process, with a time limit: its exit code, and what it said."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
from pathlib import Path
from typing import Any

from lurefs.cli import main as command_line

TIME_LIMIT = 100.0
"""Seconds after which a command has hung."""


class Hung(BaseException):
    """A command did not end in time; no `Exception`, which a command could catch."""


def say(words: list[str], limit: float = TIME_LIMIT) -> tuple[int, str]:
    """Run a command in this process; return its exit code and what it said.

    Raises:
        Hung: It did not end in time.
    """
    out, err = io.StringIO(), io.StringIO()

    def stop(*_: Any) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    folder = os.getcwd()
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            signal.setitimer(signal.ITIMER_REAL, limit)
            command_line(words)
    except SystemExit as ended:
        code = ended.code or 0
    except Hung:
        raise
    except BaseException as error:
        code, said = 70, f"error: {type(error).__name__}: {error}"
        err.write(said)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.chdir(folder)
    said = err.getvalue()
    if code == 70 and (saved := re.search(r"please report it with (\S+)", said)):
        path = Path(saved[1])
        places = re.findall(r'File "([^"]+)", line (\d+)', path.read_text(errors="replace"))
        ours = [f"{Path(file).name}:{line}" for file, line in places if "lurefs/" in file or "episodes/" in file]
        said = said.replace("which it should not", " < ".join(ours[:-4:-1]))
        path.unlink(missing_ok=True)
    return int(code), said
