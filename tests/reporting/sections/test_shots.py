from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from episodes.intervals import half_width
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import groups_of
from lurefs.reporting.charts.log_curves import log_curves
from lurefs.reporting.charts.page_figures import PageFigures
from lurefs.reporting.sections.shots import AXES, families, section
from lurefs.reporting.series import Line
from made_up_runs import accuracy, benchmark, probe, run_in_memory

SHOTS, WAYS = AXES
FORMS: dict[str, dict[str, Any]] = {
    "five": {"n_shot": 5, "n_episodes": 100},
    "one": {"n_shot": 1, "seed": 3},
    "one-again": {"n_shot": 1, "seed": 4},
    "ten-way": {"n_shot": 1, "n_way": 10},
    "base": {"n_shot": 2, "classes": "base"},
}


def make_run(name: str, means: dict[str, float], *, seed: int = 0, forms: dict[str, dict[str, Any]] = FORMS) -> Run:
    """A run that was measured on some benchmarks, each mean ± 0.01 on this pool."""
    values = {"name": name, "seed": seed, "benchmarks": forms, "probes": {"p": {"name": "ridge"}}}
    benchmarks = {
        name: benchmark(
            {"p": probe(accuracy(mean, ci95_episodes=0.01))},
            n_way=forms[name].get("n_way", 5),
            n_shot=forms[name].get("n_shot"),
        )
        for name, mean in means.items()
    }
    return run_in_memory(values, benchmarks)


def test_benchmarks_that_differ_in_one_number_are_a_family_whatever_their_length_and_seed() -> None:
    run = make_run("a", dict.fromkeys(FORMS, 0.5))
    assert [family.members for family in families([run], SHOTS)] == [{1: "one", 5: "five"}]
    assert [family.members for family in families([run], WAYS)] == [{5: "one", 10: "ten-way"}]


def test_shots_that_are_drawn_have_no_place_on_the_axis() -> None:
    forms = {"one": {"n_shot": 1}, "drawn": {"shot_range": [1, 5]}, "two": {"n_shot": 2}}
    run = make_run("a", dict.fromkeys(forms, 0.5), forms=forms)
    assert [family.members for family in families([run], SHOTS)] == [{1: "one", 2: "two"}]


def test_the_table_has_each_accuracy_with_its_interval_and_a_dash_where_it_was_not_measured(tmp_path: Path) -> None:
    both, one = make_run("both", {"one": 0.5, "five": 0.75}), make_run("some", {"five": 0.8})
    [shown] = section([both, one], groups_of([both, one]), PageFigures(tmp_path))
    assert shown["columns"] == [1, 5]
    assert shown["rows"] == [
        {"name": "both", "cells": ["50.00 ± 1.00", "75.00 ± 1.00"]},
        {"name": "some", "cells": ["–", "80.00 ± 1.00"]},
    ]
    assert shown["chance"] == ["20.00", "20.00"]


def test_several_seeds_are_one_row_over_seeds(tmp_path: Path) -> None:
    means = [0.5, 0.52, 0.57]
    runs = [make_run("r", {"one": mean, "five": 0.75}, seed=seed) for seed, mean in enumerate(means)]
    [shown] = section(runs, groups_of(runs), PageFigures(tmp_path))
    width = half_width(float(np.std(means, ddof=1)), 3)
    assert [row["cells"] for row in shown["rows"]] == [[f"53.00 ± {100 * width:.2f}", "75.00 ± 0.00"]]
    assert "interval over seeds" in shown["charts"][0]["caption"]


def test_one_benchmark_alone_is_no_curve(tmp_path: Path) -> None:
    run = make_run("a", {"one": 0.5})
    assert section([run], groups_of([run]), PageFigures(tmp_path)) == []


def test_a_doubling_is_as_wide_as_the_next_and_ticks_stand_at_the_shots() -> None:
    line = Line(label="a", x=[1, 2, 4, 8], y=[1.0, 2.0, 3.0, 4.0], style=0)
    svg = log_curves([line], {1: "1", 2: "2", 4: "4", 8: "8"}, name="x", x_label="shots")
    namespace = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(svg)
    marks = [use for use in root.iter(f"{namespace}use") if "fill: #0072b2" in use.get("style", "")]
    distances = np.diff([float(mark.get("x", "nan")) for mark in marks])
    assert len(distances) == 3 and distances == pytest.approx([distances[0]] * 3, rel=1e-4)
    ticks = [text.text for text in root.iter(f"{namespace}text")]
    assert ticks[:4] == ["1", "2", "4", "8"]
