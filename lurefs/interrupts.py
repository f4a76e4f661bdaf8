"""Ends a command within a second of Ctrl-C or SIGTERM, also while a library computes and Python cannot be interrupted.

Every file of a run is whole or absent at any moment, so a command may end before it has tidied up.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import FrameType
from typing import NoReturn

GRACE_SECONDS = 0.6
"""How long a command may take to tidy up: end its processes, and close what it has open."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = "\x1b[?25h"
_arrived: list[int] = []
"""The number of the signal that ends this process, once it has arrived."""


@contextmanager
def ended_by_signals(words: str) -> Iterator[None]:
    """End the process if SIGINT or SIGTERM arrives while the block runs; the exit code is 128 + the signal's number.

    A `KeyboardInterrupt` leaves the block. If that takes over `GRACE_SECONDS`, the process ends all the same; also if a
    library catches it, or raises an exception of its own in its place. A signal that is ignored stays ignored. In
    another thread than the main one, signals do what they did before.

    Args:
        words: Printed on stderr before the process ends; empty for none.
    """
    handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _restore_in_children()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    printing = threading.Lock()

    def end(number: int) -> NoReturn:
        if words and printing.acquire(blocking=False):
            os.write(2, f"{_SHOW_CURSOR if os.isatty(2) else ''}{words}\n".encode(errors="replace"))
        _end_children()
        os._exit(128 + number)

    def watch() -> None:
        with os.fdopen(reading, "rb", buffering=0) as signals:
            while arrived := signals.read(1):
                if arrived[0] in handled:
                    time.sleep(GRACE_SECONDS)
                    end(arrived[0])

    threading.Thread(target=watch, daemon=True).start()
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.getsignal(number) for number in handled}
    try:
        try:
            for number in handled:
                signal.signal(number, _interrupt)
            yield
        finally:
            for number, handler in before.items():
                if signal.getsignal(number) is _interrupt:  # not if it is ignored since the process ends
                    signal.signal(number, handler)
    except KeyboardInterrupt:
        if not _arrived:  # raised by Python's own handler, or by a library
            _arrived.append(signal.SIGINT)
    finally:
        if _arrived:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            end(_arrived[0])
        signal.set_wakeup_fd(wakeup)
        os.close(writing)


@contextmanager
def interruption_first() -> Iterator[None]:
    """Raise the interruption where a library that tidies up after it has put an exception of its own in its place."""
    try:
        yield
    except Exception:
        if _arrived:
            raise KeyboardInterrupt from None
        raise


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _arrived.append(number)
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # a second Ctrl-C must not break the tidying up
    sys.unraisablehook = _say_nothing  # called where the exception meets a finaliser, which cannot pass it on
    raise KeyboardInterrupt


def _say_nothing(_: object) -> None:
    """Take the place of `sys.unraisablehook` in a process that ends."""


def _end_children() -> None:
    """End the processes that libraries have started for this one, which may wait for it for ever."""
    multiprocessing = sys.modules.get("multiprocessing")
    for child in multiprocessing.active_children() if multiprocessing is not None else ():
        with suppress(Exception):
            child.terminate()


@cache
def _restore_in_children() -> None:
    """Give forked processes Python's own handlers: theirs would write into the pipe of this one."""

    def restore() -> None:
        _arrived.clear()
        if signal.getsignal(signal.SIGTERM) is _interrupt:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    os.register_at_fork(after_in_child=restore)
