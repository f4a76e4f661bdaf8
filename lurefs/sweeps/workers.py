"""Worker processes for calls: each imports once and takes one call at a time, and may die without the others.

Processes are spawned, so a function must be importable by name, and its arguments and result must be picklable.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from lurefs import plugins
from lurefs.errors import of_the_machine, without_secrets
from lurefs.interrupts import interruption_first


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a call has no result.

    Attributes:
        reason: Text for the user: a `UserError` in its three parts, a traceback, or how the process died.
        is_user_error: Whether the user can fix it.
    """

    reason: str
    is_user_error: bool = False

    @property
    def headline(self) -> str:
        """The reason in one line: the last line of a traceback, otherwise the first line."""
        lines = self.reason.splitlines() or [""]
        return lines[-1] if lines[0].startswith("Traceback") else lines[0]


@dataclass(frozen=True)
class Call:
    """A function and its arguments, with the folders of plug-in modules that lie beside a recipe."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    folders: tuple[Path, ...] = ()


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection


@dataclass
class Workers:
    """Up to `n_workers` processes, started when there is work for them; leaving the `with` block ends them.

    Attributes:
        n_workers: Maximum number of processes, at least one.
    """

    n_workers: int
    _idle: list[_Worker] = field(default_factory=list)
    _busy: dict[Connection, _Worker] = field(default_factory=dict)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self._idle, *self._busy.values()]:
            worker.connection.close()
        for worker in self._busy.values():  # idle workers end by themselves
            worker.process.terminate()

    def results(self, calls: Mapping[str, Call]) -> Iterator[tuple[str, Any]]:
        """Yield each key with the result of its call, or with a `Failure`, as calls finish."""
        waiting = deque(calls.items())
        keys: dict[Connection, str] = {}
        while waiting or keys:
            while waiting and len(keys) < max(1, self.n_workers):
                key, call = waiting.popleft()
                worker = self._idle.pop() if self._idle else _start()
                self._busy[worker.connection], keys[worker.connection] = worker, key
                worker.connection.send(call)
            for connection in wait(list(keys)):
                assert isinstance(connection, Connection)
                worker = self._busy.pop(connection)
                try:
                    result = connection.recv()
                    self._idle.append(worker)
                except (EOFError, ConnectionError):
                    result = Failure(reason=_last_words(worker.process))
                yield keys.pop(connection), result


def answer(call: Call) -> Any:
    """Make a call; return its result, or a `Failure` if it raises an exception."""
    try:
        with interruption_first(), plugins.modules_in(*call.folders):
            return call.function(*call.arguments)
    except Exception as error:
        if (told := of_the_machine(error)) is not None:
            return Failure(reason=str(told), is_user_error=True)
        return Failure(reason=without_secrets(traceback.format_exc()).rstrip())


def _start() -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when a process starts; more threads would be slow
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")  # otherwise the new process would run a user's script again
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the new process inherits it: see `_work`
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        sys.modules["__main__"] = main
    theirs.close()
    return _Worker(process=process, connection=ours)


def _work(connection: Connection) -> None:
    """Answer calls until there are no more, or until the parent process ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and decides
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # messages would disturb the progress bar
    while True:
        try:
            call = connection.recv()
        except EOFError:
            return
        connection.send(answer(call))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _last_words(process: BaseProcess) -> str:
    process.join(timeout=10)
    code = process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; was there enough memory?" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended by itself with code {code}"
