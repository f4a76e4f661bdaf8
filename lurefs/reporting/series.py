"""From runs to what the charts draw, in percent: curves over chunks, accuracies and differences with intervals.

A curve of one run has the intervals that its values have. Runs that differ only by their seed give one curve: at each
place the mean over seeds, with Student's 95 % interval over seeds where there are enough of them for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from episodes.summary import MIN_SEEDS, Summary, half_width
from lurefs.outcomes import ChunkOutcome
from lurefs.reporting.comparison import Comparison, Run
from lurefs.reporting.figures import Interval, Line
from lurefs.reporting.seeds import Group

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


def accuracy_intervals(
    runs: Sequence[Run], styles: Mapping[str, int], benchmark: str, probes: Sequence[str]
) -> list[Interval]:
    """Return the accuracies to chart: several runs by the first probe, or one run by all its probes."""
    if len(runs) == 1:
        rows = [(probe, 0, runs[0].accuracy(benchmark, probe)) for probe in probes]
    else:
        rows = [(run.label, styles[run.label], run.accuracy(benchmark, probes[0])) for run in runs]
    return [_interval(label, summary, style) for label, style, summary in rows if summary is not None]


def difference_intervals(styles: Mapping[str, int], comparisons: Sequence[Comparison], probe: str) -> list[Interval]:
    """Return the paired differences by one probe."""
    return [
        _interval(entry.run.label, entry.paired.difference, styles[entry.run.label])
        for entry in comparisons
        if entry.paired is not None and entry.probe == probe
    ]


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


def cost_points(group: Group, benchmark: str, probe: str) -> Line | None:
    """Return accuracy against the seconds of training, one point a seed; None if it was not measured."""
    measured = [(run, accuracy) for run in group.runs if run.outcomes and (accuracy := run.accuracy(benchmark, probe))]
    if not measured:
        return None
    return Line(
        label=group.label,
        x=[seconds_spent(run.outcomes) for run, _ in measured],
        y=[100 * accuracy.mean for _, accuracy in measured],
        half_width=[100 * accuracy.ci95_episodes for _, accuracy in measured],
        style=group.style,
    )


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


def _interval(label: str, summary: Summary, style: int) -> Interval:
    return Interval(
        label=label,
        value=100 * summary.mean,
        inner=100 * summary.ci95_episodes,
        outer=None if summary.ci95_classes is None else 100 * summary.ci95_classes,
        style=style,
    )
