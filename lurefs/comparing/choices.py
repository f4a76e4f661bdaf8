"""Settings of probes that were chosen on validation classes, as sentences and as a table of all values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.comparing.texts import count, joined, number, percent, settings
from lurefs.runs.summary import ChoiceSummary

_CRITERIA = {"nll": "NLL", "accuracy": "accuracy"}


def choices_of(groups: Sequence[Group], benchmark: str, probe: str) -> dict[str, list[ChoiceSummary]]:
    """Return the choices for the runs of each group, and for each control, by label; empty if nothing was chosen."""
    found = {group.label: _known(choice_of(run, benchmark, probe) for run in group.runs) for group in groups}
    runs = [run for group in groups for run in group.runs]
    controls = dict.fromkeys(
        name for run in runs if (measured := run.benchmark(benchmark)) is not None for name in measured.controls
    )
    found |= {
        f"control: {name.replace('_', ' ')}": _known(choice_of(run, benchmark, probe, name) for run in runs)
        for name in controls
    }
    return {label: choices for label, choices in found.items() if choices}


def chosen_words(choices: Iterable[ChoiceSummary]) -> str:
    """Return the chosen settings, all different ones of several choices."""
    return " or ".join(dict.fromkeys(_words(choice.settings) for choice in choices))


def choice_notes(groups: Sequence[Group], benchmark: str, probe: str) -> list[str]:
    """Say which settings were chosen, how, and whether a value outside of the grid may be better."""
    found = choices_of(groups, benchmark, probe)
    if not found:
        return []
    said: dict[str, list[str]] = {}
    how: dict[str, None] = {}
    for label, choices in found.items():
        said.setdefault(chosen_words(choices), []).append(label)
        how |= dict.fromkeys(
            f"by {_CRITERIA[choice.by]} on {count(choice.n_episodes)} episodes of {count(choice.n_classes)} "
            "validation classes"
            for choice in choices
        )
    chosen = "; ".join(f"{words} for {joined(labels)}" for words, labels in said.items())
    notes = [f"{probe}: settings chosen {' or '.join(how)}, without the classes measured here: {chosen}."]
    at_edge = [label for label, choices in found.items() if any(choice.at_edge for choice in choices)]
    if at_edge:
        names = joined(list(dict.fromkeys(name for label in at_edge for each in found[label] for name in each.at_edge)))
        notes.append(
            f"warning: the chosen {names} is at an edge of the grid for {joined(at_edge)}: a value outside may be "
            f"better. Widen probes.{probe}.choose."
        )
    return notes


def choice_table(groups: Sequence[Group], benchmark: str, probe: str) -> dict[str, Any]:
    """Return each value of the grid with its validation scores, for each group and control; empty without a choice.

    Scores of several runs are means; a value is marked where all of them chose it. Values are taken from the first
    grid; groups with another one are left out.
    """
    found = choices_of(groups, benchmark, probe)
    if not found:
        return {}
    grid = [point.settings for point in next(iter(found.values()))[0].curve]
    shown = {
        label: choices
        for label, choices in found.items()
        if all([point.settings for point in choice.curve] == grid for choice in choices)
    }
    rows = [
        {"settings": _words(values), "cells": [_cell(choices, place) for choices in shown.values()]}
        for place, values in enumerate(grid)
    ]
    return {"columns": list(shown), "rows": rows}


def _cell(choices: Sequence[ChoiceSummary], place: int) -> dict[str, Any]:
    points = [choice.curve[place] for choice in choices]
    nll = [point.nll for point in points if point.nll is not None]
    return {
        "nll": number(sum(nll) / len(nll), 3) if nll else "–",
        "accuracy": percent(sum(point.accuracy for point in points) / len(points), 1),
        "is_chosen": all(choice.settings == point.settings for choice, point in zip(choices, points, strict=True)),
    }


def choice_of(run: Run, benchmark: str, probe: str, control: str = "") -> ChoiceSummary | None:
    """Return the choice of a run, or of one of its controls; None if it was not measured or nothing was chosen."""
    measured = run.benchmark(benchmark)
    if measured is None or (control and control not in measured.controls):
        return None
    result = (measured.controls[control].probes if control else measured.probes).get(probe)
    return None if result is None else result.choice


def _known(choices: Iterable[ChoiceSummary | None]) -> list[ChoiceSummary]:
    return [choice for choice in choices if choice is not None]


def _words(values: Mapping[str, Any]) -> str:
    return settings(values, opening="", closing="")
