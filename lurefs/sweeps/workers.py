"""Calls in processes of their own: each process imports once, takes one call at a time, and may die without the others.

What is called must be importable by its name, and it and its arguments picklable: processes start from nothing.
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
from typing import Any

from lurefs.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a call has no result.

    Attributes:
        reason: For people: a `UserError` in its three parts, a traceback, or how the process died.
        is_user_error: Whether a user can put it right.
    """

    reason: str
    is_user_error: bool = False

    @property
    def headline(self) -> str:
        """The reason in one line: the last one of a traceback, the first one of all else."""
        lines = self.reason.splitlines() or [""]
        return lines[-1] if lines[0].startswith("Traceback") else lines[0]


@dataclass(frozen=True)
class Call:
    """A function and what it is called with."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection


@dataclass
class Workers:
    """Up to `n_workers` processes, started when there is work for them; leaving the block ends them.

    Attributes:
        n_workers: How many, at least one.
    """

    n_workers: int
    _idle: list[_Worker] = field(default_factory=list)
    _busy: dict[Connection, _Worker] = field(default_factory=dict)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self._idle, *self._busy.values()]:
            worker.connection.close()
        for worker in self._busy.values():  # one that is idle ends by itself
            worker.process.terminate()

    def results(self, calls: Mapping[str, Call]) -> Iterator[tuple[str, Any]]:
        """Yield each key with what its call returned, or with a `Failure`, as they are done."""
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
    """Make a call; return what it returns, or a `Failure`."""
    try:
        return call.function(*call.arguments)
    except UserError as error:
        return Failure(reason=str(error), is_user_error=True)
    except Exception:
        return Failure(reason=traceback.format_exc().rstrip())


def _start() -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read at the start: several processes of many threads are slow
    process.start()
    theirs.close()
    return _Worker(process=process, connection=ours)


def _work(connection: Connection) -> None:
    """Answer calls until there are no more, or until the command that sends them was killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command hears it too, and decides
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # what is said of one call would cover the rest
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
        hint = "; was there memory enough?" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended by itself with code {code}"
