"""The contract of unlearn strategies: their arguments and their result.

torch is imported when a strategy is applied, not when it is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from lurefs.errors import UserError
from lurefs.ranks import ONE_PROCESS, Ranks

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

ProbeSource = Literal["seen", "new", "oldest", "previous"]
"""Source of images: all data so far with the new chunk, the new chunk alone, the first chunk, or the training images of
the previous chunk, with replayed ones."""

PROBE_SOURCES: tuple[str, ...] = get_args(ProbeSource)


@dataclass(frozen=True, kw_only=True)
class ProbeImages:
    """The training images that a strategy may look at, un-augmented, and the weights that no image can reach.

    Attributes:
        draw: (source, number of images) -> batches of prepared images and labels; with several processes, each gets
            its part of every batch.
        structural_zeros: By parameter name, a bool tensor of its shape, true where no image can give the weight a
            gradient (see `lurefs.learning.structure`); parameters without an entry have none.
        ranks: The processes that share each batch; figures over a batch are summed over them.
    """

    draw: Callable[[ProbeSource, int], Iterator[tuple[Tensor, Tensor]]]
    structural_zeros: Mapping[str, Tensor] = field(default_factory=dict)
    ranks: Ranks = ONE_PROCESS


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The weights that a strategy changed.

    Attributes:
        masks: By parameter name, a bool tensor of its shape, true where the weight was changed; parameters without
            an entry did not change.
        is_new_model: Whether nothing of the old model is left, so that the optimizer is built again as well.
        may_be_empty: Whether changing no weight is a valid result; otherwise it is an error.
    """

    masks: Mapping[str, Tensor]
    is_new_model: bool = False
    may_be_empty: bool = False


UnlearnStrategy = Callable[["nn.Module", "nn.Module", ProbeImages, "torch.Generator"], Changes]
"""(model, twin, images, generator) -> changes; the model is changed in place, the twin is a fresh copy."""


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters by name, detached from the graph."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def reset(model: nn.Module, fresh: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Changes:
    """Copy fresh values to where the masks are true, and return these changes."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in masks:
                weight.copy_(torch.where(masks[name], fresh[name], weight))
    return Changes(masks=masks)


def changes_since(old: Mapping[str, Tensor], model: nn.Module) -> Changes:
    """Return the changes of a model against earlier copies of its parameters.

    Args:
        old: Earlier copies by parameter name; parameters without an entry did not change.
        model: The changed model.
    """
    now = parameters_of(model)
    return Changes(masks={name: now[name] != before for name, before in old.items()})


def check_share(name: str, value: float) -> None:
    """Check that a setting is a share in (0, 1]."""
    if not 0 < value <= 1:
        raise UserError(f"{name} is {value}", "a share in (0, 1]", f"change unlearn.params.{name}")


def check_count(name: str, value: int) -> None:
    """Check that a setting is at least 1."""
    if value < 1:
        raise UserError(f"{name} is {value}", "at least 1", f"raise unlearn.params.{name}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Check that a setting is one of the choices."""
    if value not in choices:
        raise UserError(f"{name} is {value!r}", f"one of {', '.join(choices)}", f"change unlearn.params.{name}")
