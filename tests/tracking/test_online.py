from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from lurefs.errors import UserError
from lurefs.tracking import client, rows

COST = {"n_macs": 4_000_000, "images_per_second": 500.0, "device": "cpu", "n_threads": 1}
BENCHMARK, PROBE, PLAIN_PROBE = "novel-5way-1shot", "logistic_regression", "ridge"


def served(server: Any, part: str) -> Any:
    (run,) = (run for run_id, run in server.runs.items() if run_id.endswith(part))
    return run


def assert_server_equals_directory(server: Any, run: Any) -> None:
    """Check that the server holds the run's records, each once, and met no request that it does not know."""
    outcomes, summary = run.directory.read_outcomes(), run.directory.read_summary()
    assert server.unknown == []
    assert len(server.runs) == 4
    pretrain = served(server, "pretrain")
    assert [run.sent(row) for row in pretrain.history] == rows.chunk_rows(outcomes)
    assert rows.pretrain_summary(outcomes).items() <= pretrain.summary.items()
    for probe in (PROBE, PLAIN_PROBE):
        table, cell = run.directory.read_episodes(BENCHMARK, probe), served(server, f"{BENCHMARK}--{probe}")
        assert [run.sent(row) for row in cell.history] == rows.running_accuracy(table)
        assert rows.cell_summary(summary, BENCHMARK, probe, outcomes, COST).items() <= cell.summary.items()
        (artifact,) = (artifact for artifact in server.artifacts if cell.id in artifact.name)
        assert artifact.committed
        assert json.loads(artifact.files["episodes.table.json"])["data"] == rows.episode_rows(table)
    assert {run.exit_code for run in server.runs.values()} == {0}


def test_what_arrives_equals_the_run_directory(run: Any, server: Any, capfd: pytest.CaptureFixture[str]) -> None:
    tracker = run.go()
    assert tracker.note == "W&B: online (key found); project lurefs"
    assert_server_equals_directory(server, run)
    cell = served(server, PROBE)
    assert cell.attributes["groupName"] == "0123456789ab-novel-5way-1shot"
    assert cell.attributes["jobType"] == "evaluate"
    assert cell.user_config["probe"] == PROBE
    assert cell.project == "lurefs"
    assert capfd.readouterr() == ("", "")


def test_rerun_of_a_finished_run_doubles_nothing(run: Any, server: Any) -> None:
    run.go()
    run.go()
    assert_server_equals_directory(server, run)
    assert len(run.wandb_ids()) == len(set(run.wandb_ids()))


def test_online_run_leaves_nothing_elsewhere(run: Any, server: Any) -> None:
    run.go()
    assert run.files_elsewhere() == []
    assert not (run.directory.path / "wandb" / "artifacts").exists()


@pytest.mark.parametrize("seconds_before", [0, 1.5])
def test_killed_run_sends_only_what_is_missing(run: Any, server: Any, seconds_before: float) -> None:
    run.be_killed_after_two_chunks(waiting=seconds_before)
    run.go()
    assert_server_equals_directory(server, run)


def test_finished_offline_run_can_be_sent_later(run: Any, server: Any) -> None:
    run.with_wandb(mode="offline").go()
    assert server.requests == []
    run.go()
    assert_server_equals_directory(server, run)
    assert not any(path.name.startswith("offline") for path in (run.directory.path / "wandb").iterdir())


def test_short_failures_of_the_server_lose_nothing(run: Any, server: Any) -> None:
    server.fail("UpsertBucket", 503, times=1)
    server.fail("file_stream", 503, times=2)
    server.fail("CommitArtifact", 503, times=1)
    run.go()
    assert_server_equals_directory(server, run)


def test_refused_key_goes_on_offline(run: Any, server: Any) -> None:
    server.fail("", 401)
    tracker = run.go()
    assert tracker.note.startswith("W&B: offline (CommError")
    assert [row["chunk_index"] for row in run.read_log("pretrain").history] == [0, 1, 2]
    assert len(set(run.wandb_ids())) == len(run.wandb_ids()) == 4


