"""Sampler of episodes by index, through learn2learn. An episode is a pure function of (labels, spec, seed, index).

No other module here imports learn2learn. The import takes seconds, so it happens only when a sampler is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from episodes.arrays import IntArray
from episodes.blocks import Block, Pool, block_size, draw_block, draw_disjoint, make_pool
from episodes.specs import EpisodeSpec, MetaDatasetSpec, SpecError, check_fits

__all__ = ["Episode", "EpisodeSampler", "EpisodeSpec", "MetaDatasetSpec", "SpecError"]


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode: its classes, and the rows of its support and query images.

    Attributes:
        index: Its number, from 0.
        classes: (n_way,) int64, the class of each episode label 0..n_way-1.
        support: (n_support,) int64, rows of the bank, class by class.
        query: (n_query,) int64, rows of the bank, class by class; none is also in `support`.
        support_labels: (n_support,) int64, episode labels.
        query_labels: (n_query,) int64, episode labels.
    """

    index: int
    classes: IntArray
    support: IntArray
    query: IntArray
    support_labels: IntArray
    query_labels: IntArray


class EpisodeSampler:
    """A sequence of episodes: `sampler[7]` is the same episode whatever was drawn before, in any process.

    Episodes are drawn in blocks of a fixed size, and the last block is kept, so access in order is fast.

    Args:
        labels: (n_images,) int64 class of each row.
        spec: The form of the episodes.
        seed: Two samplers of equal labels, spec and seed give equal episodes.

    Raises:
        SpecError: There are too few classes, or too few images in one of them.
    """

    def __init__(self, labels: IntArray, spec: EpisodeSpec, seed: int) -> None:
        self.spec = spec
        self.seed = seed
        pool = make_pool(labels)
        check_fits(spec, pool.n_images)
        self._block_size = block_size(pool, spec)
        self._taskset, self._transform = _taskset(labels, pool, spec, seed)
        self._last: tuple[int, Block] | None = None

    def __len__(self) -> int:
        return self.spec.n_episodes

    def __getitem__(self, index: int) -> Episode:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number, within = divmod(index, self._block_size)
        return episode_of(self._block(number).part(within, within + 1), index)

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    def blocks(self) -> Iterator[Block]:
        """Yield all episodes in order, in blocks of at most 256."""
        for start in range(0, len(self), self._block_size):
            yield self._block(start // self._block_size).part(0, min(self._block_size, len(self) - start))

    def _block(self, number: int) -> Block:
        if self._last is None or self._last[0] != number:
            self._transform.number = number
            self._last = number, self._taskset[number]
        return self._last[1]


def episode_of(block: Block, index: int) -> Episode:
    """Return the only episode of a block, numbered `index`."""
    labels = np.arange(len(block.classes))
    return Episode(
        index=index,
        classes=block.classes,
        support=block.support,
        query=block.query,
        support_labels=np.repeat(labels, block.n_support),
        query_labels=np.repeat(labels, block.n_query),
    )


def _taskset(labels: IntArray, pool: Pool, spec: EpisodeSpec, seed: int) -> tuple[Any, Any]:
    """Build learn2learn's Taskset over row numbers, and its only transform, whose `number` selects the block to draw.

    learn2learn's own transforms draw from the global `random` at 60 us per episode; this one draws a block at a time.
    The data set's bookkeeping uses arrays; learn2learn's own is a dictionary with one entry per image.
    """
    from learn2learn.data import DataDescription, MetaDataset, Taskset
    from learn2learn.data.transforms import TaskTransform
    from torch.utils.data import Dataset

    class Rows(Dataset[int]):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, row: int) -> int:
            return row

    class RowsByClass(MetaDataset):  # type: ignore[misc]
        def create_bookkeeping(self, labels_to_indices: Any = None, indices_to_labels: Any = None) -> None:
            self.labels = pool.classes.tolist()
            self.labels_to_indices = dict(zip(self.labels, np.split(pool.rows, pool.starts[1:]), strict=True))
            self.indices_to_labels = labels

    class NextBlock(TaskTransform):  # type: ignore[misc]
        number = 0

        def __call__(self, task_description: Any) -> list[Any]:
            description = DataDescription(self.number)
            description.transforms.append(draw)
            return [description]

    size = block_size(pool, spec)
    whole = draw_disjoint(pool, spec, seed) if spec.disjoint else None

    def draw(number: int) -> Block:
        if whole is None:
            return draw_block(pool, spec, seed, number)
        return whole.part(number * size, min((number + 1) * size, len(whole)))

    dataset = RowsByClass(Rows())
    transform = NextBlock(dataset)
    return Taskset(dataset, task_transforms=[transform], task_collate=lambda blocks: blocks[0]), transform
