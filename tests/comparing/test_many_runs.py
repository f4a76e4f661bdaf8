from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from episodes.comparison import holm
from lurefs.cli import main
from lurefs.comparing.finished_runs import Run, read_runs
from lurefs.comparing.groups import MAX_RANKED
from lurefs.comparing.pairs import compare_pairs
from lurefs.comparing.standings import standings
from lurefs.comparing.text_tables import MAX_SHOWN, legend, short_tables, text_tables
from lurefs.comparing.verdicts import judge_all
from lurefs.reporting.sections.interval_rows import MAX_ROWS
from lurefs.runs.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]
N_RUNS = MAX_RANKED + 4


@pytest.fixture
def runs(make_run: MakeRun) -> list[Run]:
    """Return more runs than are ranked; each strategy has other settings, and the last is the reference."""
    made = [make_run(f"run-{i}", gain=i / N_RUNS, unlearn="by_saliency", n_episodes=40 + i) for i in range(N_RUNS - 1)]
    return read_runs([*made, make_run("warm", unlearn="nothing", n_episodes=200)])


def test_many_runs_are_compared_with_the_reference_alone(runs: list[Run]) -> None:
    [found] = judge_all(runs).values()
    assert (len(found.groups), found.reference) == (N_RUNS, "warm")
    assert {pair.less for pair in found.pairs} == {"warm"} and len(found.pairs) == N_RUNS - 1
    assert (found.letters, found.correction) == ({}, "Holm")


def test_their_p_values_are_corrected_for_their_number(runs: list[Run]) -> None:
    [found] = judge_all(runs).values()
    by_label = {run.label: run for run in runs}
    raw = compare_pairs([(by_label[pair.group], by_label[pair.less]) for pair in found.pairs], "novel", "centroid")
    p_values = [each.paired.p_episodes for each in raw if each.paired is not None]
    assert [pair.p["pool"] for pair in found.pairs] == holm(p_values)


def test_one_run_more_than_are_ranked_changes_no_difference(runs: list[Run]) -> None:
    few = [*runs[:3], runs[-1]]
    [of_few], [of_many] = judge_all(few).values(), judge_all(runs).values()
    one, other = of_few.between("run-1", "warm"), of_many.between("run-1", "warm")
    assert (one.difference, one.paired) == (other.difference, other.paired)
    assert of_few.correction == "Shaffer" and len(of_few.pairs) == 6


def test_tables_on_the_terminal_have_the_first_rows_and_the_reference(runs: list[Run]) -> None:
    found = standings(runs)
    results, costs = short_tables(found)
    assert [len(table.rows) for table in text_tables(found)] == [N_RUNS, N_RUNS]
    assert len(results.rows) in (MAX_SHOWN, MAX_SHOWN + 1) and "warm" in [row[0] for row in results.rows]
    assert results.rows[:MAX_SHOWN] == text_tables(found)[0].rows[:MAX_SHOWN]
    n_left_out = N_RUNS - len(costs.rows)
    assert costs.notes[-1] == f"{n_left_out} rows of {N_RUNS} left out; comparison.csv has all"
    assert not any(line.startswith("Ties") for line in legend(found))


def test_command_says_what_is_left_out_and_files_have_all(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compare", str(tmp_path / "runs"), "--output", str(tmp_path / "out"), "--common-episodes"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"of more than {MAX_RANKED} runs each is compared with the reference alone" in said
    assert f"of the 20 highest, {N_RUNS - 1 - 20} differences are left out" in said
    stored = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (len(stored["rows"]), len(stored["pairs"])) == (N_RUNS, N_RUNS - 1)
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"the {MAX_ROWS} highest of {N_RUNS}" in page
    assert "against the reference alone" in page and "The whole configuration" not in page
