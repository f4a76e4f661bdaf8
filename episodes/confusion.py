"""Confusion of classes, counted over the queries of many episodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import FloatArray, IntArray
from episodes.blocks import Block
from episodes.intervals import wilson

MAX_PAIRS = 2**22
"""Pairs of classes counted at a time, which limits memory."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts of how often class a was predicted as class b, all (n_classes, n_classes) int64.

    Two classes can only be confused where both are in one episode, so only such episodes count. The diagonal counts all
    episodes with queries of the class.

    Attributes:
        n_queries: Queries of a.
        n_taken: Queries of a that were predicted as b; on the diagonal, the correct ones.
        n_episodes: Episodes that these queries come from.
    """

    n_queries: IntArray
    n_taken: IntArray
    n_episodes: IntArray

    @cached_property
    def rate(self) -> FloatArray:
        """(n_classes, n_classes) share of the queries of a predicted as b; NaN where no episode holds both."""
        rate = np.full(self.n_queries.shape, np.nan)
        np.divide(self.n_taken, self.n_queries, out=rate, where=self.n_queries > 0)
        return rate

    @cached_property
    def interval(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends of the 95 % confidence intervals of `rate`, see `cautious_interval`."""
        return cautious_interval(self.rate, self.n_episodes)


def count_confusions(block: Block, predicted: NDArray[np.int16], n_classes: int) -> Confusion:
    """Count how often the queries of each class were predicted as each other class.

    Args:
        block: The episodes; those after the last one with predictions are ignored.
        predicted: (n_episodes, n_query) int16 episode labels of the queries, see `EpisodeTable.predicted`.
        n_classes: Number of classes of the bank.

    Raises:
        ValueError: The numbers of predictions and queries differ.
    """
    block = block.part(0, len(predicted))
    answers = predicted[predicted >= 0].astype(np.int64)
    if len(answers) != len(block.query):
        raise ValueError(f"there are {len(answers)} predictions for {len(block.query)} queries")
    first = np.cumsum(block.n_ways) - block.n_ways
    first_of_entry = np.repeat(first, block.n_ways)
    asked = np.repeat(block.classes, block.n_query)
    taken_for = block.classes[np.repeat(first_of_entry, block.n_query) + answers]
    n_queries, n_episodes = (np.zeros(n_classes**2, dtype=np.int64) for _ in range(2))
    n_partners = np.repeat(block.n_ways, block.n_ways)
    for entries in _split_entries(n_partners):
        a = np.repeat(entries, n_partners[entries])
        starts = np.cumsum(n_partners[entries]) - n_partners[entries]
        b = first_of_entry[a] + np.arange(len(a)) - np.repeat(starts, n_partners[entries])
        pair = block.classes[a] * n_classes + block.classes[b]
        np.add.at(n_queries, pair, block.n_query[a])  # in place: a table of 10,000 classes takes 0.75 GiB
        np.add.at(n_episodes, pair[block.n_query[a] > 0], 1)
    n_taken, shape = np.zeros(n_classes**2, dtype=np.int64), (n_classes, n_classes)
    np.add.at(n_taken, asked * n_classes + taken_for, 1)
    return Confusion(
        n_queries=n_queries.reshape(shape),
        n_taken=n_taken.reshape(shape),
        n_episodes=n_episodes.reshape(shape),
    )


def cautious_interval(rate: FloatArray, n_episodes: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the ends of wide 95 % confidence intervals for rates measured on few episodes.

    Wilson's score interval (1927), where each episode counts as one observation, since its queries share one support.
    So the interval holds even if the queries of an episode are all right or all wrong, and is otherwise too wide. It
    refers to this pool of images only, since episodes reuse them.

    Args:
        rate: Shares of queries; NaN gives NaN.
        n_episodes: Like `rate`, the number of episodes behind each.
    """
    return wilson(rate, np.maximum(n_episodes, 1))


def order_by_likeness(rate: FloatArray) -> IntArray:
    """Return an order of the classes that puts the most confused ones next to each other, (n,) for `rate` (n, n).

    Average linkage on the distance 1 - (mean of both rates of a pair); leaves ordered by Bar-Joseph, Gifford and
    Jaakkola (2001). Pairs that share no episode count as never confused.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(rate) < 3:
        return np.arange(len(rate))
    known = np.nan_to_num(rate)
    distance = 1 - (known + known.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return leaves_list(tree).astype(np.int64)


def _split_entries(n_partners: IntArray) -> list[IntArray]:
    """Split the entries into parts of about `MAX_PAIRS` pairs."""
    entries = np.arange(len(n_partners))
    return np.split(entries, np.flatnonzero(np.diff(np.cumsum(n_partners) // MAX_PAIRS)) + 1)
