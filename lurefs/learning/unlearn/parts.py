"""Strategies that re-initialise a whole part of the model: its end, or only its classifier."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lurefs.errors import UserError, unknown_name
from lurefs.learning.unlearn.contract import Changes, ProbeImages, UnlearnStrategy

if TYPE_CHECKING:
    import torch
    from torch import nn


def head() -> UnlearnStrategy:
    """Re-initialise the classifier, weights and biases (RIFLE; Li, Xiong, An, Xu and Dou 2020, ICML, section 3).

    Departures: the source resets the fully connected layer several times while one data set is fine-tuned, each time
    with a cyclic learning rate; here it is reset before each chunk. Fresh values are a twin's. Norm and hidden
    layers of a head stay: only what timm calls the classifier is reset, both classifiers in distilled models.
    """

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        from lurefs.learning.weights import classifier_names

        names = [name for name in model.state_dict() if _lies_in(name, classifier_names(model))]
        if not names:
            raise UserError(
                f"{type(model).__name__} has no classifier that timm knows of",
                "a timm model with a classifier that has weights",
                "choose another unlearn.name, e.g. last_layers with params.from_module",
            )
        return _reinitialise(model, twin, names)

    return unlearn


def last_layers(from_module: str | None = None) -> UnlearnStrategy:
    """Re-initialise all layers from a stage to the end (later-layer forgetting; Zhou et al. 2022, ICLR, section 4).

    Weights, biases, norm layers and their running statistics are the twin's. The order of layers is that of timm's
    layer groups, and within a group that of the model's names. In vision transformers a group is one block.

    Departures: the source chooses the layer per architecture, and resets every few epochs of one data set; here the
    default is the last stage and the head, and the reset comes before each chunk. The released code resets only weights
    of convolutions and linear maps, drawn uniformly in +-1/sqrt(fan_in). Here fresh values follow the model's own
    initialisation, which differs between timm's families. Norm layers, running statistics and biases are reset too,
    since old statistics do not fit a re-initialised layer.

    Args:
        from_module: Dotted name of the first module to reset, e.g. `layer3` or `blocks.4`; null is the first of the
            last stage.

    Raises:
        UserError: The model has no such module, or it is null and timm does not divide the model.
    """

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        from lurefs.learning.backbones import stages

        parts = stages(model)
        names = [name for part in parts for name in part]
        if from_module is not None:
            return _reinitialise(model, twin, names[_position(model, names, from_module) :])
        if len(parts) < 3:
            raise UserError(
                f"timm does not divide {type(model).__name__} into stages",
                f"the module to start from, e.g. one of {_top(model)}",
                "set unlearn.params.from_module",
            )
        return _reinitialise(model, twin, [*parts[-2], *parts[-1]])

    return unlearn


def _lies_in(name: str, modules: Iterable[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _position(model: nn.Module, names: list[str], module: str) -> int:
    """Return the position of the first of a module's own names."""
    found = [position for position, name in enumerate(names) if _lies_in(name, [module])]
    if not found:
        with_weights = {name for name, child in model.named_modules() if name and child.state_dict()}
        error = unknown_name("module", module, with_weights)
        problem = f"{type(model).__name__} has no module {module!r} with weights"
        raise UserError(problem, f"a module in one of {_top(model)}", f"{error.fix} (unlearn.params.from_module)")
    return found[0]


def _top(model: nn.Module) -> str:
    return ", ".join(name for name, child in model.named_children() if child.state_dict())


def _reinitialise(model: nn.Module, twin: nn.Module, names: Iterable[str]) -> Changes:
    """Copy the named parameters and buffers from the twin."""
    import torch

    state, fresh = model.state_dict(), twin.state_dict()
    with torch.no_grad():
        for name in names:
            state[name].copy_(fresh[name])
    parameters = dict(model.named_parameters())
    return Changes(masks={n: torch.ones_like(parameters[n], dtype=torch.bool) for n in names if n in parameters})
