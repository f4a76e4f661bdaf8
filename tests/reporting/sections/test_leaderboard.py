from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from episodes.over_seeds import summarise_seeds
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group, best_first, groups_of
from lurefs.comparing.texts import percent
from lurefs.comparing.verdicts import judge
from lurefs.reporting.charts.group_styles import styled
from lurefs.reporting.sections import narrative
from lurefs.reporting.sections.interval_rows import accuracy_intervals
from lurefs.reporting.sections.leaderboard import COSTS, letters_or_places, rows
from lurefs.reporting.series import cost_point
from made_up_runs import benchmark, outcome, probe, run_in_memory

BENCHMARKS = {"novel": ["ridge"]}


def make_run(label: str, mean: float | None, *, seed: int = 0, cost: Mapping[str, Any] | None = None) -> Run:
    """Return a run of which nothing but the summary and the cost is on record."""
    strategy = "nothing" if label.startswith("warm") else "by_saliency"
    values = {"name": label, "seed": seed, "unlearn": {"name": strategy}, "backbone": {"name": label.rstrip("0123")}}
    found = {} if mean is None else {"novel": benchmark({"ridge": probe(mean, ms_per_episode=1.5)}, n_way=2)}
    identity = {"backbone": {"n_parameters": 2_000_000}}
    return run_in_memory(values, found, label=label, identity=identity, cost=cost or {})


def of_seeds(name: str, means: Sequence[float]) -> list[Run]:
    return [make_run(f"{name}{seed}", mean, seed=seed) for seed, mean in enumerate(means)]


def board(groups: Sequence[Group], reference: Run) -> dict[str, dict[str, Any]]:
    """Return the rows by their label, in their order."""
    judged = {("novel", "ridge"): judge(groups, reference, "novel", "ridge")}
    return {row["label"]: row for row in rows(groups, reference, BENCHMARKS, judged)["ridge"]}


class TestOneSeed:
    def test_the_highest_comes_first_and_equal_means_share_a_rank(self) -> None:
        runs = [make_run(name, mean) for name, mean in (("warm", 0.5), ("a", 0.7), ("b", 0.7), ("c", 0.4))]
        found = board(groups_of(runs), runs[0])
        assert [(label, row["cells"][0]["rank"]) for label, row in found.items()] == [
            ("a", 1),
            ("b", 1),
            ("warm", 3),
            ("c", 4),
        ]

    def test_an_accuracy_has_both_its_intervals(self) -> None:
        runs = [make_run("warm", 0.5), make_run("a", 0.7)]
        accuracy = board(groups_of(runs), runs[0])["a"]["cells"][0]["accuracy"]
        assert (accuracy.value, accuracy.intervals) == (
            "70.00",
            (("±\u00a02.00", "this pool"), ("±\u00a05.00", "new classes")),
        )

    def test_what_is_not_known_is_a_dash_with_its_reason(self) -> None:
        runs = [make_run("warm", 0.5), make_run("a", 0.7)]
        runs[1]._accuracies.clear()
        row = board(groups_of(runs), runs[0])["a"]
        assert row["cells"][0]["difference"].why_not.startswith("not compared with warm: there is no")
        weights, macs, images, speed, episode, training = row["costs"]
        assert (weights.value, episode.value) == ("2.00", "1.50")
        assert [cost.why_not for cost in (macs, speed, images, training)] == [
            "not measured: the run is older than this measurement",
            "not measured: the run is older than this measurement",
            "not trained here",
            "not trained here",
        ]

    def test_a_run_without_the_benchmark_has_no_row(self) -> None:
        runs = [make_run("warm", 0.5), make_run("a", None)]
        assert list(board(groups_of(runs), runs[0])) == ["warm"]

    def test_the_cost_card_wins_over_the_identity(self) -> None:
        card = {"n_parameters": 12_340_000, "n_macs": 250_000_000, "images_per_second": 1234.5}
        runs = [make_run("warm", 0.5), make_run("a", 0.7, cost=card)]
        costs = board(groups_of(runs), runs[0])["a"]["costs"]
        assert [cost.value for cost in (*costs[:2], costs[3])] == ["12.3", "0.250", "1,234"]


