"""Under `wandb agent`: the environment is set as wandb 0.31 does before it starts a command of a sweep."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lurefs.cli import main
from lurefs.tracking.agent import is_of_agent, read_agent_run, take_agent_run

BENCHMARK, PROBE, PLAIN_PROBE = "novel-5way-1shot", "logistic_regression", "ridge"
PARAMETERS = "wandb_version: 1\n\nbackbone.name:\n  value: test_vit\nlearner.epochs:\n  value: 3\n"


@pytest.fixture
def start_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set what an agent of the sweep `swp1` sets for one run."""

    def start(run_id: str) -> None:
        path = tmp_path / "work" / "wandb" / "sweep-swp1" / f"config-{run_id}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PARAMETERS)
        for name, value in {
            "WANDB_SWEEP_ID": "swp1",
            "WANDB_RUN_ID": run_id,
            "WANDB_SWEEP_PARAM_PATH": str(path),
            "WANDB_PROJECT": "grid",
        }.items():
            monkeypatch.setenv(name, value)

    return start


def in_sweep(server: Any) -> dict[str, str]:
    return {run_id: run.attributes["sweep"] for run_id, run in server.runs.items() if "sweep" in run.attributes}


def test_exactly_one_run_is_the_agents_and_it_has_the_accuracy(
    run: Any, server: Any, start_agent: Callable[[str], None]
) -> None:
    start_agent("agent001")
    run.go()
    assert in_sweep(server) == {"agent001": "swp1"}
    assert len(server.runs) == 4
    cell, summary = server.runs["agent001"], run.directory.read_summary()
    accuracy = summary.benchmarks[BENCHMARK].probes[PROBE].accuracy
    assert accuracy is not None and cell.summary["accuracy"] == accuracy.mean
    assert len(cell.history) == 100
    assert (cell.user_config["backbone.name"], cell.user_config["learner.epochs"]) == ("test_vit", 3)
    assert cell.user_config["probe"] == PROBE
    assert {served.project for served in server.runs.values()} == {"grid"}
    assert server.unknown == []


def test_push_finds_the_agents_run_again(run: Any, server: Any, start_agent: Callable[[str], None]) -> None:
    start_agent("agent001")
    run.go()
    before = {run_id: served.history for run_id, served in server.runs.items()}
    main(["push", str(run.directory.path)])
    assert {run_id: served.history for run_id, served in server.runs.items()} == before
    assert in_sweep(server) == {"agent001": "swp1"}


def test_finished_directory_that_an_agent_meets_is_sent_as_its_run(
    run: Any, server: Any, start_agent: Callable[[str], None]
) -> None:
    run.with_wandb(mode="disabled").go()
    start_agent("agent002")
    run.go()
    assert in_sweep(server) == {"agent002": "swp1"}
    assert len(server.runs["agent002"].history) == 100


def test_second_run_of_one_command_finds_no_agent(run: Any, start_agent: Callable[[str], None]) -> None:
    start_agent("agent001")
    first, second = (take_agent_run(run.config, os.environ) for _ in range(2))
    assert first is not None
    assert (first.run_id, first.sweep_id, first.parameters["learner.epochs"]) == ("agent001", "swp1", 3)
    assert second is None


def test_run_id_of_a_user_without_a_sweep_is_no_agents(run: Any) -> None:
    assert take_agent_run(run.config, {"WANDB_RUN_ID": "mine"}) is None


def test_damaged_note_of_the_agent_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_text('{"run": 1}')
    assert read_agent_run(tmp_path / "agent.json") is None


def test_environment_of_an_agent_is_known_until_a_run_has_taken_it(
    run: Any, start_agent: Callable[[str], None]
) -> None:
    assert not is_of_agent(os.environ)
    start_agent("agent001")
    assert is_of_agent(os.environ)
    take_agent_run(run.config, os.environ)
    assert not is_of_agent(os.environ)
