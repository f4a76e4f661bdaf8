"""Memory and time that large tasks take: peak resident memory and processor time, each row in a process of its own.

    OMP_NUM_THREADS=1 uv run python tools/load.py [--only NAME ...] [--share 1.0]

`--share` makes each task smaller, for a quick look. The features lie on disk, 2 GB of them, and are mapped into memory:
the pages of the file that were read count as resident, although the system may drop them at any time. The second
column leaves them out.
"""

from __future__ import annotations

import argparse
import importlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from episodes import (
    EpisodeSpec,
    EpisodeTable,
    FeatureBank,
    Manifest,
    Probe,
    collect,
    draw_manifest,
    make_manifest,
    score,
)
from episodes.bank import write_bank
from episodes.confusion import count_confusions
from episodes.metrics import empty_reliability
from episodes.probes import logistic_regression, nearest_centroid
from lurefs.cli import main as lurefs
from lurefs.runs.summary import summarise_table

ROWS_AT_ONCE = 10_000


def main() -> None:
    """Measure each task in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--share", type=float, default=1.0)
    arguments = parser.parse_args()
    table = Table("task", "peak, GiB", "without mapped files, GiB", "processor time, s")
    for name in arguments.only:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peak, own, seconds = pool.apply(_measured, (name, arguments.share))
        cells = (name, f"{peak:.2f}", f"{own:.2f}", f"{seconds:.0f}")
        print("  ".join(cells), file=sys.stderr)
        table.add_row(*cells)
    Console(width=120).print(table)


def _measured(name: str, share: float) -> tuple[float, float, float]:
    """Return peak resident memory, the peak of anonymous memory at the ends of the task's steps, and CPU seconds."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    with tempfile.TemporaryDirectory() as folder:
        own = max(_anonymous_gib() for _ in TASKS[name](Path(folder), share))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_maxrss / 2**20, own, used.ru_utime + used.ru_stime


