"""Fine-tuning of a backbone on the support of one episode; its weights are restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs.config.fine_tuning import FineTuningConfig
from lurefs.config.learning_schema import AugmentConfig
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone, stages
from lurefs.learning.images import at_once, augment, draw_moves
from lurefs.learning.weights import classifier_names

IMAGES_AT_ONCE = 64
"""Most images per forward and backward pass; gradients of the parts of a larger support are added."""


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """A linear classifier on features.

    Attributes:
        weight: (n_way, n_features) float32, on the backbone's device.
        bias: (n_way,) float32.
        on_unit_length: Whether features are scaled to length 1 first; features of zeros stay.
    """

    weight: Tensor
    bias: Tensor
    on_unit_length: bool

    def __call__(self, features: Tensor) -> Tensor:
        """Return the logits (n, n_way) of features (n, n_features)."""
        if self.on_unit_length:
            features = functional.normalize(features, eps=torch.finfo(features.dtype).tiny)
        return functional.linear(features, self.weight, self.bias)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What fine-tuning on one episode gave.

    Attributes:
        logits: (n_query, n_way) float32, on the backbone's device.
        weights_moved: Distance that the trained weights of the backbone moved, over their norm at the start.
    """

    logits: Tensor
    weights_moved: float


def trained_names(model: nn.Module, train: str) -> list[str]:
    """Return the names of the parameters to train; the classifier of pre-training is never among them.

    Args:
        model: A timm model.
        train: A value of `FineTuningConfig.train`.

    Raises:
        UserError: timm does not divide the model into stages, or the model has no such parameters.
    """
    classifiers = tuple(f"{name}." for name in classifier_names(model))
    shapes = {name: value.ndim for name, value in model.named_parameters() if not name.startswith(classifiers or "\0")}
    found = list(shapes)
    if train == "bias_and_norm":
        found = [name for name in shapes if shapes[name] <= 1]
    if train == "last_stage":
        parts = [[name for name in part if name in shapes] for part in stages(model)]
        if len(parts) < 3:
            raise UserError(
                f"timm does not divide {type(model).__name__} into stages, so it has no last stage to fine-tune",
                "train: full or bias_and_norm for this model",
                "change params.train of the probe",
            )
        last = max(place for place, part in enumerate(parts) if any(shapes[name] > 1 for name in part))
        found = [name for part in parts[last:] for name in part]
    if not found:
        raise UserError(
            f"{type(model).__name__} has no parameters to fine-tune with train: {train}",
            "a choice that leaves weights to train",
            "set params.train of the probe to full",
        )
    return found


def fine_tune(
    backbone: Backbone,
    trained: list[str],
    head: LinearHead,
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    settings: FineTuningConfig,
    generator: torch.Generator,
) -> Tuned:
    """Fine-tune on the support, predict the queries, and restore the backbone, parameters and buffers, to the bit.

    Args:
        backbone: The backbone; put into evaluation mode, so that batch norm uses its stored statistics.
        trained: Names of the parameters to train beside the head, see `trained_names`.
        head: The head to start from; it is not changed.
        support: (n_support, n_channels, height, width) uint8, on the backbone's device.
        labels: (n_support,) int64 episode labels.
        query: (n_query, n_channels, height, width) uint8.
        settings: Steps, learning rate and augmentation.
        generator: Draws the augmentation; on the CPU.
    """
    model = backbone.model.eval()
    n_at_once = min(IMAGES_AT_ONCE, at_once(backbone.image_size, support.device, with_gradients=True))
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trained)
    head = LinearHead(
        weight=head.weight.clone().requires_grad_(),
        bias=head.bias.clone().requires_grad_(),
        on_unit_length=head.on_unit_length,
    )
    tuned = [parameters[name] for name in trained]
    with _restored(model) as start:
        optimizer = torch.optim.Adam([*tuned, head.weight, head.bias], lr=settings.lr)
        for images in _views(support, settings, generator):
            optimizer.zero_grad()
            for part in torch.arange(len(images)).split(n_at_once):
                logits = head(backbone.embed(images[part]))
                (functional.cross_entropy(logits, labels[part], reduction="sum") / len(images)).backward()
            optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            logits = torch.cat([head(backbone.embed(part)) for part in query.split(n_at_once)])
            moved = _norm({name: parameters[name] - start[name] for name in trained})
        return Tuned(logits=logits, weights_moved=moved / max(_norm({name: start[name] for name in trained}), 1e-12))


def _views(support: Tensor, settings: FineTuningConfig, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the support for each step, augmented if the settings ask for it."""
    how = AugmentConfig(crop_padding=settings.crop_padding, flip=settings.flip)
    for _ in range(settings.steps):
        moves = draw_moves([len(support)], how, generator, support.device)
        yield augment(support, moves, how.crop_padding)


@contextmanager
def _restored(model: nn.Module) -> Iterator[Mapping[str, Tensor]]:
    """Give copies of a model's parameters and buffers, and put them back at the end."""
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    start = {name: value.detach().clone() for name, value in held.items()}
    try:
        yield start
    finally:
        with torch.no_grad():
            for name, value in held.items():
                value.copy_(start[name])


def _norm(values: Mapping[str, Tensor]) -> float:
    return float(torch.stack([value.double().square().sum() for value in values.values()]).sum().sqrt())
