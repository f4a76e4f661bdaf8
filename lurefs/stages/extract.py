"""The second stage: features of the images of benchmarks and transfers, by the last weights or a frozen model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.bank import FeatureBank, write_bank
from lurefs.config.identity import digest
from lurefs.learning import checkpoints
from lurefs.learning.backbones import Backbone
from lurefs.learning.weights import state_sha256
from lurefs.records import through_json
from lurefs.runs.directory import RunDirectory
from lurefs.stages import feature_store
from lurefs.stages.cost import Speed, cost_card
from lurefs.stages.features import as_needed, feature_identity
from lurefs.stages.identity import backbone_card
from lurefs.stages.needed import image_sets, refuse_changed_files
from lurefs.stages.places import last_checkpoint
from lurefs.stages.plan import ImageSet
from lurefs.stages.stage import (
    Stage,
    embed,
    plan_backbone,
    tell_if_constant,
)

ROWS_AT_ONCE = 4096
"""Rows of a file of features that are copied at a time."""


def extract(stage: Stage) -> None:
    """Embed the images of benchmarks and transfers; valid stored banks are kept.

    The weights are those of the last chunk, or the ones that a frozen backbone starts from. What another run of this
    machine embedded is copied from the feature store; features that the data bring are copied from their file.

    With several processes each embeds its share, and the first one writes. The cost is stored with what was embedded.

    Raises:
        UserError: The run has no checkpoint of its last chunk.
    """
    directory, ranks = stage.directory, stage.ranks
    if stage.plan.config.brings_features:
        _bring(stage)
        return
    checkpoint = None if stage.plan.config.frozen else last_checkpoint(stage.plan, directory)
    backbone = plan_backbone(stage.plan)
    weights = state_sha256(backbone.model) if checkpoint is None else checkpoints.read_identity(checkpoint)["sha256"]
    card, speed = backbone_card(backbone), Speed()
    banks: dict[str, FeatureBank] = {}
    for images in (as_needed(image_set, backbone) for image_set in image_sets(stage.plan)):
        identity = through_json(feature_identity(images, card, weights))
        key = digest(identity)
        if ranks.is_first and _stored_bank(directory, images.name, identity) is None and key not in banks:
            _take(stage, images, identity)
        ranks.wait()
        bank = _stored_bank(directory, images.name, identity)
        if bank is None:
            bank = banks.get(key)
            if bank is not None:
                if ranks.is_first:
                    bank.save(directory.features_dir(images.name))
            else:
                if checkpoint is not None:
                    checkpoints.load_checkpoint(checkpoint, backbone.model)
                _embed(stage, backbone, images, identity, speed)
            ranks.wait()
            bank = directory.read_bank(images.name)
        banks[key] = bank


def _embed(stage: Stage, backbone: Backbone, images: ImageSet, identity: Mapping[str, Any], speed: Speed) -> None:
    """Embed images on all processes together; the first one writes the bank, batch by batch."""
    backbone.model.to(stage.device)
    own = speed.watch(embed(stage, backbone, images, f"features of {images.name}", is_shared=True))
    batches = stage.ranks.join(own, stage.directory.features_dir(images.name))
    if batches is not None:
        write_bank(
            stage.directory.features_dir(images.name),
            _with_cost(stage, backbone, batches, speed),
            n_features=backbone.n_features,
            labels=images.labels,
            image_ids=images.image_ids,
            class_names=images.class_names,
            identity=identity,
        )
        bank = stage.directory.read_bank(images.name)
        tell_if_constant(bank, images, stage.plan.config.name)
        cost = stage.directory.read_cost() if speed.batches else {}  # others may have embedded all
        feature_store.give(stage, images, bank, cost, stage.plan.config.backbone.name)


def _with_cost(
    stage: Stage, backbone: Backbone, batches: Iterator[NDArray[np.float32]], speed: Speed
) -> Iterator[NDArray[np.float32]]:
    """Yield the batches; before the bank is complete, check the files of images, and write what the features cost."""
    yield from batches
    refuse_changed_files(stage, backbone, "extract")
    if speed.batches:
        stage.directory.write_cost(cost_card(backbone, speed, stage.device))


def _take(stage: Stage, images: ImageSet, identity: Mapping[str, Any]) -> None:
    """Copy features that another run of this machine stored, with their cost, into the run's folder."""
    found = feature_store.take(stage, images, identity, stage.plan.config.backbone.name)
    if found is not None:
        bank, cost = found
        if cost and not stage.directory.cost_path.exists():  # first, since a bank that is complete is not taken again
            stage.directory.write_cost(cost)
        bank.save(stage.directory.features_dir(images.name))


def _bring(stage: Stage) -> None:
    """Write the banks of a run whose data set brings features."""
    for images in image_sets(stage.plan) if stage.ranks.is_first else ():
        identity = through_json(images.identity)
        if _stored_bank(stage.directory, images.name, identity) is None:
            read = images.dataset.read_features
            assert read is not None
            starts = range(0, len(images.rows), ROWS_AT_ONCE)
            write_bank(
                stage.directory.features_dir(images.name),
                (read(images.rows[start : start + ROWS_AT_ONCE]) for start in starts),
                n_features=images.dataset.n_features,
                labels=images.labels,
                image_ids=images.image_ids,
                class_names=images.class_names,
                identity=identity,
            )
            tell_if_constant(stage.directory.read_bank(images.name), images, stage.plan.config.name)


def _stored_bank(directory: RunDirectory, name: str, identity: Mapping[str, Any]) -> FeatureBank | None:
    if not (directory.features_dir(name) / "bank.json").exists():
        return None
    bank = directory.read_bank(name)
    return bank if bank.identity == identity else None