def _anonymous_gib() -> float:
    """Return the resident memory of this process that is no mapped file."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 2**20


def many_features(folder: Path, share: float, *, probe: str) -> Iterator[None]:
    """Score 100,000 episodes on 1,000,000 images of 1,000 classes with 512 features."""
    n_images, n_classes, n_features = round(1_000_000 * share), 1000, 512
    labels = np.arange(n_images) % n_classes
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(n_classes, n_features)).astype(np.float32)
    parts = (labels[start : start + ROWS_AT_ONCE] for start in range(0, n_images, ROWS_AT_ONCE))
    write_bank(
        folder,
        (2 * rng.standard_normal((len(part), n_features), dtype=np.float32) + centres[part] for part in parts),
        n_features=n_features,
        labels=labels.astype(np.int64),
        image_ids=tuple(f"images/{row}.png" for row in range(n_images)),
        class_names=tuple(f"class {label}" for label in range(n_classes)),
        identity={},
    )
    yield
    bank = FeatureBank.load(folder)
    yield
    manifest = draw_manifest(
        bank, EpisodeSpec(n_way=5, n_shot=1, n_query=15, n_episodes=round(100_000 * share)), seed=0
    )
    yield
    manifest.save(folder / "manifest.parquet")
    del manifest
    yield from _scored(folder, bank, Manifest.load(folder / "manifest.parquet"), probe)


def many_classes(folder: Path, share: float) -> Iterator[None]:
    """Sample, score and summarise 20,000 episodes on 10,000 classes of 20 images, and count the confusions."""
    n_classes, n_features = round(10_000 * share), 64
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(n_classes), 20)
    centres = rng.normal(size=(n_classes, n_features)).astype(np.float32)
    bank = FeatureBank.from_arrays(2 * rng.standard_normal((len(labels), n_features)) + centres[labels], labels)
    manifest = draw_manifest(bank, _spec(round(20_000 * share)), seed=0)
    yield
    yield from _scored(folder, bank, manifest, "logistic_regression")
    table = EpisodeTable.load(folder / "table.parquet", with_predicted=True)
    assert table.predicted is not None
    found = count_confusions(manifest.block, table.predicted, n_classes)
    assert int(found.n_taken.sum()) == manifest.query.size
    yield


def page_of_many_classes(folder: Path, share: float, *, command: str) -> Iterator[None]:
    """Write the page of a run, or compare two runs, on 20,000 episodes of 10,000 classes with stored answers."""
    write_run = importlib.import_module("made_up_runs").write_run
    n_classes, n_episodes = round(10_000 * share), round(20_000 * share)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(n_classes), 20)
    centres = rng.normal(size=(n_classes, 64)).astype(np.float32)
    form = {"n_way": 5, "n_shot": 1, "n_query": 15, "n_episodes": n_episodes, "seed": 0}
    names = ["lure", "warm"] if command == "compare" else ["lure"]
    for name, strategy in zip(names, ("by_saliency", "nothing"), strict=False):
        bank = FeatureBank.from_arrays(3 * rng.standard_normal((len(labels), 64)) + centres[labels], labels)
        manifest = draw_manifest(bank, _spec(n_episodes), seed=0)
        scored = score(bank, manifest, Probe(name="centroid", classifier=nearest_centroid()))
        table = collect(scored, {"manifest": manifest.hash})
        config = {
            "name": name,
            "unlearn": {"name": strategy},
            "benchmarks": {"novel": form},
            "probes": {"centroid": {"name": "nearest_centroid"}},
        }
        write_run(folder / "runs" / name, config, {"novel": {"centroid": table}}, {"novel": manifest})
        yield
    del bank, manifest, table
    began = time.process_time()
    if command == "compare":
        _command(["compare", str(folder / "runs"), "--output", str(folder / "page")])
        page = folder / "page" / "report.html"
    else:
        _command(["report", str(folder / "runs" / "lure")])
        page = folder / "runs" / "lure" / "report.html"
    print(f"{command} alone took {time.process_time() - began:.0f} s", file=sys.stderr)
    print(f"the page has {page.stat().st_size / 2**20:.1f} MiB", file=sys.stderr)
    yield


def many_runs(folder: Path, share: float, *, n_most: int) -> Iterator[None]:
    """Compare up to 1,000 runs of 2,000 episodes, as tables, files and a page."""
    write_run = importlib.import_module("made_up_runs").write_run
    n_runs, n_episodes = round(n_most * share), 2000
    spec = EpisodeSpec(n_way=5, n_shot=1, n_query=15, n_episodes=n_episodes)
    manifest = make_manifest(np.repeat(np.arange(20), 30), spec, seed=0, images_digest="made up")
    form = {"n_way": 5, "n_shot": 1, "n_query": 15, "n_episodes": n_episodes, "seed": 0}
    shared, none = np.random.default_rng(0).integers(30, 60, n_episodes), np.full(n_episodes, np.nan)
    for number in range(n_runs):
        rng = np.random.default_rng(number)
        right = shared + (rng.random(n_episodes) < 0.3) * rng.integers(0, 10, n_episodes)
        right += 3 * (rng.random(n_episodes) < 2 * number / n_runs)
        table = EpisodeTable(
            index=np.arange(n_episodes),
            classes=manifest.classes,
            accuracy=right / 75,
            nll=none,
            brier=none,
            converged=np.ones(n_episodes, dtype=bool),
            seconds=np.full(n_episodes, 0.002),
            reliability=empty_reliability(),
            identity={"manifest": manifest.hash},
        )
        config = {
            "name": f"run-{number}",
            "unlearn": {"name": "by_saliency", "params": {"keep_ratio": 0.5 + 0.4 * number / n_runs}},
            "benchmarks": {"novel": form},
            "probes": {"centroid": {"name": "nearest_centroid"}},
        }
        write_run(folder / "runs" / str(number), config, {"novel": {"centroid": table}}, {"novel": manifest})
    yield
    began = time.process_time()
    _command(["compare", str(folder / "runs"), "--output", str(folder / "comparison")])
    print(f"comparing alone took {time.process_time() - began:.0f} s", file=sys.stderr)
    yield


def _command(arguments: list[str]) -> None:
    try:
        lurefs(arguments)
    except SystemExit as error:  # it would end the worker, and the pool would wait for ever
        raise RuntimeError(f"lurefs {' '.join(arguments)} ended with {error.code}") from error


def _spec(n_episodes: int) -> EpisodeSpec:
    return EpisodeSpec(n_way=5, n_shot=1, n_query=15, n_episodes=n_episodes)


def _scored(folder: Path, bank: FeatureBank, manifest: Manifest, probe: str) -> Iterator[None]:
    classifiers: dict[str, Any] = {"logistic_regression": logistic_regression, "nearest_centroid": nearest_centroid}
    table = collect(score(bank, manifest, Probe(name=probe, classifier=classifiers[probe]())), {})
    yield
    table.save(folder / "table.parquet")
    del table
    summarise_table(EpisodeTable.load(folder / "table.parquet", with_predicted=False))
    yield


TASKS: Mapping[str, Callable[[Path, float], Iterator[None]]] = MappingProxyType(
    {
        "centroids on many features": partial(many_features, probe="nearest_centroid"),
        "regression on many features": partial(many_features, probe="logistic_regression"),
        "many classes": many_classes,
        "page of many classes": partial(page_of_many_classes, command="report"),
        "compare on many classes": partial(page_of_many_classes, command="compare"),
        "all pairs of 100 runs": partial(many_runs, n_most=100),
        "many runs": partial(many_runs, n_most=1000),
    }
)

if __name__ == "__main__":
    main()
