"""Probes that fit the features of the check before a run, and not those of the run: what is said, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from episodes import scoring
from lurefs.cli import main
from lurefs.config.schema import RunConfig
from lurefs.learning import learner
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory

MakeConfig = Callable[..., RunConfig]
BENCHMARK = "novel-3way-1shot"
PICKY = """
from sklearn.neighbors import NearestCentroid

class Picky(NearestCentroid):
    "Refuses features that are nowhere below zero, as those of a network with rectified units are."

    def fit(self, X, y):
        if (X >= 0).all():
            raise ValueError("Input X is nowhere negative.\\nLonger words on that.")
        return super().fit(X, y)
"""


@pytest.fixture
def refused(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run the small config with some changes, which must be a user error; return what is said."""
    (tmp_path / "picky.py").write_text(PICKY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LUREFS_ALLOW_CODE", "1")

    def run(**changes: Any) -> str:
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(to_mapping(make_config(**changes))))
        with pytest.raises(SystemExit) as caught:
            main(["run", "--config", str(tmp_path / "small.yaml"), "--run-dir", str(tmp_path / "run")])
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error and "expected:" in error and "to fix:" in error
        return error

    return run


def finish(make_config: MakeConfig, tmp_path: Path, **changes: Any) -> RunDirectory:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(to_mapping(make_config(**changes))))
    main(["run", "--config", str(tmp_path / "small.yaml"), "--run-dir", str(tmp_path / "run")])
    return RunDirectory(tmp_path / "run")


def picky(**more: Any) -> dict[str, Any]:
    return {"p": {"name": "picky:Picky", "transform": "none"}, **more}


def test_a_probe_that_fails_after_a_chunk_costs_no_chunk(
    refused: Callable[..., str], make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refused(probes=picky())
    assert f"probe 'p' on benchmark '{BENCHMARK}', after chunk 1: p cannot be fitted on episode 0" in error
    assert "Input X is nowhere negative." in error and "change probes.p" in error
    directory = RunDirectory(tmp_path / "run")
    assert [outcome.few_shot for outcome in directory.read_outcomes()] == [{}]
    trained: list[tuple[int, int]] = []
    original = learner._train_epoch
    monkeypatch.setattr(learner, "_train_epoch", lambda *args: trained.append(args[2:]) or original(*args))
    finish(make_config, tmp_path, probes={"q": {"name": "nearest_centroid"}})
    assert [chunk for chunk, _ in trained] == [1, 1, 2, 2]
    assert [set(outcome.few_shot) for outcome in directory.read_outcomes()] == [{BENCHMARK}] * 3


def test_a_probe_that_fails_in_the_evaluation_costs_no_result_of_another(
    refused: Callable[..., str], make_config: MakeConfig, tmp_path: Path
) -> None:
    first = {"a": {"name": "nearest_centroid"}}
    error = refused(probes={**first, **picky()}, after_chunk={"few_shot": False}, chunks={"n_chunks": 1})
    assert f"probe 'p' on benchmark '{BENCHMARK}': p cannot be fitted on episode 0" in error
    path = tmp_path / "run" / "episodes" / f"{BENCHMARK}--a.parquet"
    before = path.stat().st_mtime_ns
    directory = finish(make_config, tmp_path, probes=first, after_chunk={"few_shot": False}, chunks={"n_chunks": 1})
    assert path.stat().st_mtime_ns == before
    assert list(directory.read_summary().benchmarks[BENCHMARK].probes) == ["a"]


def test_a_probe_that_fails_on_a_control_is_refused_with_the_control_s_name(refused: Callable[..., str]) -> None:
    signed = {"name": "test_vit", "image_size": 32}  # its features end with a layer norm
    error = refused(probes=picky(), backbone=signed, chunks={"n_chunks": 1}, controls=True)
    assert f"probe 'p' on benchmark '{BENCHMARK}', control 'image_statistics': p cannot be fitted" in error
    assert "controls=false" in error


def test_a_solver_that_is_wrong_is_told_with_a_way_out(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lurefs.stages.checks.score", lambda *args: [])  # else the check before the run finds it
    monkeypatch.setattr(scoring, "AUDIT_TOLERANCE", -1.0)
    error = refused(after_chunk={"few_shot": False}, chunks={"n_chunks": 1})
    assert f"probe 'logistic_regression' on benchmark '{BENCHMARK}': logistic_regression, episode" in error
    assert "differs from scikit-learn" in error and "set probes.logistic_regression.solver=sklearn" in error


def test_a_cluster_that_does_not_answer_is_told_with_a_way_out(refused: Callable[..., str]) -> None:
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        executor = {"name": "dask", "params": {"address": "tcp://127.0.0.1:1"}}
        error = refused(executor=executor, after_chunk={"few_shot": False}, chunks={"n_chunks": 1})
    assert "the executor cannot be used" in error and "executor.name=serial" in error


def test_transfers_that_fail_are_refused_by_their_name(refused: Callable[..., str]) -> None:
    transfer = {"curve": {"sizes": [2], "n_repeats": 1, "grid": {}, "probe": picky()["p"]}}
    error = refused(transfer=transfer, after_chunk={"few_shot": False}, chunks={"n_chunks": 1})
    assert "the probe of transfer 'curve' cannot be fitted" in error and "change transfer.curve.probe" in error
