"""Whether lurefs can use a backbone of each family of timm, as a table for the docs.

    OMP_NUM_THREADS=1 uv run python tools/families.py ROWS [FAMILY ...] > docs/families.md

Each family is a module of timm; it is tried with its smallest model, of at most `MOST_PARAMETERS`, on the smallest size
of colour images of `SIZES` that the model reads. A row says whether the features of one image are the same alone and
among eight, whether it learns two small chunks of icons online, and what share of the weights the reset between them
re-initialised. Small stems are tried on images of 64 pixels.

Each model is tried in a process of its own, with bounds on its processor time and memory. ROWS is a file of JSON lines
to which each family is added once it was tried; a rerun continues there, and tries the named families again.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import timm
import torch

from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.load import run_config
from lurefs.console import track_results
from lurefs.errors import UserError, first_line
from lurefs.learning.backbones import Backbone, build_backbone
from lurefs.records import from_mapping, to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage

SIZES = (64, 96, 128, 160, 192, 224, 240, 256)
MOST_PARAMETERS = 100_000_000
TOLERANCE = 1e-4
N_AT_ONCE = 2
MOST_SECONDS = 120
"""Processor time of one family, in which its model is imported, built and tried."""
MOST_MEMORY = 4 * 2**30
"""Bytes of memory that the process of one family may hold."""

APART = multiprocessing.get_context("forkserver")
"""Starts processes from one that has imported the libraries, and has no model."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """The findings on one model; a text says why a later step was not reached."""

    family: str
    name: str
    n_parameters: int
    image_size: int | None = None
    small_stem: bool = False
    batch_difference: float | None = None
    reset_share: float | None = None
    problem: str = ""

    @property
    def is_right(self) -> bool:
        """Whether every step worked."""
        return not self.problem and self.is_alike and bool(self.reset_share)

    @property
    def is_alike(self) -> bool:
        """Whether the features of an image do not depend on the images beside it."""
        return self.batch_difference is not None and self.batch_difference < TOLERANCE


def main(path: Path, again: list[str]) -> None:
    """Try the families that have no row yet, and those of `again`; print the table as Markdown, a row per family."""
    APART.set_forkserver_preload(["timm", "lurefs.stages.run"])
    rows = {row.family: row for row in _read(path) if row.family not in again}
    path.write_text("".join(_json(row) for row in rows.values()))
    missing = list(smallest_models(rows))
    with ThreadPoolExecutor(N_AT_ONCE) as threads, path.open("a") as file:
        tried = ((row.family, row) for row in threads.map(try_apart, missing))
        for _, row in track_results(tried, len(missing), lambda row: row.problem or "ok"):
            file.write(_json(row))
            file.flush()
            rows[row.family] = row
    print(page([rows[family] for family in sorted(rows)]))


def smallest_models(known: Collection[str]) -> Iterator[Row]:
    """Yield the smallest model of each module of timm that is not known."""
    families: dict[str, list[str]] = {}
    for name in _names():
        families.setdefault(family_of(name), []).append(name)
    for family, names in sorted(families.items()):
        if family in known:
            continue
        sizes = {name: _n_parameters(name) for name in names}
        smallest = min(sizes, key=lambda name: sizes[name])
        yield Row(family=family, name=smallest, n_parameters=sizes[smallest])


def family_of(name: str) -> str:
    """Return the module of timm that a model is in."""
    return str(timm.models.model_entrypoint(name).__module__.rpartition(".")[2])


def try_apart(row: Row) -> Row:
    """Try a model in a process of its own; if the process is ended, its last row says how far it came."""
    if row.n_parameters > MOST_PARAMETERS:
        return replace(row, problem=f"not tried: more than {MOST_PARAMETERS // 1_000_000} million parameters")
    receiver, sender = APART.Pipe(duplex=False)
    process = APART.Process(target=_try_within_bounds, args=(row, sender))
    process.start()
    sender.close()
    problem = ""
    while process.is_alive():
        process.join(0.2)
        if _memory_of(process.pid) > MOST_MEMORY:
            problem = f"takes more than {MOST_MEMORY // 2**30} GiB of memory"
            process.kill()
    while receiver.poll():
        try:
            row = receiver.recv()
        except EOFError:
            break
    if process.exitcode == -signal.SIGXCPU:
        problem = f"takes more than {MOST_SECONDS} s of processor time"
    elif process.exitcode and not problem:
        problem = f"ended with code {process.exitcode}"
    return replace(row, problem=problem or row.problem)


def try_model(row: Row) -> Iterator[Row]:
    """Build a model, embed images with it, and let it learn two chunks and a reset; yield the row after each step."""
    found: Backbone | None = None
    problem = ""
    for size in SIZES:
        try:
            found = build_backbone(BackboneConfig(name=row.name), n_classes=10, n_channels=3, image_size=size, seed=0)
            break
        except UserError as error:
            problem = error.problem
    if found is None:
        yield replace(row, problem=problem)
        return
    row = replace(row, image_size=found.image_size, small_stem=_has_small_stem(row.name))
    yield row
    row = replace(row, batch_difference=_difference(found))
    yield row
    try:
        yield replace(row, reset_share=_learn(row.name, found.image_size))
    except UserError as error:
        yield replace(row, problem=error.problem)


def page(rows: list[Row]) -> str:
    """Return the page of the docs."""
    tried = [row for row in rows if row.n_parameters <= MOST_PARAMETERS]
    n_families, n_right = len({family_of(name) for name in _names()}), sum(row.is_right for row in tried)
    lines = [
        "# Families of backbones",
        "",
        f"timm {timm.__version__} has {n_families} families (modules) of models. {len(tried)} were tried with their "
        f"smallest model. {n_right} of these models build by name, give the same features for an image alone and among "
        f"eight (relative difference below {TOLERANCE:g}), and learn two chunks of icons online with a reset between "
        f"them, within {MOST_SECONDS} s of processor time and {MOST_MEMORY // 2**30} GiB. The rows of the others say "
        "why not" + (", and families without a row were not tried." if len(rows) < n_families else "."),
        "",
        "Made by `tools/families.py` with untrained weights, on the smallest of "
        f"{', '.join(map(str, SIZES))} pixels that the model reads.",
        "",
        "| family | smallest model | parameters, M | pixels | alone and in 8 | small stem | weights reset, % |",
        "|---|---|---|---|---|---|---|",
        *map(_line, rows),
    ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    problem = row.problem.replace("|", "/")
    start = f"| {row.family} | `{row.name}` | {row.n_parameters / 1e6:.1f} | {row.image_size or '–'} | "
    if row.batch_difference is None:
        return f"{start}{problem} | | |"
    alike = "same" if row.is_alike else f"differs by {row.batch_difference:.1g}"
    reset = problem if row.reset_share is None else f"{100 * row.reset_share:.1f}"
    return f"{start}{alike} | {'yes' if row.small_stem else 'no'} | {reset} |"


def _read(path: Path) -> list[Row]:
    return [from_mapping(Row, json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def _json(row: Row) -> str:
    return json.dumps(to_mapping(row)) + "\n"


def _try_within_bounds(row: Row, sender: Connection) -> None:
    """Try a model in this process, and send its row after each step."""
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS + 5))
    try:
        for found in try_model(row):
            row = found
            sender.send(row)
    except Exception as error:  # a fault of the family, which is a finding
        sender.send(replace(row, problem=f"{type(error).__name__}: {first_line(error)}"))


def _memory_of(pid: int | None) -> int:
    """Return the bytes of memory that a process holds, 0 once it has ended."""
    try:
        n_pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return n_pages * resource.getpagesize()


def _names() -> list[str]:
    """Return the names of timm's models, without its small ones for tests."""
    names: list[str] = timm.list_models(exclude_filters="test_*")
    return names