def test_malformed_key_goes_on_offline(run: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert run.go().note.startswith("W&B: offline")
    assert run.read_log(PROBE).exit_code == 0


def test_strict_run_is_refused_where_the_key_is(run: Any, server: Any) -> None:
    server.fail("", 401)
    with pytest.raises(UserError, match=r"401(.|\n)*strict(.|\n)*wandb login"):
        run.with_wandb(strict=True).start()


def test_missing_server_costs_bounded_time(run: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "START_SECONDS", 1.0)
    server.is_away = True
    start = time.monotonic()
    tracker = run.go()
    assert time.monotonic() - start < 15
    assert tracker.note.startswith("W&B: offline")
    assert run.read_log("pretrain").exit_code == 0


def say_500(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.fail("", 500)


def show_a_page(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.page = b"<!doctype html><title>Log in to this network</title>"


def be_slow(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.delay = 60.0


def refuse_connections(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


@pytest.mark.parametrize("be_faulty", [say_500, show_a_page, be_slow, refuse_connections])
def test_faulty_server_costs_bounded_time_and_the_note_says_how_to_send(
    run: Any, server: Any, monkeypatch: pytest.MonkeyPatch, be_faulty: Callable[[Any, pytest.MonkeyPatch], None]
) -> None:
    monkeypatch.setattr(client, "START_SECONDS", 1.0)
    be_faulty(server, monkeypatch)
    start = time.monotonic()
    tracker = run.go()
    assert time.monotonic() - start < 20
    assert tracker.note.startswith("W&B: offline (")
    assert f"'lurefs push {run.directory.path}' completes it" in tracker.note
    assert run.read_log(PROBE).exit_code == 0


@pytest.mark.parametrize("be_faulty", [say_500, show_a_page, be_slow])
def test_faults_within_a_run_are_told_and_a_rerun_completes_it(
    run: Any,
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    be_faulty: Callable[[Any, pytest.MonkeyPatch], None],
) -> None:
    monkeypatch.setattr(client, "START_SECONDS", 1.0)
    monkeypatch.setattr(client, "FINISH_SECONDS", 1.0)
    tracker = run.start()
    run.learn(tracker, until=1)
    be_faulty(server, monkeypatch)
    start = time.monotonic()
    run.learn(tracker)
    run.evaluate()
    tracker.log_cell(BENCHMARK, PROBE)
    tracker.close()
    assert time.monotonic() - start < 20
    assert f"'lurefs push {run.directory.path}' completes it" in caplog.text
    assert run.read_log(PROBE).exit_code == 0
    server.work_again()
    monkeypatch.setattr(client, "START_SECONDS", 20.0)
    monkeypatch.setattr(client, "FINISH_SECONDS", 60.0)
    run.go()
    assert_server_equals_directory(server, run)


def test_outage_within_a_run_costs_no_result_and_a_rerun_completes_it(
    run: Any, server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "FINISH_SECONDS", 1.0)
    tracker = run.start()
    run.learn(tracker, until=1)
    server.is_away = True
    run.learn(tracker)
    tracker.finish_pretrain()
    run.evaluate()
    tracker.log_cell(BENCHMARK, PROBE)
    tracker.close()
    assert f"'lurefs push {run.directory.path}' completes it" in caplog.text
    assert run.read_log(PROBE).exit_code == 0
    server.is_away = False
    run.go()
    assert_server_equals_directory(server, run)


def test_upload_that_the_server_refuses_is_told(run: Any, server: Any, caplog: pytest.LogCaptureFixture) -> None:
    server.fail("file_stream", 401)
    tracker = run.start()
    run.learn(tracker)
    tracker.finish_pretrain()
    tracker.close()
    assert f"arrived incomplete, 'lurefs push {run.directory.path}' completes it" in caplog.text


def test_other_directory_with_the_same_configuration_is_told(
    run: Any, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run.go()
    run.directory.chunks_path.unlink()
    run.start().close()
    assert "already has 3 chunks" in caplog.text
