"""From runs to what the charts draw, in percent: curves over chunks, and accuracy against cost.

A curve of one run has the intervals that its values have. Runs that differ only by their seed give one curve: at each
place the mean over seeds, with Student's 95 % interval over seeds where there are enough of them for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from episodes.summary import MIN_SEEDS, half_width
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.reporting.charts.curves import Line
from lurefs.runs.outcomes import ChunkOutcome

Past = Sequence[ChunkOutcome]
"""The chunks of a run up to and including the one that a value is of."""

Value = Callable[[Past], float | None]
Place = TypeVar("Place", float, str)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One place of a curve.

    Attributes:
        x: Where it stands.
        y: Its value.
        half_width: Half width of the interval of this value, or None.
    """

    x: float
    y: float
    half_width: float | None = None


def n_chunks(past: Past) -> float:
    """Return the number of the chunk, from 1."""
    return past[-1].chunk_index + 1


def n_images_seen(past: Past) -> float:
    """Return the images that went through a training step so far."""
    return sum(outcome.n_images_seen for outcome in past)


def seconds_spent(past: Past) -> float:
    """Return the seconds of training and unlearning so far."""
    return sum(outcome.train_seconds + (outcome.unlearn.seconds if outcome.unlearn else 0) for outcome in past)


def curve(group: Group, y: Value, *, x: Value = n_chunks, interval: Value | None = None) -> Line | None:
    """Return a value of every chunk that has one; None if there is no chunk that has one in every run."""
    return pooled(group, [_track(run.outcomes, x, y, interval) for run in group.runs])


def pooled(group: Group, tracks: Sequence[Mapping[Place, Point]]) -> Line | None:
    """Return one curve through the places that every track has; None if there is none.

    Args:
        group: The runs.
        tracks: Of each run, the points by what identifies their places among runs.
    """
    places = [place for place in tracks[0] if all(place in track for track in tracks)]
    if not places:
        return None
    points = [[track[place] for track in tracks] for place in places]
    widths = [width for at_place in points if (width := _half_width(at_place)) is not None]
    return Line(
        label=group.label,
        x=[float(np.mean([point.x for point in at_place])) for at_place in points],
        y=[float(np.mean([point.y for point in at_place])) for at_place in points],
        half_width=widths if len(widths) == len(points) else None,
        style=group.style,
        has_band=group.is_pooled,
    )


def cost_point(group: Group, cost: Callable[[Run], float | None], benchmark: str, probe: str) -> Line | None:
    """Return accuracy against a cost, the mean over seeds of both; None if a run has none of the two."""
    costs, accuracies = [cost(run) for run in group.runs], [run.accuracy(benchmark, probe) for run in group.runs]
    found = [(x, y) for x, y in zip(costs, accuracies, strict=True) if x is not None and y is not None]
    if len(found) < len(group.runs):
        return None
    points = [Point(x=x, y=100 * accuracy.mean, half_width=100 * accuracy.ci95_episodes) for x, accuracy in found]
    return pooled(group, [{"all": point} for point in points])


def in_words(lines: Sequence[Line]) -> str:
    """Say where each curve starts and ends, for those who do not see it."""
    said = []
    for line in lines:
        y = np.asarray(line.y)
        first = f"{y[0]:.4g} at first, " if len(y) > 1 else ""
        said.append(f"{line.label}: {first}{y[-1]:.4g}{' at last' if first else ''}")
    return "; ".join(said)


def _track(outcomes: Past, x: Value, y: Value, interval: Value | None) -> dict[float, Point]:
    track = {}
    for end in range(1, len(outcomes) + 1):
        past = outcomes[:end]
        place, value = x(past), y(past)
        if place is not None and value is not None and math.isfinite(value):
            track[n_chunks(past)] = Point(x=place, y=value, half_width=interval(past) if interval else None)
    return track


def _half_width(points: Sequence[Point]) -> float | None:
    if len(points) == 1:
        return points[0].half_width
    if len(points) < MIN_SEEDS:
        return None
    return half_width(float(np.std([point.y for point in points], ddof=1)), len(points))
