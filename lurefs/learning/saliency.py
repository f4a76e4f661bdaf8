"""Saliency scores of weights, and the choice of the smallest scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs.errors import UserError
from lurefs.learning.images import in_parts
from lurefs.learning.structure import is_norm
from lurefs.ranks import ONE_PROCESS, Ranks


def weight_names(model: nn.Module) -> list[str]:
    """Return the names of the weights that may be unlearned: all but biases, scales and those of norm layers.

    Biases, scales and class tokens hold one value per channel, whatever their number of dimensions. A parameter named
    `weight` with several dimensions is a matrix, even with a single row.
    """
    names = []
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_matrix = parameter.ndim > 1 if name == "weight" else parameter.numel() > max(parameter.shape, default=1)
            if is_matrix and not is_norm(module):
                names.append(f"{module_name}.{name}" if module_name else name)
    return names


def gradients(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], ranks: Ranks = ONE_PROCESS
) -> Iterator[dict[str, Tensor]]:
    """Yield the gradient of each batch's mean cross-entropy, in evaluation mode.

    Args:
        model: The model; its gradients and mode are unchanged.
        batches: Prepared images (n, channels, height, width) and labels (n,): this process's part of each batch.
        ranks: The processes that share each batch.

    Yields:
        By parameter name, a tensor of the parameter's shape; zeros where the loss does not depend on the parameter.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    was_training = model.training
    try:
        for images, labels in batches:
            n_images = ranks.sum(torch.tensor(float(len(labels)), device=labels.device))
            total: dict[str, Tensor] = {}
            for part, given in zip(
                parts := in_parts(images, with_gradients=True), labels.split(len(parts[0])), strict=True
            ):
                for name, gradient in _gradients(model, part, given, n_images).items():
                    total[name] = total[name].add_(gradient) if name in total else gradient
            yield {
                name: ranks.sum(total[name]) if name in total else torch.zeros_like(parameter)
                for name, parameter in parameters.items()
            }
    finally:
        model.train(was_training)


def _gradients(model: nn.Module, images: Tensor, labels: Tensor, n_images: Tensor) -> dict[str, Tensor]:
    """Return the gradient of the summed cross-entropy over `n_images`, of the parameters that it depends on."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.train().eval()  # some timm models keep tensors of a pass, with its graph, until they are set to training
    loss = functional.cross_entropy(model(images), labels, reduction="sum") / n_images
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(parameters, found, strict=True) if gradient is not None}


def snip(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], ranks: Ranks = ONE_PROCESS) -> dict[str, Tensor]:
    """Score every parameter by its connection sensitivity, |theta * sum_b |g_b||.

    g_b is the gradient of the mean cross-entropy of batch b, in evaluation mode. With one batch this is the score of
    Lee et al. (2019, SNIP, equation 6) without its normalisation, which ranks alike.

    Args:
        model: The model; its gradients and mode are unchanged.
        batches: As for `gradients`.
        ranks: As for `gradients`; every process returns the same scores.

    Returns:
        By parameter name, a non-negative float32 tensor of the parameter's shape.

    Raises:
        UserError: A score is not finite: training has diverged.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for of_batch in gradients(model, batches, ranks):
        for name, gradient in of_batch.items():
            sums[name] += gradient.abs()
    scores = {name: (parameter.detach() * sums[name]).abs() for name, parameter in parameters.items()}
    if not torch.stack([torch.isfinite(score).all() for score in scores.values()]).all():
        raise UserError(
            "the saliency of some weights is not finite: training has diverged",
            "finite weights and gradients",
            "lower learner.optimizer.params.lr, or add learner.warmup_epochs",
        )
    return scores


def share_less(keep_ratio: float) -> Fraction:
    """Return 1 - keep_ratio without rounding: in floating point, 1 - 0.8 is a little below 0.2."""
    return 1 - Fraction(repr(keep_ratio))


def smallest(scores: Mapping[str, Tensor], ratio: Fraction, generator: torch.Generator) -> dict[str, Tensor]:
    """Mark the smallest scores, ranked over all tensors together.

    Args:
        scores: By parameter name.
        ratio: Share of the scores to mark, exactly `int(ratio * n)` of n.
        generator: Chooses among equal scores at the threshold, on the CPU.

    Returns:
        By parameter name, a bool tensor of the score's shape.
    """
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    n_marked = int(ratio * flat.numel())
    marked = torch.zeros_like(flat, dtype=torch.bool)
    if n_marked:
        threshold = flat.kthvalue(n_marked).values
        marked = flat < threshold
        ties = (flat == threshold).nonzero().reshape(-1)
        chosen = torch.randperm(len(ties), generator=generator)[: n_marked - int(marked.sum())]
        marked[ties[chosen.to(ties.device)]] = True
    parts = marked.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}
