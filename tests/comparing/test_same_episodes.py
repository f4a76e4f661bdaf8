from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lurefs.comparing.finished_runs import Run, read_runs
from lurefs.comparing.same_episodes import check_same_episodes, on_common_episodes
from lurefs.comparing.standings import standings
from lurefs.config.schema import CorruptConfig
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory
from made_up_runs import change_benchmark

MakeRun = Callable[..., RunDirectory]


def accuracy_of(directory: RunDirectory, n: int | None = None) -> np.ndarray:
    return directory.read_episodes("novel", "centroid").accuracy[:n]


class TestDifferentEpisodes:
    def refusal(self, *directories: RunDirectory) -> UserError:
        with pytest.raises(UserError) as caught:
            check_same_episodes(read_runs(directories), ["novel"])
        return caught.value

    def test_of_another_seed_are_refused(self, make_run: MakeRun) -> None:
        error = self.refusal(make_run("lure"), make_run("warm", episode_seed=3))
        assert "lure and warm met different episodes of 'novel'" in error.problem
        assert "episode 0 is another (seeds 0 and 3)" in error.problem
        assert error.fix == "give both the same benchmarks.novel.seed and run 'lurefs evaluate' again"

    def test_of_another_form_are_refused(self, make_run: MakeRun) -> None:
        error = self.refusal(make_run("lure"), make_run("warm", n_shot=2))
        assert "n_shot is 1 and 2" in error.problem
        assert "benchmarks.novel.n_shot" in error.fix

    def test_of_other_images_are_refused(self, make_run: MakeRun) -> None:
        error = self.refusal(make_run("lure"), make_run("warm", images="xyz"))
        assert "their images differ" in error.problem
        assert "the same dataset and class_split" in error.fix

    def test_that_begin_alike_are_refused_with_the_way_to_compare_them(self, make_run: MakeRun) -> None:
        error = self.refusal(make_run("lure"), make_run("warm", n_episodes=25))
        assert "n_episodes is 40 and 25" in error.problem
        assert "add --common-episodes to compare on the first 25 episodes" in error.fix

    def test_on_corrupted_images_are_refused(self, make_run: MakeRun) -> None:
        one, other = make_run("lure"), make_run("warm")
        change_benchmark(other, "novel", corrupt=CorruptConfig(corruption="fog"))
        assert "images corrupted" in self.refusal(one, other).problem


class TestCommonEpisodes:
    def cut(self, *directories: RunDirectory) -> list[Run]:
        return on_common_episodes(read_runs(directories), ["novel"])

    def test_are_the_first_ones_of_the_longer_manifest(self, make_run: MakeRun) -> None:
        long, short = make_run("lure", gain=0.9), make_run("warm", n_episodes=25, unlearn="nothing")
        runs = self.cut(long, short)
        check_same_episodes(runs, ["novel"])
        found = standings(runs)
        row = found.rows[0]
        assert found.cut == {"novel": 25}
        assert found.manifests == {"novel": short.read_manifest("novel").hash}
        assert (row.n_episodes, row.n_paired) == (25, 25)
        assert row.mean == accuracy_of(long, 25).mean()
        assert row.difference == pytest.approx(accuracy_of(long, 25).mean() - accuracy_of(short).mean())

    def test_are_those_of_the_run_that_ended_first(self, make_run: MakeRun) -> None:
        found = standings(self.cut(make_run("lure", n_scored=30), make_run("warm", unlearn="nothing")))
        assert [row.n_episodes for row in found.rows] == [30, 30]

    def test_of_runs_that_met_the_same_are_all(self, make_run: MakeRun) -> None:
        found = standings(self.cut(make_run("lure"), make_run("warm")))
        assert (found.cut, found.rows[0].n_episodes) == ({}, 40)

    def test_are_refused_where_there_are_none(self, make_run: MakeRun) -> None:
        with pytest.raises(UserError, match="episode 0 is another"):
            self.cut(make_run("lure"), make_run("warm", episode_seed=3))
