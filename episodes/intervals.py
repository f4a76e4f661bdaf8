"""Half widths of 95 % intervals by Student's t, and Wilson's interval of a share."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from episodes.arrays import FloatArray, IntArray

NORMAL_95 = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


def half_width(std: float, n: int) -> float:
    """Return t(n - 1) * std / sqrt(n), half the 95 % interval of a mean of `n` >= 2 independent values."""
    return float(student_quantile(n - 1) * std / np.sqrt(n))


def bound_without_exceptions(n: int) -> float:
    """Return 1 - 0.05^(1 / n), about 3 / n: the 95 % bound on the share of a kind of which `n` >= 1 cases were none.

    It takes the place of a half width where all values of a share are 1, and their spread is unknown. It is
    one-sided: the mean is above 1 minus this bound, even if each exception were as bad as can be.
    """
    return float(1 - 0.05 ** (1 / n))


@lru_cache(maxsize=1024)
def student_quantile(degrees_of_freedom: float, level: float = 0.05) -> float:
    """Return the quantile of Student's t that a two-sided test at `level` needs: 97.5 % for all 95 % intervals."""
    from scipy.special import stdtrit  # scipy.stats gives the same bits, but takes most of a second to import

    return float(stdtrit(degrees_of_freedom, 1 - level / 2))


def student_p(mean: float, error: float, degrees_of_freedom: float) -> float:
    """Return the two-sided p of a mean that is `error` uncertain, by Student's t; 1 or 0 where nothing varies."""
    from scipy.special import stdtr

    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(degrees_of_freedom, -abs(mean) / error))


def wilson(share: float | FloatArray, n: int | IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the 95 % interval of a share of `n` >= 1 observations, in [0, 1] (Wilson 1927).

    Args:
        share: One or an array of them; NaN gives NaN.
        n: Number of observations behind each share.
    """
    squared = NORMAL_95**2
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    half = NORMAL_95 / (1 + squared / n) * np.sqrt(share * (1 - share) / n + squared / (4 * n**2))
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)
