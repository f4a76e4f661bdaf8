"""Features that all runs of a machine share, in its cache: equal weights, images and settings are embedded once.

An entry holds the features of one image set, and a card with their checksum, which is written last. So features are
right or missing, whatever happened to the files. They are copied into a run's folder, which stays complete without the
cache.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from episodes.bank import FeatureBank
from episodes.files import atomic_path, write_text
from lurefs import cache, console, plugins
from lurefs.config.identity import run_identity
from lurefs.config.schema import dataset_names
from lurefs.stages.identity import library_versions, machine_card
from lurefs.stages.plan import ImageSet
from lurefs.stages.stage import Stage

KIND = "features"
"""Kind of these entries of the cache."""
_FEATURES, _CARD = "features.npy", "card.json"
_ROWS_AT_ONCE = 4096


def take(
    stage: Stage, images: ImageSet, identity: Mapping[str, Any], whose: str
) -> tuple[FeatureBank, dict[str, Any]] | None:
    """Return the stored features of images, and their cost (see `lurefs.stages.cost`); None if there are none.

    Args:
        stage: The context.
        images: The images.
        identity: The identity of the features.
        whose: Whose features they are, for the note that they were stored.
    """
    key = key_of(stage, images, identity) if stage.uses_store else None
    if key is None:
        return None
    try:
        with cache.found(KIND, key) as folder:
            if folder is None or not (folder / _CARD).is_file():
                return None
            features: NDArray[np.float32] = np.load(folder / _FEATURES, mmap_mode="r")
            card = json.loads((folder / _CARD).read_bytes())
        if len(features) != len(images.rows) or _checksum(features) != card["crc32"]:
            return None
    except (OSError, ValueError, KeyError, EOFError):
        return None
    console.note(f"the features of {whose} on {images.name} come from the store of this machine")
    bank = FeatureBank(
        features=features,
        labels=images.labels.copy(),
        image_ids=images.image_ids,
        class_names=images.class_names,
        identity=identity,
    )
    return bank, dict(card["cost"])


def give(stage: Stage, images: ImageSet, bank: FeatureBank, cost: Mapping[str, Any], whose: str) -> None:
    """Store features for all runs of this machine, unless the cache cannot hold them.

    Args:
        stage: The context.
        images: The images.
        bank: Their features.
        cost: The cost of the backbone; empty if it was not measured.
        whose: Whose features they are.
    """
    key = key_of(stage, images, bank.identity)
    if key is None or cache.bound() == 0:
        return
    about = f"{bank.features.shape[1]:,} features of {whose} on {len(images.rows):,} images of {images.dataset.name}"
    try:
        with cache.opened(KIND, key, about=about, n_bytes=bank.features.nbytes) as (folder, in_use):
            pass
        try:
            for left in folder.glob(".*.partial*"):  # of a process that was killed
                left.unlink(missing_ok=True)
            with atomic_path(folder / _FEATURES) as temporary:
                np.save(temporary, bank.features)
            card = {"crc32": _checksum(bank.features), "cost": dict(cost)}
            write_text(folder / _CARD, json.dumps(card))
        finally:
            os.close(in_use)
    except (cache.NoCacheError, OSError) as error:
        reason = str(error) if isinstance(error, cache.NoCacheError) else cache.unusable(error)
        console.note_once(f"{reason}; {cache.WITHOUT}")


def key_of(stage: Stage, images: ImageSet, identity: Mapping[str, Any]) -> str | None:
    """Return the key of features, of all that they depend on to the last bit; None if that is not known.

    Data sets of a user's code are not known, nor the library that corrupts images. Files of images count by their
    stamps, since identities hold names and sizes of files, not their bytes.

    Args:
        stage: The context.
        images: The images.
        identity: The identity of the features.
    """
    config, dataset = stage.plan.config, images.dataset
    is_of_code = any(not plugins.is_named("dataset", name) for name in dataset_names(config))
    is_unstamped = dataset.viewed is not None and dataset.stamp is None
    if is_of_code or is_unstamped or "corruption" in dataset.identity:
        return None
    return cache.key_of(
        {
            "features": dict(identity),
            "files": None if dataset.stamp is None else dataset.stamp(),
            "backbone": run_identity(config)["backbone"],
            "batches": [config.learner.eval_batch_size, config.learner.channels_last],
            "versions": library_versions(),
            "machine": {**machine_card(config), "device": _name_of(stage.device)},
        }
    )


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _checksum(features: NDArray[np.float32]) -> int:
    checksum = 0
    for start in range(0, len(features), _ROWS_AT_ONCE):
        checksum = zlib.crc32(np.ascontiguousarray(features[start : start + _ROWS_AT_ONCE]).data, checksum)
    return checksum
