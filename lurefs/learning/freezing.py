"""Frozen parts of a model: parameters that do not learn, batch norm whose statistics stay."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from lurefs.errors import UserError, nearest
from lurefs.learning.backbones import stages
from lurefs.learning.structure import has_statistics


def frozen_names(model: nn.Module, freeze: int | list[str] | None) -> frozenset[str]:
    """Return the names of the parameters and buffers that `learner.freeze` means.

    Args:
        model: The model.
        freeze: A number of timm's coarse stages from the stem on, or patterns of names of parameters or modules.

    Raises:
        UserError: A pattern fits nothing, or nothing is left to learn.
    """
    if freeze is None:
        return frozenset()
    if isinstance(freeze, int):
        parts = stages(model)
        if freeze >= len(parts):
            raise UserError(
                f"learner.freeze is {freeze}, but timm divides {type(model).__name__} into {len(parts)} parts, head "
                "included",
                f"at most {len(parts) - 1}, so that the head learns, or patterns of names",
                "lower learner.freeze" if len(parts) > 1 else "name the modules to freeze, e.g. [stem, blocks.0]",
            )
        return frozenset(name for part in parts[:freeze] for name in part)
    names = list(model.state_dict())
    found: set[str] = set()
    for pattern in freeze:
        matched = {name for name in names if any(fnmatchcase(part, pattern) for part in _with_parents(name))}
        if not matched:
            known = dict.fromkeys(part for name in names for part in _with_parents(name))
            guess = nearest(pattern, known)
            raise UserError(
                f"learner.freeze has {pattern!r}, which fits no parameter and no module of {type(model).__name__}",
                f"names or patterns in one of {', '.join(dict.fromkeys(name.split('.')[0] for name in names))}",
                f"did you mean {guess!r}?" if guess else "change learner.freeze",
            )
        found |= matched
    if all(name in found for name, parameter in model.named_parameters() if parameter.requires_grad):
        raise UserError(
            f"learner.freeze is {freeze}, which leaves no parameter of {type(model).__name__} to learn",
            "patterns that leave some, e.g. the head",
            "shorten learner.freeze, or set frozen=true to measure the backbone as it is",
        )
    return frozenset(found)


def freeze_parameters(model: nn.Module, names: Collection[str]) -> None:
    """Stop the named parameters from learning."""
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)


def keep_statistics(model: nn.Module, names: Collection[str]) -> None:
    """Put batch norm whose statistics are named into evaluation mode: it uses them, and they stay."""
    for name, module in model.named_modules() if names else ():
        if has_statistics(module) and f"{name}.running_mean" in names:
            module.eval()


def restore(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Write stored values back into parameters and buffers."""
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)


def _with_parents(name: str) -> list[str]:
    """Return a name and those of the modules that it lies in."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
