"""Detection of backbones whose feature maps shrink to 1 x 1, so that most taps of larger kernels see only padding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lurefs.learning.backbones import Backbone
from lurefs.learning.stem import has_overlapping_stem


def layers_on_padding(backbone: Backbone) -> dict[str, int]:
    """Return the convolutions larger than 1 x 1 whose input map is 1 x 1, in order of computation: name -> n_taps.

    Args:
        backbone: Left as it was; a blank image of its size passes through it.
    """
    model, found = backbone.model, dict[str, int]()
    was_training = model.training
    image = torch.zeros(1, backbone.n_channels, backbone.image_size, backbone.image_size, dtype=torch.uint8)
    with _noted(model, found), torch.inference_mode():
        model.eval()
        backbone.embed(image.to(next(model.parameters()).device))
    model.train(was_training)
    return found


def ends_in_one_position(backbone: Backbone) -> bool:
    """Whether the last feature maps of a backbone are 1 x 1; False if it has tokens instead of maps."""
    model: Any = backbone.model
    was_training = model.training
    image = torch.zeros(1, backbone.n_channels, backbone.image_size, backbone.image_size, dtype=torch.uint8)
    with torch.inference_mode():
        shape = model.eval().forward_features(backbone.prepare(image.to(next(model.parameters()).device))).shape
    model.train(was_training)
    return len(shape) == 4 and (1, 1) in (shape[2:], shape[1:3])  # channels stand second, or last


def padding_note(backbone: Backbone) -> str | None:
    """Return a warning that feature maps shrink to 1 x 1 at the backbone's image size; None if they do not."""
    found = layers_on_padding(backbone)
    if not found and not ends_in_one_position(backbone):
        return None
    size, names = backbone.image_size, list(found)
    small_stem = "backbone.stem=small or " if _can_be_small(backbone) else ""
    what = "its last maps are 1 x 1, so most taps of the kernels before them meet padding"
    if found:
        layers = names[0] if len(names) == 1 else f"{len(names)} convolutions, {names[0]} to {names[-1]},"
        taps = " or ".join(f"{n_taps - 1} of {n_taps}" for n_taps in sorted(set(found.values())))
        what = f"the maps that enter {layers} are 1 x 1, so {taps} taps of a kernel there meet nothing but padding"
    return (
        f"{backbone.name} at {size} x {size} pixels: {what}; {small_stem}a larger backbone.image_size gives larger maps"
    )


def _can_be_small(backbone: Backbone) -> bool:
    return has_overlapping_stem(backbone.model, n_channels=backbone.n_channels, image_size=backbone.image_size)


@contextmanager
def _noted(model: nn.Module, found: dict[str, int]) -> Iterator[None]:
    """Record the convolutions larger than 1 x 1 that get a 1 x 1 input, until the block ends."""

    def watch(name: str) -> Any:
        def note(layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].shape[-2:] == (1, 1):
                found[name] = prod(layer.kernel_size)

        return note

    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers if max(layer.kernel_size) > 1]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
