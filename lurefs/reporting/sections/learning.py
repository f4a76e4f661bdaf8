"""Section on learning: charts and tables over chunks and against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lurefs.comparing.finished_runs import Run, benchmarks_of
from lurefs.comparing.groups import Group
from lurefs.comparing.texts import joined
from lurefs.comparing.verdict_words import idle_resets
from lurefs.comparing.verdicts import Cell, Verdicts
from lurefs.config.choosing import choosing_probes
from lurefs.reporting.charts import curves
from lurefs.reporting.charts.group_styles import SEEDS
from lurefs.reporting.charts.page_figures import PageFigures
from lurefs.reporting.sections import robustness, tables
from lurefs.reporting.sections.measures import (
    ACCURACY,
    CHANGE,
    CHUNKS,
    CORRUPTED,
    COSTS,
    ECE,
    ERROR_RATE,
    FORGOTTEN,
    GAINED,
    GAP,
    NLL,
    Axis,
    Measure,
    few_shot,
)
from lurefs.reporting.sections.tables import percent_over_seeds
from lurefs.reporting.series import curve, in_words
from lurefs.runs.outcomes import anytime_accuracy

MAX_LINES = 8
"""Most curves that can be followed in one chart."""
Chart = dict[str, Any]


def section(
    runs: Sequence[Run], groups: Sequence[Group], judged: Mapping[Cell, Verdicts], kept: PageFigures
) -> dict[str, Any]:
    """Return the section on learning, with controls in charts of few-shot accuracy.

    If no run learned here, it has nothing but sentences on runs whose file of outcomes is missing.
    """
    missing = [
        f"Learning of {run.label} is not shown: there is no {run.directory.chunks_path}."
        for run in runs
        if not (run.outcomes or run.config.frozen)
    ]
    learned = [run for run in runs if run.outcomes]
    groups = [group for group in groups if group.runs[0].outcomes]
    if not groups:
        return {"missing": missing}
    names = list(benchmarks_of(runs))
    benchmarks = [_few_shot(learned, name, judged) for name in names]
    scored = [name for name in names if any(name in run.outcomes[-1].few_shot for run in learned)]
    return {
        "missing": missing,
        "notes": [f"{group.label}: {joined([run.label for run in group.runs])}" for group in groups if group.is_pooled],
        "idle": [f"{text}." for text in idle_resets(groups)],
        "main": [
            *_panels(groups, kept, [ACCURACY, *benchmarks]),
            *_charts(groups, kept, [ERROR_RATE, GAP, ECE, NLL], [CHUNKS]),
        ],
        "cost": _charts(groups, kept, [ACCURACY, *benchmarks[:1]], COSTS),
        "more_cost": _charts(groups, kept, benchmarks[1:], COSTS),
        "changes": _charts(groups, kept, [CHANGE, FORGOTTEN, GAINED], [CHUNKS]),
        "robustness": _robustness(groups, kept),
        "rows": [tables.learning_row(run) for run in learned],
        "seeds": [_over_seeds(group, scored) for group in groups if group.is_pooled],
        "benchmarks": scored,
        "chunks": [{"label": run.label, **tables.chunk_rows(run)} for run in learned],
    }


def _few_shot(runs: Sequence[Run], benchmark: str, judged: Mapping[Cell, Verdicts]) -> Measure:
    """Return the measure of a benchmark, with the controls' accuracies by the probe that was fitted after each chunk.

    A probe that chooses its settings has no controls here: theirs are chosen too, and the curves' are fixed.
    """
    scored = [
        (run, score.probe) for run in runs for outcome in run.outcomes if (score := outcome.few_shot.get(benchmark))
    ]
    if any(probe in choosing_probes(run.config) for run, probe in scored):
        return few_shot(benchmark, is_chosen=True)
    if not scored or (benchmark, scored[0][1]) not in judged:
        return few_shot(benchmark)
    controls = judged[benchmark, scored[0][1]].controls
    return few_shot(benchmark, [curves.Level(label=each.words, value=100 * each.accuracy.mean) for each in controls])


def _over_seeds(group: Group, benchmarks: Sequence[str]) -> dict[str, Any]:
    """Return the figures of a group of several seeds: means over seeds with intervals."""
    anytime = [anytime_accuracy(run.outcomes) for run in group.runs]
    last = [run.outcomes[-1] for run in group.runs]
    few_shot_scores = [[outcome.few_shot.get(name) for outcome in last] for name in benchmarks]
    return {
        "group": group.label,
        "anytime": percent_over_seeds(anytime),
        "last": percent_over_seeds([outcome.test_accuracy for outcome in last]),
        "few_shot": [
            percent_over_seeds([score.accuracy if score else None for score in scores]) for scores in few_shot_scores
        ],
    }


def _panels(groups: Sequence[Group], kept: PageFigures, measures: Sequence[Measure]) -> list[Chart]:
    """Return the charts over chunks; one per backbone if there are too many curves for one."""
    by_backbone: dict[str, list[Group]] = {}
    for group in groups:
        by_backbone.setdefault(group.runs[0].config.backbone.name, []).append(group)
    if len(groups) <= MAX_LINES or len(by_backbone) == 1:
        return _charts(groups, kept, measures, [CHUNKS])
    axes = {name: replace(CHUNKS, name=f"-{name}", title=f", {name}") for name in by_backbone}
    return [
        chart
        for measure in measures
        for name, members in by_backbone.items()
        for chart in _chart(members, kept, measure, axes[name])
    ]


def _charts(
    groups: Sequence[Group], kept: PageFigures, measures: Sequence[Measure], axes: Sequence[Axis]
) -> list[Chart]:
    """Return one chart per measure and axis, without empty ones."""
    return [chart for measure in measures for axis in axes for chart in _chart(groups, kept, measure, axis)]


def _chart(groups: Sequence[Group], kept: PageFigures, measure: Measure, axis: Axis) -> list[Chart]:
    lines = [curve(group, measure.value, x=axis.value, interval=measure.interval) for group in groups]
    return _drawn(
        lines,
        kept,
        name=f"{measure.name}{axis.name}",
        title=f"{measure.title}{axis.title}",
        caption=f"{measure.caption} {axis.caption}".strip(),
        y_label=measure.y_label,
        x_label=axis.label,
        x_is_whole=axis.is_whole,
        levels=measure.levels,
    )


def _robustness(groups: Sequence[Group], kept: PageFigures) -> dict[str, Any] | None:
    """Return the charts and the table of robustness; None if it was not measured."""
    measured = robustness.measured(groups)
    if not measured:
        return None
    charts = _charts(measured, kept, [CORRUPTED], [CHUNKS])
    charts += _drawn(
        [robustness.severity_curve(group) for group in measured],
        kept,
        name="robustness-severity",
        title="Corrupted images by severity",
        caption="Mean over corruptions, after the last chunk; severity 0, if drawn, is the unchanged image.",
        y_label="accuracy, %",
        x_label="severity",
        x_is_whole=True,
    )
    for attack in robustness.attacks_of(measured):
        charts += _drawn(
            [robustness.attack_curve(group, attack) for group in measured],
            kept,
            name=f"robustness-attack-{attack}",
            title=f"Attack {attack}",
            caption="Images changed to deceive the model, after the last chunk; 0, if drawn, is the unchanged image.",
            y_label="accuracy, %",
            x_label="largest change of a pixel, in 1/255",
            x_is_whole=False,
        )
    return {"charts": charts, "n_images": robustness.n_images(measured), **robustness.table(measured)}


def _drawn(
    lines: Sequence[curves.Line | None],
    kept: PageFigures,
    *,
    name: str,
    title: str,
    caption: str,
    x_label: str,
    y_label: str,
    x_is_whole: bool,
    levels: Sequence[curves.Level] = (),
) -> list[Chart]:
    """Return the chart of the lines that are not None; nothing if all are."""
    found = [line for line in lines if line is not None]
    if not found:
        return []
    if any(line.has_band for line in found):
        caption = f"{caption} {SEEDS}"
    said = in_words(found)
    if levels:
        caption = f"{caption} Dashed: the controls on all episodes."
        said += "".join(f"; {level.label}: {level.value:.4g}" for level in levels)
    svg = curves.curves(found, name=name, x_label=x_label, y_label=y_label, x_is_whole=x_is_whole, levels=levels)
    return [kept.chart(name, svg, title=title, caption=caption, said=said)]
