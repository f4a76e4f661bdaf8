"""Drawing of episodes in blocks, with numpy alone: their classes, the number of images of each, and the images.

A block is a pure function of (pool, spec, seed, block number). Its random numbers come from Philox, keyed by the seed
and the block number, through `RandomState`: numpy keeps the streams of no other interface the same across versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from episodes.arrays import IntArray
from episodes.specs import EpisodeSpec, MetaDatasetSpec, n_disjoint_episodes

MAX_BLOCK = 256
MAX_SLOTS = 2**20
"""Limits on the size of a block; changing either one changes the episodes of every seed."""
WHOLE_POOL = 2**64 - 1
"""The block number used for disjoint episodes, which are drawn all at once."""


@dataclass(frozen=True)
class Pool:
    """Row numbers grouped by class.

    Attributes:
        classes: (n_classes,) int64, the classes that have images, ascending.
        n_images: (n_classes,) int64, images per class.
        starts: (n_classes,) int64, where each class begins in `rows`.
        rows: (n_images,) int64, class by class, ascending within a class.
    """

    classes: IntArray
    n_images: IntArray
    starts: IntArray
    rows: IntArray


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive episodes in flat arrays; an *entry* is one class of one episode.

    Attributes:
        n_ways: (n_episodes,) int64, entries per episode.
        classes: (n_entries,) int64.
        n_support: (n_entries,) int64.
        n_query: (n_entries,) int64.
        support: (sum of n_support,) int64 rows, entry by entry.
        query: (sum of n_query,) int64 rows, entry by entry.
    """

    n_ways: IntArray
    classes: IntArray
    n_support: IntArray
    n_query: IntArray
    support: IntArray
    query: IntArray

    def __len__(self) -> int:
        return len(self.n_ways)

    @cached_property
    def _ends(self) -> tuple[IntArray, IntArray, IntArray]:
        """End positions of each episode's entries and of each entry's support and query rows, after a leading 0."""
        entries, support, query = (
            np.concatenate([[0], np.cumsum(counts)]) for counts in (self.n_ways, self.n_support, self.n_query)
        )
        return entries, support, query

    def part(self, start: int, stop: int) -> Block:
        """Return the episodes start..stop-1 as a block."""
        entry_ends, support_ends, query_ends = self._ends
        first, last = entry_ends[start], entry_ends[stop]
        return Block(
            n_ways=self.n_ways[start:stop],
            classes=self.classes[first:last],
            n_support=self.n_support[first:last],
            n_query=self.n_query[first:last],
            support=self.support[support_ends[first] : support_ends[last]],
            query=self.query[query_ends[first] : query_ends[last]],
        )


def check_block(block: Block, n_images: int | None = None, labels: IntArray | None = None) -> None:
    """Raise unless every episode has different classes and images, and images of its classes.

    Args:
        block: The episodes.
        n_images: Number of rows that there are; None if unknown.
        labels: (n_images,) class of each row; None if unknown.

    Raises:
        ValueError: The counts do not belong to the arrays, an episode has a class or an image twice, an image that does
            not exist or one of another class.
    """
    of_entry = np.repeat(np.arange(len(block)), _counts(block.n_ways, block.classes, "classes"))
    n_support = _counts(block.n_support, block.support, "support images")
    n_query = _counts(block.n_query, block.query, "queries")
    if not len(n_support) == len(n_query) == len(block.classes):
        raise ValueError("there are not as many counts of images as classes")
    rows = np.concatenate([block.support, block.query])
    entries = np.concatenate([np.repeat(np.arange(len(counts)), counts) for counts in (n_support, n_query)])
    for values, episodes, what, n in (
        (block.classes, of_entry, "class", None),
        (rows, of_entry[entries], "image", n_images),
    ):
        if len(values) and (values.min() < 0 or (n is not None and values.max() >= n)):
            raise ValueError(f"an episode has a{'n' * (what == 'image')} {what} that does not exist")
        order = np.lexsort((values, episodes))
        is_again = (np.diff(values[order]) == 0) & (np.diff(episodes[order]) == 0)
        if is_again.any():
            raise ValueError(f"episode {episodes[order][1:][is_again][0]} has one {what} twice")
    if labels is not None and (is_other := labels[rows] != block.classes[entries]).any():
        raise ValueError(f"episode {of_entry[entries][is_other][0]} has images of other classes than its own")


