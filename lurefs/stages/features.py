"""Feature banks from a backbone and images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from episodes.bank import FeatureBank
from lurefs.console import note
from lurefs.data.dataset import ImageDataset, View
from lurefs.errors import is_out_of_memory
from lurefs.learning.backbones import Backbone
from lurefs.learning.images import at_once, read_ahead, read_tensor
from lurefs.stages.plan import ImageSet


def as_needed(images: ImageSet, backbone: Backbone) -> ImageSet:
    """Return images as the backbone wants them, decoded at its size where their source has files."""
    return replace(images, dataset=viewed(images.dataset, backbone))


def viewed(dataset: ImageDataset, backbone: Backbone) -> ImageDataset:
    """Return a data set as `as_needed` returns images."""
    if dataset.viewed is None or backbone.view == View(image_size=dataset.image_size):
        return dataset
    return dataset.viewed(backbone.view)


def feature_identity(images: ImageSet, backbone_card: Mapping[str, Any], weights_sha256: str) -> dict[str, Any]:
    """Return the identity of a bank: weights, backbone and images. Equal identities mean equal features.

    Args:
        images: The embedded images.
        backbone_card: Name, sizes, pooling and transform of the backbone.
        weights_sha256: SHA-256 of the checkpoint.
    """
    return {"weights": weights_sha256, "backbone": dict(backbone_card), **images.identity}


@torch.inference_mode()
def embed_batches(
    backbone: Backbone, images: ImageSet, batch_size: int, batches: range, *, n_workers: int = 0
) -> Iterator[NDArray[np.float32]]:
    """Yield the features of some batches of images, (n, n_features) float32 each.

    Where memory does not suffice for a batch, half as many images are computed at one time from there on, and so on.

    Args:
        backbone: The backbone; put into evaluation mode.
        images: The images; batches are cut in the order of their rows.
        batch_size: Images per batch.
        batches: Numbers of the batches to embed.
        n_workers: Number of processes that read batches ahead, where that takes long.
    """
    device = next(backbone.model.parameters()).device
    backbone.model.eval()
    rows = [images.rows[number * batch_size : (number + 1) * batch_size] for number in batches]
    n_workers = n_workers if len(rows) > 1 and _is_slow(images, device) else 0
    n_at_once = at_once(backbone.image_size, device)
    for pixels in read_ahead(partial(read_tensor, images.dataset), rows, n_workers, is_pinned=device.type == "cuda"):
        batch = match_channels(pixels, backbone.n_channels)
        while (features := _embed_if_it_fits(backbone, batch, n_at_once, device)) is None:
            n_too_many = min(n_at_once, len(batch))
            n_at_once = n_too_many // 2
            note(
                f"too little memory to embed {n_too_many} images at one time: going on with {n_at_once}, by which "
                "features may change in their last digits"
            )
        yield features


def _embed_if_it_fits(
    backbone: Backbone, batch: torch.Tensor, n_at_once: int, device: torch.device
) -> NDArray[np.float32] | None:
    """Return the features of a batch, or None if memory suffices for fewer images at one time only."""
    try:
        features: NDArray[np.float32] = torch.cat(
            [backbone.embed(part.to(device)).cpu() for part in batch.split(n_at_once)]
        ).numpy()
        return features
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or min(n_at_once, len(batch)) == 1:
            raise
    torch.cuda.empty_cache()  # does nothing without a GPU; only here are the tensors of the attempt gone
    return None


def _is_slow(images: ImageSet, device: torch.device) -> bool:
    """Return whether the device would wait for images: a GPU for files, a CPU only for files yet to be decoded."""
    decoded = images.dataset.decoded
    return decoded is not None and (device.type == "cuda" or len(decoded.missing(images.rows)) > 0)


def make_bank(images: ImageSet, batches: Iterator[NDArray[np.float32]], identity: Mapping[str, Any]) -> FeatureBank:
    """Gather the batches of `embed_batches` into a bank."""
    return FeatureBank(
        features=np.concatenate(list(batches)),
        labels=images.labels.copy(),
        image_ids=images.image_ids,
        class_names=images.class_names,
        identity=identity,
    )


def match_channels(images: torch.Tensor, n_channels: int) -> torch.Tensor:
    """Repeat grey for a colour backbone, or take the luminance (ITU-R 601) for a grey one."""
    if images.shape[1] == n_channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, n_channels, -1, -1)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images.float() * weights).sum(1, keepdim=True).round().to(torch.uint8)
