"""Any timm model as a backbone with a head; beside `optimizers` the only module that uses timm."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs.config.learning_schema import BackboneConfig
from lurefs.data.dataset import View
from lurefs.errors import UserError, first_line, unknown_name
from lurefs.learning.stem import make_stem_small
from lurefs.learning.weights import State, check_loaded, load_into, read_weights, watched_loading
from lurefs.records import from_mapping

SET_ELSEWHERE = {
    "num_classes": "the head has one output per base class, and a frozen backbone has no head",
    "in_chans": "the model has as many channels as the images of the data set",
    "features_only": "a whole model is learned, and what its head sees are the features",
    "checkpoint_path": "backbone.checkpoint_path names a file of weights",
}
"""timm's keywords that would contradict other settings, and what is so in their place."""


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
        return ((prepared - mean) / std).contiguous(memory_format=_memory_format(self.channels_last))

    def logits(self, images: Tensor) -> Tensor:
        """Return (n, n_classes) float32 for raw images (n, n_channels, height, width) uint8."""
        output: Tensor = self.model(self.prepare(images))
        return output.float()

    def embed(self, images: Tensor) -> Tensor:
        """Return (n, n_features) float32, the features that the classifier would get, for images as in `logits`."""
        model: Any = self.model
        features: Tensor = model.forward_head(model.forward_features(self.prepare(images)), pre_logits=True)
        return features.float()

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


def list_backbones(pattern: str = "") -> list[str]:
    """Return timm's model names that hold `pattern`, or match it where it has wildcards."""
    import timm

    found: list[str] = timm.list_models(pattern if "*" in pattern else f"*{pattern}*")
    return found


def check_backbone(config: BackboneConfig) -> None:
    """Refuse a name that timm does not have, and parameters that another setting stands for.

    Raises:
        UserError: With the nearest name that it has, or the other setting.
    """
    import timm

    architecture = config.name.partition(".")[0]
    if timm.is_model(architecture):
        try:
            timm.models.get_pretrained_cfg(config.name)
        except RuntimeError as error:  # the tag behind the point is none of this model's
            tagged = timm.list_models(f"{architecture}.*", pretrained=True)
            raise unknown_name("timm model", config.name, [architecture, *tagged]) from error
    elif not config.name.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        unknown = unknown_name("timm model", config.name, timm.list_models())
        fix = f"write 'hf-hub:{config.name}'" if "/" in config.name else unknown.fix
        raise UserError(unknown.problem, "a name of 'lurefs list backbones [PATTERN]', or hf-hub:OWNER/NAME", fix)
    for key in SET_ELSEWHERE.keys() & config.params.keys():
        raise UserError(
            f"backbone.params.{key} is {config.params[key]!r}",
            f"no {key} there: {SET_ELSEWHERE[key]}",
            f"leave backbone.params.{key} out",
        )


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
    model, weights = _build_model(
        config, n_classes=n_classes, n_channels=n_channels, image_size=size, seed=seed, channels_last=channels_last
    )
    card = _data_card(model)
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
        n_features=_count_features(model, n_channels, size),
        n_classes=n_classes,
        view=view,
        n_channels=n_channels,
        mean=mean,
        std=std,
        channels_last=channels_last,
        weights=weights,
    )


def build_twin(backbone: Backbone, config: BackboneConfig, *, seed: int) -> nn.Module:
    """Build an untrained model of the same architecture, initialised with `seed`, on the backbone's device."""
    fresh = replace(config, pretrained=False, checkpoint_path=None)
    twin, _ = _build_model(
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
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {name!r} cannot be used: {first_line(error)}",
            "auto, cpu, or cuda on a machine that has it",
            "set device=auto",
        ) from error
    return device


def _data_card(model: nn.Module) -> dict[str, Any]:
    """Return how timm prepares images for a model: input_size, mean, std, crop_pct, crop_mode, interpolation."""
    from timm.data import resolve_model_data_config

    card: dict[str, Any] = resolve_model_data_config(model)
    return card


def _view_of_checkpoint(config: BackboneConfig) -> View | None:
    """Return how a run of lurefs saw the images that it trained a checkpoint on; None for files of other trainings."""
    if config.checkpoint_path is None:
        return None
    try:
        card = json.loads(Path(config.checkpoint_path).with_suffix(".json").read_bytes())
        return from_mapping(View, {field.name: card[field.name] for field in fields(View) if field.name in card})
    except (OSError, ValueError, TypeError, UserError):
        return None


