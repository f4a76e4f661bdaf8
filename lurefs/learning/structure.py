"""Structural zeros: weights that no image can give a gradient, set by architecture and image size alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs.learning.images import in_parts

NORM_MODULES = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
BatchNorm = nn.modules.batchnorm._BatchNorm
SMALL_SCALE = 0.1
N_IMAGES, N_BATCHES = 32, 2
SEED = 0
"""Seed of the noise images; the result does not depend on the seed of a run."""


def structural_zeros(fresh: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """Mark the weights that no image can give a gradient, e.g. taps of a convolution that only ever meet padding.

    The gradients are those of a random combination of the logits, on images of noise, in evaluation mode. The model is
    a copy of a new one: parameters that start at zero are replaced (scales by one, matrices by small noise), and norm
    layers have running statistics of the noise. So units that training has switched off, or that an initial scale of
    zero hides, do not count: a reset may revive them.

    Args:
        fresh: A newly built model; unchanged.
        image_shape: Channels, height and width of the model's input.

    Returns:
        By parameter name, a bool tensor of its shape. Parameters that are frozen have no entry.
    """
    model = copy.deepcopy(fresh)
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(SEED)
    _fill_zeros(model, generator)
    batches = [_noise(image_shape, generator).to(device) for _ in range(N_BATCHES)]
    estimate_statistics(model, batches)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    is_zero = {name: torch.ones_like(parameter, dtype=torch.bool) for name, parameter in parameters.items()}
    for images in batches:
        shares = None
        parts = in_parts(images, with_gradients=True)
        for start, part in enumerate(parts):
            logits = model.train().eval()(part)  # as in `saliency`
            if shares is None:
                shares = torch.randn(len(images), logits.shape[1], generator=generator).split(len(parts[0]))
            combined = (logits * shares[start].to(device)).sum()
            found = torch.autograd.grad(combined, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    is_zero[name] &= gradient == 0
    return is_zero


def has_layer_scales(fresh: nn.Module) -> bool:
    """Return whether a new model multiplies its branches by small scales that learn, as ConvNeXt does by 1e-6.

    Such a scale is a parameter outside of norm layers with one value per channel, all equal and within 0.1. Scales of
    exactly zero do not count, such as the last norm scales of blocks in timm's ResNets: training soon raises them, and
    a ranking per layer would cost such a network far more accuracy than a ranking of all weights together.
    """
    for module in fresh.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if is_norm(module) or name.endswith("bias") or parameter.numel() > max(parameter.shape, default=1):
                continue
            first = parameter.flatten()[0]
            if 0 < abs(first.item()) <= SMALL_SCALE and bool((parameter == first).all()):
                return True
    return False


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a norm layer, by its type or the name of its type."""
    return isinstance(module, NORM_MODULES) or "norm" in type(module).__name__.lower()


def estimate_statistics(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Set the running statistics of batch norm to the mean over batches of images; nothing else changes.

    Args:
        model: Changed in place.
        batches: Prepared images (n, channels, height, width), at least two per batch.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm) and has_statistics(module)]
    momenta = [norm.momentum for norm in norms]
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then takes the mean over batches
        norm.train()
    with torch.no_grad():
        for images in batches if norms else ():
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in was_training.items():
        module.training = mode


def has_statistics(module: nn.Module) -> bool:
    """Return whether a module is a batch norm with running statistics."""
    return isinstance(module, BatchNorm) and module.running_mean is not None


def _noise(image_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Return images of noise that differ in coarseness and contrast, so that they excite different units."""
    channels, *size = image_shape
    images = []
    for number in range(N_IMAGES):
        cells = [max(1, side >> number % side.bit_length()) for side in size]
        noise = torch.randn(1, channels, *cells, generator=generator)
        images.append(functional.interpolate(noise, size, mode="nearest") * 2 ** (number % 5 - 2))
    return torch.cat(images)


def _fill_zeros(model: nn.Module, generator: torch.Generator) -> None:
    """Replace parameters other than biases that are all zero: scales by one, matrices by small noise."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or parameter.any():
                continue
            if parameter.ndim > 1:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.fill_(1)
