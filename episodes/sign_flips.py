"""Random sign flips shared by several models, so that one draw serves the paired tests of all pairs.

The flipped sum of a difference is the difference of two flipped sums, s . (a - b) = s . a - s . b. So each model is
summed once, and each pair costs one subtraction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import FloatArray

Signs = NDArray[np.uint8]

_SIGNS_OF_BYTE = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float64)
"""(256, 8): the signs of eight episodes in a row, for each value of a byte."""


def draw_signs(n_episodes: int, n_flips: int, *, rng: np.random.Generator) -> Signs:
    """Draw one sign for each flip and episode.

    The signs of the first episodes do not depend on the number of episodes.

    Args:
        n_episodes: Number of episodes.
        n_flips: Number of flips.
        rng: The generator to draw with.

    Returns:
        (ceil(n_episodes / 8), n_flips) uint8, one bit per sign.
    """
    return np.frombuffer(rng.bytes(-(-n_episodes // 8) * n_flips), dtype=np.uint8).reshape(-1, n_flips)


def flipped_sums(values: FloatArray, signs: Signs, lengths: Sequence[int] | None = None) -> FloatArray:
    """Return the sum of the values under each flip's signs.

    Eight signs are looked up at a time in a table of the 256 sums that eight values can have.

    Args:
        values: (n_episodes,) finite.
        signs: Signs from `draw_signs` for at least as many episodes.
        lengths: Numbers of first episodes to sum over, ascending; None sums over all episodes.

    Returns:
        (len(lengths), n_flips).
    """
    lengths = [len(values)] if lengths is None else lengths
    sums = np.zeros((len(lengths), signs.shape[1]))
    running, n_done = np.zeros(signs.shape[1]), 0
    for place, length in enumerate(lengths):
        n_whole = length // 8
        tables = _tables(values[8 * n_done : 8 * n_whole])
        for table, of_eight in zip(tables, signs[n_done:n_whole], strict=True):
            running += table[of_eight]
        n_done = n_whole
        sums[place] = running
        if length % 8:
            sums[place] += _tables(values[8 * n_whole : length])[0][signs[n_whole]]
    return sums


def _tables(values: FloatArray) -> FloatArray:
    """Return (ceil(n / 8), 256): for every eight values, their sum under each possible byte of signs."""
    padded = np.zeros(-(-len(values) // 8) * 8)
    padded[: len(values)] = values
    return padded.reshape(-1, 8) @ _SIGNS_OF_BYTE.T
