"""Two controls that a backbone must beat: its untrained twin, and statistics of the images that need no network.

Each is a feature bank scored like any other: same images, same episodes, same probes. What learning added is the
distance to the twin; what the architecture added is that from the twin to the image statistics. Only their per-episode
results are kept, under `controls/`; the features are cheap to make again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from episodes.bank import FeatureBank
from episodes.files import write_text
from episodes.scoring import ProbeError, score
from episodes.table import EpisodeTable, collect
from episodes.transforms import needs_reference
from lurefs import console
from lurefs.config.schema import digest
from lurefs.errors import UserError
from lurefs.learning.backbones import build_twin
from lurefs.records import through_json, to_mapping
from lurefs.runs.directory import damaged, read_json
from lurefs.seeding import seed_stream
from lurefs.stages.features import make_bank
from lurefs.stages.plan import Benchmark
from lurefs.stages.stage import (
    Stage,
    embed,
    make_probe,
    plan_backbone,
    read_or_draw_manifest,
    reference_images,
    result_identity,
    tell_if_constant,
)

GRID_SIZE = 8
READ_AT_ONCE = 512


def score_controls(stage: Stage) -> None:
    """Score every probe on every control's features of every benchmark; results that are there and fit are kept.

    Nothing is done where the run's `controls` is false.

    Raises:
        UserError: A file of earlier results is damaged, or a probe cannot be fitted on a control's features.
    """
    plan, directory = stage.plan, stage.directory
    banks: dict[str, FeatureBank] = {}
    for name, benchmark in plan.benchmarks.items() if plan.config.controls else ():
        manifest = read_or_draw_manifest(stage, benchmark)
        for control, (identify, make) in _CONTROLS.items():
            identities = [through_json(identify(stage, images)) for images in benchmark.sides]
            digests = digest(identities[0]), digest(identities[1])
            sides = list(zip(benchmark.sides, identities, strict=True))
            for probe_name, probe_config in plan.config.probes.items():
                probe = make_probe(probe_name, probe_config)
                identity = result_identity(benchmark, manifest, probe, digests)
                path = directory.control_path(name, control, probe_name)
                if path.exists() and _read(path).identity == through_json(identity):
                    continue
                bank, query_bank = (_bank(stage, banks, control, *side) for side in sides)
                if needs_reference(probe_config.transform):
                    probe = replace(probe, reference=make(stage, reference_images(plan), identities[0]).features)
                try:
                    blocks = score(
                        bank,
                        manifest,
                        probe,
                        query_bank=None if query_bank is bank else query_bank,
                        device=str(stage.device),
                        target_ci95=benchmark.target_ci95,
                    )
                    blocks = console.track_blocks(blocks, len(manifest), f"{name}, {control}, {probe_name}")
                    collect(blocks, identity).save(path)
                except ProbeError as error:
                    raise UserError(
                        f"control {control!r} of benchmark {name!r}: {error}",
                        "a probe that can be fitted on simple features too",
                        f"set controls=false, or change probes.{probe_name}",
                    ) from error
            path = directory.control_card_path(name, control)
            if not path.is_file() or read_json(path).get("banks") != list(digests):
                spread = min(_bank(stage, banks, control, *side).spread for side in sides)
                write_text(path, json.dumps({"banks": digests, "feature_spread": spread}) + "\n")


def _bank(
    stage: Stage, banks: dict[str, FeatureBank], control: str, images: Benchmark, identity: dict[str, Any]
) -> FeatureBank:
    """Return a control's features, which are kept among `banks` once they are made."""
    key = digest(identity)
    if key not in banks:
        banks[key] = _CONTROLS[control][1](stage, images, identity)
        tell_if_constant(banks[key], images, f"the control {control.replace('_', ' ')!r}")
    return banks[key]


