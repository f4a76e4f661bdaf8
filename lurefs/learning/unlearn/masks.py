"""Strategies that re-initialise some of the weights, chosen by saliency, by magnitude or at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from lurefs.errors import UserError
from lurefs.learning.unlearn.contract import (
    PROBE_SOURCES,
    Changes,
    ProbeImages,
    ProbeSource,
    UnlearnStrategy,
    check_choice,
    check_count,
    check_share,
    parameters_of,
    reset,
)

if TYPE_CHECKING:
    from fractions import Fraction

    import torch
    from torch import Tensor, nn

Scope = Literal["weights", "named_weight"]
"""Parameters that are scored and reset: those of `saliency.weight_names`, or those of the released code of LURE."""

Fresh = Literal["twin", "uniform_fan_in"]
"""Source of new values."""

Ranking = Literal["auto", "global", "layer"]
"""Whether weights are ranked all together, or per parameter, each losing the same share; `auto` is `layer` for models
with small layer scales, and `global` otherwise."""

LeftOut = Literal["structural", "zero_score", "nothing"]
"""Weights that are not ranked, not reset and not counted for the share: those that no image can give a gradient, all
with a score of exactly 0, or none."""


def by_saliency(
    keep_ratio: float = 0.8,
    saliency_images: int = 512,
    probe: ProbeSource = "seen",
    scope: Scope = "weights",
    fresh: Fresh = "twin",
    ranking: Ranking = "auto",
    left_out: LeftOut = "structural",
    as_released: bool = False,
) -> UnlearnStrategy:
    """Re-initialise the least salient weights (LURE; Ramkumar, Arani and Zonooz 2023, TMLR, arXiv 2303.10455).

    The saliency of a weight is |theta * sum over probe batches of |g||; all weights are ranked together, and the lowest
    share of 1 - keep_ratio is reset. Weights that can never matter are left out: on small maps, taps of convolutions
    that only ever meet padding have a saliency of exactly 0, and a reset of them changes nothing.

    Departures from the authors' released code, each a setting but the threshold:

    - `probe`, `saliency_images`: several batches, drawn evenly over all data (released: one batch of 100, of chunk 0).
    - `scope`: weights of convolutions, linear maps, attention and embeddings are ranked and reset (released: all
      parameters are ranked, and every tensor whose name contains "weight" is reset, norm scales included).
    - `fresh`: the values of a new twin (released: uniform in +-1/sqrt(fan_in), fan_in 1 for one-dimensional tensors).
    - `ranking`: per layer in models with small layer scales (released: all together, in a network that has none).
    - `left_out`: weights that no image can give a gradient (released: none, so these are reset first).
    - `learner.optimizer_state`: what happens to the optimizer's moments (released: keep).
    - Exactly the asked share is reset, ties broken at random (released: all scores up to the k-th smallest one, with
      k = int(share * n)).

    Args:
        keep_ratio: Share of the weights that are kept, in (0, 1).
        saliency_images: Number of images for the scores.
        probe: Source of these images: `seen` (all data so far), or a chunk's: `new`, `oldest` or `previous`.
        scope: Parameters that are ranked and reset.
        fresh: Source of new values.
        ranking: Whether all weights are ranked together (`global`) or within each parameter (`layer`). `auto` ranks
            per layer if the model multiplies its branches by small scales that learn: behind a scale of 1e-6, as in
            ConvNeXt, every weight is less salient than all others, and a reset would change no prediction.
        left_out: Weights that stay and do not count for the share: those that no image can give a gradient
            (`structural`), all with a score of exactly 0, with those of dead units (`zero_score`), or `nothing`.
            With `structural` dead units are reset first, and may revive.
        as_released: Replace all settings above except `keep_ratio` by the released code's, with its threshold.

    Raises:
        UserError: A setting is out of range.
    """
    _check(keep_ratio, scope, fresh, ranking, saliency_images, probe)
    check_choice("left_out", left_out, ("structural", "zero_score", "nothing"))
    if as_released:
        probe, saliency_images, scope, fresh = "oldest", 100, "named_weight", "uniform_fan_in"

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        from lurefs.learning import saliency

        scores = _in_scope(saliency.snip(model, images.draw(probe, saliency_images), images.ranks), model, scope)
        if as_released:
            masks = _up_to_threshold(scores, saliency.share_less(keep_ratio))
        else:
            is_zero = {name: score == 0 for name, score in scores.items()}
            kept = {"structural": images.structural_zeros, "zero_score": is_zero, "nothing": {}}[left_out]
            masks = _lowest(scores, keep_ratio, twin, ranking, kept, generator)
        return _reset(model, twin, masks, scope, fresh, generator)

    return unlearn


def inverse_saliency(
    keep_ratio: float = 0.8,
    saliency_images: int = 512,
    probe: ProbeSource = "seen",
    scope: Scope = "weights",
    fresh: Fresh = "twin",
    ranking: Ranking = "auto",
) -> UnlearnStrategy:
    """Re-initialise the most salient weights: a control that should do more harm than `by_saliency`.

    The scores are those of `by_saliency`; the *highest* share of 1 - keep_ratio is reset. It is no published method.

    Args:
        keep_ratio: As for `by_saliency`, like all others.
        saliency_images: Number of images for the scores.
        probe: Source of these images.
        scope: Parameters that are ranked and reset.
        fresh: Source of new values.
        ranking: Whether all weights are ranked together or within each parameter.

    Raises:
        UserError: A setting is out of range.
    """
    _check(keep_ratio, scope, fresh, ranking, saliency_images, probe)

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        from lurefs.learning import saliency

        scores = _in_scope(saliency.snip(model, images.draw(probe, saliency_images), images.ranks), model, scope)
        opposite = {name: -score for name, score in scores.items()}
        masks = _lowest(opposite, keep_ratio, twin, ranking, images.structural_zeros, generator)
        return _reset(model, twin, masks, scope, fresh, generator)

    return unlearn


def by_magnitude(
    keep_ratio: float = 0.8, scope: Scope = "weights", fresh: Fresh = "twin", ranking: Ranking = "auto"
) -> UnlearnStrategy:
    """Re-initialise the weights of the smallest absolute value, without images.

    The criterion of magnitude pruning (Han, Pool, Tran and Dally 2015, section 3). If all weights are ranked
    together, wide layers lose more, since they start with smaller weights; with `ranking: layer` all lose the same
    share.

    Args:
        keep_ratio: As for `by_saliency`, like all others.
        scope: Parameters that are ranked and reset.
        fresh: Source of new values.
        ranking: Whether all weights are ranked together or within each parameter.

    Raises:
        UserError: A setting is out of range.
    """
    _check(keep_ratio, scope, fresh, ranking)

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        scores = {name: weight.abs() for name, weight in _in_scope(parameters_of(model), model, scope).items()}
        masks = _lowest(scores, keep_ratio, twin, ranking, images.structural_zeros, generator)
        return _reset(model, twin, masks, scope, fresh, generator)

    return unlearn


def random_mask(
    keep_ratio: float = 0.8, scope: Scope = "weights", fresh: Fresh = "twin", ranking: Ranking = "auto"
) -> UnlearnStrategy:
    """Re-initialise weights chosen at random: a control that shows whether the choice by saliency matters.

    Args:
        keep_ratio: As for `by_saliency`, like all others.
        scope: Parameters to choose from.
        fresh: Source of new values.
        ranking: Whether the share is exact over all weights or within each parameter.

    Raises:
        UserError: A setting is out of range.
    """
    _check(keep_ratio, scope, fresh, ranking)

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        import torch

        weights = _in_scope(parameters_of(model), model, scope)
        scores = {name: torch.rand(w.shape, generator=generator).to(w.device) for name, w in weights.items()}
        masks = _lowest(scores, keep_ratio, twin, ranking, images.structural_zeros, generator)
        return _reset(model, twin, masks, scope, fresh, generator)

    return unlearn


def _check(
    keep_ratio: float, scope: str, fresh: str, ranking: str, saliency_images: int = 1, probe: str = "seen"
) -> None:
    check_share("keep_ratio", keep_ratio)
    if keep_ratio == 1:
        raise UserError(
            "keep_ratio is 1: nothing would be reset",
            "a share below 1 of the weights to keep",
            "lower unlearn.params.keep_ratio, or set unlearn.name=nothing for a warm start",
        )
    check_choice("scope", scope, ("weights", "named_weight"))
    check_choice("fresh", fresh, ("twin", "uniform_fan_in"))
    check_choice("ranking", ranking, ("auto", "global", "layer"))
    check_count("saliency_images", saliency_images)
    check_choice("probe", probe, PROBE_SOURCES)


def _in_scope(scores: Mapping[str, Tensor], model: nn.Module, scope: Scope) -> dict[str, Tensor]:
    from lurefs.learning import saliency

    names = saliency.weight_names(model) if scope == "weights" else scores
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = {name: scores[name] for name in names if name in scores and name in learns}
    if not found:
        raise UserError(
            f"{type(model).__name__} has no weight that could be unlearned: all its parameters are biases, norm scales "
            "or frozen",
            "a model with convolutions or linear maps that learn",
            "choose another backbone.name, or set unlearn.name=nothing",
        )
    return found


def _lowest(
    scores: Mapping[str, Tensor],
    keep_ratio: float,
    twin: nn.Module,
    ranking: Ranking,
    left_out: Mapping[str, Tensor],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Mark the lowest share of the scores; scores that are left out are neither ranked nor marked."""
    import torch

    from lurefs.learning import saliency
    from lurefs.learning.structure import has_layer_scales

    ratio = saliency.share_less(keep_ratio)
    ranked = {name: ~left_out[name] if name in left_out else torch.ones_like(scores[name]) > 0 for name in scores}
    chosen = {name: score[ranked[name]] for name, score in scores.items()}
    if ranking == "global" or (ranking == "auto" and not has_layer_scales(twin)):
        marked = saliency.smallest(chosen, ratio, generator)
    else:
        marked = {name: saliency.smallest({name: of_one}, ratio, generator)[name] for name, of_one in chosen.items()}
    masks = {name: torch.zeros_like(score, dtype=torch.bool) for name, score in scores.items()}
    for name, mask in masks.items():
        mask[ranked[name]] = marked[name]
    return masks


def _up_to_threshold(scores: Mapping[str, Tensor], ratio: Fraction) -> dict[str, Tensor]:
    """Mark all scores up to the k-th smallest, ties included, with k = int(ratio * n) as in the released code."""
    import torch

    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    k = int(ratio * flat.numel())
    threshold = flat.kthvalue(k).values if k else -1
    return {name: score <= threshold for name, score in scores.items()}


def _reset(
    model: nn.Module,
    twin: nn.Module,
    masks: Mapping[str, Tensor],
    scope: Scope,
    fresh: Fresh,
    generator: torch.Generator,
) -> Changes:
    if scope == "named_weight":
        masks = {name: mask for name, mask in masks.items() if "weight" in name}
    new_values = _uniform_fan_in(model, masks, generator) if fresh == "uniform_fan_in" else parameters_of(twin)
    return reset(model, new_values, masks)


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
