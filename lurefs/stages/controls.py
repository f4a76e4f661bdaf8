"""Two controls that a backbone must beat: its untrained twin, and statistics of the images that need no network.

Both are scored like any feature bank: same images, same episodes, same probes. What learning added is the gain over
the twin; what the architecture added is the gain of the twin over the image statistics. Only the results per episode
are kept, under `controls/`; the features are cheap to make again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from episodes.bank import FeatureBank
from episodes.executors import Executor
from episodes.files import write_text
from episodes.manifest import Manifest
from episodes.table import EpisodeTable
from episodes.transforms import needs_reference
from lurefs import plugins
from lurefs.config.choosing import points
from lurefs.config.fine_tuning import fixed_probes
from lurefs.config.identity import digest, probe_card, run_identity
from lurefs.config.schema import ProbeConfig
from lurefs.learning.backbones import build_twin
from lurefs.learning.images import to_tensor
from lurefs.records import through_json
from lurefs.runs.directory import damaged, read_json
from lurefs.seeding import seed_stream
from lurefs.stages import control_store, feature_store
from lurefs.stages.cell import Cell, score_cell
from lurefs.stages.choosing import ChosenProbe, choice_path, choose_probe
from lurefs.stages.features import as_needed, make_bank
from lurefs.stages.identity import result_identity
from lurefs.stages.plan import Benchmark, ImageSet
from lurefs.stages.stage import (
    Stage,
    embed,
    make_probe,
    plan_backbone,
    read_or_draw_manifest,
    reference_images,
    tell_if_constant,
)
from lurefs.stages.validation import validation_episodes, validation_images, validation_twin

GRID_SIZE = 8
READ_AT_ONCE = 512
_Identify = Callable[[Stage, ImageSet], dict[str, Any]]
_Make = Callable[[Stage, ImageSet, dict[str, Any]], FeatureBank]


def score_controls(stage: Stage, executor: Executor) -> None:
    """Score every probe on every control's features of every benchmark; valid stored results are kept.

    If the run's `controls` is false, it does nothing.

    Raises:
        UserError: A file of earlier results is damaged, or a probe cannot be fitted on a control's features.
    """
    if not stage.plan.config.controls:
        return
    controls = [_Control(stage, name, *functions) for name, functions in _CONTROLS.items()]
    for benchmark in stage.plan.benchmarks.values():
        manifest = read_or_draw_manifest(stage, benchmark)
        for control in controls:
            for probe_name in fixed_probes(stage.plan.config):
                control.score(benchmark, manifest, probe_name, executor)
            control.write_card(benchmark)


@dataclass(frozen=True)
class _Control:
    """One control of a run; its features of an image set are made at their first use, and kept."""

    stage: Stage
    name: str
    identify: _Identify
    make: _Make
    banks: dict[str, FeatureBank] = field(default_factory=dict)

    def score(self, benchmark: Benchmark, manifest: Manifest, probe_name: str, executor: Executor) -> None:
        """Score a probe and store the results, unless they are stored already, in the run or for all runs."""
        config = self.stage.plan.config.probes[probe_name]
        path = self.stage.directory.control_path(benchmark.name, self.name, probe_name)
        files = [path]
        if config.choose is not None:
            files.append(choice_path(self.stage.directory, benchmark.name, probe_name, self.name))
        key = None if path.exists() else self._store_key(benchmark, manifest, config)
        if key is not None:
            control_store.take(key, files)
        chosen = None if config.choose is None else self._choose(benchmark, probe_name, config, executor)
        probe = make_probe(probe_name, config) if chosen is None else chosen.probe
        made_from = None if chosen is None else chosen.made_from
        identity = through_json(result_identity(benchmark, manifest, probe, self.digests(benchmark), made_from))
        if path.exists() and _read(path).identity == identity:
            return
        bank, query_bank = (self.bank(images) for images in benchmark.sides)
        if needs_reference(probe.transform):
            probe = replace(probe, reference=self.bank(reference_images(self.stage.plan)).features)
        cell = Cell(
            benchmark=benchmark.name,
            whose=f"control {self.name!r}",
            way_out="set controls=false",
            manifest=manifest,
            probe=probe,
            banks=(bank, query_bank),
            identity=identity,
            target_ci95=benchmark.target_ci95,
        )
        score_cell(cell, executor, self.stage.device).save(path)
        if key is not None and key == self._store_key(benchmark, manifest, config):  # no file has changed meanwhile
            about = f"{probe_name} on {benchmark.name} of {benchmark.images.dataset.name}, control {self.name!r}"
            control_store.give(key, files, about)

    def _store_key(self, benchmark: Benchmark, manifest: Manifest, config: ProbeConfig) -> str | None:
        """Return the key of a probe's results, and of the choice of its settings; None if they are not shared."""
        plan = self.stage.plan
        if not plugins.is_named("probe", config.name):
            return None
        support, query = benchmark.sides
        used = {"support": support, "query": query}
        made_from = {
            "control": self.name,
            "manifest": manifest.hash,
            "probe": probe_card(config),
            "target_ci95": benchmark.target_ci95,
        }
        if config.choose is not None:
            used["validation"] = validation_images(plan)
            made_from["validation"] = validation_episodes(validation_twin(plan, benchmark)).hash
        if any(needs_reference(point.transform) for point in points(config)):
            used["reference"] = reference_images(plan)
        features = {role: (images, through_json(self.identify(self.stage, images))) for role, images in used.items()}
        return control_store.key_of(self.stage, made_from, features)

    def _choose(self, benchmark: Benchmark, probe_name: str, config: ProbeConfig, executor: Executor) -> ChosenProbe:
        """Choose the settings of a probe by the control's own features of the validation classes."""
        plan = self.stage.plan
        is_fitted = any(needs_reference(point.transform) for point in points(config))
        return choose_probe(
            probe_name,
            config,
            self.bank(validation_images(plan)),
            validation_episodes(validation_twin(plan, benchmark)),
            path=choice_path(self.stage.directory, benchmark.name, probe_name, self.name),
            where=f"benchmark {benchmark.name!r}, control {self.name!r}",
            reference=self.bank(reference_images(plan)).features if is_fitted else None,
            executor=executor,
            device=self.stage.device,
        )

    def write_card(self, benchmark: Benchmark) -> None:
        """Store the digests and the spread of the features, unless they are stored already."""
        path, digests = self.stage.directory.control_card_path(benchmark.name, self.name), self.digests(benchmark)
        if not path.is_file() or read_json(path).get("banks") != list(digests):
            spread = min(self.bank(images).spread for images in benchmark.sides)
            write_text(path, json.dumps({"banks": digests, "feature_spread": spread}) + "\n")

    def digests(self, benchmark: Benchmark) -> tuple[str, str]:
        """Return the identity digests of the features for support and for query."""
        support, query = (digest(through_json(self.identify(self.stage, images))) for images in benchmark.sides)
        return support, query

    def bank(self, images: ImageSet) -> FeatureBank:
        """Return the features of an image set."""
        identity = through_json(self.identify(self.stage, images))
        key = digest(identity)
        if key not in self.banks:
            self.banks[key] = self._taken_or_made(images, identity)
            tell_if_constant(self.banks[key], images, f"the control {self.name.replace('_', ' ')!r}")
        return self.banks[key]

    def _taken_or_made(self, images: ImageSet, identity: dict[str, Any]) -> FeatureBank:
        whose = f"the control {self.name.replace('_', ' ')!r}"
        found = feature_store.take(self.stage, images, identity, whose)
        if found is not None:
            return found[0]
        bank = self.make(self.stage, images, identity)
        feature_store.give(self.stage, images, bank, {}, whose)
        return bank


