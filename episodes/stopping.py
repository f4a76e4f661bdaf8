"""How many episodes to draw: enough for an interval of the wanted width.

Only the width decides. "Until the difference is significant" is not offered: a test that is looked at again after every
block rejects a true hypothesis ever more often, with probability one in the end (Armitage, McPherson and Rowe 1969);
in a simulation with a look after every 100 of 10,000 episodes it did in 38 % of comparisons instead of 5 %. The width
of an interval says nothing of which side of zero it lies on, so stopping by it does no such harm.

More episodes narrow `ci95_episodes` without end, and `ci95_classes` down to what the number of classes leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from episodes.arrays import FloatArray
from episodes.summary import half_width

Block = TypeVar("Block")

MIN_EPISODES = 200
BLOCK_SIZE = 100


def until_narrow(
    blocks: Iterable[Block],
    values_of: Callable[[Block], FloatArray],
    target_ci95: float,
    *,
    min_episodes: int = MIN_EPISODES,
) -> Iterator[Block]:
    """Yield blocks of results until the mean of all yielded has a `ci95_episodes` of at most the target.

    The rule is that of Chow and Robbins (1965, section 1): draw until the interval from the estimated standard
    deviation is narrow enough. It covers 95 % in the limit of narrow intervals; `min_episodes` guards against a
    standard deviation that is small by chance at the start. A block after the last is never asked for, so a generator
    of scores computes nothing in vain.

    Args:
        blocks: Results of consecutive episodes; their ends are where the width is looked at.
        values_of: Gives a block's values, (n,) float.
        target_ci95: The wanted half width.
        min_episodes: No stop before these.

    Raises:
        ValueError: The target is not above zero.
    """
    if not target_ci95 > 0:
        raise ValueError(f"target_ci95 is {target_ci95}, but a half width must be above zero")
    values = np.empty(0)
    for block in blocks:
        yield block
        values = np.concatenate([values, values_of(block)])
        n = len(values)
        if n >= max(2, min_episodes) and half_width(float(values.std(ddof=1)), n) <= target_ci95:
            return
