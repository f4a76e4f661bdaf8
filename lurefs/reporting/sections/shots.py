"""Accuracy against the number of labelled images a class, or of classes, over benchmarks that are else the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from lurefs.comparing.estimates import Estimate
from lurefs.comparing.finished_runs import Run, benchmarks_of
from lurefs.comparing.groups import Group
from lurefs.comparing.texts import MISSING, percent
from lurefs.config.schema import BenchmarkConfig
from lurefs.records import Row
from lurefs.reporting.charts.curves import Line
from lurefs.reporting.charts.group_styles import SEEDS
from lurefs.reporting.charts.log_curves import log_curves
from lurefs.reporting.charts.page_figures import PageFigures
from lurefs.reporting.sections.tables import in_percent
from lurefs.reporting.series import in_words, line_of

NOT_OF_THE_FORM = ("n_episodes", "seed", "target_ci95", "manifest")


@dataclass(frozen=True, kw_only=True)
class Varied:
    """What differs between the benchmarks of a curve; `key` names it in their summaries and settings."""

    name: str
    key: str
    title: str
    x_label: str


AXES = (
    Varied(name="shots", key="n_shot", title="By labelled images a class", x_label="labelled images a class (shots)"),
    Varied(name="ways", key="n_way", title="By classes an episode", x_label="classes an episode (ways)"),
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """Benchmarks that differ in one number only.

    Attributes:
        probe: The first probe of the first of them.
        members: That number -> the benchmark, at least two, ascending.
    """

    probe: str
    members: dict[int, str]


def section(runs: Sequence[Run], groups: Sequence[Group], kept: PageFigures) -> list[Row]:
    """Return one chart and table a family of benchmarks; empty if no two differ in shots or ways alone."""
    return [
        _shown(runs, groups, varied, family, kept)
        for varied in AXES
        for family in families(runs, varied)
        if any(_line(group, family) for group in groups)
    ]


def families(runs: Sequence[Run], varied: Varied) -> list[Family]:
    """Return the benchmarks that are the same but for what is varied; of two of the same number, the first."""
    found: dict[str, dict[int, str]] = {}
    probes: dict[str, str] = {}
    for benchmark, of_benchmark in benchmarks_of(runs).items():
        run, stated = next((run, stated) for run in runs if (stated := run.benchmark(benchmark)) is not None)
        value, config = getattr(stated, varied.key), run.config.benchmarks.get(benchmark)
        if value is None or config is None or not of_benchmark:
            continue
        form = _form(config, varied)
        found.setdefault(form, {}).setdefault(value, benchmark)
        probes.setdefault(form, of_benchmark[0])
    return [
        Family(probe=probes[form], members=dict(sorted(members.items())))
        for form, members in found.items()
        if len(members) > 1
    ]


def _form(config: BenchmarkConfig, varied: Varied) -> str:
    names = [field.name for field in fields(BenchmarkConfig) if field.name not in (varied.key, *NOT_OF_THE_FORM)]
    return repr([getattr(config, name) for name in names])


def _shown(runs: Sequence[Run], groups: Sequence[Group], varied: Varied, family: Family, kept: PageFigures) -> Row:
    drawn = {group.label: line for group in groups if (line := _line(group, family)) is not None}
    lines = list(drawn.values())
    first = next(iter(family.members.values()))
    name = f"{varied.name}-{first}"
    ticks = {float(value): str(value) for value in family.members}
    svg = log_curves(lines, ticks, name=name, x_label=varied.x_label)
    caption = (
        f"Accuracy on {', '.join(family.members.values())}, by {family.probe}; each doubling of x is as wide as the "
        "last."
    )
    if not all(line.has_band for line in lines):
        caption = f"{caption} Bars: 95\u00a0% intervals on this pool of classes."
    if any(line.has_band for line in lines):
        caption = f"{caption} {SEEDS}"
    return {
        "title": varied.title,
        "label": varied.x_label,
        "columns": list(family.members),
        "probe": family.probe,
        "rows": [_row(group, family) for group in groups if group.label in drawn],
        "chance": [_chance(runs, benchmark) for benchmark in family.members.values()],
        "charts": [kept.chart(name, svg, caption=caption, said=in_words(lines))],
    }


def _line(group: Group, family: Family) -> Line | None:
    return line_of(group, {float(value): found for value, found in _accuracies(group, family).items()})


def _accuracies(group: Group, family: Family) -> dict[int, Estimate]:
    found = {value: group.accuracy(benchmark, family.probe) for value, benchmark in family.members.items()}
    return {value: accuracy for value, accuracy in found.items() if isinstance(accuracy, Estimate)}


def _row(group: Group, family: Family) -> Row:
    found = _accuracies(group, family)
    cells = [in_percent(found[value], len(group.runs)) if value in found else MISSING for value in family.members]
    return {"name": group.label, "cells": cells}


def _chance(runs: Sequence[Run], benchmark: str) -> str:
    return percent(next(found.chance for run in runs if (found := run.benchmark(benchmark)) is not None))
