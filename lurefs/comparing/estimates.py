"""Means with their intervals, of a single training or over seeds, in one form for all outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from episodes.arrays import FloatArray
from episodes.over_seeds import MIN_SEEDS, summarise_seeds
from episodes.summary import Summary

Scope = Literal["pool", "classes", "seeds"]
"""Scope of an interval or test: episodes of this pool of classes, new classes of this kind, or new seeds."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean and its intervals.

    Attributes:
        mean: The mean, fraction.
        values: The value of each training, fraction.
        n_episodes: Number of episodes; of several trainings the fewest.
        half_widths: Half widths of the 95 % intervals by scope, fraction: `pool` and `classes` for a single training,
            `seeds` for several.
        p_seeds: Two-sided p of zero on new seeds; None without an interval over seeds.
        no_interval: Why an interval is missing; "" if none is.
        note: Which seeds are left out, and why; "" if none is.
    """

    mean: float
    values: tuple[float, ...]
    n_episodes: int
    half_widths: Mapping[Scope, float] = field(default_factory=dict)
    p_seeds: float | None = None
    no_interval: str = ""
    note: str = ""

    @property
    def half_width(self) -> float | None:
        """The half width over seeds, or on this pool for a single training; None if there are too few seeds."""
        return self.half_widths.get("seeds", self.half_widths.get("pool"))

    @property
    def remarks(self) -> str:
        """The missing interval and the note as one text."""
        return "; ".join(filter(None, [self.no_interval, self.note]))

    def turned(self) -> Estimate:
        """Return the difference in the other direction, with the opposite sign."""
        return replace(self, mean=-self.mean, values=tuple(-value for value in self.values))


def of_training(summary: Summary) -> Estimate:
    """Return the estimate of a single training."""
    widths: dict[Scope, float] = {"pool": summary.ci95_episodes}
    if summary.ci95_classes is not None:
        widths["classes"] = summary.ci95_classes
    missing = f"no interval on new classes ({summary.no_ci95_classes or 'not computed'})"
    return Estimate(
        mean=summary.mean,
        values=(summary.mean,),
        n_episodes=summary.n,
        half_widths=widths,
        no_interval="" if "classes" in widths else missing,
    )


def over_seeds(
    values: Sequence[float], *, by_episode: FloatArray | str | None = None, n_episodes: int = 0, note: str = ""
) -> Estimate:
    """Return the mean over seeds of at least one value, with an interval over seeds from `MIN_SEEDS` values on.

    Args:
        values: One per seed, fraction.
        by_episode: (n_seeds, n_episodes) the same on the episodes that all seeds met, or why it cannot be had: then
            there is no interval. None if seeds share no episodes: then the interval is Student's.
        n_episodes: Number of episodes behind the values.
        note: Which seeds are left out, and why.
    """
    estimate = Estimate(mean=float(np.mean(values)), values=tuple(values), n_episodes=n_episodes, note=note)
    if len(values) < MIN_SEEDS:
        return replace(estimate, no_interval=f"no interval: fewer than {MIN_SEEDS} seeds")
    if isinstance(by_episode, str):
        return replace(estimate, no_interval=f"no interval: {by_episode}")
    found = summarise_seeds(np.array(values)[:, np.newaxis] if by_episode is None else by_episode)
    return replace(estimate, half_widths={"seeds": found.ci95_seeds}, p_seeds=found.p)
