from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from lurefs.comparing.exports import write_exports
from lurefs.comparing.finished_runs import read_runs
from lurefs.comparing.ranker_tables import ranker_notes, ranker_texts, score_texts
from lurefs.comparing.rankers import AT_RANDOM, RankerRow, Ranking
from lurefs.comparing.standings import Standings, standings
from lurefs.comparing.text_tables import legend, text_tables
from lurefs.results import Results
from lurefs.runs.directory import RunDirectory
from lurefs.runs.summary import TransferabilitySummary
from lurefs.tracking.comparison_record import comparison_record
from made_up_runs import change_benchmark

MakeRun = Callable[..., RunDirectory]
GAINS = (0.9, 0.7, 0.5, 0.3, 0.1, 0.0)
NAMES = ("a", "b", "c", "d", "e", "f")


def with_scores(directory: RunDirectory, score: float | None) -> RunDirectory:
    """Give a run a LogME of `score`, an H-score in the opposite order, and the same nearest centroid as all others."""
    scores = None if score is None else TransferabilitySummary(logme=score, h_score=-score, nearest_centroid=0.5)
    change_benchmark(directory, "novel", transferability=scores)
    return directory


@pytest.fixture
def compared(make_run: MakeRun) -> Callable[..., Standings]:
    """Compare backbones of falling accuracy whose LogME are `scores`; the last has the most parameters."""

    def make(scores: Sequence[float | None] = GAINS) -> Standings:
        runs = [
            with_scores(make_run(name, gain=gain, cost={"n_parameters": 100 * (place + 1)}, n_episodes=200), score)
            for place, (name, gain, score) in enumerate(zip(NAMES, GAINS, scores, strict=False))
        ]
        return standings(read_runs(runs))

    return make


def rows_of(found: Standings) -> dict[str, RankerRow]:
    [ranking] = found.rankings
    return {row.ranker: row for row in ranking.rows}


def means_of(found: Standings) -> dict[str, float]:
    return {row.name: row.mean for row in found.groups if row.mean is not None}


def test_a_ranker_that_finds_the_best_has_no_regret_and_one_that_finds_the_worst_has_all(
    compared: Callable[..., Standings],
) -> None:
    found = compared()
    rows, means = rows_of(found), means_of(found)
    assert list(rows) == ["LogME", "H-score", "nearest centroid", "parameters", AT_RANDOM]
    assert (rows["LogME"].chosen, rows["LogME"].regret, rows["LogME"].tau) == (("a",), 0, pytest.approx(1))
    assert rows["H-score"].chosen == rows["parameters"].chosen == ("f",)
    assert rows["H-score"].regret == pytest.approx(means["a"] - means["f"])
    assert rows["H-score"].tau == pytest.approx(-1)
    assert rows["H-score"].regret_low < rows["H-score"].regret < rows["H-score"].regret_high
    assert rows["H-score"].accuracy == pytest.approx(means["f"])


def test_equal_scores_and_a_choice_at_random_are_worth_the_mean_and_rank_nothing(
    compared: Callable[..., Standings],
) -> None:
    found = compared()
    rows, means = rows_of(found), means_of(found)
    for ranker in ("nearest centroid", AT_RANDOM):
        assert rows[ranker].chosen == NAMES
        assert rows[ranker].regret == pytest.approx(means["a"] - np.mean(list(means.values())))
        assert rows[ranker].tau is None


def test_the_bounds_of_tau_follow_the_corrected_tests(compared: Callable[..., Standings]) -> None:
    found = compared()
    row = rows_of(found)["LogME"]
    p_values = [pair.p_classes if row.tau_scope == "classes" else pair.p_episodes for pair in found.pairs]
    n_open = sum(p is None or p >= 0.05 for p in p_values)
    assert 0 < n_open < 15
    assert (row.tau_low, row.tau_high) == pytest.approx((1 - 2 * n_open / 15, 1))


