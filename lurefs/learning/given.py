"""A backbone from a timm model that the caller has built, with the weights that it has."""

from __future__ import annotations

from typing import Any

from torch import nn

from lurefs.config.learning_schema import BackboneConfig
from lurefs.data.dataset import View
from lurefs.data.pixels import check_image_size
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone, count_features
from lurefs.learning.timm_models import data_card


def given_backbone(model: nn.Module, *, image_size: int | None = None) -> Backbone:
    """Return a timm model as a backbone, with the image size, crop and normalisation of its card.

    Args:
        model: The model; it is neither copied nor changed.
        image_size: Height and width of its input in pixels; None for the size that its card names.

    Raises:
        UserError: It is no model of timm, or cannot read images of that size.
    """
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
        raise UserError(
            f"the model is a {type(model).__name__} without forward_features and forward_head",
            "a model of timm.create_model, or the name of one",
            "take the model out of its wrapper (.module, ._orig_mod), or give your features to the package episodes",
        )
    card = data_card(model)
    size = int(card["input_size"][-1]) if image_size is None else image_size
    check_image_size(size, where="the model")
    n_channels, n_features = _input_and_output(model, size)
    mean, std = tuple(card["mean"]), tuple(card["std"])
    if n_channels == 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    of_timm: Any = getattr(model, "pretrained_cfg", None) or {}
    return Backbone(
        name=of_timm.get("architecture") or type(model).__name__,
        model=model,
        n_features=n_features,
        n_classes=int(getattr(model, "num_classes", 0)),
        view=View(
            image_size=size,
            crop_share=card["crop_pct"],
            interpolation=card["interpolation"],
            is_squashed=card["crop_mode"] == "squash",
        ),
        n_channels=n_channels,
        mean=mean,
        std=std,
        channels_last=False,
        weights="those of the given model",
    )


def _input_and_output(model: nn.Module, image_size: int) -> tuple[int, int]:
    """Return the number of channels that a model reads, 3 or 1, and of the features that it gives."""
    config = BackboneConfig(name=type(model).__name__)
    try:
        return 3, count_features(model, 3, image_size, config)
    except UserError as error:
        try:
            return 1, count_features(model, 1, image_size, config)
        except UserError:
            raise error from None
