from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from episodes.transferability import SCORES
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory
from lurefs.runs.summary import TransferabilitySummary
from lurefs.stages import transferability
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage
from lurefs.tracking.rows import cell_summary

NAME = "novel-3way-1shot"
MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def run(make_config: MakeConfig, tmp_path: Path) -> Callable[..., RunDirectory]:
    """Run a small run, or one of its stages."""

    def start(stage: str = "run", **changes: Any) -> RunDirectory:
        directory = RunDirectory(tmp_path / "run")
        settings = {"chunks": {"n_chunks": 1}, "after_chunk": {"few_shot": False}, **changes}
        run_stage(make_plan(make_config(**settings)), directory, stage)
        return directory

    return start


def scores_of(directory: RunDirectory, name: str = NAME) -> Mapping[str, float]:
    found = directory.read_summary().benchmarks[name].transferability
    assert isinstance(found, TransferabilitySummary)
    return vars(found)


def test_a_run_has_the_scores_of_its_stored_features_for_w_and_b_too(run: Callable[..., RunDirectory]) -> None:
    directory = run()
    bank, scores = directory.read_bank(NAME), scores_of(directory)
    assert scores == {name: score(bank.features, bank.labels) for name, score in SCORES.items()}
    row = cell_summary(directory.read_summary(), NAME, "logistic_regression", directory.read_outcomes(), {})
    assert {name: row[name] for name in SCORES} == scores


def test_scores_are_computed_once_for_all_benchmarks_with_the_same_features(
    run: Callable[..., RunDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []

    def counted(name: str) -> Callable[..., float]:
        return lambda *_: float(len(computed.append(name) or computed))  # type: ignore[func-returns-value]

    monkeypatch.setattr(transferability, "SCORES", {name: counted(name) for name in SCORES})
    form = {"n_way": 3, "n_query": 3, "n_episodes": 20}
    benchmarks = {"one": {**form, "n_shot": 1}, "two": {**form, "n_shot": 2}}
    directory = run(benchmarks=benchmarks)
    assert computed == list(SCORES)
    assert scores_of(directory, "one") == scores_of(directory, "two") == dict(zip(SCORES, (1, 2, 3), strict=True))
    directory.summary_path.unlink()
    run("evaluate", benchmarks=benchmarks)
    assert computed == list(SCORES)
    assert scores_of(directory, "two")["h_score"] == 2


def test_scores_of_other_features_are_computed_again(run: Callable[..., RunDirectory]) -> None:
    directory = run()
    path = directory.features_dir(NAME) / transferability.FILE
    right = scores_of(directory)
    path.write_text(json.dumps({"identity": "of other features", **dict.fromkeys(SCORES, 0.5)}))
    run("evaluate")
    assert scores_of(directory) == right
    path.write_text(json.dumps({**json.loads(path.read_text()), "logme": "high"}))
    with pytest.raises(UserError, match=r"transferability\.json is damaged: .*logme"):
        run("evaluate")


def test_features_that_cannot_be_scored_have_none_and_a_note_says_why(
    run: Callable[..., RunDirectory], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transferability, "MAX_SIDE", 2)
    directory = run()
    assert directory.read_summary().benchmarks[NAME].transferability is None
    assert "transferability" not in json.loads(directory.summary_path.read_text())["benchmarks"][NAME]
    assert f"{NAME}: no scores without episodes: they take too long for" in capsys.readouterr().err
    assert "logme" not in cell_summary(directory.read_summary(), NAME, "logistic_regression", (), {})