def _build_model(
    config: BackboneConfig, *, n_classes: int, n_channels: int, image_size: int | None, seed: int, channels_last: bool
) -> tuple[nn.Module, str]:
    """Return a model and, if its weights are loaded, in words which ones they are.

    Without `image_size` the model is built for the size that its card names.
    """
    params: dict[str, Any] = {"num_classes": n_classes, "in_chans": n_channels, **config.params}
    if image_size is not None and _has_fixed_size(config.name) and "img_size" not in params:
        params["img_size"] = image_size

    def create(**more: Any) -> nn.Module:
        model = _create(config.name, seed=seed, **{**params, **more})
        if config.stem == "small":
            size = image_size or _data_card(model)["input_size"][-1]
            make_stem_small(model, config.name, n_channels=n_channels, image_size=size)
        return model

    words = ""
    size_words = "" if image_size is None else f" x {image_size} x {image_size}"
    with _told_in_words(config, f"{n_channels}{size_words}"), watched_loading() as missing:
        model = create(pretrained=config.pretrained)
    if config.pretrained and missing:
        check_loaded(model, missing[-1], config.name)
        words = f"those that timm has for {_full_name(model, config.name)}"
    if config.checkpoint_path is not None:
        weights = read_weights(Path(config.checkpoint_path), config.checkpoint_copy, config.checkpoint_sha256)

        def rebuild(state: State) -> nn.Module:
            overlay = {**params.get("pretrained_cfg_overlay", {}), "state_dict": state}
            return create(pretrained=True, pretrained_cfg_overlay=overlay)

        model, words = load_into(model, weights, rebuild, config.checkpoint_match)
    return model.to(memory_format=_memory_format(channels_last)), words


def _full_name(model: nn.Module, name: str) -> str:
    """Return a model's name with the tag of its pretrained weights, of which timm chooses one if none is named."""
    card: Any = getattr(model, "pretrained_cfg", {})
    return name if ":" in name else ".".join(filter(None, (card.get("architecture", name), card.get("tag"))))


def _create(name: str, *, seed: int, **params: Any) -> nn.Module:
    """Let timm create a model whose initial weights are drawn with a seed; the global generator is left alone."""
    import timm

    is_fetched = params.get("pretrained") or ":" in name
    with torch.random.fork_rng(devices=[]), _cache_alone_without_a_network() if is_fetched else nullcontext():
        torch.manual_seed(seed)
        model: nn.Module = timm.create_model(name, **params)
    return model


@contextmanager
def _cache_alone_without_a_network() -> Iterator[None]:
    """Let the hub's client use only its cache where the hub's address is unknown; it would try for most of a minute."""
    from huggingface_hub import constants

    was_offline = constants.HF_HUB_OFFLINE
    if not was_offline and not getproxies():
        try:
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
        except OSError:
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline


@contextmanager
def _told_in_words(config: BackboneConfig, images: str) -> Iterator[None]:
    """Turn the errors with which timm refuses to create a model into those that a user can act on."""
    try:
        yield
    except (TypeError, ValueError, AssertionError, AttributeError) as error:
        raise UserError(
            f"timm cannot build {config.name!r} for {images} images with {config.params}: {error}",
            "parameters that this model takes, and images that it can read",
            "change backbone.params, or set backbone.image_size to a size that the model takes",
        ) from error
    except (OSError, RuntimeError) as error:
        if not config.pretrained:
            raise UserError(
                f"timm cannot build {config.name!r}: {first_line(error)}",
                "a model that timm has; for hf-hub: names a network connection, or the model in the hub's cache",
                "change backbone.name or backbone.params",
            ) from error
        raise UserError(
            f"the pretrained weights of {config.name!r} cannot be had: {first_line(error)}",
            "a folder as timm saves one, with config.json and a file of weights"
            if config.name.startswith("local-dir:")
            else "a network connection to timm's hub, or the weights in its cache",
            "set backbone.checkpoint_path to a local file of them, or backbone.pretrained=false",
        ) from error


def _memory_format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _has_fixed_size(name: str) -> bool:
    """Whether the model's layers depend on the image size, so that timm needs it to build the model."""
    from timm.models import get_pretrained_cfg, is_model_pretrained

    card = get_pretrained_cfg(name, allow_unregistered=True) if is_model_pretrained(name) else get_pretrained_cfg(name)
    return bool(card is not None and card.fixed_input_size)


def _count_features(model: nn.Module, n_channels: int, image_size: int) -> int:
    probe: Any = copy.deepcopy(model).eval()
    with torch.inference_mode():
        image = torch.zeros(1, n_channels, image_size, image_size)
        try:
            features: Tensor = probe.forward_head(probe.forward_features(image), pre_logits=True)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UserError(
                f"the model cannot read {image_size} x {image_size} images: {first_line(error)}",
                "an image size that the model's strides divide",
                "set backbone.image_size to a larger size: images are resized to it",
            ) from error
    if features.ndim != 2:
        raise UserError(
            f"the model's features of one image have shape {tuple(features.shape[1:])}",
            "one vector an image",
            "leave backbone.params.global_pool out, or set it to avg",
        )
    return int(features.shape[-1])
