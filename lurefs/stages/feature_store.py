"""Features that all runs of a machine share, in its cache: equal weights, images and settings are embedded once.

An entry holds the features of one image set, and notes their cost. They are copied into a run's folder, which stays
complete without the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from episodes.bank import FeatureBank
from lurefs import cache, console, plugins
from lurefs.config.identity import run_identity
from lurefs.config.schema import dataset_names
from lurefs.stages import store
from lurefs.stages.identity import library_versions, machine_card
from lurefs.stages.plan import ImageSet
from lurefs.stages.stage import Stage

KIND = "features"
"""Kind of these entries of the cache."""
_FEATURES = "features.npy"
_HEADER_BYTES = 4096
"""At least the length of the header of a NumPy file of numbers."""


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
    taken = store.take(KIND, key, [_FEATURES])
    if taken is None:
        return None
    (stored,), cost = taken
    console.note(f"the features of {whose} on {images.name} come from the store of this machine")
    bank = FeatureBank(
        features=_mapped_array(stored),
        labels=images.labels.copy(),
        image_ids=images.image_ids,
        class_names=images.class_names,
        identity=identity,
    )
    return bank, cost


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
    if key is None:
        return
    about = f"{bank.features.shape[1]:,} features of {whose} on {len(images.rows):,} images of {images.dataset.name}"
    write = partial(_save, bank.features)
    store.give(KIND, key, {_FEATURES: write}, about=about, n_bytes=bank.features.nbytes, notes=cost)


def key_of(stage: Stage, images: ImageSet, identity: Mapping[str, Any]) -> str | None:
    """Return the key of features, of all that they depend on to the last bit; None if that is not known.

    Features that no backbone computes depend on no settings of one, and not on the device of the run. Data sets of a
    user's code are not known, nor the library that corrupts images. Files of images count by their stamps, since
    identities hold names and sizes of files, not their bytes.

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
    made_from: dict[str, Any] = {
        "features": dict(identity),
        "files": None if dataset.stamp is None else dataset.stamp(),
        "versions": library_versions(),
        "machine": machine_of(stage),
    }
    if "backbone" in identity:
        made_from["backbone"] = run_identity(config)["backbone"]
        made_from["batches"] = [config.learner.eval_batch_size, config.learner.channels_last]
    else:
        del made_from["machine"]["device"]
    return cache.key_of(made_from)


def machine_of(stage: Stage) -> dict[str, Any]:
    """Return processor, threads and the device of this stage, on which numbers may depend."""
    device = stage.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return {**machine_card(stage.plan.config), "device": name}


def _save(features: NDArray[np.float32], output: store.Output) -> None:
    np.save(output, np.ascontiguousarray(features))  # so that the order of the file is known


def _mapped_array(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the array of a NumPy file that is mapped into memory, without a copy."""
    header = BytesIO(stored[:_HEADER_BYTES].tobytes())
    np.lib.format.read_magic(header)
    shape, _, dtype = np.lib.format.read_array_header_1_0(header)
    features: NDArray[np.float32] = stored[header.tell() :].view(dtype).reshape(shape)
    return features
