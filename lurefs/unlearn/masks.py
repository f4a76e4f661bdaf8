"""Strategies that give some weights fresh values: which ones is what they differ in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from lurefs.errors import UserError
from lurefs.unlearn.contract import (
    Changes,
    ProbeImages,
    ProbeSource,
    UnlearnStrategy,
    check_choice,
    check_share,
    parameters_of,
    reset,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def by_saliency(
    keep_ratio: float = 0.8,
    saliency_images: int = 512,
    probe: ProbeSource = "seen",
    scope: Literal["weights", "named_weight"] = "weights",
    fresh: Literal["twin", "uniform_fan_in"] = "twin",
    as_released: bool = False,
) -> UnlearnStrategy:
    """Re-initialise the least salient weights (LURE; Ramkumar, Arani and Zonooz 2023, TMLR, arXiv 2303.10455).

    The saliency of a weight is |theta * sum over probe batches of |g||; all weights are ranked together, and the lowest
    share of 1 - keep_ratio is reset.

    Departures from the authors' released code, each a setting: images to score with are drawn evenly over all data
    seen, in several batches (`probe`, `saliency_images`; released: one batch of 100 of the oldest); weights of
    convolutions, linear maps, attention and embeddings are ranked and reset (`scope`; released: all parameters are
    ranked, and every tensor whose name contains "weight" is reset, norm scales included); fresh values come from a
    newly built twin (`fresh`; released: uniform in +-1/sqrt(fan_in), with fan_in 1 for one-dimensional tensors);
    exactly the asked share is reset, ties broken at random (released: all scores up to the threshold). What becomes
    of the optimizer's moments is `learner.optimizer_state` (released: keep).

    Args:
        keep_ratio: Share of the weights that are kept, in (0, 1].
        saliency_images: How many images score them.
        probe: Which: of all data seen so far, the new chunk's, or the first chunk's.
        scope: Which parameters are ranked and reset.
        fresh: Where new values come from.
        as_released: Set all of the above but `keep_ratio` back to the released code.

    Raises:
        UserError: A setting is out of range.
    """
    check_share("keep_ratio", keep_ratio)
    if saliency_images < 1:
        raise UserError(f"saliency_images is {saliency_images}", "at least 1", "raise unlearn.params.saliency_images")
    check_choice("probe", probe, ("seen", "new", "oldest"))
    check_choice("scope", scope, ("weights", "named_weight"))
    check_choice("fresh", fresh, ("twin", "uniform_fan_in"))
    if as_released:
        probe, saliency_images, scope, fresh = "oldest", 100, "named_weight", "uniform_fan_in"

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        from lurefs import saliency

        scores = saliency.snip(model, images.draw(probe, saliency_images), images.ranks)
        if scope == "weights":
            scores = {name: scores[name] for name in saliency.weight_names(model) if name in scores}
        if as_released:
            masks = _up_to_threshold(scores, 1 - keep_ratio)
        else:
            masks = saliency.smallest(scores, 1 - keep_ratio, generator)
        if scope == "named_weight":
            masks = {name: mask for name, mask in masks.items() if "weight" in name}
        new_values = _uniform_fan_in(model, masks, generator) if fresh == "uniform_fan_in" else parameters_of(twin)
        return reset(model, new_values, masks)

    return unlearn


def _up_to_threshold(scores: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
    """Mark all scores up to the one of rank int(ratio * n), ties included, as the released code does."""
    import torch

    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    rank = min(int(ratio * flat.numel()), flat.numel() - 1)
    threshold = flat.kthvalue(rank + 1).values
    return {name: score <= threshold for name, score in scores.items()}


def _uniform_fan_in(model: nn.Module, names: Mapping[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
    """Draw fresh values in +-1/sqrt(fan_in), the released code's rule; fan_in is 1 for one-dimensional tensors."""
    import torch

    fresh = {}
    for name, weight in model.named_parameters():
        if name in names:
            fan_in = weight[0].numel() if weight.ndim > 1 else 1
            values = torch.rand(weight.shape, generator=generator) * 2 - 1
            fresh[name] = (values / fan_in**0.5).to(weight)
    return fresh
