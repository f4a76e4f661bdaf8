from __future__ import annotations

import textwrap
from dataclasses import replace

from episodes.calibration import Temperature
from episodes.conformal import SetSummary
from lurefs.comparing.calibration_words import calibration_notes
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import groups_of
from lurefs.comparing.standings import standings
from lurefs.comparing.text_tables import text_tables
from lurefs.runs.summary import CalibrationSummary
from made_up_runs import accuracy, benchmark, probe, run_in_memory

SETS = SetSummary(
    coverage=accuracy(0.915),
    lowest_class=3,
    lowest_coverage=0.7,
    lowest_by_chance=0.88,
    mean_size=2.5,
    sizes=(0.01, 0.19, 0.3, 0.2, 0.2, 0.1),
    answered=0.19,
    accuracy=0.94,
)
FOUND = CalibrationSummary(
    alpha=0.1,
    temperature=Temperature(value=0.25, low=0.2, high=0.3125, over="classes", n_episodes=300, n_classes=34),
    nll=accuracy(0.95),
    brier=accuracy(0.47),
    ece=0.04,
    threshold=0.8,
    validation_sets=SETS,
    support_sets=SETS,
    least_alpha=0.5,
)
ASKED = "novel", "centroid"


def run(found: CalibrationSummary | None, name: str = "lure", ece: float | None = 0.39) -> Run:
    config = {"name": name, "calibrate": None if found is None else {}, "unlearn": {"name": UNLEARN[name]}}
    return run_in_memory(config, {"novel": benchmark({"centroid": probe(0.66, ece=ece, calibration=found)})})


UNLEARN = {"lure": "by_saliency", "warm": "nothing"}


def test_one_run_has_its_figures_in_a_sentence_below_the_table() -> None:
    [said] = calibration_notes(groups_of([run(FOUND)]), *ASKED)
    assert said == ("Calibrated on validation classes: T 0.250, ECE 39.0 → 4.0 %, prediction sets cover 91.5 %.")
    assert len(textwrap.wrap(said, 80)) <= 2
    assert said in text_tables(standings([run(FOUND)]))[0].notes


def test_several_runs_have_the_lowest_and_the_highest() -> None:
    other = replace(FOUND, ece=0.1, temperature=replace(FOUND.temperature, value=1.5))
    [said] = calibration_notes(groups_of([run(FOUND), run(other, "warm", ece=0.2)]), *ASKED)
    assert "T 0.250 to 1.500, ECE 20.0 to 39.0 → 4.0 to 10.0 %, prediction sets cover 91.5 %" in said


def test_a_temperature_of_few_classes_is_warned_of() -> None:
    few = replace(FOUND, temperature=replace(FOUND.temperature, n_classes=3))
    said = calibration_notes(groups_of([run(few)]), *ASKED)
    assert said[1] == (
        "The temperature is from 3 validation classes; one from fewer than 10 may raise ECE on other classes."
    )
    just_enough = replace(FOUND, temperature=replace(FOUND.temperature, n_classes=10))
    assert len(calibration_notes(groups_of([run(just_enough)]), *ASKED)) == 1


def test_a_probe_without_probabilities_has_only_sets_and_none_has_no_words() -> None:
    of_sets = replace(FOUND, temperature=None, ece=None, nll=None, brier=None)
    assert calibration_notes(groups_of([run(of_sets, ece=None)]), *ASKED) == [
        "Calibrated on validation classes: prediction sets cover 91.5 %."
    ]
    assert calibration_notes(groups_of([run(None)]), *ASKED) == []