def read_controls(stage: Stage, benchmark: str) -> dict[str, dict[str, EpisodeTable]]:
    """Return the results of the controls on a benchmark, control -> probe -> table; empty where there are none.

    Raises:
        UserError: A file is damaged.
    """
    config = stage.plan.config
    if not config.controls:
        return {}
    paths = {
        control: {probe: stage.directory.control_path(benchmark, control, probe) for probe in config.probes}
        for control in _CONTROLS
    }
    return {
        control: {probe: _read(path) for probe, path in of_probe.items()}
        for control, of_probe in paths.items()
        if all(path.exists() for path in of_probe.values())
    }


def control_spread(stage: Stage, benchmark: str, control: str) -> float | None:
    """Return the spread of a control's features, see `FeatureBank.spread`; None where an earlier version made them.

    Raises:
        UserError: The file that holds it is damaged.
    """
    path = stage.directory.control_card_path(benchmark, control)
    return read_json(path).get("feature_spread") if path.is_file() else None


def image_statistics(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return features of images that need no network, (n, channels * 66) float32 in [0, 1].

    Channel by channel: the image as `GRID_SIZE` x `GRID_SIZE` pixels, each the mean of the pixels that its area covers
    (adaptive average pooling, where areas overlap if the sizes do not divide), row by row; then, over the whole image,
    the mean of each channel and its standard deviation (divided by n).

    Args:
        images: (n, height, width, channels) uint8.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255
    grid = functional.adaptive_avg_pool2d(pixels, GRID_SIZE).flatten(1)
    mean, std = pixels.mean(dim=(2, 3)), pixels.std(dim=(2, 3), correction=0)
    features: NDArray[np.float32] = torch.cat([grid, mean, std], dim=1).numpy()
    return features


def _identify_twin(stage: Stage, benchmark: Benchmark) -> dict[str, Any]:
    plan = stage.plan
    return {
        "control": "untrained_twin",
        "backbone": to_mapping(plan.config.backbone),
        "n_classes": len(plan.classes.base),
        "n_channels": plan.dataset.n_channels,
        "image_size": plan.dataset.image_size,
        "seed": _twin_seed(stage),
        **_images(benchmark),
    }


def _make_twin_bank(stage: Stage, benchmark: Benchmark, identity: dict[str, Any]) -> FeatureBank:
    """Embed by a model of the same build and transform, whose weights are those of another draw and stay initial."""
    backbone = plan_backbone(stage.plan)
    twin = replace(backbone, model=build_twin(backbone, stage.plan.config.backbone, seed=_twin_seed(stage)))
    twin.model.to(stage.device)
    return make_bank(
        benchmark, embed(stage, twin, benchmark, f"{benchmark.name}: features of the untrained twin"), identity
    )


def _twin_seed(stage: Stage) -> int:
    return seed_stream(stage.plan.config.seed, "control", "untrained_twin")


def _identify_statistics(stage: Stage, benchmark: Benchmark) -> dict[str, Any]:
    return {"control": "image_statistics", "grid_size": GRID_SIZE, **_images(benchmark)}


def _make_statistics_bank(stage: Stage, benchmark: Benchmark, identity: dict[str, Any]) -> FeatureBank:
    def batches() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(benchmark.rows), READ_AT_ONCE):
            yield image_statistics(benchmark.dataset.read(benchmark.rows[start : start + READ_AT_ONCE]))

    return make_bank(benchmark, batches(), identity)


def _images(benchmark: Benchmark) -> dict[str, Any]:
    return {"dataset": dict(benchmark.dataset.identity), "images_digest": benchmark.images_digest}


def _read(path: Path) -> EpisodeTable:
    try:
        return EpisodeTable.load(path)
    except (ValueError, KeyError, OSError) as error:
        raise damaged(path, str(error)) from error


_Identify = Callable[[Stage, Benchmark], dict[str, Any]]
_Make = Callable[[Stage, Benchmark, dict[str, Any]], FeatureBank]
_CONTROLS: MappingProxyType[str, tuple[_Identify, _Make]] = MappingProxyType(
    {
        "untrained_twin": (_identify_twin, _make_twin_bank),
        "image_statistics": (_identify_statistics, _make_statistics_bank),
    }
)