def read_controls(stage: Stage, benchmark: str) -> dict[str, dict[str, EpisodeTable]]:
    """Return the results of the controls on a benchmark, control -> probe -> table; empty if there are none.

    Raises:
        UserError: A file is damaged.
    """
    config, found = stage.plan.config, {}
    for control in _CONTROLS if config.controls else ():
        paths = {probe: stage.directory.control_path(benchmark, control, probe) for probe in fixed_probes(config)}
        if paths and all(path.exists() for path in paths.values()):
            found[control] = {probe: _read(path) for probe, path in paths.items()}
    return found


def control_spread(stage: Stage, benchmark: str, control: str) -> float | None:
    """Return the spread of a control's features, see `FeatureBank.spread`; None if an earlier version scored it.

    Raises:
        UserError: The file that holds it is damaged.
    """
    path = stage.directory.control_card_path(benchmark, control)
    return read_json(path).get("feature_spread") if path.is_file() else None


def image_statistics(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return features of images without a network, (n, channels * 66) float32 in [0, 1].

    First come, channel by channel, the image as `GRID_SIZE` x `GRID_SIZE` pixels, row by row (adaptive average pooling:
    areas overlap if the sizes do not divide). Then come, over the whole image, the mean of each channel and its
    standard deviation (divided by n).

    Args:
        images: (n, height, width, channels) uint8.
    """
    pixels = to_tensor(images).float() / 255
    grid = functional.adaptive_avg_pool2d(pixels, GRID_SIZE).flatten(1)
    mean, std = pixels.mean(dim=(2, 3)), pixels.std(dim=(2, 3), correction=0)
    features: NDArray[np.float32] = torch.cat([grid, mean, std], dim=1).numpy()
    return features


def n_image_statistics(n_channels: int) -> int:
    """Return the number of features of `image_statistics` for images of `n_channels` channels."""
    return n_channels * (GRID_SIZE**2 + 2)


def _identify_twin(stage: Stage, images: ImageSet) -> dict[str, Any]:
    plan = stage.plan
    return {
        "control": "untrained_twin",
        "backbone": run_identity(plan.config)["backbone"],
        "n_classes": 0 if plan.config.frozen else len(plan.classes.base),
        "n_channels": plan.dataset.n_channels,
        "image_size": plan.dataset.image_size,
        "seed": _twin_seed(stage),
        **images.identity,
    }


def _make_twin_bank(stage: Stage, images: ImageSet, identity: dict[str, Any]) -> FeatureBank:
    """Embed with an untrained model of the same build and transform, initialised with another seed."""
    backbone = plan_backbone(stage.plan)
    twin = replace(backbone, model=build_twin(backbone, stage.plan.config.backbone, seed=_twin_seed(stage)))
    twin.model.to(stage.device)
    batches = embed(stage, twin, as_needed(images, twin), f"{images.name}: features of the untrained twin")
    return make_bank(images, batches, identity)


def _twin_seed(stage: Stage) -> int:
    return seed_stream(stage.plan.config.seed, "control", "untrained_twin")


def _identify_statistics(stage: Stage, images: ImageSet) -> dict[str, Any]:
    return {"control": "image_statistics", "grid_size": GRID_SIZE, **images.identity}


def _make_statistics_bank(stage: Stage, images: ImageSet, identity: dict[str, Any]) -> FeatureBank:
    def batches() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(images.rows), READ_AT_ONCE):
            yield image_statistics(images.dataset.read(images.rows[start : start + READ_AT_ONCE]))

    return make_bank(images, batches(), identity)


def _read(path: Path) -> EpisodeTable:
    try:
        return EpisodeTable.load(path)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises errors of many kinds
        raise damaged(path, str(error)) from error


_CONTROLS: MappingProxyType[str, tuple[_Identify, _Make]] = MappingProxyType(
    {
        "untrained_twin": (_identify_twin, _make_twin_bank),
        "image_statistics": (_identify_statistics, _make_statistics_bank),
    }
)
