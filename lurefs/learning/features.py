"""Features of prepared images: what the classifier gets, otherwise pooled, or of layers inside the model.

timm does both: `reset_classifier` changes how a model pools, and `forward_intermediates` returns its layers.
"""

from __future__ import annotations

import copy
import inspect
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lurefs.config.learning_schema import FeaturesConfig
from lurefs.errors import UserError, first_line, unknown_name

REFUSALS = (AssertionError, AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""Errors by which timm and torch refuse a pooling, a layer or an image."""


def embed(model: nn.Module, images: Tensor, choice: FeaturesConfig) -> Tensor:
    """Return the chosen features of prepared images, (n, n_features) for most models and choices.

    Args:
        model: A timm model that pools as `choice` says, see `repooled`.
        images: (n, n_channels, height, width).
        choice: Which features.

    Raises:
        UserError: The model has no such layers, or no such tokens.
    """
    timm_model: Any = model
    if _is_module(timm_model, choice):
        return _of_module(timm_model, images, choice)
    if choice.of_layers:
        return _of_layers(timm_model, images, choice)
    features: Tensor = timm_model.forward_head(timm_model.forward_features(images), pre_logits=True)
    return features


def repooled(model: nn.Module, choice: FeaturesConfig) -> nn.Module:
    """Return a model that shares its parameters and buffers with the given one, and pools as chosen.

    It is the model itself if its own pooling is taken, or layers that are pooled on their own.

    Raises:
        UserError: timm does not pool this family so.
    """
    if choice.pool is None or choice.of_layers:
        return model
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    other: Any = copy.deepcopy(model, shared)
    try:
        other.reset_classifier(0, choice.pool)
    except REFUSALS as error:
        raise UserError(
            f"backbone.features.pool is {choice.pool!r}, which {type(model).__name__} does not have: "
            f"{first_line(error)}",
            "a pooling (global_pool) that timm has for this family",
            "change backbone.features.pool, or leave it out for the model's own",
        ) from error
    pooled: nn.Module = other.train(model.training)
    return pooled


class _Reached(Exception):  # noqa: N818
    """Ends a forward pass at the chosen module."""


def _is_module(model: Any, choice: FeaturesConfig) -> bool:
    """Return whether the chosen layer is a module of the model that timm's `feature_info` does not list."""
    return isinstance(choice.layer, str) and choice.layer not in _names(model) and choice.layer in _modules(model)


def _of_module(model: Any, images: Tensor, choice: FeaturesConfig) -> Tensor:
    """Return the pooled output of a module, by its name in the model; nothing after it is computed."""
    if choice.n_layers > 1:
        raise UserError(
            f"backbone.features.n_layers is {choice.n_layers}, but timm does not list the layer {choice.layer!r} of "
            f"{type(model).__name__}, nor those before it",
            "n_layers: 1, or a layer that timm lists: " + ", ".join(_names(model)),
            "leave backbone.features.n_layers out",
        )
    seen: list[Any] = []

    def stop(module: nn.Module, given: Any, output: Any) -> None:
        seen.append(output)
        raise _Reached

    hook = model.get_submodule(choice.layer).register_forward_hook(stop)
    try:
        model.forward_head(model.forward_features(images), pre_logits=True)
    except _Reached:
        pass
    finally:
        hook.remove()
    found = seen[0] if seen else None
    if not isinstance(found, Tensor) or not 2 <= found.ndim <= 4 or len(found) != len(images):
        shape = f"an output of shape {tuple(found.shape)}" if isinstance(found, Tensor) else "no tensor"
        raise UserError(
            f"backbone.features.layer is {choice.layer!r}, which gives {shape} for {len(images)} images",
            "a layer that gives a vector, tokens (n, n_tokens, d) or maps (n, d, height, width) per image",
            "name the block around it, or one of " + ", ".join(_names(model)),
        )
    return _pool_output(model, found, choice)


def _pool_output(model: Any, found: Tensor, choice: FeaturesConfig) -> Tensor:
    """Return a vector per image from vectors, tokens or maps."""
    if found.ndim == 2:
        return found
    n_first = int(getattr(model, "num_prefix_tokens", 0)) if found.ndim == 3 else 0
    is_own_token = n_first > 0 and getattr(model, "cls_token", None) is not None and _own_pooling(model) == "token"
    pool = choice.pool or ("token" if is_own_token else "avg")
    if pool in ("token", "token_avg") and not n_first:
        raise UserError(
            f"backbone.features.pool is {pool!r}, but layer {choice.layer!r} of {type(model).__name__} gives no class "
            "token",
            "a layer of a vision transformer with a class token",
            "set backbone.features.pool to avg",
        )
    if pool == "token":
        return found[:, 0]
    if found.ndim == 3:
        maps = found[:, n_first:].transpose(1, 2).unsqueeze(3)
    else:
        maps = found.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "") == "NHWC" else found
    if pool == "token_avg":
        return torch.cat([found[:, 0], _pool(maps, "avg")], dim=1)
    return _pool(maps, pool)


