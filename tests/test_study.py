from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scipy.stats import ttest_rel

from episodes.comparison import holm
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.stages.plan import make_plan

TOOLS = Path(__file__).resolve().parent.parent / "tools"
WARM, LURE, OWN = [0.70, 0.72, 0.74], [0.72, 0.73, 0.77], [0.71, 0.75, 0.73]


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("study_cells")


@pytest.fixture
def results(cells: ModuleType) -> ModuleType:
    return importlib.import_module("study_results")


@pytest.fixture
def report(cells: ModuleType) -> ModuleType:
    return importlib.import_module("study_report")


@pytest.fixture
def study(cells: ModuleType, npz_path: Path) -> Any:
    return cells.Study(
        base={
            "dataset": {"name": "npz", "params": {"path": str(npz_path)}},
            "class_split": {"base": 0.5, "validation": 0.0, "novel": 0.5},
            "chunks": {"n_chunks": 2},
            "backbone": {"name": "test_byobnet", "image_size": 32},
            "learner": {"epochs": 1, "batch_size": 16},
            "benchmarks": {"3way": {"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 10}},
            "after_chunk": {"n_episodes": 10},
            "trackers": {"wandb": {"mode": "disabled"}},
        },
        regimes={"plain": {}, "bare": {"learner": {"optimizer": {"params": {"weight_decay": 0.0}}}}},
        strategies={"warm": {"unlearn": {"name": "nothing"}}, "lure": {}, "own": {"unlearn": {"name": "from_scratch"}}},
        seeds=[0, 1, 2],
        references=["warm", "lure"],
        curves=["warm", "lure"],
        costs=["warm", "own"],
    )


def row(accuracy: float, **changes: Any) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "cumulative_error_rate": 1 - accuracy,
        "cpu_seconds": 10.0,
        "cell_cpu_seconds": 12.0,
        "few_shot": {"3way": accuracy / 2},
        "chunks": {"accuracy": [0.5, accuracy]},
        "versions": {"torch": "2"},
        "machine": "a machine",
        **changes,
    }


def rows_of(regimes: tuple[str, ...] = ("plain", "bare")) -> dict[tuple[str, str, int], dict[str, Any]]:
    accuracies = {"warm": WARM, "lure": LURE, "own": OWN}
    return {
        (regime, strategy, seed): row(accuracy)
        for seed in (2, 0, 1)
        for regime in regimes
        for strategy, values in accuracies.items()
        for accuracy in [values[seed]]
    }


class TestCells:
    def test_of_a_seed_meet_the_same_chunks_whatever_the_strategy(self, study: Any) -> None:
        plans = [make_plan(study.config(("bare", strategy, 1))) for strategy in study.strategies]
        for plan in plans[1:]:
            for chunk, other in zip(plan.chunks, plans[0].chunks, strict=True):
                assert chunk.train.tolist() == other.train.tolist()
        assert plans[0].config.learner.optimizer.params["weight_decay"] == 0.0
        assert plans[0].config.learner.optimizer.params["lr"] == 0.1

    def test_digest_follows_what_the_numbers_depend_on(
        self, cells: ModuleType, study: Any, make_config: Callable[..., RunConfig]
    ) -> None:
        digests = {cells.cell_digest(study.config(key)) for key in study.keys}
        assert len(digests) == len(study.keys) == 18
        assert cells.cell_digest(make_config(name="a", controls=True)) == cells.cell_digest(make_config())
        assert cells.cell_digest(make_config(num_threads=2)) == cells.cell_digest(make_config())

    def test_a_setting_that_a_later_version_adds_leaves_the_digest(self, cells: ModuleType) -> None:
        @dataclass
        class Part:
            x: int = 1
            added: str | None = None

        @dataclass
        class Whole:
            part: Part = field(default_factory=Part)
            parts: dict[str, Part] = field(default_factory=dict)

        assert cells.departures(Whole()) == {}
        assert cells.departures(Whole(Part(x=2), {"a": Part(), "b": Part(3)})) == {
            "part": {"x": 2},
            "parts": {"a": {}, "b": {"x": 3}},
        }

    def test_a_setting_that_does_not_exist_is_told_with_its_cell(self, cells: ModuleType, study: Any) -> None:
        study.strategies["lure"] = {"learner": {"epoch": 3}}
        with pytest.raises(UserError, match=r"plain, lure: unknown key 'learner.epoch'"):
            study.config(("plain", "lure", 0))

    def test_is_measured_by_the_stages_of_a_run_and_leaves_no_files(
        self, cells: ModuleType, study: Any, tmp_path: Path
    ) -> None:
        key = ("plain", "lure", 1)
        found = cells.measure(key, study.config(key), tmp_path / "runs")
        assert (found["regime"], found["strategy"], found["seed"]) == key
        assert found["digest"] == cells.cell_digest(study.config(key))
        assert found["accuracy"] == found["chunks"]["accuracy"][-1]
        assert found["anytime_accuracy"] == pytest.approx(1 - found["cumulative_error_rate"], abs=1e-5)
        assert found["few_shot"]["3way"] == found["chunks"]["few_shot"]["3way"][-1]
        assert found["unlearn_seconds"] > 0
        assert 0 < found["cpu_seconds"] < found["cell_cpu_seconds"]
        assert found["reset_drop"] is not None
        assert list((tmp_path / "runs").iterdir()) == []

    def test_rows_are_stored_in_the_order_of_the_study(self, cells: ModuleType, study: Any, tmp_path: Path) -> None:
        rows = {
            key: {**dict(zip(("regime", "strategy", "seed"), key, strict=True)), "n": 1}
            for key in [("gone", "lure", 0), ("bare", "warm", 0), ("plain", "lure", 2), ("plain", "lure", 1)]
        }
        cells.write_rows(tmp_path, study, rows)
        assert list(cells.read_rows(tmp_path)) == [
            ("plain", "lure", 1),
            ("plain", "lure", 2),
            ("bare", "warm", 0),
            ("gone", "lure", 0),
        ]
        assert cells.read_rows(tmp_path) == rows


class TestDifferences:
    def test_are_paired_by_seed_and_corrected_within_a_regime(self, results: ModuleType, study: Any) -> None:
        found = results.Results(study=study, rows=rows_of()).differences("plain", "warm", results.ACCURACY)
        assert list(found) == ["lure", "own"]
        assert found["lure"].mean == pytest.approx(2.0)
        p_values = [ttest_rel(LURE, WARM).pvalue, ttest_rel(OWN, WARM).pvalue]
        assert [entry.p for entry in found.values()] == pytest.approx(p_values)
        assert [entry.p_holm for entry in found.values()] == pytest.approx(holm(p_values))

    def test_are_over_the_seeds_that_both_have(self, results: ModuleType, study: Any) -> None:
        rows = rows_of()
        del rows["plain", "lure", 0]
        found = results.Results(study=study, rows=rows).differences("plain", "warm", results.ACCURACY)
        assert found["lure"].n_seeds == 2
        assert found["lure"].mean == pytest.approx(2.0)
        assert found["lure"].ci95_seeds is None and found["lure"].p_holm is None
        assert found["own"].p_holm == pytest.approx(found["own"].p)


class TestPage:
    def test_is_made_anew_around_what_was_written_by_hand(self, report: ModuleType, study: Any, tmp_path: Path) -> None:
        path = report.write_report(tmp_path, study, rows_of())
        written = path.read_text()
        path.write_text(f"{written}\nBy hand.\n".replace("## Overview\n", "## In short\n\nBy hand, too.\n"))
        changed = rows_of()
        changed["plain", "lure", 0]["accuracy"] = 0.9
        report.write_report(tmp_path, study, changed)
        assert "By hand." in path.read_text() and "## In short\n\nBy hand, too.\n" in path.read_text()
        assert path.read_text().count("<!-- tools/study.py: overview -->") == 1
        assert "+8.00 ±" in path.read_text() and "+8.00 ±" not in written

    def test_and_its_files_follow_from_the_rows_alone(self, report: ModuleType, study: Any, tmp_path: Path) -> None:
        for folder, rows in (("a", rows_of()), ("b", dict(reversed(rows_of().items())))):
            report.write_report(tmp_path / folder / "same", study, rows)
        files = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()}
        assert len(files) == 2 + 2 * 4
        for path in files:
            assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()

    def test_names_the_strategies_whose_first_chunk_went_otherwise(self, report: ModuleType, study: Any) -> None:
        rows = rows_of()
        rows["bare", "own", 1]["chunks"] = {"accuracy": [0.4, 0.7]}
        assert report.differing_from_the_start(report.Results(study=study, rows=rows), "warm") == ["own"]

    def test_says_how_many_seeds_a_figure_is_of_where_some_are_missing(self, report: ModuleType, study: Any) -> None:
        rows = rows_of()
        del rows["plain", "lure", 0]
        table = report.overview(report.Results(study=study, rows=rows))
        assert "| `lure` | +2.00 (n = 2) |" in table


def test_the_kept_study_has_a_row_of_every_cell(cells: ModuleType) -> None:
    """It is withdrawn: its rows are of an earlier default, so that the command measures all of them again."""
    folder = TOOLS.parent / "docs" / "studies" / "strategies"
    study, rows = cells.read_study(folder), cells.read_rows(folder)
    assert set(rows) == set(study.keys)
    assert not any(rows[key]["digest"] == cells.cell_digest(study.config(key)) for key in study.keys[:20])
