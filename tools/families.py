"""Whether lurefs can use a backbone of each family of timm, as a table for the docs.

    OMP_NUM_THREADS=1 uv run python tools/families.py [NAME ...] > docs/families.md

Each family is a module of timm; it is tried with its smallest model, of at most 30 million parameters, on the smallest
size of colour images of `SIZES` that the model reads. A row says whether the features of one image are the same alone
and among eight, whether it learns two small chunks of icons online, and what share of the weights the reset between
them re-initialised. Small stems are tried on images of 64 pixels.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import timm
import torch
from rich.console import Console
from rich.progress import track

from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.load import run_config
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone, build_backbone
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import UnlearnReport
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage

SIZES = (64, 96, 128, 160, 192, 224, 240, 256)
MOST_PARAMETERS = 30_000_000
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was found of one model; a text says why a later step was not reached."""

    name: str
    family: str
    n_parameters: int
    image_size: int | None = None
    small_stem: bool = False
    batch_difference: float | None = None
    unlearn: UnlearnReport | None = None
    problem: str = ""


def main(names: list[str]) -> None:
    """Print the table as Markdown, a row per family."""
    console = Console(stderr=True)
    smallest = [(name, family_of(name)) for name in names] or list(smallest_models())
    rows = []
    for name, family in track(smallest, "families", console=console):
        started = time.monotonic()
        rows.append(try_model(name, family))
        console.print(f"{name}: {rows[-1].problem or 'ok'}, {time.monotonic() - started:.0f} s", highlight=False)
    print(page(rows))


def smallest_models() -> Iterator[tuple[str, str]]:
    """Yield the smallest model of each module of timm and the module, of those that are small enough."""
    families: dict[str, list[str]] = {}
    for name in timm.list_models(exclude_filters="test_*"):
        families.setdefault(family_of(name), []).append(name)
    for family, names in sorted(families.items()):
        sizes = {name: _n_parameters(name) for name in names}
        smallest = min(sizes, key=lambda name: sizes[name])
        if sizes[smallest] <= MOST_PARAMETERS:
            yield smallest, family


def family_of(name: str) -> str:
    """Return the module of timm that a model is in."""
    return str(timm.models.model_entrypoint(name).__module__.rpartition(".")[2])


def try_model(name: str, family: str) -> Row:
    """Build a model, embed images with it, and let it learn two chunks with a reset between them."""
    found: Backbone | None = None
    problem = ""
    for size in SIZES:
        try:
            found = build_backbone(BackboneConfig(name=name), n_classes=10, n_channels=3, image_size=size, seed=0)
            break
        except UserError as error:
            problem = error.problem
    row = Row(name=name, family=family, n_parameters=int(_n_parameters(name)))
    if found is None:
        return replace(row, problem=problem)
    row = replace(
        row, image_size=found.image_size, small_stem=_has_small_stem(name), batch_difference=_difference(found)
    )
    try:
        return replace(row, unlearn=_learn(name, found.image_size))
    except UserError as error:
        return replace(row, problem=error.problem)


def page(rows: list[Row]) -> str:
    """Return the page of the docs."""
    n_right = sum(row.unlearn is not None and (row.batch_difference or 0) < TOLERANCE for row in rows)
    lines = [
        "# Families of backbones",
        "",
        f"Of the {len(rows)} families of timm {timm.__version__} whose smallest model has at most "
        f"{MOST_PARAMETERS // 1_000_000} million parameters, {n_right} build by name, give the same features for an "
        f"image alone and among eight (relative difference below {TOLERANCE:g}), and learn online with a reset. Made "
        "by `tools/families.py` with untrained weights, on the smallest of "
        f"{', '.join(map(str, SIZES))} pixels that the model reads.",
        "",
        "| family | smallest model | parameters, M | pixels | alone and in 8 | small stem | weights reset, % |",
        "|---|---|---|---|---|---|---|",
        *map(_line, rows),
    ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    start = f"| {row.family} | `{row.name}` | {row.n_parameters / 1e6:.1f} | {row.image_size or '–'} | "
    if row.unlearn is None:
        return f"{start}{row.problem} | | |"
    alike = "same" if (row.batch_difference or 0) < TOLERANCE else f"differs by {row.batch_difference:.1g}"
    share = row.unlearn.n_reset / (row.unlearn.n_reset + row.unlearn.n_kept)
    return f"{start}{alike} | {'yes' if row.small_stem else 'no'} | {100 * share:.1f} |"


def _n_parameters(name: str) -> float:
    try:
        with torch.device("meta"):
            return float(sum(parameter.numel() for parameter in timm.create_model(name).parameters()))
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return float("inf")


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


def _learn(name: str, image_size: int) -> UnlearnReport:
    config = run_config(
        {
            "name": name,
            "backbone": {"name": name, "image_size": image_size},
            "class_split": {"base": 0.03, "validation": 0.1, "novel": 0.25},
            "chunks": {"n_chunks": 2, "images_per_class": 6},
            "learner": {
                "epochs": 2,
                "batch_size": 16,
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
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