class TestSeveralSeeds:
    WARM, LURE = (0.5, 0.52, 0.54), (0.6, 0.63, 0.63)

    @pytest.fixture
    def runs(self) -> list[Run]:
        return [*of_seeds("warm", self.WARM), *of_seeds("lure", self.LURE)]

    def test_are_one_row_with_the_interval_over_seeds(self, runs: list[Run]) -> None:
        found = board(groups_of(runs), runs[0])
        assert list(found) == ["lure (3 seeds)", "warm (3 seeds)"]
        accuracy = found["lure (3 seeds)"]["cells"][0]["accuracy"]
        expected = summarise_seeds(np.array(self.LURE)[:, np.newaxis])
        assert (accuracy.value, accuracy.intervals) == (
            "62.00",
            ((f"±\u00a0{percent(expected.ci95_seeds)}", "new seeds"),),
        )

    def test_two_of_them_have_a_mean_and_the_reason_for_no_interval(self) -> None:
        runs = [make_run("warm", 0.5), *of_seeds("lure", (0.6, 0.7))]
        accuracy = board(groups_of(runs), runs[0])["lure (2 seeds)"]["cells"][0]["accuracy"]
        assert (accuracy.value, accuracy.intervals, accuracy.why_not) == (
            "65.00",
            (),
            "no interval: fewer than 3 seeds",
        )

    def test_letters_tell_apart_what_new_seeds_would(self) -> None:
        far, near = (0.9, 0.91, 0.92), (0.5, 0.54, 0.51)
        runs = [*of_seeds("warm", self.WARM), *of_seeds("far", far), *of_seeds("near", near)]
        found = board(groups_of(runs), runs[0])
        letters = {label: row["cells"][0]["ties"] for label, row in found.items()}
        assert letters == {
            "far (3 seeds)": (("a", "new seeds"),),
            "warm (3 seeds)": (("b", "new seeds"),),
            "near (3 seeds)": (("b", "new seeds"),),
        }

    def test_the_chart_of_accuracies_has_their_mean_and_interval_over_seeds(self, runs: list[Run]) -> None:
        groups = groups_of(runs)
        row, _ = accuracy_intervals(groups, [judge(groups, runs[0], "novel", "ridge")])
        assert row.label == "lure (3 seeds)"
        assert row.value == pytest.approx(62)
        assert row.inner == pytest.approx(100 * summarise_seeds(np.array(self.LURE)[:, np.newaxis]).ci95_seeds)
        assert row.outer is None


def test_too_many_letters_give_way_to_the_places_that_they_leave_open() -> None:
    letters = {"a": (("abcde", "this pool"),), "b": (("b", "this pool"),), "c": (("z(53)", "this pool"),)}
    ranks = {"a": 1, "b": 2, "c": 3}
    assert letters_or_places(letters, ranks) == {
        "a": (("1–2", "this pool"),),
        "b": (("1–2", "this pool"),),
        "c": (("3–3", "this pool"),),
    }


def test_a_few_letters_stay_letters() -> None:
    letters = {"a": (("ab", "this pool"),), "b": (("b", "this pool"),)}
    assert letters_or_places(letters, {"a": 1, "b": 2}) == letters


def test_a_cost_stands_at_the_mean_of_the_seeds_and_only_where_all_have_one() -> None:
    [group] = groups_of([make_run(f"lure{seed}", 0.5 + seed / 10, seed=seed) for seed in range(3)])
    line = cost_point(group, lambda run: float(run.config.seed), "novel", "ridge")
    assert line is not None
    assert (list(np.asarray(line.x)), list(np.asarray(line.y))) == ([1.0], pytest.approx([60.0]))
    assert cost_point(group, lambda run: run.config.seed or None, "novel", "ridge") is None


def test_training_costs_three_passes_of_every_image_that_it_sees() -> None:
    costs = {cost.name: cost.value for cost in COSTS}
    run = make_run("lure", 0.5, cost={"n_macs": 2_000_000_000})
    assert costs["macs"](run) == 2.0
    assert (costs["images"](run), costs["training"](run)) == (None, None)
    trained = replace(run, outcomes=[outcome(n_images_seen=n_images) for n_images in (400, 600)])
    assert (costs["images"](trained), costs["training"](trained)) == (1000, 6.0)
    assert costs["training"](replace(trained, cost={})) is None


def test_of_many_runs_the_reference_and_the_best_have_the_first_styles() -> None:
    runs = [make_run(f"run{chr(97 + place)}", place / 20) for place in range(11)] + [make_run("warm", 0.0)]
    groups = styled(groups_of(runs), best_first(runs))
    styles = {group.label: group.style for group in groups}
    assert [group.label for group in groups] == [run.label for run in runs]
    assert sorted(styles, key=lambda label: styles[label])[:3] == ["warm", "runk", "runj"]
    few = groups_of(runs[:3])
    assert styled(few, best_first(runs[:3])) == few


def test_a_group_with_a_run_that_was_not_measured_has_the_mean_of_the_others() -> None:
    runs = [make_run("lure0", 0.5, seed=0), make_run("lure1", None, seed=1), make_run("lure2", 0.6, seed=2)]
    accuracy = board(groups_of(runs), runs[0])["lure (3 seeds)"]["cells"][0]["accuracy"]
    assert (accuracy.value, accuracy.why_not) == (
        "55.00",
        "no interval: fewer than 3 seeds; mean of 2 of 3 seeds, since seed 1 has no result",
    )


def test_many_backbones_are_counted_in_the_lead() -> None:
    runs = [make_run(f"net{chr(97 + place)}", 0.5) for place in range(6)]
    assert narrative.lead(runs).startswith("6 backbones were trained in 6 runs on icons. Then the weights were frozen")
