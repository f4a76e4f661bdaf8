"""Cells measured by several processes: each imports once, takes one cell at a time, and may die without the others."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path

from study_cells import Key, Row, measure

from lurefs.config import RunConfig
from lurefs.errors import UserError


def measured(cells: Mapping[Key, RunConfig], n_workers: int, run_root: Path | None) -> Iterator[tuple[Key, Row | str]]:
    """Yield each cell with its row, or with the reason why it has none, as they are done, seed after seed.

    Args:
        cells: What to measure.
        n_workers: How many processes.
        run_root: Where run directories are meanwhile; None is the system's folder for such.
    """
    waiting = deque(sorted(cells, key=lambda key: key[2]))  # a part of the study then says something of all of it
    idle: list[Connection] = []
    busy: dict[Connection, Key] = {}
    if run_root is not None:
        run_root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="study-", dir=run_root, ignore_cleanup_errors=True) as scratch:
        try:
            while waiting or busy:
                while waiting and len(busy) < max(1, n_workers):
                    connection = idle.pop() if idle else start_worker(Path(scratch))
                    busy[connection] = waiting.popleft()
                    connection.send((busy[connection], cells[busy[connection]]))
                for connection in wait(list(busy)):
                    assert isinstance(connection, Connection)
                    key = busy.pop(connection)
                    try:
                        result = connection.recv()
                        idle.append(connection)
                    except (EOFError, ConnectionError):
                        result = "the process that measured it was killed; was there memory enough?"
                    yield key, result
        finally:
            for connection in [*idle, *busy]:
                connection.close()


def start_worker(scratch: Path) -> Connection:
    """Start a process that measures what it is sent, until the connection is closed."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=work, args=(theirs, scratch), daemon=True).start()
    theirs.close()
    return ours


def work(connection: Connection, scratch: Path) -> None:
    """Measure cells until there are no more; tidy up and end when the command itself was killed."""
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # the bars of a run would cover the study's own
    is_warm = False
    while True:
        try:
            key, config = connection.recv()
        except EOFError:
            return
        if not is_warm:
            warm_up(key, config, scratch)
            is_warm = True
        try:
            result: Row | str = measure(key, config, scratch)
        except UserError as error:
            result = str(error)
        except Exception:
            result = traceback.format_exc().rstrip()
        connection.send(result)


def warm_up(key: Key, config: RunConfig, scratch: Path) -> None:
    """Measure a short cell that nobody reads, lest what is imported and set up late be on the first cell's bill."""
    with contextlib.suppress(Exception):  # if something is wrong, the cell itself will say so
        measure(key, replace(config, learner=replace(config.learner, epochs=1)), scratch)
