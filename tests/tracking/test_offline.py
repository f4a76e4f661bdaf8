from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lurefs.config.schema import TrackersConfig
from lurefs.runs.outcomes import ChunkOutcome
from lurefs.tracking import rows
from lurefs.tracking.labels import fitting
from made_up_runs import accuracy, change_probe

COST = {"n_macs": 4_000_000, "images_per_second": 500.0, "device": "cpu", "n_threads": 1}
BENCHMARK, PROBE, PLAIN_PROBE = "novel-5way-1shot", "logistic_regression", "ridge"


def refuse(**arguments: object) -> None:
    raise OSError("no space left on device")


def contents(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_offline_log_of_pretraining_equals_the_run_directory(run: Any) -> None:
    run.go()
    log, outcomes = run.read_log("pretrain"), run.directory.read_outcomes()
    assert [run.sent(row) for row in log.history] == rows.chunk_rows(outcomes)
    assert rows.pretrain_summary(outcomes).items() <= log.summary.items()
    assert log.exit_code == 0
    assert log.attributes["job_type"] == "pretrain"
    assert log.step_metrics["*"] == "chunk_index"
    assert log.config["backbone_params_m"] == 0.25
    assert log.config["version_lurefs"] == "0.1.0"


def test_offline_log_of_a_cell_equals_the_run_directory(run: Any) -> None:
    run.go()
    log, table = run.read_log(f"{BENCHMARK}--{PROBE}"), run.directory.read_episodes(BENCHMARK, PROBE)
    summary, outcomes = run.directory.read_summary(), run.directory.read_outcomes()
    assert [run.sent(row) for row in log.history] == rows.running_accuracy(table)
    assert rows.cell_summary(summary, BENCHMARK, PROBE, outcomes, COST).items() <= log.summary.items()
    assert log.attributes["group"] == "0123456789ab-novel-5way-1shot"
    assert log.config["n_episodes"] == 250
    assert log.artifacts == [("run_table", f"run-{log.attributes['id']}-episodes")]
    (stored,) = run.directory.path.glob(f"wandb/*{PROBE}/{'files/' + log.summary['episodes']['path']}")
    assert json.loads(stored.read_text())["data"] == rows.episode_rows(table)


def test_probe_without_probabilities_has_no_such_figures(run: Any) -> None:
    run.go()
    assert not {"nll", "brier", "ece"} & run.read_log(PLAIN_PROBE).summary.keys()


def test_report_is_sent_as_a_page(run: Any) -> None:
    run.go()
    page = run.read_log("report").summary["report"]
    (stored,) = run.directory.path.glob(f"wandb/*-report/files/{page['path']}")
    assert stored.read_text() == "<html>report</html>"


def test_rerun_of_a_finished_run_writes_nothing(run: Any) -> None:
    run.go()
    ids, before = run.wandb_ids(), contents(run.directory.path / "wandb" / "artifacts")
    folders = {path.name for path in (run.directory.path / "wandb").iterdir()}
    run.go()
    assert run.wandb_ids() == ids
    assert len(set(ids)) == 4
    assert {path.name for path in (run.directory.path / "wandb").iterdir()} == folders
    assert contents(run.directory.path / "wandb" / "artifacts") == before


def test_run_that_goes_on_replaces_its_shorter_copy(run: Any) -> None:
    tracker = run.start()
    run.learn(tracker, until=2)
    tracker.close()
    assert run.read_log("pretrain").exit_code == 1
    run.go()
    assert [row["chunk_index"] for row in run.read_log("pretrain").history] == [0, 1, 2]
    assert run.read_log("pretrain").exit_code == 0


def test_killed_run_loses_and_doubles_nothing(run: Any) -> None:
    run.be_killed_after_two_chunks(waiting=0.5)
    assert len(run.wandb_ids()) == 1
    run.go()
    assert [row["chunk_index"] for row in run.read_log("pretrain").history] == [0, 1, 2]


def test_deleted_copy_is_made_anew(run: Any) -> None:
    run.go()
    (folder,) = (run.directory.path / "wandb").glob(f"*{PROBE}")
    shutil.rmtree(folder)
    run.go()
    assert run.read_log(PROBE).exit_code == 0


def test_copy_that_is_being_replaced_does_not_count_as_complete(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    run.go()
    (folder,) = (run.directory.path / "wandb").glob(f"*{PROBE}")
    shutil.rmtree(folder)
    monkeypatch.setattr(wandb, "init", refuse)
    run.start().log_cell(BENCHMARK, PROBE)
    marker = json.loads((run.directory.path / "wandb" / "mirrored.json").read_text())
    assert len(marker) == 3
    assert not any(run_id.endswith(PROBE) for run_id in marker)


def test_changed_results_replace_their_copy(run: Any) -> None:
    run.go()
    change_probe(run.directory, BENCHMARK, PROBE, accuracy=accuracy(0.5))
    run.go()
    assert run.read_log(PROBE).summary["accuracy"] == 0.5


def test_chunks_completed_on_disk_before_the_first_log_are_sent_whole(run: Any, outcome: Any) -> None:
    run.directory.write_outcomes([outcome(0)])
    tracker = run.start()
    run.directory.write_outcomes([outcome(0), outcome(1)])
    tracker.log_chunk(outcome(1))
    run.learn(tracker)
    tracker.finish_pretrain()
    tracker.close()
    assert [row["chunk_index"] for row in run.read_log("pretrain").history] == [0, 1, 2]


@pytest.mark.parametrize("variables", [{}, {"WANDB_MODE": ""}, {"WANDB_API_KEY": "", "WANDB_BASE_URL": ""}])
def test_nothing_is_written_changed_or_said_elsewhere(
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    variables: dict[str, str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    tracker = run.go()
    assert tracker.note == f"W&B: offline (no key found); files in {run.directory.path / 'wandb'}"
    assert run.read_log("pretrain").exit_code == 0
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name.startswith("lurefs")] == []
    assert run.files_elsewhere() == []
    assert not (run.directory.path / "wandb" / "cache").exists()


def test_close_is_safe_to_repeat(run: Any) -> None:
    tracker = run.go()
    tracker.close()
    tracker.close()


def test_failing_client_costs_no_result(
    run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    monkeypatch.setattr(wandb, "init", refuse)
    run.go()
    assert len(run.directory.read_outcomes()) == 3
    assert "no space left on device; the run goes on" in caplog.text


def test_outcome_on_disk_is_what_counts(run: Any, outcome: Any) -> None:
    tracker = run.start()
    given: ChunkOutcome = outcome(0)
    run.directory.write_outcomes([given])
    tracker.log_chunk(given)
    tracker.log_chunk(given)
    run.learn(tracker)
    tracker.finish_pretrain()
    tracker.close()
    assert [row["chunk_index"] for row in run.read_log("pretrain").history] == [0, 1, 2]


@pytest.mark.parametrize("name", ["x" * 200, "漢字😀" * 20, "שלום עולם", "$5 & 50% _^{~} `@=1+1` [a](b)"])
def test_names_fit_into_the_limits_of_wandb(run: Any, name: str) -> None:
    config = replace(run.config, name=name, trackers=with_tags(run.config.trackers, name))
    type(run)(config=config, directory=run.directory).go()
    for log in (run.read_log("pretrain"), run.read_log(PROBE), run.read_log("report")):
        attributes = log.attributes
        assert all(len(attributes[kind]) <= 128 for kind in ("name", "group", "id"))
        assert attributes["name"].startswith(name[:100])
        assert {len(tag) <= 64 for tag in attributes["tags"]} == {True} and name[:64] in attributes["tags"]
        assert log.exit_code == 0 and log.config["run_name"] == name


def test_shortened_names_stay_different() -> None:
    one, other = (fitting("x" * 200 + end) for end in "ab")
    assert one != other and len(one) == len(other) == 128
    assert fitting("x" * 128) == "x" * 128


def with_tags(trackers: TrackersConfig, *tags: str) -> TrackersConfig:
    return replace(trackers, wandb=replace(trackers.wandb, tags=[*tags]))