def _names(model: Any) -> list[str]:
    return [str(each["module"]) for each in model.feature_info]


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if name}


def _of_layers(model: Any, images: Tensor, choice: FeaturesConfig) -> Tensor:
    """Return the pooled features of layers side by side, the last layer's last."""
    gives_tokens = _has_class_token(model)
    pool = choice.pool or ("token" if gives_tokens and _own_pooling(model) == "token" else "avg")
    if pool in ("token", "token_avg") and not gives_tokens:
        raise UserError(
            f"backbone.features.pool is {pool!r}, but timm gives no class token of the layers of "
            f"{type(model).__name__}",
            "a vision transformer with a class token",
            "set backbone.features.pool to avg",
        )
    found = model.forward_intermediates(
        images,
        indices=_indices(model, choice),
        norm=choice.norm,
        stop_early=True,
        intermediates_only=True,
        **({"return_prefix_tokens": True} if gives_tokens else {}),
    )
    if pool in ("token", "token_avg"):
        parts = [tokens[:, 0] for _, tokens in found]
        parts += [_pool(found[-1][0], "avg")] if pool == "token_avg" else []
    else:
        parts = [_pool(layer[0] if gives_tokens else layer, pool) for layer in found]
    return torch.cat(parts, dim=1)


def _pool(layer: Tensor, pool: str) -> Tensor:
    from timm.layers import SelectAdaptivePool2d

    pooled: Tensor = SelectAdaptivePool2d(pool_type=pool, flatten=True)(layer)
    return pooled


def _indices(model: Any, choice: FeaturesConfig) -> list[int]:
    """Return timm's numbers of the chosen layers, ascending."""
    names = _names(model)
    last = _index(names, choice.layer, model)
    if last - choice.n_layers + 1 < 0:
        raise UserError(
            f"backbone.features.n_layers is {choice.n_layers}, but {type(model).__name__} has {last + 1} layers up to "
            f"{names[last]!r}",
            f"at most {last + 1}",
            "lower backbone.features.n_layers, or choose a later backbone.features.layer",
        )
    return list(range(last - choice.n_layers + 1, last + 1))


def _index(names: list[str], layer: str | int | None, model: nn.Module) -> int:
    whose = type(model).__name__
    if layer is None:
        return len(names) - 1
    if isinstance(layer, int):
        if -len(names) <= layer < len(names):
            return layer % len(names)
        raise UserError(
            f"backbone.features.layer is {layer}, but {whose} has {len(names)} layers: {', '.join(names)}",
            f"a number from 0 to {len(names) - 1}, or from -1 (the last one) down to {-len(names)}",
            "change backbone.features.layer",
        )
    if names.count(layer) != 1:
        unknown = unknown_name("layer", layer, [*names, *_modules(model)])
        raise UserError(
            f"backbone.features.layer is {layer!r}, but timm knows the layers {', '.join(names)} of {whose}",
            "one of these names that no other layer has, the number of one, from 0, or the name of any module inside",
            unknown.fix if "did you mean" in unknown.fix else "choose one of these",
        )
    return names.index(layer)


def _has_class_token(model: Any) -> bool:
    """Return whether timm gives the class token of every layer."""
    parameters = inspect.signature(model.forward_intermediates).parameters
    return getattr(model, "cls_token", None) is not None and "return_prefix_tokens" in parameters


def _own_pooling(model: Any) -> str:
    return str(getattr(model, "global_pool", ""))