def test_four_backbones_are_too_few_and_those_without_scores_are_left_out(compared: Callable[..., Standings]) -> None:
    assert not compared(GAINS[:4]).rankings
    assert not compared((0.9, None, None, 0.3, 0.1, 0.0)).rankings
    found = compared((0.9, None, 0.5, 0.3, 0.1, 0.0))
    assert [len(ranking.groups) for ranking in found.rankings] == [5]
    assert any("Without scores, and left out: b." in note for note in ranker_notes(found.rankings[0]))
    assert {row.name: row.logme for row in found.groups} == dict(zip("abcdef", (0.9, None, *GAINS[2:]), strict=True))


def test_seeds_of_one_backbone_are_one(make_run: MakeRun) -> None:
    runs = [
        with_scores(make_run(f"{name}{seed}", gain=gain, seed=seed, unlearn=unlearn), gain + 0.2 * seed)
        for name, gain, unlearn in zip(
            NAMES, GAINS[:5], ("nothing", "by_saliency", "from_scratch", "random_mask", "fire"), strict=False
        )
        for seed in range(3)
    ]
    found = standings(read_runs(runs))
    row, means = rows_of(found)["H-score"], means_of(found)
    assert row.n_backbones == 5
    assert row.regret == pytest.approx(max(means.values()) - min(means.values()))
    assert row.tau_scope == "seeds"
    assert found.rankings[0].scores["LogME"]["a (3 seeds)"] == pytest.approx(GAINS[0] + 0.2)
    assert "parameters" not in found.rankings[0].scores
    assert "Rankers without a score of some backbone are left out: parameters." in ranker_notes(found.rankings[0])


def test_runs_on_other_episodes_are_not_ranked(make_run: MakeRun) -> None:
    runs = [
        with_scores(make_run(name, gain=gain, episode_seed=int(name == "c")), gain)
        for name, gain in zip(NAMES, GAINS, strict=True)
    ]
    assert standings(read_runs(runs)).rankings == ()


def test_texts_have_the_smallest_regret_first_and_a_random_choice_last(compared: Callable[..., Standings]) -> None:
    found = compared()
    [ranking] = found.rankings
    texts = ranker_texts(ranking)
    assert [row[0] for row in texts] == ["LogME", "nearest centroid", "H-score", "parameters", AT_RANDOM]
    assert [row[1] for row in texts] == ["a", "any of 6", "f", "f", "any of 6"]
    assert texts[0][5] == "+1.00" and texts[2][5] == "−1.00" and texts[1][5] == "–"
    assert score_texts(ranking)[0] == ("a", f"{100 * means_of(found)['a']:.2f}", "0.900", "−0.900", "50.00", "0.0001")


def test_terminal_files_python_and_w_and_b_have_the_rankers(compared: Callable[..., Standings], tmp_path: Path) -> None:
    found = compared()
    titles = [table.title for table in text_tables(found)]
    assert "Which of 6 backbones, without episodes? novel, centroid" in titles
    assert any(line.startswith("Without episodes: ") for line in legend(found))
    paths = write_exports(found, tmp_path / "out")
    stored = json.loads(paths["JSON"].read_text())["rankers"]
    with paths["CSV of rankers"].open() as file:
        of_csv = list(csv.DictReader(file))
    table = comparison_record(tmp_path / "out").tables["rankers"]
    of_python = Results(runs=tuple(read_runs([RunDirectory(Path(run.path)) for run in found.runs]))).records("rankers")
    assert len(stored) == len(of_csv) == len(table.rows) == len(of_python) == 5
    assert [row["regret"] for row in stored] == [row["regret"] for row in of_python]
    assert [row["chosen"] for row in of_csv] == [row[table.columns.index("chosen")] for row in table.rows]
    assert of_csv[-1]["chosen"] == "a + b + c + d + e + f"


def test_few_backbones_leave_no_trace(compared: Callable[..., Standings], tmp_path: Path) -> None:
    found = compared(GAINS[:3])
    assert not any("without episodes" in table.title for table in text_tables(found))
    assert "rankers" not in found.to_mapping()
    assert "CSV of rankers" not in write_exports(found, tmp_path / "out")
    assert "rankers" not in comparison_record(tmp_path / "out").tables


def test_a_ranking_names_its_groups(compared: Callable[..., Standings]) -> None:
    [ranking] = compared().rankings
    assert isinstance(ranking, Ranking)
    assert [group.label for group in ranking.groups] == list(NAMES)
