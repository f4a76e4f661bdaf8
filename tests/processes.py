"""Commands of lurefs in processes of their own, which have the libraries already: forks of one that imports them once.

A new Python needs six seconds of a core for torch, timm and scikit-learn. Tests of what happens while a process starts,
or of how it finds its modules, start one all the same.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

LIBRARIES = (
    *("torch._dynamo", "timm", "learn2learn", "sklearn.linear_model", "matplotlib.pyplot", "pyarrow.parquet"),
    *("rich.progress", "lurefs.stages.run", "lurefs.sweeps.cells", "lurefs.comparing.finished_runs"),
)


def context() -> ForkServerContext:
    """Return what starts processes that have the libraries already."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(LIBRARIES))
    return found


class Lurefs:
    """A command of lurefs, or a script, that has been started in a group of processes of its own.

    Attributes:
        pid: Of its process, and of its group.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        self._output = output
        self._process = context().Process(target=_be, args=(list(arguments), dict(environment), output))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def output(self) -> str:
        """What it has printed on stdout and stderr."""
        return self._output.read_text(encoding="utf-8") if self._output.exists() else ""

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def wait(self) -> int:
        """Wait until it ends; return its exit code, which is negative for a signal."""
        self._process.join(timeout=400)
        assert self._process.exitcode is not None, f"it goes on:\n{self.output}"
        return self._process.exitcode

    def finish(self) -> str:
        """Wait until it ends, without an error; return what it printed."""
        code = self.wait()
        assert code == 0, f"it ended with {code}:\n{self.output}"
        return self.output

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()
        self._process.join()


def _be(arguments: list[str], environment: dict[str, str], output: Path) -> None:
    multiprocessing.set_start_method(None, force=True)  # as in a new Python: it is inherited
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked if workers of ours started the first process
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1), os.dup2(descriptor, 2)
    import torch

    torch.set_num_threads(1)
    from lurefs.cli import main

    if arguments[0].endswith(".py"):
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        main(arguments)
