"""Executors that score blocks of episodes: in this process, in several on this machine, or on a Dask cluster.

An executor takes a function, the arguments that all calls share, and a list of items. It calls the function once per
item and yields the results in the items' order. Results do not depend on the executor.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """A callable that runs `function(*shared, item)` for every item."""

    def __call__(
        self, function: Callable[..., Result], shared: tuple[Any, ...], items: Sequence[Any]
    ) -> Iterator[Result]:
        """Yield the results in the order of the items."""
        ...


def serial() -> Executor:
    """Return an executor that runs in this process, one item after another."""

    def run(function: Callable[..., Result], shared: tuple[Any, ...], items: Sequence[Any]) -> Iterator[Result]:
        return (function(*shared, item) for item in items)

    return run


def joblib(n_workers: int = -1) -> Executor:
    """Return an executor that runs in several processes of this machine, with one BLAS thread each.

    Args:
        n_workers: Number of processes; -1 is one per core. They share arrays by memory map, without a copy.

    Raises:
        ValueError: `n_workers` is 0.
    """
    if n_workers == 0:
        raise ValueError("n_workers is 0; it must be a number of processes, or -1 for one per core")

    def run(function: Callable[..., Result], shared: tuple[Any, ...], items: Sequence[Any]) -> Iterator[Result]:
        from joblib import Parallel, delayed, parallel_config

        with parallel_config(backend="loky", inner_max_num_threads=1):
            with _children_that_end_quietly():
                results = Parallel(n_jobs=n_workers, return_as="generator")(
                    delayed(function)(*shared, item) for item in items
                )
            try:
                for result in results:  # noqa: UP028 (`yield from` would close it first)
                    yield result
            finally:
                with warnings.catch_warnings():  # joblib warns of work that nobody takes, as after `target_ci95`
                    warnings.filterwarnings("ignore", category=UserWarning, message=".*to limit unnecessary comp")
                    results.close()

    return run


@contextmanager
def _children_that_end_quietly() -> Iterator[None]:
    """Let processes of joblib that start in the block end without words if this one is interrupted.

    Workers get no Ctrl-C of a terminal; they are ended by their parent. And the process that removes their semaphores
    and memory maps afterwards says nothing about it.
    """
    from joblib.externals.loky.backend import resource_tracker

    warned = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [warned, f"ignore:::{resource_tracker.__name__}"]))
    try:
        resource_tracker.ensure_running()
    finally:
        del os.environ["PYTHONWARNINGS"]
        os.environ.update({} if warned is None else {"PYTHONWARNINGS": warned})
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker as of_python

    of_python.ensure_running()  # joblib would start it later, which unblocks the signal
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # processes and threads inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def dask(address: str | None = None, n_workers: int = 2) -> Executor:
    """Return an executor that runs on a Dask cluster; shared arguments are sent to each worker once.

    Args:
        address: Address of the scheduler, e.g. `tcp://10.0.0.1:8786`; None starts a cluster on this machine.
        n_workers: Number of processes of a cluster on this machine, one thread each.

    Raises:
        ValueError: `n_workers` is below 1.
    """
    if n_workers < 1:
        raise ValueError(f"n_workers is {n_workers}; it must be at least 1")

    def run(function: Callable[..., Result], shared: tuple[Any, ...], items: Sequence[Any]) -> Iterator[Result]:
        from distributed import Client, LocalCluster

        if address is not None:
            check_cluster(address)
            with Client(address) as client:
                yield from _gather(client, function, shared, items)
            return
        with (
            LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield from _gather(client, function, shared, items)

    return run


def check_cluster(address: str) -> None:
    """Check that a Dask scheduler answers, within `distributed.comm.timeouts.connect` of Dask's settings (30 s).

    Raises:
        OSError: It is no address, nobody listens there, or something else does.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from distributed.comm import connect

    async def connect_once() -> None:
        await (await connect(address)).close()

    try:
        with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has an event loop already
            pool.submit(lambda: asyncio.run(connect_once())).result()
    except Exception as error:  # of many kinds: what answers may be any program
        raise OSError(f"no Dask scheduler answers at {address!r}: {error}") from error


def _gather(
    client: Any, function: Callable[..., Result], shared: tuple[Any, ...], items: Sequence[Any]
) -> Iterator[Result]:
    sent = client.scatter(list(shared), broadcast=True)
    futures = [client.submit(function, *sent, item, pure=False) for item in items]
    for future in futures:
        yield future.result()
        future.release()
