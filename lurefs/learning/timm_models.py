"""Creation of timm models: their names and keywords, their weights, timm's errors in words, the hub."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import nn

from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.weight_files import LOCAL_DIR, folder_sha256
from lurefs.errors import UserError, first_line, unknown_name
from lurefs.learning.stem import make_stem_small
from lurefs.learning.weights import State, check_loaded, load_into, read_weights, watched_loading

SET_ELSEWHERE = {
    "num_classes": "the head has one output per base class, and a frozen backbone has no head",
    "in_chans": "the model has as many channels as the images of the data set",
    "features_only": "a whole model is learned, and what its head sees are the features",
    "checkpoint_path": "backbone.checkpoint_path names a file of weights",
    "pretrained": "backbone.pretrained says whether timm's weights are loaded",
}
"""timm's keywords that would contradict other settings, and what is so in their place."""


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
    elif not config.name.startswith(("hf-hub:", "hf_hub:", LOCAL_DIR)):
        unknown = unknown_name("timm model", config.name, timm.list_models())
        fix = f"write 'hf-hub:{config.name}'" if "/" in config.name else unknown.fix
        raise UserError(unknown.problem, "a name of 'lurefs list backbones [PATTERN]', or hf-hub:OWNER/NAME", fix)
    for key in SET_ELSEWHERE.keys() & config.params.keys():
        raise UserError(
            f"backbone.params.{key} is {config.params[key]!r}",
            f"no {key} there: {SET_ELSEWHERE[key]}",
            f"leave backbone.params.{key} out",
        )


def build_model(
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
            size = image_size or data_card(model)["input_size"][-1]
            make_stem_small(model, config.name, n_channels=n_channels, image_size=size)
        return model

    _check_folder(config)
    words = ""
    size_words = "" if image_size is None else f" x {image_size} x {image_size}"
    with _told_in_words(config, f"{n_channels}{size_words}"), watched_loading() as missing:
        model = create(pretrained=config.pretrained)
    if config.pretrained:
        check_loaded(model, missing[-1] if missing else _unloaded(model, create(pretrained=False)), config.name)
        words = f"those that timm has for {_full_name(model, config.name)}"
    if config.checkpoint_path is not None:
        weights = read_weights(Path(config.checkpoint_path), config.checkpoint_copy, config.checkpoint_sha256)

        def rebuild(state: State) -> nn.Module:
            overlay = {**params.get("pretrained_cfg_overlay", {}), "state_dict": state}
            return create(pretrained=True, pretrained_cfg_overlay=overlay)

        model, words = load_into(model, weights, rebuild, config.checkpoint_match)
    return model.to(memory_format=memory_format(channels_last)), words


def _check_folder(config: BackboneConfig) -> None:
    """Refuse a folder of a model that is not the one whose digest a config states."""
    if config.checkpoint_path is not None or not config.name.startswith(LOCAL_DIR) or not config.checkpoint_sha256:
        return
    folder = Path(config.name.removeprefix(LOCAL_DIR))
    found = folder_sha256(folder, config.pretrained) if (folder / "config.json").is_file() else None
    if found not in (None, config.checkpoint_sha256):
        raise UserError(
            f"the model in {folder} has the SHA-256 {found}",
            f"the one of backbone.checkpoint_sha256, {config.checkpoint_sha256}",
            "put that model back, or leave backbone.checkpoint_sha256 out to take this one",
        )


def _unloaded(model: nn.Module, fresh: nn.Module) -> set[str]:
    """Return all names if a model equals a fresh one: then a loader of the model's own has loaded nothing."""
    own, initial = model.state_dict(), fresh.state_dict()
    is_fresh = all(torch.equal(tensor, initial[name]) for name, tensor in own.items())
    return set(own) if is_fresh else set()


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
    except (TypeError, ValueError, AssertionError, AttributeError, LookupError, ArithmeticError) as error:
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
            if config.name.startswith(LOCAL_DIR)
            else "a network connection to timm's hub, or the weights in its cache",
            "set backbone.checkpoint_path to a local file of them, or backbone.pretrained=false",
        ) from error


def data_card(model: nn.Module) -> dict[str, Any]:
    """Return how timm prepares images for a model: input_size, mean, std, crop_pct, crop_mode, interpolation."""
    from timm.data import resolve_model_data_config

    card: dict[str, Any] = resolve_model_data_config(model)
    return card


def _has_fixed_size(name: str) -> bool:
    """Whether the model's layers depend on the image size, so that timm needs it to build the model."""
    from timm.models import get_pretrained_cfg, is_model_pretrained

    card = get_pretrained_cfg(name, allow_unregistered=True) if is_model_pretrained(name) else get_pretrained_cfg(name)
    return bool(card is not None and card.fixed_input_size)


def memory_format(channels_last: bool) -> torch.memory_format:
    """Return the order of images and convolution weights in memory that a setting means."""
    return torch.channels_last if channels_last else torch.contiguous_format
