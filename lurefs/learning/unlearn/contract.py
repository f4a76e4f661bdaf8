"""What an unlearn strategy is given, and what it gives back.

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
"""Which images: of all data seen so far and the new chunk, of the new chunk alone, of the first chunk, or those that
the previous chunk trained on, replayed ones included."""

PROBE_SOURCES: tuple[str, ...] = get_args(ProbeSource)


@dataclass(frozen=True, kw_only=True)
class ProbeImages:
    """The training images that a strategy may look at, un-augmented, and the weights that no image can reach.

    Attributes:
        draw: (which images, how many) -> batches of prepared images and labels; of several processes, each is given
            its own part of every batch.
        structural_zeros: By parameter name, a bool tensor of its shape, true where no image can give the weight a
            gradient (see `lurefs.learning.structure`); parameters that are not named have none.
        ranks: The processes that work together; figures over a batch are sums over them.
    """

    draw: Callable[[ProbeSource, int], Iterator[tuple[Tensor, Tensor]]]
    structural_zeros: Mapping[str, Tensor] = field(default_factory=dict)
    ranks: Ranks = ONE_PROCESS


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a strategy did to a model.

    Attributes:
        masks: By parameter name, a bool tensor of its shape, true where the weight was changed; parameters that are
            not named were left as they were.
        is_new_model: Whether nothing of the old model is left, so that the optimizer starts anew as well.
        may_be_empty: Whether the strategy decides from the images whether there is anything to do, so that to change
            no weight is a result; of other strategies it is a mistake.
    """

    masks: Mapping[str, Tensor]
    is_new_model: bool = False
    may_be_empty: bool = False


UnlearnStrategy = Callable[["nn.Module", "nn.Module", ProbeImages, "torch.Generator"], Changes]
"""(model, twin, images, generator) -> changes; the model is changed in place, the twin is a fresh copy."""


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters by name, without their history."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def reset(model: nn.Module, fresh: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Changes:
    """Put fresh values where the masks are true; parameters without a mask stay as they are."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in masks:
                weight.copy_(torch.where(masks[name], fresh[name], weight))
    return Changes(masks=masks)


def changes_since(old: Mapping[str, Tensor], model: nn.Module) -> Changes:
    """Compare parameters with what they were.

    Args:
        old: By parameter name, copies from before; parameters that are not named were not touched.
        model: Holds them as they are now.
    """
    now = parameters_of(model)
    return Changes(masks={name: now[name] != before for name, before in old.items()})


def check_share(name: str, value: float) -> None:
    """Refuse a setting that is no share in (0, 1]."""
    if not 0 < value <= 1:
        raise UserError(f"{name} is {value}", "a share in (0, 1]", f"change unlearn.params.{name}")


def check_count(name: str, value: int) -> None:
    """Refuse a setting that is no count from 1."""
    if value < 1:
        raise UserError(f"{name} is {value}", "at least 1", f"raise unlearn.params.{name}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a setting that is none of the choices."""
    if value not in choices:
        raise UserError(f"{name} is {value!r}", f"one of {', '.join(choices)}", f"change unlearn.params.{name}")
