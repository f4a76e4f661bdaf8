"""What is called is of libraries: a new process can import it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from lurefs import plugins
from lurefs.sweeps.workers import Call, Failure, Workers


def test_a_call_that_fails_or_whose_process_is_killed_costs_no_other() -> None:
    calls = {
        "killed": Call(signal.raise_signal, (signal.SIGKILL,)),
        "ended": Call(os._exit, (3,)),
        "wrong": Call(int, ("x",)),
        "unknown": Call(plugins.resolve, ("dataset", "icon")),
        "fine": Call(int, ("7",)),
        "too": Call(int, ("8",)),
    }
    with Workers(2) as workers:
        found = dict(workers.results(calls))
    assert (found["fine"], found["too"]) == (7, 8)
    assert all(isinstance(found[key], Failure) for key in ("killed", "ended", "wrong", "unknown"))
    assert found["unknown"].is_user_error and found["unknown"].headline == "unknown dataset 'icon'"
    assert "to fix:   did you mean 'icons'?" in found["unknown"].reason
    assert found["wrong"].headline.startswith("ValueError: invalid literal") and not found["wrong"].is_user_error
    assert found["killed"].headline == "its process was ended by SIGKILL; was there enough memory?"
    assert found["ended"].headline == "its process ended by itself with code 3"


def test_a_process_takes_one_call_after_another_and_ends_with_the_block() -> None:
    with Workers(1) as workers:
        found = dict(workers.results({"a": Call(os.getpid), "b": Call(os.getpid)}))
        found |= dict(workers.results({"c": Call(os.getpid)}))
    (pid,) = set(found.values())
    assert pid != os.getpid()
    assert has_ended(pid)


def test_a_process_finds_plug_in_modules_in_the_folders_of_its_call_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "beside_workers.py").write_text("value = 7\n")
    resolve = (plugins.resolve, ("dataset", "beside_workers:value"))
    with Workers(1) as workers:
        found = dict(workers.results({"without": Call(*resolve)}))
        found |= dict(workers.results({"with": Call(*resolve, (tmp_path,))}))
        found |= dict(workers.results({"path": Call(eval, ("__import__('sys').path",))}))
    assert found["with"] == 7 and found["without"].is_user_error
    assert str(tmp_path) not in found["path"]


def test_an_interrupt_ends_a_process_that_is_at_work() -> None:
    with pytest.raises(KeyboardInterrupt), Workers(1) as workers:
        results = workers.results({"pid": Call(os.getpid), "at work": Call(time.sleep, (600,))})
        _, pid = next(results)
        raise KeyboardInterrupt
    assert has_ended(pid)


def has_ended(pid: int, within: float = 20.0) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                return True
        except ChildProcessError:
            return True
        time.sleep(0.05)
    return False