def _n_parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in timm.create_model(name).parameters())


def _has_small_stem(name: str) -> bool:
    try:
        build_backbone(BackboneConfig(name=name, stem="small"), n_classes=10, n_channels=3, image_size=64, seed=0)
    except UserError:
        return False
    return True


def _difference(backbone: Backbone) -> float:
    """Return how far the features of images one by one and together are apart, as a share of their length."""
    size = backbone.image_size
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, size, size), dtype=np.uint8))
    backbone.model.eval()
    with torch.inference_mode():
        together = backbone.embed(images)
        alone = torch.cat([backbone.embed(image[None]) for image in images])
    return float((together - alone).norm() / together.norm())


def _learn(name: str, image_size: int) -> float:
    """Return the share of the weights that the reset between two chunks re-initialised."""
    config = run_config(
        {
            "name": name,
            "backbone": {"name": name, "image_size": image_size},
            "class_split": {"base": 0.03, "validation": 0.1, "novel": 0.25},
            "chunks": {"n_chunks": 2, "images_per_class": 3},
            "learner": {
                "epochs": 1,
                "batch_size": 8,
                "optimizer": {"name": "adamw", "params": {"lr": 1e-3}},
            },
            "after_chunk": {"few_shot": False},
            "trackers": {"wandb": {"mode": "disabled"}},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        run_stage(make_plan(config), directory, "pretrain")
        report = directory.read_outcomes()[1].unlearn
    assert report is not None
    return report.n_reset / (report.n_reset + report.n_kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
