"""What is known of a mean, of one training or over several: value and intervals, in one form for all outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from episodes.summary import MIN_SEEDS, Summary, summarise_seeds

Scope = Literal["pool", "classes", "seeds"]
"""What an interval or a test is over: episodes of this pool of classes, new classes of this kind, new seeds."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean and its intervals.

    Attributes:
        mean: The mean, fraction.
        values: Of each training, what it is the mean of, fraction.
        n_episodes: Episodes that it is over; of several trainings the fewest of any.
        half_widths: Half widths of its 95 % intervals by scope, fraction: of one training on this pool and on new
            classes, of several over seeds.
        no_interval: Why one of them is missing; "" if none is.
        note: Which seeds are not in it, and why; "" if all are.
    """

    mean: float
    values: tuple[float, ...]
    n_episodes: int
    half_widths: Mapping[Scope, float] = field(default_factory=dict)
    no_interval: str = ""
    note: str = ""

    @property
    def half_width(self) -> float | None:
        """The half width over seeds, or of one training that on this pool; None where the seeds are too few."""
        return self.half_widths.get("seeds", self.half_widths.get("pool"))

    @property
    def remarks(self) -> str:
        """All that a reader must know of it; "" if nothing."""
        return "; ".join(filter(None, [self.no_interval, self.note]))

    def turned(self) -> Estimate:
        """Return the same difference, seen from the other side."""
        return replace(self, mean=-self.mean, values=tuple(-value for value in self.values))


def of_training(summary: Summary) -> Estimate:
    """Return the estimate of one training."""
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
    """Return the mean over seeds, with Student's interval where there are enough of them for one.

    Args:
        values: At least one.
        n_episodes: See `Estimate`.
        note: Likewise.
    """
    has_interval = len(values) >= MIN_SEEDS
    return Estimate(
        mean=float(np.mean(values)),
        values=tuple(values),
        n_episodes=n_episodes,
        half_widths={"seeds": summarise_seeds(dict(enumerate(values))).ci95_seeds} if has_interval else {},
        no_interval="" if has_interval else f"no interval: fewer than {MIN_SEEDS} seeds",
        note=note,
    )