def _counts(counts: IntArray, values: IntArray, what: str) -> IntArray:
    if (len(counts) and counts.min() < 0) or counts.sum() != len(values):
        raise ValueError(f"the episodes should have {counts.sum()} {what}, and there are {len(values)}")
    return counts


def make_pool(labels: IntArray) -> Pool:
    """Group row numbers by class.

    Args:
        labels: (n_images,) int64, 0 or more.
    """
    labels = np.asarray(labels)
    few = labels.astype(np.uint16) if len(labels) and labels.max() < 2**16 else labels  # numpy sorts 16 bits by radix
    rows = np.argsort(few, kind="stable")
    n_per_class = np.bincount(labels)
    classes = np.flatnonzero(n_per_class)
    n_images = n_per_class[classes].astype(np.int64)
    return Pool(classes, n_images, np.cumsum(n_images) - n_images, rows)


def random_state(seed: int, number: int) -> np.random.RandomState:
    """Return the random generator for block `number` of `seed`."""
    key = np.array([seed % 2**64, number], dtype=np.uint64)
    return np.random.RandomState(np.random.Philox(key=key))


def block_size(pool: Pool, spec: EpisodeSpec) -> int:
    """Return the number of episodes per block, small enough that drawing one needs only a few megabytes."""
    max_way = min(spec.max_way, len(pool.classes))
    return int(np.clip(MAX_SLOTS // (max_way * int(pool.n_images.max())), 1, MAX_BLOCK))


def draw_block(pool: Pool, spec: EpisodeSpec, seed: int, number: int) -> Block:
    """Draw one block of `block_size` independent episodes."""
    rng = random_state(seed, number)
    n_ways = _draw_ways(rng, spec, block_size(pool, spec), len(pool.classes))
    entries = draw_distinct(rng, np.full(len(n_ways), len(pool.classes)), n_ways)
    n_images = pool.n_images[entries]
    if spec.meta_dataset is None:
        n_support = _draw_shots(rng, spec, len(n_ways))
        n_query = _draw_queries(rng, spec, len(n_ways))
    else:
        n_support, n_query = meta_dataset_counts(rng, spec.meta_dataset, n_ways, n_images)
    n_drawn = n_support + n_query
    positions = draw_distinct(rng, n_images, n_drawn) + np.repeat(pool.starts[entries], n_drawn)
    return _assemble(n_ways, pool.classes[entries], n_support, n_query, pool.rows[positions])


def draw_disjoint(pool: Pool, spec: EpisodeSpec, seed: int) -> Block:
    """Draw as many episodes as possible without using any image twice, in random order.

    The images of each class are shuffled and cut into portions of `spec.n_images_needed`. Episode after episode takes
    one portion of each of the n_way classes with most portions left, ties broken at random. This reaches the largest
    possible number of episodes. They are then shuffled, so that any prefix of them is a fair sample.
    """
    rng = random_state(seed, WHOLE_POOL)
    of_row = np.repeat(np.arange(len(pool.classes)), pool.n_images)
    shuffled = pool.rows[np.lexsort((rng.random_sample(len(pool.rows)), of_row))]
    n_episodes = n_disjoint_episodes(spec, pool.n_images)
    left = pool.n_images // spec.n_images_needed
    entries = np.empty((n_episodes, spec.n_way), dtype=np.int64)
    for chosen in entries:
        chosen[:] = np.argsort(-(left + rng.random_sample(len(left))), kind="stable")[: spec.n_way]
        left[chosen] -= 1
        chosen[:] = chosen[np.argsort(rng.random_sample(spec.n_way), kind="stable")]
    flat = entries[np.argsort(rng.random_sample(n_episodes), kind="stable")].reshape(-1)
    by_class = np.argsort(flat, kind="stable")
    n_uses = np.bincount(flat, minlength=len(pool.classes))
    portion = np.empty(len(flat), dtype=np.int64)
    portion[by_class] = np.arange(len(flat)) - np.repeat(np.cumsum(n_uses) - n_uses, n_uses)
    n_support, n_query = _draw_shots(rng, spec, n_episodes), _draw_queries(rng, spec, n_episodes)
    first = pool.starts[flat] + portion * spec.n_images_needed
    rows = shuffled[np.repeat(first, n_support + n_query) + _counting(n_support + n_query)]
    return _assemble(np.full(n_episodes, spec.n_way), pool.classes[flat], n_support, n_query, rows)


def draw_distinct(rng: np.random.RandomState, n_items: IntArray, n_drawn: IntArray) -> IntArray:
    """Draw without replacement from many sets at once, by the first steps of a Fisher-Yates shuffle.

    Args:
        rng: The source of the random numbers.
        n_items: (n_sets,) int64 size of each set.
        n_drawn: (n_sets,) int64, at most n_items.

    Returns:
        (sum of n_drawn,) int64: for each set in turn, different numbers of 0..n_items-1, in random order.
    """
    order = np.argsort(-n_drawn, kind="stable")  # so that sets that still draw come first
    sizes, counts = n_items[order], n_drawn[order]
    n_sets, width, n_steps = len(order), int(sizes.max()), int(counts[0])
    slots = np.tile(np.arange(width, dtype=np.int32), n_sets)
    first = np.arange(n_sets, dtype=np.int64) * width
    n_active = n_sets - np.searchsorted(counts[::-1], np.arange(n_steps), side="right")
    drawn = np.empty((n_steps, n_sets), dtype=np.int64)
    for step, active in enumerate(n_active):
        here = first[:active] + step
        there = here + (rng.random_sample(active) * (sizes[:active] - step)).astype(np.int64)
        drawn[step, :active] = slots[there]
        slots[there] = slots[here]
    by_set = np.empty((n_sets, n_steps), dtype=np.int64)
    by_set[order] = drawn.T
    return by_set[np.arange(n_steps) < n_drawn[:, None]]


def meta_dataset_counts(
    rng: np.random.RandomState, bounds: MetaDatasetSpec, n_ways: IntArray, n_images: IntArray
) -> tuple[IntArray, IntArray]:
    """Draw support and query counts by the procedure of Meta-Dataset (Triantafillou et al. 2020, section 3.2).

    The way is uniform on min_way..min(max_way, number of classes), and the classes C of an episode are drawn evenly.
    With |c| images of class c, beta ~ U(0, 1] for each episode, and alpha_c ~ U[log 0.5, log 2) for each class:

        queries per class  q   = min(max_query, min_c floor(|c| / 2)), the same for all classes
        support size       |S| = min(max_support, sum_c ceil(beta * min(max_support_per_class, |c| - q)))
        share of class c   R_c = exp(alpha_c) |c| / sum_c' exp(alpha_c') |c'|
        shots of class c   k_c = min(floor(R_c * (|S| - |C|)) + 1, |c| - q)

    Departures: classes are always drawn evenly (the paper draws those of ImageNet and Omniglot along their
    hierarchies); ceil(beta x) is floor(beta' x) + 1 with beta' ~ U[0, 1), as in the authors' code, which is the same
    in distribution.

    Args:
        rng: The source of the random numbers.
        bounds: Limits on ways and shots; the defaults are the paper's.
        n_ways: (n_episodes,) int64, entries per episode.
        n_images: (n_entries,) int64, number of images of each entry's class, at least 2.

    Returns:
        Numbers of support and of query images per entry, (n_entries,) int64 each.
    """
    first = np.cumsum(n_ways) - n_ways
    n_query = np.minimum(bounds.max_query, np.minimum.reduceat(n_images // 2, first))
    left = n_images - np.repeat(n_query, n_ways)
    beta = np.repeat(rng.random_sample(len(n_ways)), n_ways)
    contributions = np.floor(beta * np.minimum(bounds.max_support_per_class, left)) + 1
    n_support = np.minimum(bounds.max_support, np.add.reduceat(contributions, first))
    weights = n_images * np.exp(np.log(0.5) + rng.random_sample(len(n_images)) * np.log(4))
    shares = weights / np.repeat(np.add.reduceat(weights, first), n_ways)
    shots = np.floor(shares * np.repeat(n_support - n_ways, n_ways)).astype(np.int64) + 1
    return np.minimum(shots, left), np.repeat(n_query, n_ways)


def dirichlet_counts(rng: np.random.RandomState, alpha: float, n_episodes: int, n_way: int, n_query: int) -> IntArray:
    """Draw unbalanced query counts, (n_episodes, n_way) int64, whose sum is n_way * n_query in each episode.

    The class shares are drawn from Dirichlet(alpha, ..., alpha) (Veilleux et al. 2021, section 3, where alpha is 2).
    Shares times the total are rounded by largest remainders. Departure: the authors round to the nearest integer and
    then correct the sum at the remainders closest to a half.
    """
    total = n_way * n_query
    gammas = rng.standard_gamma(alpha, (n_episodes, n_way))
    exact = gammas / gammas.sum(axis=1, keepdims=True) * total
    counts: IntArray = np.floor(exact).astype(np.int64)
    rank = np.argsort(np.argsort(counts - exact, axis=1, kind="stable"), axis=1, kind="stable")
    counts += rank < total - counts.sum(axis=1, keepdims=True)
    return counts


def _draw_ways(rng: np.random.RandomState, spec: EpisodeSpec, n_episodes: int, n_classes: int) -> IntArray:
    if spec.meta_dataset is None:
        return np.full(n_episodes, spec.n_way, dtype=np.int64)
    return _draw_integers(rng, spec.min_way, min(spec.max_way, n_classes), n_episodes)


def _draw_shots(rng: np.random.RandomState, spec: EpisodeSpec, n_episodes: int) -> IntArray:
    if spec.shots is not None:
        return np.tile(np.array(spec.shots, dtype=np.int64), n_episodes)
    if spec.shot_range is not None:
        return _draw_integers(rng, *spec.shot_range, n_episodes * spec.n_way)
    return np.full(n_episodes * spec.n_way, spec.n_shot, dtype=np.int64)


def _draw_queries(rng: np.random.RandomState, spec: EpisodeSpec, n_episodes: int) -> IntArray:
    if spec.query_alpha is not None:
        return dirichlet_counts(rng, spec.query_alpha, n_episodes, spec.n_way, spec.n_query).reshape(-1)
    return np.full(n_episodes * spec.n_way, spec.n_query, dtype=np.int64)


def _draw_integers(rng: np.random.RandomState, low: int, high: int, size: int) -> IntArray:
    """Draw integers evenly from low..high, both included."""
    return low + (rng.random_sample(size) * (high - low + 1)).astype(np.int64)


def _counting(counts: IntArray) -> IntArray:
    """Return 0..count-1 for each count in turn."""
    counting: IntArray = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return counting


def _assemble(n_ways: IntArray, classes: IntArray, n_support: IntArray, n_query: IntArray, rows: IntArray) -> Block:
    """Build a block from the rows of all entries: the first `n_support` of each are support, the others query."""
    is_support = _counting(n_support + n_query) < np.repeat(n_support, n_support + n_query)
    return Block(
        n_ways=n_ways,
        classes=classes,
        n_support=n_support,
        n_query=n_query,
        support=rows[is_support],
        query=rows[~is_support],
    )
