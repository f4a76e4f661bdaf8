"""The second stage: embed the images of benchmarks and transfers with the last weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from episodes.bank import FeatureBank
from lurefs.errors import UserError
from lurefs.learning import checkpoints
from lurefs.ranks import Ranks
from lurefs.runs.directory import REFERENCE, RunDirectory
from lurefs.stages.cost import Speed, cost_card
from lurefs.stages.features import feature_identity, make_bank
from lurefs.stages.identity import backbone_card
from lurefs.stages.stage import (
    Stage,
    embed,
    plan_backbone,
    probes_need_reference,
    reference_images,
    tell_if_constant,
)
from lurefs.stages.transfer_plan import transfer_images


def extract(stage: Stage, ranks: Ranks | None = None) -> None:
    """Embed the images of benchmarks and transfers with the last chunk's weights; banks that fit are read.

    What it cost is stored where anything was embedded.

    Args:
        stage: Whose images, and with whose weights.
        ranks: The processes that divide the images; the first one writes the banks.

    Raises:
        UserError: The run has no checkpoint of its last chunk.
    """
    plan, directory = stage.plan, stage.directory
    path = directory.checkpoint_path(len(plan.chunks) - 1)
    if not path.exists():
        raise UserError(
            f"there is no checkpoint of the last chunk, {path}",
            f"a run whose {len(plan.chunks)} chunks are learned",
            "run 'lurefs pretrain' first, with the same --config and --run-dir",
        )
    weights = checkpoints.read_identity(path)["sha256"]
    backbone = plan_backbone(plan)
    ranks = ranks or Ranks()
    banks: dict[str, FeatureBank] = {}
    speed = Speed()
    wanted = {images.name: images for benchmark in plan.benchmarks.values() for images in (benchmark, *benchmark.sides)}
    wanted |= transfer_images(plan)
    if probes_need_reference(plan):
        wanted[REFERENCE] = reference_images(plan)
    for name, benchmark in wanted.items():
        identity = json.loads(json.dumps(feature_identity(benchmark, backbone_card(backbone), weights)))
        bank = _stored_bank(directory, name, identity)
        if bank is None:
            bank = next((other for other in banks.values() if other.identity == identity), None)
            if bank is None:
                checkpoints.load_checkpoint(path, backbone.model)
                backbone.model.to(stage.device)
                batches = speed.watch(embed(stage, backbone, benchmark, f"features of {name}", ranks))
                none = np.empty((0, backbone.n_features), dtype=np.float32)
                features = ranks.join(np.concatenate([none, *batches]), directory.features_dir(name))
                bank = None if features is None else make_bank(benchmark, iter([features]), identity)
                if bank is not None and ranks.rank == 0:
                    tell_if_constant(bank, benchmark, plan.config.name)
            if bank is not None and ranks.rank == 0:
                bank.save(directory.features_dir(name))
            ranks.wait()
        banks[name] = bank or directory.read_bank(name)
    if speed.batches and ranks.rank == 0:
        directory.write_cost(cost_card(backbone, speed, stage.device))


def _stored_bank(directory: RunDirectory, name: str, identity: Mapping[str, Any]) -> FeatureBank | None:
    if not (directory.features_dir(name) / "bank.json").exists():
        return None
    bank = directory.read_bank(name)
    return bank if bank.identity == identity else None
