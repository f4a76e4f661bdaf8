"""What happens to the weights between two chunks: the images that a strategy may look at, and what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lurefs.backbones import Backbone
from lurefs.data.chunks import Chunk
from lurefs.data.dataset import IntArray
from lurefs.errors import UserError
from lurefs.images import Images
from lurefs.ranks import ONE_PROCESS, Ranks
from lurefs.seeding import seed_stream
from lurefs.unlearn.contract import Changes, ProbeImages, ProbeSource, UnlearnStrategy

SALIENCY_BATCH_SIZE = 128


def probe_images(
    backbone: Backbone,
    images: Images,
    chunks: Sequence[Chunk],
    chunk_index: int,
    seed: int,
    ranks: Ranks = ONE_PROCESS,
) -> ProbeImages:
    """Return the images that a strategy may look at before chunk `chunk_index`."""
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


def apply_strategy(
    strategy: UnlearnStrategy, name: str, model: nn.Module, twin: nn.Module, probe: ProbeImages, seed: int
) -> Changes:
    """Let a strategy change the model in place.

    Raises:
        UserError: It changed nothing, and is not one that may find nothing to change.
    """
    old = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    changes = strategy(model, twin, probe, torch.Generator().manual_seed(seed))
    unchanged = all(torch.equal(old[name], parameter) for name, parameter in model.named_parameters())
    if unchanged and not changes.may_be_empty:
        raise UserError(
            f"the unlearn strategy {name!r} changed no weight",
            "a strategy that changes some, or 'nothing' for a warm start",
            "change unlearn.params (e.g. a keep_ratio below 1), or set unlearn.name=nothing",
        )
    return changes


def count_changes(model: nn.Module, changes: Changes) -> Mapping[str, tuple[int, int]]:
    """Return of each parameter how many weights were changed, and how many there are."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    names = [name for name in sizes if name in changes.masks]
    counts = torch.stack([changes.masks[name].sum() for name in names]).tolist() if names else []
    return {name: (0, size) for name, size in sizes.items()} | {
        name: (count, sizes[name]) for name, count in zip(names, counts, strict=True)
    }
