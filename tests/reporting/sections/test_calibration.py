"""Temperatures and prediction sets as the page, W&B and the exports show them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from episodes.calibration import MIN_TEMPERATURE, Temperature
from episodes.conformal import SetSummary
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.standings import standings
from lurefs.reporting.sections import calibration, reliability
from lurefs.runs.calibration import Calibration, write_calibration
from lurefs.runs.directory import RunDirectory
from lurefs.runs.summary import CalibrationSummary, RunSummary, as_mapping
from lurefs.tracking.rows import cell_summary
from tests.made_up_runs import accuracy, benchmark, probe, run_in_memory

NAME, PROBE = "novel-5way-1shot", "logistic_regression"
SETS = SetSummary(
    coverage=accuracy(0.915, ci95_classes=0.016),
    lowest_class=3,
    lowest_coverage=0.7,
    lowest_by_chance=0.88,
    mean_size=2.5,
    sizes=(0.01, 0.19, 0.3, 0.2, 0.2, 0.1),
    answered=0.19,
    accuracy=0.94,
)
FULL = replace(SETS, sizes=(0.0, 0.0, 0.0, 0.0, 0.0, 1.0), answered=0.0, accuracy=None, mean_size=5.0)
FOUND = CalibrationSummary(
    alpha=0.1,
    temperature=Temperature(value=0.25, low=0.2, high=0.3125, over="classes", n_episodes=300, n_classes=34),
    nll=accuracy(0.95),
    brier=accuracy(0.47),
    ece=0.04,
    threshold=0.8,
    validation_sets=SETS,
    support_sets=FULL,
    least_alpha=0.5,
)


def run(found: CalibrationSummary | None = FOUND, **changes: Any) -> Run:
    scores = probe(0.66, nll=accuracy(1.4), brier=accuracy(0.7), ece=0.39, calibration=found)
    config = {"name": "lure", "calibrate": None if found is None else {}}
    return run_in_memory(config, {NAME: benchmark({PROBE: scores})}, **changes)


def test_scores_are_shown_before_and_after_scaling() -> None:
    assert calibration.section([run()], NAME, [PROBE])["temperatures"] == {
        PROBE: [
            {
                "run": "lure",
                "temperature": "0.250",
                "interval": "0.200 to 0.312 (over classes)",
                "nll": "1.400 → 0.950",
                "brier": "0.700 → 0.470",
                "ece": "39.0 → 4.0",
            }
        ]
    }


def test_sets_are_shown_with_their_lowest_class_and_the_accuracy_of_their_answers() -> None:
    (row,) = calibration.section([run()], NAME, [PROBE])["sets"][PROBE]
    assert row == {
        "run": "lure",
        "source": "validation classes",
        "coverage": "91.5",
        "classes": "1.60",
        "lowest": "70.0",
        "lowest_class": "class 3",
        "by_chance": "88.0",
        "mean_size": "2.50",
        "sizes": "1 / 19 / 30 / 50",
        "answered": "19.0",
        "accuracy": "94.0",
    }


def test_full_sets_are_left_out_and_said_and_others_are_shown() -> None:
    words = "no alpha below 0.500; they are left out"
    assert any(words in note for note in calibration.section([run()], NAME, [PROBE])["notes"])
    enough = replace(FOUND, support_sets=SETS, least_alpha=0.1)
    found = calibration.section([run(enough)], NAME, [PROBE])
    assert [row["source"] for row in found["sets"][PROBE]] == ["validation classes", "own support"]
    assert not any("left out" in note for note in found["notes"])
    assert any("guaranteed to cover each class in 90\u00a0% or more" in note for note in found["notes"])


def test_an_alpha_that_the_validation_episodes_do_not_allow_is_said() -> None:
    tiny = replace(FOUND, alpha=1e-6, threshold=None, validation_sets=FULL)
    found = calibration.section([run(tiny)], NAME, [PROBE])
    assert any("full where alpha is less than one over" in note for note in found["notes"])
    assert found["sets"][PROBE][0]["accuracy"] == "–"


def test_a_temperature_of_few_classes_is_warned_of() -> None:
    assert FOUND.temperature is not None
    few = replace(FOUND, temperature=replace(FOUND.temperature, n_classes=3))
    words = "The temperature is from 3 validation classes"
    assert any(note.startswith(words) for note in calibration.section([run(few)], NAME, [PROBE])["notes"])
    assert not any(words[:18] in note for note in calibration.section([run()], NAME, [PROBE])["notes"])


def test_a_probe_without_probabilities_has_no_temperature_and_a_note_says_so() -> None:
    bare = replace(FOUND, temperature=None, nll=None, brier=None, ece=None)
    found = calibration.section([run(bare)], NAME, [PROBE])
    assert found["temperatures"] == {}
    assert any(note.startswith("No temperature for logistic_regression") for note in found["notes"])


@pytest.mark.parametrize(("value", "words"), [(MIN_TEMPERATURE, "at a bound"), (1.0, "–")])
def test_a_temperature_without_an_interval_says_why(value: float, words: str) -> None:
    alone = Temperature(value=value, low=None, high=None, over=None, n_episodes=300, n_classes=34)
    found = calibration.section([run(replace(FOUND, temperature=alone))], NAME, [PROBE])
    assert found["temperatures"][PROBE][0]["interval"] == words


def test_runs_without_calibration_have_no_section_and_no_keys() -> None:
    plain = run(None)
    assert calibration.section([plain], NAME, [PROBE]) == {}
    assert "calibration" not in as_mapping(plain.summary)["benchmarks"][NAME]["probes"][PROBE]
    assert not [key for key in cell_summary(plain.summary, NAME, PROBE, [], {}) if "temperature" in key]


def test_a_summary_comes_back_from_its_file(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    written: RunSummary = run().summary
    directory.write_summary(written)
    assert directory.read_summary().benchmarks[NAME].probes[PROBE].calibration == FOUND


def test_the_curve_after_scaling_is_that_of_the_file(tmp_path: Path) -> None:
    counts = [0] * 14 + [10]
    stored = Calibration(identity={}, summary=FOUND, n=counts, confidence=[0.0] * 14 + [9.8], correct=counts)
    write_calibration(RunDirectory(tmp_path), NAME, PROBE, stored)
    found = calibration.scaled([run(directory=RunDirectory(tmp_path))], NAME, PROBE)
    assert found["lure"].ece == pytest.approx(0.02)
    assert "100.0\u00a0% of 10 answers are correct" in reliability.sentences(found)[0]
    assert calibration.scaled([run()], NAME, PROBE) == {}


def test_exports_and_wandb_have_the_figures() -> None:
    row = standings([run()]).rows[0]
    assert (row.temperature, row.scaled_ece, row.coverage, row.set_size) == (0.25, 0.04, 0.915, 2.5)
    assert (row.answered, row.answered_accuracy) == (0.19, 0.94)
    figures = cell_summary(run().summary, NAME, PROBE, [], {})
    assert (figures["temperature"], figures["temperature_low"], figures["scaled_nll"]) == (0.25, 0.2, 0.95)
    assert (figures["validation_coverage"], figures["support_set_size"]) == (0.915, 5.0)
    assert "support_answered_accuracy" not in figures
    assert np.isfinite([value for value in figures.values() if isinstance(value, float)]).all()
