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
from numpy.typing import NDArray

from episodes.summary import half_width

FloatArray = NDArray[np.float64]
Block = TypeVar("Block")

MIN_EPISODES = 200
BLOCK_SIZE = 100


def episodes_needed(std: float, target_ci95: float) -> int:
    """Return the least number of episodes, at least 2, whose `ci95_episodes` is at most `target_ci95`.

    Solves t(n - 1) * std / sqrt(n) <= target for n; the left side falls with n.

    Args:
        std: Standard deviation over episodes, e.g. of a first 200.
        target_ci95: The wanted half width, in the unit of `std`.

    Raises:
        ValueError: The target is not above zero.
    """
    _check_target(target_ci95)
    if half_width(std, 2) <= target_ci95:
        return 2
    too_few, enough = 2, 4
    while half_width(std, enough) > target_ci95:
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if half_width(std, middle) <= target_ci95:
            enough = middle
        else:
            too_few = middle
    return enough


def stops_at(
    values: FloatArray, target_ci95: float, *, min_episodes: int = MIN_EPISODES, block_size: int = BLOCK_SIZE
) -> int | None:
    """Return after how many of the values the rule stops: the half width is looked at after every block.

    The rule is that of Chow and Robbins (1965, section 1): draw until the interval from the estimated standard
    deviation is narrow enough. It covers 95 % in the limit of narrow intervals; `min_episodes` guards against a
    standard deviation that is small by chance at the start.

    Args:
        values: (n_episodes,) in the order of the manifest.
        target_ci95: The wanted half width of the mean.
        min_episodes: No stop before these.
        block_size: Episodes a block.

    Returns:
        A multiple of `block_size`, or None if the values end before the interval is narrow enough.

    Raises:
        ValueError: The target is not above zero.
    """
    blocks = (values[start : start + block_size] for start in range(0, len(values) - block_size + 1, block_size))
    width = _Width(target_ci95, min_episodes)
    return next((width.n for block in blocks if width.is_reached_by(block)), None)


def until_narrow(
    blocks: Iterable[Block],
    values_of: Callable[[Block], FloatArray],
    target_ci95: float,
    *,
    min_episodes: int = MIN_EPISODES,
) -> Iterator[Block]:
    """Yield blocks of results until the mean of all yielded has a `ci95_episodes` of at most the target.

    A block after the last is never asked for, so a generator of scores computes nothing in vain.

    Args:
        blocks: Results of consecutive episodes; their ends are where the width is looked at.
        values_of: Gives a block's values, (n,) float.
        target_ci95: The wanted half width.
        min_episodes: No stop before these.

    Raises:
        ValueError: The target is not above zero.
    """
    width = _Width(target_ci95, min_episodes)
    for block in blocks:
        yield block
        if width.is_reached_by(values_of(block)):
            return


class _Width:
    """The half width of a mean whose values come in blocks."""

    def __init__(self, target_ci95: float, min_episodes: int) -> None:
        _check_target(target_ci95)
        self.n = 0
        self._target = target_ci95
        self._min_episodes = max(2, min_episodes)
        self._values: list[FloatArray] = []

    def is_reached_by(self, block: FloatArray) -> bool:
        self._values.append(np.asarray(block, dtype=np.float64))
        self.n += len(block)
        if self.n < self._min_episodes:
            return False
        return half_width(float(np.concatenate(self._values).std(ddof=1)), self.n) <= self._target


def _check_target(target_ci95: float) -> None:
    if not target_ci95 > 0:
        raise ValueError(f"target_ci95 is {target_ci95}, but a half width must be above zero")
