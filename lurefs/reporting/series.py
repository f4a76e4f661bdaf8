"""From runs to what the charts draw, in percent: curves over chunks, accuracies and differences with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from episodes.summary import Summary
from lurefs.outcomes import ChunkOutcome
from lurefs.reporting.comparison import Comparison, Run, train_seconds
from lurefs.reporting.figures import Interval, Line


def accuracy_intervals(runs: Sequence[Run], benchmark: str, probes: Sequence[str]) -> list[Interval]:
    """Return the accuracies to chart: several runs by the first probe, or one run by all its probes."""
    if len(runs) == 1:
        rows = [(probe, 0, runs[0].accuracy(benchmark, probe)) for probe in probes]
    else:
        rows = [(run.label, style, run.accuracy(benchmark, probes[0])) for style, run in enumerate(runs)]
    return [_interval(label, summary, style) for label, style, summary in rows if summary is not None]


def difference_intervals(runs: Sequence[Run], comparisons: Sequence[Comparison], probe: str) -> list[Interval]:
    """Return the paired differences by one probe."""
    return [
        _interval(entry.run.label, entry.paired.difference, list(runs).index(entry.run))
        for entry in comparisons
        if entry.paired is not None and entry.probe == probe
    ]


def curve(run: Run, style: int, get: Callable[[ChunkOutcome], float]) -> Line:
    """Return one figure of every chunk."""
    chunks = [outcome.chunk_index + 1 for outcome in run.outcomes]
    return Line(label=run.label, x=chunks, y=[100 * get(outcome) for outcome in run.outcomes], style=style)


def few_shot_curve(run: Run, style: int, benchmark: str) -> Line | None:
    """Return the few-shot accuracy after every chunk that was measured; None if none was."""
    found = [(outcome.chunk_index + 1, outcome.few_shot.get(benchmark)) for outcome in run.outcomes]
    scores = [(chunk, score) for chunk, score in found if score is not None]
    if not scores:
        return None
    return Line(
        label=run.label,
        x=[chunk for chunk, _ in scores],
        y=[100 * score.accuracy for _, score in scores],
        half_width=[100 * score.ci95_episodes for _, score in scores],
        style=style,
    )


def cost_point(run: Run, style: int, benchmark: str, probe: str) -> Line | None:
    """Return accuracy against seconds of training as a single point; None if it was not measured."""
    accuracy = run.accuracy(benchmark, probe)
    if accuracy is None:
        return None
    return Line(
        label=run.label,
        x=[train_seconds(run)],
        y=[100 * accuracy.mean],
        half_width=[100 * accuracy.ci95_episodes],
        style=style,
    )


def _interval(label: str, summary: Summary, style: int) -> Interval:
    return Interval(
        label=label,
        value=100 * summary.mean,
        inner=100 * summary.ci95_episodes,
        outer=None if summary.ci95_classes is None else 100 * summary.ci95_classes,
        style=style,
    )
