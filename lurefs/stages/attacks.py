"""Adversarial images, made with the Adversarial Robustness Toolbox."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lurefs.errors import not_installed
from lurefs.learning.backbones import Backbone
from lurefs.learning.images import at_once
from lurefs.seeding import seed_stream, seeded_numpy


def attack(
    backbone: Backbone,
    images: Tensor,
    labels: Tensor,
    *,
    name: str,
    epsilon: float,
    n_steps: int,
    step_size: float,
) -> Tensor:
    """Return the images after a white-box attack (it knows model and labels), bounded in the L-infinity norm.

    `fgsm` moves every pixel by epsilon along the sign of the loss's gradient (Goodfellow et al. 2015, section 4);
    `pgd` takes `n_steps` such steps from a random start, each followed by a projection into the epsilon ball (Madry
    et al. 2018, section 2.1). Gradients go through the backbone's own preparation of images.

    Args:
        backbone: The attacked model; put into evaluation mode.
        images: (n, n_channels, height, width) uint8, on the backbone's device.
        labels: (n,) int64.
        name: `fgsm` or `pgd`.
        epsilon: The largest change of a pixel in [0, 1]; 0 changes nothing.
        n_steps: Number of steps of `pgd`.
        step_size: Length of one step, as a share of epsilon.

    Returns:
        (n, n_channels, height, width) float32 in [0, 1], not rounded to whole grey values.

    Raises:
        UserError: The library is not installed.
    """
    pixels = images.float() / 255
    if epsilon == 0:
        return pixels
    one_hot = np.eye(backbone.n_classes, dtype=np.float32)[labels.cpu().numpy()]
    on_its_gpu = torch.cuda.device(images.device) if images.is_cuda else nullcontext()  # art uses the current GPU
    with on_its_gpu, seeded_numpy(seed_stream(0, "attack", name) % 2**32):  # the random start
        attacker = _attacker(backbone, pixels, name, epsilon, n_steps, step_size)
        changed = torch.from_numpy(attacker.generate(pixels.cpu().numpy(), one_hot))
    backbone.model.zero_grad(set_to_none=True)
    return changed.to(images.device)


def check_installed() -> None:
    """Check that the Adversarial Robustness Toolbox is installed.

    Raises:
        UserError: It is not.
    """
    try:
        import art.attacks.evasion
        import art.estimators.classification  # noqa: F401
    except ImportError as error:
        raise not_installed("robustness.attacks", "robustness", error) from error


class _FromUnitPixels(nn.Module):
    """The backbone as a model of images in [0, 1]."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.model = backbone.model
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> Tensor:
        n_at_once = at_once(self.backbone.image_size, pixels.device, with_gradients=True)
        parts = (pixels * 255).split(n_at_once)
        if len(parts) == 1:
            return self._logits(parts[0])
        # a part is computed again for its gradient, so that the tensors of all parts are never held together
        return torch.cat([checkpoint(self._logits, part, use_reentrant=False) for part in parts])

    def _logits(self, pixels: Tensor) -> Tensor:
        self.model.train().eval()  # as in `saliency`
        return self.backbone.logits(pixels)


def _attacker(backbone: Backbone, pixels: Tensor, name: str, epsilon: float, n_steps: int, step_size: float) -> Any:
    check_installed()
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        _FromUnitPixels(backbone),
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(pixels.shape[1:]),
        nb_classes=backbone.n_classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if pixels.is_cuda else "cpu",
    )
    if name == "fgsm":
        return FastGradientMethod(classifier, norm=np.inf, eps=epsilon, batch_size=len(pixels))
    return ProjectedGradientDescent(
        classifier,
        norm=np.inf,
        eps=epsilon,
        eps_step=step_size * epsilon,
        max_iter=n_steps,
        num_random_init=1,
        batch_size=len(pixels),
        verbose=False,
    )
