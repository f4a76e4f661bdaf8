"""Draw episodes with learn2learn. An episode is a pure function of (labels, spec, seed, index).

The only module that imports learn2learn, and only when a sampler is built, since that import takes seconds.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EpisodeSpec:
    """The form of an episode.

    Attributes:
        n_way: Classes an episode.
        n_shot: Support images a class.
        n_query: Query images a class.
        n_episodes: How many episodes a manifest holds; no episode depends on it.
    """

    n_way: int = 5
    n_shot: int = 1
    n_query: int = 15
    n_episodes: int = 2000


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One n-way n-shot draw.

    Attributes:
        index: Its number, from 0.
        classes: (n_way,) int64, the classes drawn, in the order of their episode labels 0..n_way-1.
        support: (n_way * n_shot,) int64, rows of the bank, class by class.
        query: (n_way * n_query,) int64, rows of the bank, class by class; none of them is in `support`.
        support_labels: (n_way * n_shot,) int64, episode labels.
        query_labels: (n_way * n_query,) int64, episode labels.
    """

    index: int
    classes: IntArray
    support: IntArray
    query: IntArray
    support_labels: IntArray
    query_labels: IntArray


class EpisodeSampler:
    """Episodes by index: `sampler[7]` is the same episode whatever was drawn before, in whatever process.

    Args:
        labels: (n_images,) int64 class of each row.
        spec: The form of the episodes.
        seed: Two samplers of equal labels, spec and seed give equal episodes.

    Raises:
        ValueError: There are too few classes, or too few images in one of them.
    """

    def __init__(self, labels: IntArray, spec: EpisodeSpec, seed: int) -> None:
        self.spec = spec
        self.seed = seed
        n_per_class = np.bincount(labels)
        _check(spec, n_per_class)
        self._taskset = _taskset(labels, spec)
        self._labels = labels

    def __len__(self) -> int:
        return self.spec.n_episodes

    def __getitem__(self, index: int) -> Episode:
        if not 0 <= index < len(self):
            raise IndexError(index)
        with _restored_random():
            return self._draw(index)

    def __iter__(self) -> Iterator[Episode]:
        with _restored_random():
            episodes = [self._draw(index) for index in range(len(self))]
        yield from episodes

    def _draw(self, index: int) -> Episode:
        # learn2learn draws from the global generator; a text seed is hashed with SHA-512, whatever the hash seed.
        random.seed(f"episode/{self.seed}/{index}")
        description = self._taskset.sample_task_description()
        rows = np.fromiter((entry.index for entry in description), dtype=np.int64, count=len(description))
        n_way, n_shot, n_query = self.spec.n_way, self.spec.n_shot, self.spec.n_query
        by_class = rows.reshape(n_way, n_shot + n_query)
        return Episode(
            index=index,
            classes=self._labels[by_class[:, 0]],
            support=by_class[:, :n_shot].reshape(-1),
            query=by_class[:, n_shot:].reshape(-1),
            support_labels=np.repeat(np.arange(n_way), n_shot),
            query_labels=np.repeat(np.arange(n_way), n_query),
        )


@contextmanager
def _restored_random() -> Iterator[None]:
    """Leave the global generator as it was; hold the cyclic collector off, which would walk every object of torch."""
    state = random.getstate()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        random.setstate(state)
        if was_enabled:
            gc.enable()


def _taskset(labels: IntArray, spec: EpisodeSpec) -> Any:
    """Build learn2learn's Taskset over row numbers: it draws descriptions, and never loads an item."""
    from learn2learn.data import MetaDataset, Taskset
    from learn2learn.data.transforms import FusedNWaysKShots
    from torch.utils.data import Dataset

    class Rows(Dataset[int]):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, row: int) -> int:
            return row

    rows_of_class = {int(label): np.flatnonzero(labels == label).tolist() for label in np.unique(labels)}
    dataset = MetaDataset(Rows(), labels_to_indices=rows_of_class)
    draw = FusedNWaysKShots(dataset, n=spec.n_way, k=spec.n_shot + spec.n_query)
    return Taskset(dataset, task_transforms=[draw])


def _check(spec: EpisodeSpec, n_per_class: NDArray[np.intp]) -> None:
    present = n_per_class[n_per_class > 0]
    if spec.n_way > len(present):
        raise ValueError(f"n_way is {spec.n_way}, but there are {len(present)} classes; lower n_way")
    needed = spec.n_shot + spec.n_query
    if needed > present.min():
        raise ValueError(
            f"n_shot + n_query is {needed} per class, but the smallest class has {present.min()} images; "
            f"lower n_query to {present.min() - spec.n_shot} or less, or drop the class"
        )
