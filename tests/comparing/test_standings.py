from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from episodes.comparison import paired_difference, shaffer
from episodes.over_seeds import summarise_seeds
from episodes.summary import summarise
from lurefs.comparing.finished_runs import read_runs
from lurefs.comparing.pairs import FLIP_SEED, compare_pairs
from lurefs.comparing.standing_rows import Standing
from lurefs.comparing.standings import standings
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]
COST = {"n_parameters": 1200, "n_macs": 3400, "images_per_second": 56.5, "device": "cpu", "n_threads": 2}


def by_run(rows: tuple[Standing, ...]) -> dict[str, Standing]:
    return {row.name: row for row in rows}


def accuracy_of(directory: RunDirectory, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    table = directory.read_episodes("novel", "centroid")
    return table.accuracy[:n], table.classes[:n]


@pytest.fixture
def three(make_run: MakeRun) -> list[RunDirectory]:
    """A run that is better, the reference, and one like the reference."""
    return [
        make_run("lure", gain=0.9, cost=COST),
        make_run("warm", unlearn="nothing"),
        make_run("other", seed=5, unlearn="from_scratch"),
    ]


class TestRows:
    def test_hold_the_mean_and_the_paired_difference_of_the_files(self, three: list[RunDirectory]) -> None:
        found = standings(read_runs(three))
        row = by_run(found.rows)["lure"]
        (a, classes), (b, _) = accuracy_of(three[0]), accuracy_of(three[1])
        own, rng = summarise(a, classes), np.random.default_rng(FLIP_SEED)
        paired = paired_difference(a, b, classes, rng=rng)
        assert (row.n_episodes, row.mean) == (40, own.mean)
        assert (row.ci95_episodes, row.ci95_classes) == (own.ci95_episodes, own.ci95_classes)
        assert (row.n_paired, row.difference) == (40, paired.difference.mean)
        assert row.difference_ci95_episodes == paired.difference.ci95_episodes
        assert row.difference_ci95_classes == pytest.approx(paired.difference.ci95_classes)
        assert (row.n_wins, row.n_ties, row.n_losses) == (paired.n_wins, paired.n_ties, paired.n_losses)
        assert row.correlation == paired.correlation
        assert found.reference == "warm"

    def test_have_p_values_that_are_corrected_for_all_pairs(self, three: list[RunDirectory]) -> None:
        runs = read_runs(three)
        pairs = [(0, 1), (0, 2), (1, 2)]
        raw = [entry.paired for entry in compare_pairs([(runs[i], runs[j]) for i, j in pairs], "novel", "centroid")]
        rows = by_run(standings(runs).rows)
        pool = shaffer({pair: entry.p_episodes for pair, entry in zip(pairs, raw, strict=True) if entry}, 3)
        assert [rows["lure"].p_episodes, rows["other"].p_episodes] == pytest.approx([pool[0, 1], pool[1, 2]])
        classes = shaffer({pair: entry.p_classes or 0 for pair, entry in zip(pairs, raw, strict=True) if entry}, 3)
        assert [rows["lure"].p_classes, rows["other"].p_classes] == pytest.approx([classes[0, 1], classes[1, 2]])

    def test_mark_by_letters_who_is_told_apart(self, three: list[RunDirectory]) -> None:
        rows = by_run(standings(read_runs(three)).rows)
        assert [rows[name].ties_pool for name in ("lure", "warm", "other")] == ["a", "b", "b"]

    def test_may_be_told_apart_on_this_pool_and_not_on_new_classes(self, make_run: MakeRun) -> None:
        runs = read_runs([make_run("lure", gain=0.5), make_run("warm", unlearn="nothing")])
        lure, warm = standings(runs).rows
        assert (lure.ties_pool, warm.ties_pool) == ("a", "b")
        assert (lure.ties_classes, warm.ties_classes) == ("a", "a")

    def test_hold_what_each_run_costs(self, three: list[RunDirectory]) -> None:
        row = by_run(standings(read_runs(three)).rows)["lure"]
        assert (row.n_parameters, row.n_macs, row.images_per_second) == (1200, 3400, 56.5)
        assert row.ms_per_episode == 2.0

    def test_without_a_cost_card_have_the_parameters_that_the_identity_tells(self, three: list[RunDirectory]) -> None:
        runs = [replace(run, identity={"backbone": {"n_parameters": 77}}) for run in read_runs(three)]
        rows = by_run(standings(runs).rows)
        assert (rows["lure"].n_parameters, rows["warm"].n_parameters) == (1200, 77)

    def test_of_a_run_without_costs_have_none(self, three: list[RunDirectory]) -> None:
        row = by_run(standings(read_runs(three)).rows)["warm"]
        assert (row.n_parameters, row.n_macs, row.images_per_second, row.train_seconds) == (None,) * 4

    def test_of_the_reference_have_no_difference(self, three: list[RunDirectory]) -> None:
        row = by_run(standings(read_runs(three)).rows)["warm"]
        assert (row.difference, row.p_episodes, row.n_wins, row.note) == (None, None, None, "")

    def test_follow_a_reference_that_was_chosen(self, three: list[RunDirectory]) -> None:
        runs = [replace(run, is_reference=run.label == "lure") for run in read_runs(three)]
        found = standings(runs)
        assert found.reference == "lure"
        chosen = by_run(found.rows)["warm"].difference
        usual = by_run(standings(read_runs(three)).rows)["lure"].difference
        assert chosen is not None and usual is not None
        assert chosen == pytest.approx(-usual)

    def test_say_which_run_lacks_a_benchmark_or_a_probe(self, make_run: MakeRun) -> None:
        runs = read_runs(
            [
                make_run("lure", benchmarks=("novel", "more"), probes=("centroid", "second")),
                make_run("warm", unlearn="nothing"),
            ]
        )
        notes = {(row.name, row.benchmark, row.probe): row.note for row in standings(runs).rows}
        assert notes["warm", "more", "centroid"] == "not measured on this benchmark"
        assert notes["warm", "novel", "second"] == "not measured by this probe"
        assert notes["lure", "more", "second"] == "not compared: the reference warm was not measured"
        assert notes["lure", "novel", "centroid"] == ""

    def test_say_where_probes_of_one_name_are_not_alike(self, make_run: MakeRun) -> None:
        lure, warm = read_runs([make_run("lure"), make_run("warm", unlearn="nothing")])
        probes = {"centroid": replace(lure.config.probes["centroid"], transform="none")}
        lure = replace(lure, config=replace(lure.config, probes=probes))
        assert by_run(standings([lure, warm]).rows)["lure"].note == "its probe has other settings than that of warm"

    def test_of_equal_names_are_told_apart(self, make_run: MakeRun) -> None:
        runs = read_runs([make_run("lure", folder="one"), make_run("lure", folder="two", gain=0.5)])
        assert [row.name for row in standings(runs).rows] == ["one", "two"]

    def test_of_equal_names_and_folders_come_after_the_name_of_the_folder_above(self, make_run: MakeRun) -> None:
        runs = read_runs([make_run("lure", folder="one/lure"), make_run("lure", folder="two/lure", gain=0.5)])
        assert [run.label for run in runs] == ["one/lure", "two/lure"]

    def test_of_a_single_run_have_no_reference(self, make_run: MakeRun) -> None:
        found = standings(read_runs([make_run("lure")]))
        assert found.reference is None
        assert (found.rows[0].difference, found.rows[0].ties_pool) == (None, "")


class TestRunsOfSeveralSeeds:
    def test_have_a_mean_and_a_difference_over_seeds(self, make_run: MakeRun) -> None:
        seeds = (0, 1, 2)
        lure = [make_run(f"lure-s{seed}", seed=seed, gain=0.5 + 0.1 * seed) for seed in seeds]
        warm = [make_run(f"warm-s{seed}", seed=seed, unlearn="nothing") for seed in seeds]
        found = standings(read_runs([*lure, *warm]))
        rows = by_run(found.groups)
        own, other = (np.stack([accuracy_of(run)[0] for run in side]) for side in (lure, warm))
        difference = summarise_seeds(own - other)
        row = rows["lure (3 seeds)"]
        assert row.n_runs == 3
        assert row.mean == pytest.approx(own.mean())
        assert row.ci95_seeds == pytest.approx(summarise_seeds(own).ci95_seeds)
        assert row.difference == pytest.approx(difference.mean)
        assert row.difference_ci95_seeds == pytest.approx(difference.ci95_seeds)
        assert (row.ci95_episodes, row.p_episodes, row.ties_pool) == (None, None, "")
        assert row.p_seeds == pytest.approx(difference.p)
        assert rows["warm (3 seeds)"].difference is None
        assert found.one_training_each is False
        assert [(run.run, run.group) for run in found.runs][:2] == [
            (f"lure-s{seed}", "lure (3 seeds)") for seed in (0, 1)
        ]

    def test_are_no_procedures_one_by_one(self, make_run: MakeRun) -> None:
        found = standings(read_runs([make_run(f"lure-s{seed}", seed=seed, gain=0.2 * seed) for seed in range(4)]))
        assert [row.name for row in found.groups] == ["lure (4 seeds)"]
        assert (found.reference, found.pairs, found.one_training_each) == (None, (), False)
        for row in found.rows:
            assert row.mean is not None
            assert (row.difference, row.p_episodes, row.p_classes, row.ties_pool) == (None, None, None, "")

    def test_beside_a_single_training_have_no_difference_from_it_and_the_reason(self, make_run: MakeRun) -> None:
        lure = [make_run(f"lure-s{seed}", seed=seed) for seed in range(3)]
        found = standings(read_runs([*lure, make_run("warm", unlearn="nothing")]))
        row = by_run(found.groups)["lure (3 seeds)"]
        assert row.note == (
            "not compared with warm: both have 1 of the 3 seeds that a difference over seeds needs, "
            "since seeds 1 and 2 have a result in one of the two only"
        )
        assert (row.difference, row.p_seeds, found.one_training_each) == (None, None, True)


def test_runs_that_ended_by_their_widths_are_paired_on_what_both_met(make_run: MakeRun) -> None:
    long, short = make_run("lure", gain=0.9), make_run("warm", n_scored=30, unlearn="nothing")
    row = by_run(standings(read_runs([long, short])).rows)["lure"]
    assert (row.n_episodes, row.n_paired) == (40, 30)
    assert row.mean == accuracy_of(long)[0].mean()
    assert row.difference == pytest.approx((accuracy_of(long, 30)[0] - accuracy_of(short)[0]).mean())


def test_an_unknown_benchmark_or_probe_is_answered_with_the_nearest(make_run: MakeRun) -> None:
    runs = read_runs([make_run("lure")])
    with pytest.raises(UserError, match="did you mean 'novel'"):
        standings(runs, benchmark="nove")
    with pytest.raises(UserError, match="did you mean 'centroid'"):
        standings(runs, probe="centroids")
