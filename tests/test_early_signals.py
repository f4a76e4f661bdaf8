"""Signals in the first moments of a command: from the first line of lurefs on, none is answered by a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest

LIGHT = {"__future__", "lurefs", "lurefs.__main__"}
"""What may be imported before Ctrl-C is no longer Python's."""


def test_the_command_takes_ctrl_c_from_python_before_it_imports_anything_else() -> None:
    code = """
import _signal, signal, sys
before = set(sys.modules)
def tell(number, handler):
    print(*sorted(set(sys.modules) - before))
    sys.exit(handler != signal.SIG_DFL)
_signal.signal = tell
import lurefs.__main__
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= LIGHT


def test_the_installed_command_begins_there() -> None:
    (command,) = entry_points(group="console_scripts", name="lurefs")
    assert command.module == "lurefs.__main__"


def test_importing_the_package_leaves_signals_as_they_are() -> None:
    code = "import signal, lurefs, lurefs.cli; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize("moment", ["import shlex", "import difflib", "import threading"])
def test_ctrl_c_while_the_command_loads_ends_it_without_a_traceback(moment: str, tmp_path: Path) -> None:
    """A module of the standard library is replaced by one that waits for the signal."""
    name = moment.split()[1]
    (tmp_path / f"{name}.py").write_text("import os, time\nos.write(1, b'loading')\ntime.sleep(60)\n")
    command = subprocess.Popen(
        [sys.executable, "-c", "import lurefs.__main__"],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert command.stdout is not None and command.stdout.read(7) == b"loading"
    command.send_signal(signal.SIGINT)
    _, error = command.communicate(timeout=60)
    assert (command.returncode, error) == (-signal.SIGINT, b"")


def test_ctrl_c_while_the_handlers_are_set_is_answered_by_them() -> None:
    code = """
import os, signal, time
set_handler = signal.signal
def interrupt_after(number, handler):
    before = set_handler(number, handler)
    if number == signal.SIGINT and handler not in (signal.SIG_IGN, signal.SIG_DFL):
        os.kill(os.getpid(), number)
    return before
signal.signal = interrupt_after
from lurefs.interrupts import ended_by_signals
with ended_by_signals("all is kept"):
    time.sleep(60)
"""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "all is kept\n")
    assert time.monotonic() - start < 30
