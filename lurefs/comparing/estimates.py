"""Means with their intervals, of a single training or over seeds, in one form for all outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from episodes.summary import MIN_SEEDS, Summary, summarise_seeds

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
        no_interval: Why an interval is missing; "" if none is.
        note: Which seeds are left out, and why; "" if none is.
    """

    mean: float
    values: tuple[float, ...]
    n_episodes: int
    half_widths: Mapping[Scope, float] = field(default_factory=dict)
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


def over_seeds(values: Sequence[float], *, n_episodes: int = 0, note: str = "") -> Estimate:
    """Return the mean over seeds of at least one value, with Student's interval from `MIN_SEEDS` values on."""
    has_interval = len(values) >= MIN_SEEDS
    return Estimate(
        mean=float(np.mean(values)),
        values=tuple(values),
        n_episodes=n_episodes,
        half_widths={"seeds": summarise_seeds(dict(enumerate(values))).ci95_seeds} if has_interval else {},
        no_interval="" if has_interval else f"no interval: fewer than {MIN_SEEDS} seeds",
        note=note,
    )
