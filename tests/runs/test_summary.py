from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from episodes.transfer.table import SizeSummary, TransferFigure
from lurefs.config.schema import CorruptConfig
from lurefs.errors import UserError
from lurefs.records import from_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import RobustnessScores
from lurefs.runs.summary import ChoiceSummary, RunSummary, TransferSummary
from made_up_runs import benchmark, control, outcome, probe, summary

FIGURE = TransferFigure(mean=0.5, n=1, std=None, ci95_repeats=None, ci95_images=(0.25, 0.75))
SIZE = SizeSummary(
    n_train=10,
    n_validation=0,
    n_test=20,
    accuracy=FIGURE,
    macro_accuracy=FIGURE,
    nll=None,
    ece=None,
    chosen=(0.1, 1.0),
    n_at_edge=0,
    n_not_converged=0,
    n_fits=2,
    seconds=1.5,
)


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def whole() -> RunSummary:
    """A summary with all that may be in one."""
    measured = benchmark(
        {"ridge": probe(0.5)},
        corrupt=CorruptConfig(corruption="fog"),
        target_ci95=0.01,
        controls={"untrained_twin": control({"ridge": probe(0.25)})},
    )
    scores = RobustnessScores(n_images=9, attacks={"fgsm": {"0.05": 0.5}})
    transfer = TransferSummary(
        n_classes=5, probe="ridge", parameter="C", grid=[0.1, 1.0], choose_by="nll", sizes={"all": SIZE}
    )
    return summary({"novel": measured}, outcomes=[outcome(robustness=scores)], transfer={"curve": transfer})


def test_what_was_written_is_read_again(directory: RunDirectory) -> None:
    directory.write_summary(whole())
    assert directory.read_summary() == whole()


def test_a_file_without_a_version_is_one_of_the_first(directory: RunDirectory) -> None:
    directory.write_summary(whole())
    values = json.loads(directory.summary_path.read_text())
    assert values.pop("version") == 1
    directory.summary_path.write_text(json.dumps(values))
    assert directory.read_summary() == whole()


def test_a_run_without_transfers_has_no_key_for_them(directory: RunDirectory) -> None:
    directory.write_summary(summary())
    assert list(json.loads(directory.summary_path.read_text())) == ["version", "run", "pretrain", "benchmarks"]


def without_tails(values: dict[str, Any]) -> None:
    del values["benchmarks"]["novel"]["probes"]["ridge"]["tails"]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (dict.clear, "run is missing"),
        (without_tails, "benchmarks.novel.probes.ridge.tails is missing"),
        (lambda values: values["pretrain"].update(n_chunks="three"), "pretrain.n_chunks is 'three'"),
        (lambda values: values.update(extra=1), "unknown key 'extra'"),
    ],
    ids=["nothing", "a layout of before", "a wrong type", "an unknown key"],
)
def test_what_is_no_summary_is_damaged_and_made_again(
    directory: RunDirectory, spoil: Callable[[dict[str, Any]], object], problem: str
) -> None:
    directory.write_summary(whole())
    values = json.loads(directory.summary_path.read_text())
    spoil(values)
    directory.summary_path.write_text(json.dumps(values))
    with pytest.raises(UserError) as caught:
        directory.read_summary()
    assert caught.value.problem == f"{directory.summary_path} is damaged: {problem}"
    assert caught.value.fix == f"delete {directory.summary_path} and run again"


def test_a_newer_version_is_refused_with_both_ways_out(directory: RunDirectory) -> None:
    directory.summary_path.write_text('{"version": 2, "whatever": 1}')
    with pytest.raises(UserError) as caught:
        directory.read_summary()
    assert caught.value.problem == f"{directory.summary_path} has the version 2, which this lurefs does not know"
    assert caught.value.expected == "version 1"
    assert "with the lurefs that wrote it, or delete" in caught.value.fix


def test_a_choice_by_an_unknown_score_is_damage() -> None:
    values = {"settings": {"C": 1}, "by": "x", "n_episodes": 10, "n_classes": 5, "at_edge": [], "curve": []}
    assert from_mapping(ChoiceSummary, values | {"by": "nll"}).by == "nll"
    with pytest.raises(UserError, match="by is 'x'\n  expected: one of nll, accuracy"):
        from_mapping(ChoiceSummary, values)
