"""Stopping rule for scoring: episodes are scored until the interval is narrow enough.

"Until the difference is significant" is not offered: a test that is repeated after every block
rejects a true hypothesis ever more often, with probability one in the end (Armitage, McPherson and Rowe 1969). In a
simulation with a test after every 100 of 10,000 episodes it did so in 38 % of comparisons instead of 5 %. The width of
an interval does not tell on which side of zero it lies, so stopping by it does no such harm.

More episodes narrow `ci95_episodes` without end; the number of classes limits `ci95_classes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from episodes.arrays import FloatArray
from episodes.intervals import half_width

Block = TypeVar("Block")

MIN_EPISODES = 200
MIN_UNUSUAL = 10
BLOCK_SIZE = 100


def until_narrow(
    blocks: Iterable[Block],
    values_of: Callable[[Block], FloatArray],
    target_ci95: float,
    *,
    min_episodes: int = MIN_EPISODES,
) -> Iterator[Block]:
    """Yield blocks of results until `ci95_episodes` over all of them is at most the target.

    The rule is that of Chow and Robbins (1965, section 1): draw until the interval from the estimated standard
    deviation is narrow enough. It covers 95 % in the limit of narrow intervals. Two guards keep a standard deviation
    that is small by chance from ending it early: at least `min_episodes`, and at least `MIN_UNUSUAL` episodes that
    differ from the most common value. Where nearly all episodes are perfect, few others decide the spread. No block
    after the last one is requested, so a generator of scores computes nothing in vain.

    Args:
        blocks: Results of consecutive episodes; the width is checked after each.
        values_of: Returns the values of a block, (n,) float.
        target_ci95: The wanted half width.
        min_episodes: The fewest episodes to score.

    Raises:
        ValueError: The target is zero or less.
    """
    if not target_ci95 > 0:
        raise ValueError(f"target_ci95 is {target_ci95}, but a half width must be above zero")
    values = np.empty(0)
    for block in blocks:
        yield block
        values = np.concatenate([values, values_of(block)])
        n = len(values)
        if n < max(2, min_episodes) or half_width(float(values.std(ddof=1)), n) > target_ci95:
            continue
        if n - np.unique(values, return_counts=True)[1].max() >= MIN_UNUSUAL:
            return
