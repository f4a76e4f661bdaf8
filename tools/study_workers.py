"""Cells measured by several processes: each imports once, takes one cell at a time, and may die without the others."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from study_cells import Key, measure

from lurefs.config.schema import RunConfig
from lurefs.records import Row
from lurefs.sweeps.workers import Call, Failure, Workers


def measured(
    cells: Mapping[Key, RunConfig], n_workers: int, run_root: Path | None
) -> Iterator[tuple[Key, Row | Failure]]:
    """Yield each cell with its row, or with the reason why it has none, as they are done, seed after seed.

    Args:
        cells: What to measure.
        n_workers: How many processes.
        run_root: Where run directories are meanwhile; None is the system's folder for such.
    """
    if run_root is not None:
        run_root.mkdir(parents=True, exist_ok=True)
    by_seed = sorted(cells, key=lambda key: key[2])  # a part of the study then says something of all of it
    with tempfile.TemporaryDirectory(prefix="study-", dir=run_root, ignore_cleanup_errors=True) as scratch:
        calls = {key: Call(measure, (key, cells[key], Path(scratch))) for key in by_seed}
        with Workers(n_workers, before_first=warm_up) as workers:
            yield from workers.results(calls)


def warm_up(key: Key, config: RunConfig, scratch: Path) -> None:
    """Measure a short cell that nobody reads, lest what is imported and set up late be on the first cell's bill."""
    with contextlib.suppress(Exception):  # if something is wrong, the cell itself will say so
        measure(key, replace(config, learner=replace(config.learner, epochs=1)), scratch)
