"""From runs to what the charts draw, in percent: curves over chunks, accuracies and differences with intervals.

A curve of one run has the intervals that its values have. Runs that differ only by their seed give one curve: at each
place the mean over seeds, with Student's 95 % interval over seeds where there are enough of them for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from episodes.summary import MIN_SEEDS, SeedSummary, Summary, half_width, summarise_seeds
from lurefs.outcomes import ChunkOutcome
from lurefs.reporting.comparison import Comparison, Run
from lurefs.reporting.figures import Interval, Line
from lurefs.reporting.over_seeds import difference_over_seeds
from lurefs.reporting.seeds import Group
from lurefs.reporting.wording import win_tie_loss

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


def accuracy_intervals(groups: Sequence[Group], benchmark: str, probes: Sequence[str]) -> list[Interval]:
    """Return the accuracies to chart: several groups by the first probe, the best first, or one run by all its probes.

    Of several seeds it is their mean, and its interval is over seeds.
    """
    if len(groups) == 1 and not groups[0].is_pooled:
        rows = [(probe, 0, groups[0].runs[0].accuracy(benchmark, probe)) for probe in probes]
        return [_interval(label, summary, style) for label, style, summary in rows if summary is not None]
    found = []
    for group in groups:
        accuracies = {run.config.seed: run.accuracy(benchmark, probes[0]) for run in group.runs}
        measured = {seed: accuracy for seed, accuracy in accuracies.items() if accuracy is not None}
        if group.is_pooled and measured:
            found.append(_seed_interval(group, {seed: accuracy.mean for seed, accuracy in measured.items()}))
        else:
            found += [_interval(group.label, accuracy, group.style) for accuracy in measured.values()]
    return sorted(found, key=lambda row: -row.value)


def difference_intervals(
    groups: Sequence[Group], reference: Run, comparisons: Sequence[Comparison], probe: str
) -> list[Interval]:
    """Return the differences by one probe, the best first: paired by episode, or of seeds where there are several."""
    of_reference = next(group for group in groups if reference in group.runs)
    entries = {entry.run.label: entry for entry in comparisons if entry.probe == probe}
    found = []
    for group in groups:
        first = entries.get(group.runs[0].label)
        if group is of_reference or first is None:
            continue
        if group.is_pooled or of_reference.is_pooled:
            over_seeds = difference_over_seeds(group, of_reference, first.benchmark, probe)
            if isinstance(over_seeds, SeedSummary):
                value, width = 100 * over_seeds.mean, 100 * over_seeds.ci95_seeds
                found.append(Interval(label=group.label, value=value, inner=width, outer=None, style=group.style))
        elif first.paired is not None:
            row = _interval(group.label, first.paired.difference, group.style)
            found.append(replace(row, note=win_tie_loss(first.paired)))
    return sorted(found, key=lambda row: -row.value)


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


def _seed_interval(group: Group, means: Mapping[int, float]) -> Interval:
    """Return a mean over seeds; its bar has no width where the seeds are too few for an interval."""
    value = 100 * float(np.mean(list(means.values())))
    width = 100 * summarise_seeds(means).ci95_seeds if len(means) >= MIN_SEEDS else 0.0
    return Interval(label=group.label, value=value, inner=width, outer=None, style=group.style)


def _interval(label: str, summary: Summary, style: int) -> Interval:
    return Interval(
        label=label,
        value=100 * summary.mean,
        inner=100 * summary.ci95_episodes,
        outer=None if summary.ci95_classes is None else 100 * summary.ci95_classes,
        style=style,
    )
