"""A stem for images of about 32 pixels: stride 1 and no max-pool, in any family where that leaves a working model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lurefs.errors import UserError, first_line

MAX_TAPS = 3


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A layer without sub-layers, as an image passed through it; sizes are heights in pixels."""

    name: str
    layer: nn.Module
    size_before: int
    size_after: int


def make_stem_small(model: nn.Module, name: str, *, n_channels: int, image_size: int) -> None:
    """Give the first convolution stride 1 and at most 3 x 3 taps, and drop the max-pool behind it, in place.

    This is the usual stem for images of about 32 pixels (He et al. 2016, section 4.2). The taps that stay are those in
    the middle, scaled so that outputs keep their variance. The layers keep their types.

    Args:
        model: A timm model.
        name: What it is called in the config.
        n_channels: Channels of its images.
        image_size: Height and width of its images, in pixels.

    Raises:
        UserError: The model has no overlapping first convolution, or does not work with larger maps.
    """
    first = _first_convolution(model)
    if first is None or first.kernel_size[0] <= first.stride[0] > 1 or first.kernel_size[0] == 1:
        raise UserError(
            f"backbone.stem is small, but {name!r} has no overlapping first convolution",
            "a family such as resnet, regnet, efficientnet, mobilenet",
            "set backbone.stem=default, and make patches smaller with backbone.params (e.g. patch_size)",
        )
    image = torch.zeros(1, n_channels, image_size, image_size)
    before, steps = _trace(model, image)
    pools = _pools_behind(first, steps)
    if first.stride == (1, 1) and not pools:
        raise _unfit(name, "its first convolution has stride 1 already, and no max-pool follows")
    _shrink(first)
    for pool in pools:
        parent, _, child = pool.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    try:
        after, _ = _trace(model, image)
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        raise _unfit(name, f"other layers of it depend on the size of its maps: {first_line(error)}") from error
    if after <= before:
        raise _unfit(name, "its last maps stay as small as they are")


def has_overlapping_stem(model: nn.Module, *, n_channels: int, image_size: int) -> bool:
    """Say whether `stem: small` works for a model and makes its maps larger."""
    first = _first_convolution(model)
    if first is None or first.stride[0] == 1:
        return False
    try:
        make_stem_small(copy.deepcopy(model), "", n_channels=n_channels, image_size=image_size)
    except UserError:
        return False
    return True


def _first_convolution(model: nn.Module) -> nn.Conv2d | None:
    """Return what timm calls the first convolution, if it is one."""
    place = getattr(model, "pretrained_cfg", {}).get("first_conv")
    try:
        first = model.get_submodule(place) if isinstance(place, str) else None
    except AttributeError:
        return None
    return first if isinstance(first, nn.Conv2d) else None


def _shrink(first: nn.Conv2d) -> None:
    """Set stride 1, and keep the taps in the middle; the kernel's scale is that of a fan-out initialisation."""
    n_taps, wanted = first.kernel_size[0], min(first.kernel_size[0], MAX_TAPS)
    first.stride = (1, 1)
    if n_taps > wanted:
        start = (n_taps - wanted) // 2
        taps = first.weight.detach()[:, :, start : start + wanted, start : start + wanted]
        first.weight = nn.Parameter((taps * (n_taps / wanted)).clone())
        first.kernel_size = (wanted, wanted)
        layer: Any = first
        if isinstance(getattr(layer, "scale", None), float):  # standardised: it divides by the root of its fan-in
            layer.scale *= n_taps / wanted
    if not isinstance(first.padding, str) and first.padding != (0, 0):
        first.padding = (wanted // 2, wanted // 2)


def _pools_behind(first: nn.Conv2d, steps: list[_Step]) -> list[str]:
    """Return the names of the layers of the max-pool that follows the first convolution before any other stride."""
    start = next((place for place, step in enumerate(steps) if step.layer is first), len(steps))
    is_pooled = []
    for step in steps[start + 1 :]:
        is_pool = isinstance(step.layer, nn.MaxPool2d)
        if is_pool:
            is_pooled.append(step.name)
        if step.size_after < step.size_before:
            is_blur = bool(is_pooled) and not is_pool and not any(True for _ in step.layer.parameters())
            return [*is_pooled, step.name] if is_blur else is_pooled
    return []


def _trace(model: nn.Module, image: Tensor) -> tuple[int, list[_Step]]:
    """Return how many positions the last maps have, and the layers that the image passed, in their order."""
    was_training = model.training
    with _traced(model) as steps, torch.inference_mode():
        features: Any = model.eval()
        output: Tensor = features.forward_head(last := features.forward_features(image), pre_logits=True)
    model.train(was_training)
    if not bool(torch.isfinite(output).all()):
        raise ValueError("its features are not finite")
    return last.numel(), steps


@contextmanager
def _traced(model: nn.Module) -> Iterator[list[_Step]]:
    steps: list[_Step] = []

    def watch(name: str) -> Any:
        def note(layer: nn.Module, inputs: Any, output: Any) -> None:
            given = inputs[0] if inputs else None
            if isinstance(given, Tensor) and isinstance(output, Tensor) and given.ndim == output.ndim == 4:
                steps.append(_Step(name=name, layer=layer, size_before=given.shape[-2], size_after=output.shape[-2]))

        return note

    leaves = [(name, layer) for name, layer in model.named_modules() if not any(True for _ in layer.children())]
    hooks = [layer.register_forward_hook(watch(name)) for name, layer in leaves]
    try:
        yield steps
    finally:
        for hook in hooks:
            hook.remove()


def _unfit(name: str, reason: str) -> UserError:
    return UserError(
        f"backbone.stem is small, but {name!r} cannot have a small stem: {reason}",
        "a family such as resnet, regnet, efficientnet, mobilenet",
        "set backbone.stem=default, and a larger backbone.image_size",
    )
