"""The boundary between two chunks: images for the unlearn strategy, and measurement of its effect."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from episodes.arrays import IntArray
from lurefs.data.chunks import Chunk
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone
from lurefs.learning.freezing import restore
from lurefs.learning.images import Images, at_once, in_parts
from lurefs.learning.saliency import snip, weight_names
from lurefs.learning.structure import estimate_statistics, has_statistics, structural_zeros
from lurefs.learning.unlearn.contract import Changes, ProbeImages, ProbeSource, UnlearnStrategy
from lurefs.ranks import ONE_PROCESS, Ranks
from lurefs.seeding import seed_stream

SALIENCY_BATCH_SIZE = 128
EFFECT_IMAGES = 512
"""Number of images seen so far on which a strategy's effect is measured."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A model's logits on the images that measure an effect, and the weights whose saliency on them is 0.

    Attributes:
        logits: (n, n_classes) float32, of this process's part of the images.
        is_silent: By the name of each weight that a strategy may reset, a bool tensor of its shape, true where the
            saliency is exactly 0.
    """

    logits: Tensor
    is_silent: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Change of a model's answers by a strategy.

    Attributes:
        n_images: Number of images.
        changed_predictions: Share of the images whose predicted class changed.
        logit_change: Mean absolute change of a logit.
    """

    n_images: int
    changed_predictions: float
    logit_change: float


def probe_images(
    backbone: Backbone,
    images: Images,
    chunks: Sequence[Chunk],
    chunk_index: int,
    seed: int,
    ranks: Ranks = ONE_PROCESS,
) -> ProbeImages:
    """Return the images that a strategy may look at before chunk `chunk_index`, not yet with structural zeros."""
    of_source: dict[ProbeSource, Callable[[], IntArray]] = {
        "seen": lambda: np.union1d(chunks[chunk_index - 1].train, chunks[chunk_index].train),
        "new": lambda: np.intersect1d(chunks[chunk_index].new, chunks[chunk_index].train),
        "oldest": lambda: chunks[0].train,
        "previous": lambda: chunks[chunk_index - 1].train,
    }

    def draw(source: ProbeSource, n_images: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed_stream(seed, "probe", chunk_index))
        positions = images.positions(of_source[source]())
        chosen = positions[torch.randperm(len(positions), generator=generator)[:n_images].to(positions.device)]
        parts = [batch[ranks.part(len(batch))] for batch in chosen.split(SALIENCY_BATCH_SIZE)]
        for batch, labels in images.batches(parts):
            yield backbone.prepare(batch), labels

    return ProbeImages(draw=draw, ranks=ranks)


def look(model: nn.Module, probe: ProbeImages) -> Answers:
    """Return the logits of `EFFECT_IMAGES` seen images, in evaluation mode, and weights of zero saliency on them."""
    batches = list(probe.draw("seen", EFFECT_IMAGES))
    scores = snip(model, batches, probe.ranks)
    with torch.inference_mode():
        logits = torch.cat([model.eval()(part).float() for images, _ in batches for part in in_parts(images)])
    return Answers(logits=logits, is_silent={name: scores[name] == 0 for name in weight_names(model) if name in scores})


def without_effect(backbone: Backbone, twin: nn.Module, before: Answers) -> dict[str, Tensor]:
    """Mark structural zeros: weights with zero saliency on seen images, and without gradient in the untrained twin."""
    size = backbone.image_size
    found = structural_zeros(twin, (backbone.n_channels, size, size))
    return {name: silent & found[name] for name, silent in before.is_silent.items()}


def effect(before: Answers, after: Answers, ranks: Ranks = ONE_PROCESS) -> Effect:
    """Compare a model's answers before and after a strategy."""
    changed = (before.logits.argmax(1) != after.logits.argmax(1)).sum()
    moved = (after.logits - before.logits).abs().mean(1).sum()
    n_images = torch.tensor(len(before.logits), device=changed.device)
    n, n_changed, total = ranks.sum(torch.stack([n_images, changed, moved]).double()).tolist()
    return Effect(n_images=int(n), changed_predictions=n_changed / n, logit_change=total / n)


def with_new_statistics(backbone: Backbone, probe: ProbeImages, frozen: Collection[str] = ()) -> Backbone | None:
    """Return a copy with batch norm statistics of images seen so far; None for a model without batch norm.

    After a reset the running statistics are those of the old weights; the first epoch replaces them, but for those in
    `frozen`.
    """
    if not any(map(has_statistics, backbone.model.modules())):
        return None
    fresh = copy.deepcopy(backbone.model)
    kept = {name: tensor for name, tensor in backbone.model.state_dict().items() if name in frozen}
    drawn = [images for images, _ in probe.draw("seen", EFFECT_IMAGES)]
    images = torch.cat(drawn)
    n_batches = max(len(drawn), len(images) // at_once(backbone.image_size, images.device))
    estimate_statistics(fresh, images.tensor_split(n_batches))  # no batch of a single image
    restore(fresh, kept)
    probe.ranks.send(fresh.buffers())
    return replace(backbone, model=fresh)


def share_of(masks: Mapping[str, Tensor]) -> float:
    """Return the share of true values over all tensors, 0 if there are none."""
    n = sum(mask.numel() for mask in masks.values())
    return sum(int(mask.sum()) for mask in masks.values()) / n if n else 0.0


def apply_strategy(
    strategy: UnlearnStrategy,
    name: str,
    model: nn.Module,
    twin: nn.Module,
    probe: ProbeImages,
    seed: int,
    frozen: Collection[str] = (),
) -> Changes:
    """Apply a strategy to the model in place, and return its changes; those of frozen parts are undone.

    Raises:
        UserError: The strategy changed no weight, and `may_be_empty` is false.
    """
    old = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items() if name in frozen}
    changes = strategy(model, twin, probe, torch.Generator().manual_seed(seed))
    restore(model, kept)
    changes = replace(changes, masks={name: mask for name, mask in changes.masks.items() if name not in frozen})
    unchanged = all(torch.equal(old[name], parameter) for name, parameter in model.named_parameters())
    if unchanged and not changes.may_be_empty:
        raise UserError(
            f"the unlearn strategy {name!r} changed no weight",
            "a strategy that changes some weights, or 'nothing' for a warm start",
            "change unlearn.params (e.g. a smaller keep_ratio), or set unlearn.name=nothing",
        )
    return changes


def count_changes(model: nn.Module, changes: Changes) -> Mapping[str, tuple[int, int]]:
    """Return the number of changed weights and of all weights of each parameter."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    names = [name for name in sizes if name in changes.masks]
    counts = torch.stack([changes.masks[name].sum() for name in names]).tolist() if names else []
    return {name: (0, size) for name, size in sizes.items()} | {
        name: (count, sizes[name]) for name, count in zip(names, counts, strict=True)
    }
