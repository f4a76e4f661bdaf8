"""Strategies that shrink weights towards zero, or towards a fresh model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lurefs.errors import UserError
from lurefs.learning.unlearn.contract import (
    PROBE_SOURCES,
    Changes,
    ProbeImages,
    ProbeSource,
    UnlearnStrategy,
    changes_since,
    check_choice,
    check_count,
    check_share,
    parameters_of,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def shrink_perturb(shrink: float = 0.4, perturb: float = 0.1) -> UnlearnStrategy:
    """Shrink every parameter and add a share of a fresh model's: theta = shrink * theta + perturb * theta_fresh.

    Ash and Adams (2020, "On warm-starting neural network training", section 4). As in the authors' code,
    running statistics of norm layers are the fresh model's.

    Args:
        shrink: Factor on the old weights, in [0, 1].
        perturb: Factor on the fresh weights, at least 0.

    Raises:
        UserError: A setting is out of range.
    """
    if not 0 <= shrink <= 1 or perturb < 0:
        raise UserError(
            f"shrink is {shrink} and perturb is {perturb}", "shrink in [0, 1], perturb >= 0", "change unlearn.params"
        )

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        import torch

        fresh = parameters_of(twin)
        old = {name: weight.clone() for name, weight in parameters_of(model).items()}
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.mul_(shrink).add_(fresh[name], alpha=perturb)
            for buffer, fresh_buffer in zip(model.buffers(), twin.buffers(), strict=True):
                buffer.copy_(fresh_buffer)
        return changes_since(old, model)

    return unlearn


def dash(
    floor: float = 0.3, alpha: float = 0.3, gradient_images: int = 512, probe: ProbeSource = "seen"
) -> UnlearnStrategy:
    """Shrink each filter the more, the less it points in the direction in which the loss falls.

    DASH (Shin, Oh, Cho and Yun 2024, NeurIPS, arXiv 2410.23495, algorithm 1): m = (1 - alpha) * m + alpha * -g over
    batches, from m = 0; then w = w * clamp(cos(m, w), floor, 1), with the cosine of each filter. A filter is the kernel
    between one input and one output channel of a convolution, a row of a linear map, and a bias as a whole. Norm layers
    and parameters of other modules (position embeddings, layer scales) stay, and so do running statistics.

    Departures from the authors' code: the gradients are of `gradient_images` un-augmented images drawn evenly over the
    data, so that the cost does not grow with the data, and a batch mixes old and new ones (the authors: one pass over
    all data, chunk by chunk, so that no batch holds images of two chunks). As for every strategy,
    `learner.optimizer_state` decides on the moments of the changed weights; other state of the optimizer stays. 1 x 1
    convolutions count as linear maps, since the cosine of two numbers is only their sign. The cosine is exact, and 0 if
    one of the two is zero (the authors: 1e-8 is added to the denominator, which shrinks filters with very small
    gradients further than their direction says).

    Args:
        floor: Smallest factor, in (0, 1] (lambda in the paper).
        alpha: Weight of each new gradient in the moving average, in (0, 1].
        gradient_images: Number of images for the gradients.
        probe: Source of these images: `seen` (all data so far), or a chunk's: `new`, `oldest` or `previous`.

    Raises:
        UserError: A setting is out of range, or the model has neither convolutions nor linear maps.
    """
    check_share("floor", floor)
    check_share("alpha", alpha)
    check_count("gradient_images", gradient_images)
    check_choice("probe", probe, PROBE_SOURCES)

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        import torch

        from lurefs.learning import saliency

        layers = dict(_filters(model))
        if not layers:
            raise UserError(
                f"{type(model).__name__} has neither convolutions nor linear maps to shrink",
                "a model that has some",
                "choose another unlearn.name",
            )
        averages = {name: torch.zeros_like(weight) for name, weight in layers.items()}
        for gradient in saliency.gradients(model, images.draw(probe, gradient_images), images.ranks):
            for name, average in averages.items():
                average.mul_(1 - alpha).sub_(gradient[name], alpha=alpha)
        old = {name: weight.clone() for name, weight in layers.items()}
        for name, weight in layers.items():
            weight.mul_(_agreement(weight, averages[name]).clamp(floor, 1))
        return changes_since(old, model)

    return unlearn


def _filters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield weights and biases of convolutions and linear maps that learn."""
    from torch import nn

    for module_name, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            for name, weight in module.named_parameters(module_name, recurse=False):
                if weight.requires_grad:
                    yield name, weight.detach()


def _agreement(weight: Tensor, direction: Tensor) -> Tensor:
    """Return the cosine of each filter and a direction, shaped to multiply the weight; 0 if either is zero."""
    is_row = weight.ndim < 3 or weight[0, 0].numel() == 1
    dims = tuple(range(weight.ndim))[(0 if weight.ndim == 1 else 1 if is_row else 2) :]
    product = (weight * direction).sum(dims, keepdim=True)
    lengths = weight.pow(2).sum(dims, keepdim=True).sqrt() * direction.pow(2).sum(dims, keepdim=True).sqrt()
    cosine: Tensor = (product / lengths).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return cosine
