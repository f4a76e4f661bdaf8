"""Unlearn strategies: what is reset between chunks. torch is imported when one is applied, not when it is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lurefs.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

ProbeSource = Literal["seen", "new", "oldest"]
DrawProbe = Callable[[ProbeSource, int], "Iterator[tuple[Tensor, Tensor]]"]
"""(which images, how many) -> batches of prepared images and labels, un-augmented."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a strategy did to a model.

    Attributes:
        masks: By parameter name, a bool tensor of its shape, true where the weight was changed; parameters that are
            not named were left as they were.
        is_new_model: Whether nothing of the old model is left, so that the optimizer starts anew as well.
    """

    masks: Mapping[str, Tensor]
    is_new_model: bool = False


UnlearnStrategy = Callable[["nn.Module", "nn.Module", DrawProbe, "torch.Generator"], Changes]
"""(model, twin, draw_probe, generator) -> changes; the model is changed in place, the twin is a fresh copy."""


def nothing() -> None:
    """Warm start: go on with the weights as they are. The one strategy that changes nothing."""


def from_scratch() -> UnlearnStrategy:
    """Start each chunk with a new model and a new optimizer: the ceiling in cost."""

    def unlearn(model: nn.Module, twin: nn.Module, draw_probe: DrawProbe, generator: torch.Generator) -> Changes:
        import torch

        model.load_state_dict(twin.state_dict())
        masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in model.named_parameters()}
        return Changes(masks=masks, is_new_model=True)

    return unlearn


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
    _check_share("keep_ratio", keep_ratio)
    if saliency_images < 1:
        raise UserError(f"saliency_images is {saliency_images}", "at least 1", "raise unlearn.params.saliency_images")
    _check_choice("probe", probe, ("seen", "new", "oldest"))
    _check_choice("scope", scope, ("weights", "named_weight"))
    _check_choice("fresh", fresh, ("twin", "uniform_fan_in"))
    if as_released:
        probe, saliency_images, scope, fresh = "oldest", 100, "named_weight", "uniform_fan_in"

    def unlearn(model: nn.Module, twin: nn.Module, draw_probe: DrawProbe, generator: torch.Generator) -> Changes:
        from lurefs import saliency

        scores = saliency.snip(model, draw_probe(probe, saliency_images))
        if scope == "weights":
            scores = {name: scores[name] for name in saliency.weight_names(model) if name in scores}
        if as_released:
            masks = _up_to_threshold(scores, 1 - keep_ratio)
        else:
            masks = saliency.smallest(scores, 1 - keep_ratio, generator)
        if scope == "named_weight":
            masks = {name: mask for name, mask in masks.items() if "weight" in name}
        new_values = _uniform_fan_in(model, masks, generator) if fresh == "uniform_fan_in" else _parameters(twin)
        return _reset(model, new_values, masks)

    return unlearn


def shrink_perturb(shrink: float = 0.4, perturb: float = 0.1) -> UnlearnStrategy:
    """Shrink every parameter and add a share of a fresh model's: theta = shrink * theta + perturb * theta_fresh.

    Ash and Adams (2020, "On warm-starting neural network training", section 4). Running statistics of norm layers stay.

    Args:
        shrink: What the old weights are multiplied with, in [0, 1].
        perturb: What the fresh weights are multiplied with, at least 0.

    Raises:
        UserError: A setting is out of range.
    """
    if not 0 <= shrink <= 1 or perturb < 0:
        raise UserError(
            f"shrink is {shrink} and perturb is {perturb}", "shrink in [0, 1], perturb >= 0", "change unlearn.params"
        )

    def unlearn(model: nn.Module, twin: nn.Module, draw_probe: DrawProbe, generator: torch.Generator) -> Changes:
        import torch

        fresh = _parameters(twin)
        masks = {}
        with torch.no_grad():
            for name, weight in model.named_parameters():
                old = weight.clone()
                weight.mul_(shrink).add_(fresh[name], alpha=perturb)
                masks[name] = weight != old
        return Changes(masks=masks)

    return unlearn


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _reset(model: nn.Module, fresh: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Changes:
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in masks:
                weight.copy_(torch.where(masks[name], fresh[name], weight))
    return Changes(masks=masks)


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


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise UserError(f"{name} is {value}", "a share in (0, 1]", f"change unlearn.params.{name}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name} is {value!r}", f"one of {', '.join(choices)}", f"change unlearn.params.{name}")
