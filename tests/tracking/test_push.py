from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lurefs.cli import main
from lurefs.commands import push as push_command
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory
from lurefs.tracking import client, rows
from lurefs.tracking.comparison_record import INTERVAL_COLUMNS, comparison_record
from lurefs.tracking.records import records_of

BENCHMARK, PROBE = "novel-5way-1shot", "logistic_regression"


def push(*names: object) -> int:
    try:
        main(["push", *map(str, names)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def finish(run: Any) -> None:
    """Fill the run directory as an untracked run does."""
    run.with_wandb(mode="disabled").go()


def contents(server: Any) -> dict[str, Any]:
    """Return what a second push must leave as it is."""

    def plain(summary: dict[str, Any]) -> dict[str, Any]:
        media = {
            key: value["sha256"] for key, value in summary.items() if isinstance(value, dict) and "sha256" in value
        }
        return {key: media.get(key, value) for key, value in summary.items() if not key.startswith("_")}

    runs = {run_id: (run.history, plain(run.summary), run.user_config) for run_id, run in server.runs.items()}
    return {"runs": runs, "artifacts": [(artifact.name, artifact.digest) for artifact in server.artifacts]}


def test_what_arrives_equals_the_run_directory_and_a_second_push_changes_nothing(
    run: Any, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(run)
    assert push(run.directory.path) == 0
    said = capsys.readouterr().out
    records = list(records_of(run.config, run.directory))
    assert len(records) == 4
    for record in records:
        arrived = server.runs[record.card.id]
        assert [run.sent(row) for row in arrived.history] == list(record.rows)
        assert record.summary.items() <= arrived.summary.items()
        assert record.card.config == arrived.user_config
        assert f"  {record.card.id}: " in said
    assert server.unknown == []
    before = contents(server)
    assert push(run.directory.path) == 0
    assert contents(server) == before
    assert "3 of 3 rows were there before" in capsys.readouterr().out


def test_half_finished_run_is_sent_and_completed_later(run: Any, server: Any, outcome: Any) -> None:
    run.directory.write_outcomes([outcome(0)])
    assert push(run.directory.path) == 0
    (arrived,) = server.runs.values()
    assert (arrived.exit_code, "anytime_accuracy" in arrived.summary) == (1, False)
    run.directory.write_outcomes([outcome(chunk_index) for chunk_index in range(3)])
    assert push(run.directory.path) == 0
    assert [row["chunk_index"] for row in arrived.history] == [0, 1, 2]
    assert (arrived.exit_code, "anytime_accuracy" in arrived.summary) == (0, True)


def test_failures_cost_only_their_run_and_are_told_at_the_end(
    run: Any, server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(run)
    for name in ("a", "b"):
        other = RunDirectory(tmp_path / "runs" / name)
        other.write_config(run.config)
        other.write_outcomes(run.directory.read_outcomes())
    (tmp_path / "runs" / "a" / "chunks.jsonl").write_text("{")
    assert push(tmp_path / "runs") == 1
    captured = capsys.readouterr()
    assert captured.out.endswith("1 of 2 folders sent\n")
    assert "chunks.jsonl is damaged: line 1" in captured.err.splitlines()[-1]
    assert captured.err.endswith("chunks.jsonl and run again\n")  # to push again would not help
    assert [len(arrived.history) for arrived in server.runs.values()] == [3]


def test_part_that_did_not_arrive_fails_and_the_same_command_completes(
    run: Any, server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(run)
    server.fail("file_stream", 401, times=1)
    assert push(run.directory.path) == 1
    assert "run the same command again to complete it" in capsys.readouterr().err
    assert push(run.directory.path) == 0
    assert sorted(len(arrived.history) for arrived in server.runs.values()) == [0, 3, 100, 100]


def test_refused_key_is_told(run: Any, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    finish(run)
    server.fail("", 401)
    assert push(run.directory.path) == 1
    assert "401" in capsys.readouterr().err
    assert server.runs == {}


def test_missing_server_costs_bounded_time(
    run: Any, server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "START_SECONDS", 1.0)
    finish(run)
    server.is_away = True
    start = time.monotonic()
    assert push(run.directory.path) == 1
    assert time.monotonic() - start < 15
    assert "not completely sent" in capsys.readouterr().err


def test_directory_with_fewer_chunks_than_were_sent_is_refused(
    run: Any, server: Any, outcome: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(run)
    push(run.directory.path)
    run.directory.write_outcomes([outcome(0)])
    assert push(run.directory.path) == 1
    assert "W&B holds 3 rows and this directory 1" in capsys.readouterr().err


def with_checkpoints(run: Any, wanted: str) -> Any:
    """Return a learned run that wants its checkpoints to be sent, with a file for each chunk."""
    asking = run.with_wandb(mode="disabled", checkpoints=wanted)
    asking.directory.write_config(asking.config)
    asking.learn(asking.start())
    for chunk_index in range(3):
        path = run.directory.checkpoint_path(chunk_index)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"weights" * (chunk_index + 1))
        path.with_suffix(".json").write_text(json.dumps({"n_bytes": 7 * (chunk_index + 1), "sha256": str(chunk_index)}))
    return asking


def test_weights_arrive_once_as_versions_of_one_model(run: Any, server: Any) -> None:
    with_checkpoints(run, "all")
    assert push(run.directory.path) == push(run.directory.path) == 0
    sent = [artifact for artifact in server.artifacts if artifact.type == "model"]
    assert [sorted(artifact.aliases) for artifact in sent] == [[f"chunk-00{index}", "latest"] for index in range(3)]
    assert len({artifact.name for artifact in sent}) == 1
    assert sent[-1].files["chunk-002.safetensors"] == b"weights" * 3
    assert sent[-1].metadata["sha256"] == "2"


@pytest.mark.parametrize(("wanted", "names"), [("none", []), ("last", ["chunk-002"])])
def test_weights_are_sent_as_far_as_the_config_asks(run: Any, wanted: str, names: list[str]) -> None:
    asking = with_checkpoints(run, wanted)
    (record,) = records_of(asking.config, asking.directory)
    assert [weights.alias for weights in record.weights] == names


def test_comparison_arrives_as_a_run_of_its_own_once(run: Any, server: Any, comparison: Path) -> None:
    assert push(comparison) == push(comparison) == 0
    ((run_id, arrived),) = server.runs.items()
    assert arrived.attributes["jobType"] == "compare"
    assert len(arrived.history) == len(server.charts) == 2
    assert arrived.summary[f"best_accuracy/{BENCHMARK}/{PROBE}"] == 0.5
    assert arrived.summary[f"best_p_pool/{BENCHMARK}/{PROBE}"] == 0.03
    assert arrived.summary[f"best_beats_image_statistics/{BENCHMARK}/{PROBE}"] is False
    assert arrived.summary["one_training_each"] is True
    tables = {artifact.name.removeprefix(f"run-{run_id}-"): artifact.files for artifact in server.artifacts}
    (stored,) = [json.loads(body) for name, body in tables["paired_differences_table"].items() if "table" in name]
    assert stored["data"] == [["demo", f"{BENCHMARK}, {PROBE}", 25.0, 12.5, 37.5, None, None]]
    (stored,) = [json.loads(body) for name, body in tables["accuracy_table"].items() if "table" in name]
    level = ["control: image statistics", f"{BENCHMARK}, {PROBE}", 75.0, *[None] * 4]
    assert stored["data"] == [["demo", f"{BENCHMARK}, {PROBE}", 50.0, 43.75, 56.25, 37.5, 62.5], level]
    (stored,) = [json.loads(body) for name, body in tables["leaderboard"].items() if "table" in name]
    control = ["control: image statistics", None, None, None]
    assert [row[:4] for row in stored["data"]] == [["demo", "vit", "fire", 3], control, ["other", "vit", "fire", 3]]
    assert "report" in arrived.summary
    assert server.unknown == []


@pytest.mark.parametrize("key", ["accuracy", "paired_differences"])
def test_every_field_of_a_chart_is_a_column_of_its_table(comparison: Path, key: str) -> None:
    chart = comparison_record(comparison).charts[key]
    text = json.dumps(chart.spec)
    assert {part.partition("}")[0] for part in text.split("${field:")[1:]} == set(INTERVAL_COLUMNS)


def test_damaged_comparison_is_told(comparison: Path) -> None:
    (comparison / "comparison.json").write_text('{"runs": []}')
    with pytest.raises(UserError, match=r"comparison.json is damaged: KeyError"):
        comparison_record(comparison)


def test_dry_run_needs_neither_key_nor_wandb(
    run: Any, comparison: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(run)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert push("--dry-run", run.directory.path, comparison) == 0
    said = capsys.readouterr().out
    assert "-pretrain: 3 rows, 7 figures" in said
    assert said.endswith("2 of 2 folders would be sent\n")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WANDB_API_KEY": ""}, "no API key"),
        ({"WANDB_MODE": "offline"}, "WANDB_MODE=offline"),
        ({"WANDB_DISABLED": "true"}, "WANDB_DISABLED is set"),
    ],
)
def test_environment_that_cannot_send_is_refused(
    run: Any,
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    words: str,
) -> None:
    finish(run)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert push(run.directory.path) == 2
    assert words in capsys.readouterr().err
    assert server.requests == []


def test_wrong_directory_is_refused(tmp_path: Path, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(tmp_path / "home") == 2
    assert "holds no run" in capsys.readouterr().err


def test_missing_wandb_is_told(run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert push(run.directory.path) == 2
    assert "pip install wandb" in capsys.readouterr().err


def test_robustness_levels_are_a_table(outcome: Any) -> None:
    from dataclasses import replace

    from lurefs.runs.outcomes import RobustnessScores

    scores = RobustnessScores(n_images=9, corruptions={"fog": {"1": 0.5}}, attacks={"pgd": {"0.0314": 0.125}})
    assert rows.robustness_rows([outcome(0), replace(outcome(1), robustness=scores)]) == [
        [1, "corruption", "fog", 1.0, 0.5],
        [1, "attack", "pgd", 0.0314, 0.125],
    ]


def test_folder_of_a_group_is_its_runs_and_their_comparison(run: Any, tmp_path: Path) -> None:
    finish(run)
    folder = run.directory.path.parent
    (folder / "comparison.json").write_text('{"runs": []}')
    assert [(parcel.path, parcel.directory is None) for parcel in push_command.find_parcels([str(folder)])] == [
        (run.directory.path, False),
        (folder, True),
    ]
