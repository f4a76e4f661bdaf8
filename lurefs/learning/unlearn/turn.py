"""A strategy that turns rows of weights towards fresh ones and shrinks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lurefs.learning.unlearn.contract import (
    Changes,
    ProbeImages,
    ProbeSource,
    UnlearnStrategy,
    changes_since,
    check_count,
    check_share,
    parameters_of,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def turn_back(keep_cosine: float = 0.9, min_norm: float = 0.6, loss_images: int = 256) -> UnlearnStrategy:
    """Turn each row of weights towards a fresh row, and shrink all rows if new images have a higher loss than old ones.

    For each row w of a weight (a filter, the incoming weights of a unit) and the same row t of a newly built model,
    w <- r |t| u(c u(w) + sqrt(1 - c^2) u(t)), where u(x) = x / |x| and c is `keep_cosine`. Parameters of one dimension
    (biases, norm scales) and rows whose fresh one is zero have no direction to turn to: w <- r (c w + (1 - c) t). The
    data decide the length r = min(1, sqrt(loss_old / loss_new)), at least `min_norm`. The losses are mean cross-entropy
    in evaluation mode on training images of the previous chunk, and on images of the new chunk, which no training step
    has seen. Running statistics stay.

    Source: our own, after shrink and perturb (Ash and Adams 2020, "On warm-starting neural network training"), with
    three departures. There the share of fresh weights depends on how far the old ones have grown; here it is the same
    for every row. There the old length stays, shrunk; here each row starts from its initial length. There the strength
    is a constant; here it follows the gap between old and unseen images.

    Args:
        keep_cosine: Cosine between a row and its new value if the fresh row is orthogonal to it, in (0, 1].
        min_norm: Smallest r, in (0, 1].
        loss_images: Number of images for each of the two losses.

    Raises:
        UserError: A setting is out of range.
    """
    check_share("keep_cosine", keep_cosine)
    check_share("min_norm", min_norm)
    check_count("loss_images", loss_images)

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        import torch

        old_loss, new_loss = (_mean_loss(model, images, source, loss_images) for source in ("previous", "new"))
        length = max(min_norm, min(1.0, old_loss / max(new_loss, 1e-12)) ** 0.5)
        fresh = parameters_of(twin)
        old = {name: weight.clone() for name, weight in parameters_of(model).items()}
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(length * _turned(weight, fresh[name], keep_cosine))
        return changes_since(old, model)

    return unlearn


def _turned(weight: Tensor, fresh: Tensor, cosine: float) -> Tensor:
    """Return the weight with each row turned towards the fresh row and scaled to its length."""
    import torch

    mixed = cosine * weight + (1 - cosine) * fresh
    if weight.ndim < 2:
        return mixed
    lengths = _row_lengths(fresh)
    direction = cosine * _unit(weight) + (1 - cosine**2) ** 0.5 * _unit(fresh)
    return torch.where(lengths > 0, lengths * _unit(direction), mixed)


def _row_lengths(weight: Tensor) -> Tensor:
    lengths: Tensor = weight.flatten(1).norm(dim=1)
    return lengths.view(-1, *[1] * (weight.ndim - 1))


def _unit(weight: Tensor) -> Tensor:
    return weight / _row_lengths(weight).clamp_min(1e-12)


def _mean_loss(model: nn.Module, images: ProbeImages, source: ProbeSource, n_images: int) -> float:
    """Return the mean cross-entropy over images of all processes, in evaluation mode."""
    import torch
    from torch.nn import functional

    from lurefs.learning.images import in_parts

    was_training, device = model.training, next(model.parameters()).device
    total = torch.zeros(2, dtype=torch.float64, device=device)
    model.eval()
    with torch.inference_mode():
        for batch, labels in images.draw(source, n_images):
            loss = functional.cross_entropy(
                torch.cat([model(part).float() for part in in_parts(batch)]), labels, reduction="sum"
            )
            total += torch.stack([loss.double(), loss.new_tensor(len(labels)).double()])
    model.train(was_training)
    loss_sum, n = images.ranks.sum(total).tolist()
    return float(loss_sum / n)
