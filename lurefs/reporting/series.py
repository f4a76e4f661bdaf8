"""Curves for the charts, in percent: values over chunks, and accuracy against cost.

A curve of one run has the intervals of its values. Runs that differ only by their seed give one curve: the mean over
seeds at each place, with its 95 % interval over seeds if there are enough of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from lurefs.comparing.estimates import Estimate, over_seeds
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.reporting.charts.curves import Line
from lurefs.runs.outcomes import ChunkOutcome

Past = Sequence[ChunkOutcome]
"""The chunks of a run up to and including the current one."""

Value = Callable[[Past], float | None]
Place = TypeVar("Place", float, str)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One place of a curve.

    Attributes:
        x: Its position.
        y: Its value.
        half_width: Half width of the value's interval, or None.
    """

    x: float
    y: float
    half_width: float | None = None


def n_chunks(past: Past) -> float:
    """Return the number of the chunk, from 1."""
    return past[-1].chunk_index + 1


def n_images_seen(past: Past) -> float:
    """Return the number of images in all training steps so far."""
    return sum(outcome.n_images_seen for outcome in past)


def curve(group: Group, y: Value, *, x: Value = n_chunks, interval: Value | None = None) -> Line | None:
    """Return the curve of a value over chunks that have it in every run; None if there is no such chunk."""
    return pooled(group, [_track(run.outcomes, x, y, interval) for run in group.runs])


def pooled(group: Group, tracks: Sequence[Mapping[Place, Point]]) -> Line | None:
    """Return the mean curve over a group's runs at the places that all of them have; None if there is no such place."""
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


def line_of(group: Group, places: Mapping[float, Estimate]) -> Line | None:
    """Return a curve through estimates at their places; None without estimates."""
    if not places:
        return None
    widths = [100 * width for estimate in places.values() if (width := estimate.half_width) is not None]
    return Line(
        label=group.label,
        x=list(places),
        y=[100 * estimate.mean for estimate in places.values()],
        half_width=widths if len(widths) == len(places) else None,
        style=group.style,
        has_band=group.is_pooled,
    )


def cost_point(group: Group, cost: Callable[[Run], float | None], benchmark: str, probe: str) -> Line | None:
    """Return accuracy against cost, both as means over seeds; None if a run lacks a cost or all lack an accuracy."""
    costs, accuracy = [cost(run) for run in group.runs], group.accuracy(benchmark, probe)
    known = [value for value in costs if value is not None]
    if len(known) < len(costs) or isinstance(accuracy, str):
        return None
    return line_of(group, {float(np.mean(known)): accuracy})


def in_words(lines: Sequence[Line]) -> str:
    """Say where each curve starts and ends, for screen readers."""
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
    """Return the half width at one place of a curve, over seeds if there are several.

    Seeds share episodes or test images, whose noise Student's interval over seeds leaves out. How much of it is shared
    is not stored for each chunk, so all of it is added.
    """
    if len(points) == 1:
        return points[0].half_width
    width = over_seeds([point.y for point in points]).half_width
    own = [point.half_width for point in points if point.half_width is not None]
    return math.hypot(width, math.sqrt(float(np.mean(np.square(own))))) if width is not None and own else width
