"""Any timm model as a backbone with a head."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs.config.learning_schema import BackboneConfig, FeaturesConfig
from lurefs.config.weight_files import identity_name
from lurefs.data.dataset import View
from lurefs.errors import UserError, first_line
from lurefs.learning.features import REFUSALS, embed, repooled
from lurefs.learning.timm_models import build_model, check_backbone, data_card, memory_format
from lurefs.records import from_mapping


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A timm model, and how images are prepared for it.

    Attributes:
        name: timm's name of the model.
        model: The timm model itself, with a linear head of `n_classes`; its state dict loads in plain timm.
        n_features: Length of what `embed` returns for an image.
        n_classes: Classes of the head.
        view: How a file becomes an image for the model; for loaded weights as the model's card says.
        n_channels: Channels of its input.
        mean: One value a channel, of images in [0, 1].
        std: One value a channel.
        channels_last: Whether inputs and convolution weights have their channels last in memory.
        weights: In words which weights were loaded; empty for initial ones.
        features: Which features `embed` returns.
        identity_name: The name as a part of identities, without a folder whose bytes identify it.
    """

    name: str
    model: nn.Module
    n_features: int
    n_classes: int
    view: View
    n_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels_last: bool = True
    weights: str = ""
    features: FeaturesConfig = FeaturesConfig()
    identity_name: str = ""

    def prepare(self, images: Tensor) -> Tensor:
        """Return the model's input for raw images.

        Args:
            images: (n, n_channels, height, width) uint8.

        Returns:
            (n, n_channels, image_size, image_size) float32, standardised.
        """
        prepared = images.float()
        if images.shape[-1] != self.image_size:
            size = (self.image_size, self.image_size)
            prepared = functional.interpolate(prepared, size, mode="bilinear", antialias=True, align_corners=False)
        mean, std = self._constants(images.device)
        return ((prepared - mean) / std).contiguous(memory_format=memory_format(self.channels_last))

    def logits(self, images: Tensor) -> Tensor:
        """Return (n, n_classes) float32 for raw images (n, n_channels, height, width) uint8."""
        output: Tensor = self.model(self.prepare(images))
        return output.float()

    def embed(self, images: Tensor) -> Tensor:
        """Return (n, n_features) float32, the chosen features, for images as in `logits`.

        By default these are the ones that the classifier would get.
        """
        return embed(self._repooled(), self.prepare(images), self.features).float()

    def _repooled(self) -> nn.Module:
        """Return the model that pools as chosen, made again if the model's tensors were replaced, as by `to`."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        if [id(tensor) for tensor in tensors] != [id(tensor) for tensor in self._pooled_of.get("tensors", ())]:
            self._pooled_of.update(tensors=tensors, model=repooled(self.model, self.features))
        pooled: nn.Module = self._pooled_of["model"]
        return pooled.train(self.model.training)

    @cached_property
    def _pooled_of(self) -> dict[str, Any]:
        return {}

    def _constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of images in [0, 255], made once for each device."""
        if device not in self._constants_of:
            with torch.inference_mode(False):  # gradients with respect to images must pass through them later
                self._constants_of[device] = (
                    torch.tensor(self.mean, device=device).view(1, -1, 1, 1) * 255,
                    torch.tensor(self.std, device=device).view(1, -1, 1, 1) * 255,
                )
        return self._constants_of[device]

    @cached_property
    def _constants_of(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        return {}

    @property
    def image_size(self) -> int:
        """Height and width of the model's input, in pixels; images of another size are resized."""
        return self.view.image_size

    @property
    def n_parameters(self) -> int:
        """Number of parameters, head included."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def transform(self) -> dict[str, Any]:
        """Image size and normalisation that `prepare` applies, as a part of the identity of features."""
        return {"image_size": self.image_size, "mean": list(self.mean), "std": list(self.std)}


def build_backbone(
    config: BackboneConfig, *, n_classes: int, n_channels: int, image_size: int, seed: int, channels_last: bool = True
) -> Backbone:
    """Build a timm model with its initial or its pretrained weights.

    Args:
        config: Which model, and from where its weights come.
        n_classes: Classes of the head.
        n_channels: Channels of the images.
        image_size: Size of the images. `config.image_size` takes its place where it is set, and otherwise, for weights
            that are loaded, the size that the model's card names.
        seed: Seed of the initial weights.
        channels_last: Whether channels stand last in memory.

    Raises:
        UserError: No such model, parameters that it does not take, or weights that cannot be had.
    """
    check_backbone(config)
    is_loaded = config.pretrained or config.checkpoint_path is not None
    own = _view_of_checkpoint(config)
    size = config.image_size or (own.image_size if own else None if is_loaded else image_size)
    model, weights = build_model(
        config, n_classes=n_classes, n_channels=n_channels, image_size=size, seed=seed, channels_last=channels_last
    )
    card = data_card(model)
    size = size or card["input_size"][-1]
    mean, std = tuple(card["mean"]), tuple(card["std"])
    if n_channels == 1:  # timm sums a pretrained stem over the colours: the image counts as grey in each of them
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    view = View(image_size=size) if own is None else replace(own, image_size=size)
    if is_loaded and own is None:
        is_squashed = card["crop_mode"] == "squash"
        view = replace(view, crop_share=card["crop_pct"], interpolation=card["interpolation"], is_squashed=is_squashed)
    return Backbone(
        name=config.name,
        model=model,
        n_features=count_features(model, n_channels, size, config),
        n_classes=n_classes,
        view=view,
        n_channels=n_channels,
        mean=mean,
        std=std,
        channels_last=channels_last,
        weights=weights,
        features=config.features,
        identity_name=identity_name(config),
    )


def build_twin(backbone: Backbone, config: BackboneConfig, *, seed: int) -> nn.Module:
    """Build an untrained model of the same architecture, initialised with `seed`, on the backbone's device."""
    fresh = replace(config, pretrained=False, checkpoint_path=None)
    twin, _ = build_model(
        fresh,
        n_classes=backbone.n_classes,
        n_channels=backbone.n_channels,
        image_size=backbone.image_size,
        seed=seed,
        channels_last=backbone.channels_last,
    )
    return twin.to(next(backbone.model.parameters()).device)


def synchronise_batch_norm(model: nn.Module) -> None:
    """Let batch norm share its statistics over processes on a GPU; torch has no such layer for a CPU.

    Parameters, and the names in the state dict, stay what they are.
    """
    from timm.layers import convert_sync_batchnorm

    if next(model.parameters()).device.type == "cuda":
        for name, child in model.named_children():
            setattr(model, name, convert_sync_batchnorm(child))


def stages(model: nn.Module) -> list[list[str]]:
    """Return the names of a model's parameters and buffers, grouped by timm's coarse stages from the stem to the head.

    timm's division (its layer groups, the coarse ones) follows the order of computation, which the order of names does
    not in every family. Models that have none, of timm or not, are one part.
    """
    from timm.models import group_parameters

    names = list(model.state_dict())
    group_matcher: Any = getattr(model, "group_matcher", None)
    if group_matcher is None:
        return [names]
    part_of: dict[str, int] = {}
    for part, parameters in group_parameters(model, group_matcher(coarse=True)).items():
        part_of.update(dict.fromkeys(parameters, part))
    part = 0
    for name in names:  # a module's buffers stand behind its parameters
        part = part_of.setdefault(name, part)
    return [[name for name in names if part_of[name] == part] for part in sorted(set(part_of.values()))]


def resolve_device(name: str) -> torch.device:
    """Return the device that a config means; `auto` is a GPU where there is one.

    Raises:
        UserError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # the device "meta" holds no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"device {name!r} cannot be used: {first_line(error)}",
            "auto, cpu, or cuda on a machine that has it",
            "set device=auto",
        ) from error
    return device


def _view_of_checkpoint(config: BackboneConfig) -> View | None:
    """Return how a run of lurefs saw the images that it trained a checkpoint on; None for files of other trainings."""
    if config.checkpoint_path is None:
        return None
    try:
        card = json.loads(Path(config.checkpoint_path).with_suffix(".json").read_bytes())
        return from_mapping(View, {field.name: card[field.name] for field in fields(View) if field.name in card})
    except (OSError, ValueError, TypeError, UserError):
        return None


def count_features(model: nn.Module, n_channels: int, image_size: int, config: BackboneConfig) -> int:
    """Return the length of the chosen features, checked on an image of zeros."""
    probe, choice = copy.deepcopy(model).eval(), config.features
    with torch.inference_mode():
        image = torch.zeros(1, n_channels, image_size, image_size, device=next(probe.parameters()).device)
        try:
            features = embed(probe, image, FeaturesConfig())
        except (RuntimeError, ValueError, AssertionError) as error:
            is_grey = n_channels == 1
            raise UserError(
                f"the model cannot read {image_size} x {image_size} {'grey ' if is_grey else ''}images: "
                f"{first_line(error)}",
                "an image size that the model's strides divide"
                + (", and a model that does not need colours" if is_grey else ""),
                "set backbone.image_size to a larger size: images are resized to it"
                + ("; if no size helps, read files with dataset.params.n_channels=3" if is_grey else ""),
            ) from error
        if choice != FeaturesConfig():
            try:
                features = embed(repooled(probe, choice), image, choice)
            except REFUSALS as error:
                raise UserError(
                    f"timm gives no features of {config.name!r} for backbone.features ({choice.words()}): "
                    f"{first_line(error)}",
                    "a layer and a pooling that this model has"
                    + (", and norm: false where it has no norm for its layers" if choice.norm else ""),
                    "change backbone.features, or leave it out",
                ) from error
    if features.ndim != 2:
        raise UserError(
            f"the model's features of one image have shape {tuple(features.shape[1:])}",
            "one vector an image",
            "leave backbone.params.global_pool out, or set it to avg",
        )
    return int(features.shape[-1])
