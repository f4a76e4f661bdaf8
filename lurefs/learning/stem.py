"""The stem of a model: its first convolution, made to keep the size of small images."""

from __future__ import annotations

import torch
from torch import nn

from lurefs.errors import UserError


def has_overlapping_stem(model: nn.Module) -> bool:
    """Say whether `stem: small` makes the first maps of a model larger: its first convolution overlaps and strides."""
    first = _first_convolution(model)[1]
    return first is not None and _can_be_small(first) and first.stride[0] > 1


def make_stem_small(model: nn.Module, name: str) -> None:
    """Give the first convolution stride 1 (and 3 x 3 taps in place of 7 x 7), and drop the max-pool behind it.

    This is the usual stem for images of about 32 pixels (He et al. 2016, section 4.2).
    """
    place, first = _first_convolution(model)
    if first is None or not _can_be_small(first):
        raise UserError(
            f"backbone.stem is small, but {name!r} has no plain overlapping first convolution",
            "a family such as resnet, regnet, efficientnet, mobilenet",
            "set backbone.stem=default, and make patches smaller with backbone.params (e.g. patch_size)",
        )
    size = 3 if first.kernel_size[0] > 3 else first.kernel_size[0]
    small = nn.Conv2d(
        first.in_channels, first.out_channels, size, stride=1, padding=size // 2, bias=first.bias is not None
    )
    if size == first.kernel_size[0]:
        small.load_state_dict(first.state_dict())
    else:  # fan-out as timm initialises it, from the taps that are kept
        with torch.no_grad():
            start = (first.kernel_size[0] - size) // 2
            taps = first.weight[:, :, start : start + size, start : start + size]
            small.weight.copy_(taps * (first.kernel_size[0] / size))
            if small.bias is not None and first.bias is not None:
                small.bias.copy_(first.bias)
    parent_name, _, child = place.rpartition(".")
    parent = model.get_submodule(parent_name)
    setattr(parent, child, small)
    if isinstance(getattr(model, "maxpool", None), nn.Module):
        model.maxpool = nn.Identity()


def _first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d | None]:
    """Return the name of what timm calls the first convolution, and the layer itself if it is one."""
    place = str(getattr(model, "pretrained_cfg", {}).get("first_conv", ""))
    try:
        first = model.get_submodule(place)
    except AttributeError:
        return place, None
    return place, first if isinstance(first, nn.Conv2d) else None


def _can_be_small(first: nn.Conv2d) -> bool:
    """Say whether a first convolution overlaps, and holds no more than a plain one (standardised ones have gains)."""
    return first.kernel_size[0] != first.stride[0] and set(first.state_dict()) <= {"weight", "bias"}
