from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lurefs.cli import main
from lurefs.config.load import to_yaml
from lurefs.config.schema import RunConfig
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.stages.plan import Plan
from lurefs.sweeps import cells
from lurefs.sweeps.grid import cells_of, read_grid
from lurefs.sweeps.workers import Failure


@pytest.fixture
def grid_file(make_config: Callable[..., RunConfig], tmp_path: Path) -> Path:
    """Two cells of a run of a second."""
    recipe = tmp_path / "small.yaml"
    learner = {"epochs": 1, "batch_size": 16}
    recipe.write_text(yaml.safe_dump(to_mapping(make_config(learner=learner, chunks={"n_chunks": 2}))))
    command = ["lurefs", "run", "--config", str(recipe), "--run-root", str(tmp_path / "runs"), "${args_no_hyphens}"]
    path = tmp_path / "grid.yaml"
    plain = {"program": "lurefs", "method": "grid", "command": command, "parameters": {"seed": {"values": [0, 1]}}}
    path.write_text(yaml.safe_dump(plain))
    return path


def plans_of(grid_file: Path, *overrides: str) -> dict[str, Plan]:
    return cells.plan_runs(cells_of(read_grid(str(grid_file), overrides)))


def times(root: Path) -> dict[Path, int]:
    kinds = ("*/checkpoints/*", "*/episodes/*", "*/chunks.jsonl", "*/summary.json")
    return {path: path.stat().st_mtime_ns for kind in kinds for path in root.glob(kind)}


def test_cells_are_run_once_a_failing_one_loses_no_other_and_all_lead_to_one_report(
    grid_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs"
    with RunDirectory(root / "seed-0").locked(), pytest.raises(SystemExit) as caught:
        main(["sweep", "--config", str(grid_file)])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert "2 runs, 0 of them finished" in err
    assert "1/2  seed-0: failed: another process is working in" in err
    assert f"failed: seed-0\nanother process is working in {root / 'seed-0'}" in err
    assert f"another process is working in {root / 'seed-0'}" in RunDirectory(root / "seed-0").log_path.read_text()
    assert "seed-1" in out and "seed-0" not in out
    before = times(root)
    assert len(before) > 5
    assert not list(root.glob("*/report.html"))  # all cells have one page

    main(["run", "--config", str(tmp_path / "small.yaml"), "--run-root", str(root), "seed=0"])
    capsys.readouterr()
    main(["sweep", "--config", str(grid_file), "--dry-run"])
    assert capsys.readouterr().out.startswith("finished  seed-0\nfinished  seed-1\nfinished, nothing to do")
    main(["sweep", "--config", str(grid_file), "--workers", "2"])
    out, err = capsys.readouterr()
    assert "2 runs, 2 of them finished\nfinished, nothing to do\n" in err
    assert "by_saliency (2 seeds)" in out  # one row: two seeds are no two procedures
    assert f"report     {root / 'report.html'}" in out
    page = (root / "report.html").read_text()
    assert "seed-0" in page and "seed-1" in page
    assert {path: time for path, time in times(root).items() if path in before} == before


def test_a_grid_is_named_with_and_without_the_option(
    grid_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for named in (["--config", str(grid_file)], [str(grid_file)]):
        main(["sweep", *named, "--run-dir", str(tmp_path / "other"), "--dry-run", "seed=[2,3]"])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "seed-3" in said[0] and said[0].endswith(f"results would go to {tmp_path / 'other'}\n")
    for words, error in (
        ([], "no grid is named"),
        (["--config", "smoke", str(grid_file)], f"{str(grid_file)!r} is no setting"),
        (["nowhere.yaml"], "there is no config 'nowhere.yaml'"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["sweep", *words, "--dry-run"])
        assert caught.value.code == 2 and error in capsys.readouterr().err


def test_nothing_runs_if_a_cell_is_wrong(grid_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for override, words in (
        ("parameters.backbone.name.values=[test_byobnet, resnet81]", "run resnet81--seed-0: unknown timm model"),
        ("parameters.chunks.n_chunks.values=[2, 100000]", "run chunks.n_chunks-100000--seed-0: "),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["sweep", "--config", str(grid_file), "--dry-run", "seed=0", override])
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert words in error and "expected:" in error and "to fix:" in error
    assert not (tmp_path / "runs").exists()


def test_a_cell_is_finished_when_all_of_it_is_and_that_is_found_without_heavy_libraries(
    grid_file: Path, tmp_path: Path
) -> None:
    ((name, plan),) = plans_of(grid_file, "seed=0").items()
    directory = RunDirectory(tmp_path / "runs" / name)
    assert not cells.is_finished(plan, directory)
    cells.run_one(plan.config, directory, "run")
    assert cells.is_finished(plan, directory)
    arguments = ["sweep", "--config", str(grid_file), "seed=0"]
    main(arguments)  # writes the page
    program = (
        f"import sys\nfrom lurefs.cli import main\nmain({arguments!r})\n"
        "assert not {'torch', 'timm', 'learn2learn', 'wandb', 'matplotlib'} & set(sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "finished, nothing to do\n")

    ((_, with_controls),) = plans_of(grid_file, "seed=0", "controls=true").items()
    assert with_controls.config.name == name
    assert not cells.is_finished(with_controls, directory)
    identity = directory.identity_path.read_text()
    directory.identity_path.write_text(identity.replace('"source": "npz"', '"source": "other"'))
    assert not cells.is_finished(plan, directory)
    directory.identity_path.write_text(identity)
    assert cells.is_finished(plan, directory)


def test_a_cell_whose_results_are_gone_is_done_again(
    grid_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = "{name: logistic_regression, params: {max_iter: 50}}"
    overrides = [f"transfer.all={{sizes: [2], n_repeats: 2, probe: {probe}}}", "controls=true", "seed=0"]
    ((name, plan),) = plans_of(grid_file, *overrides).items()
    directory = RunDirectory(tmp_path / "runs" / name)
    cells.run_one(plan.config, directory, "run")
    outcomes = directory.read_outcomes()
    assert cells.is_finished(plan, directory)
    directory.write_outcomes(outcomes[:1])
    assert not cells.is_finished(plan, directory)
    directory.write_outcomes(outcomes)
    gone = [
        "identity.json",
        "checkpoints/chunk-001.safetensors",
        "checkpoints/chunk-001.json",
        "manifests/novel-3way-1shot.parquet",
        "episodes/novel-3way-1shot--logistic_regression.parquet",
        "controls/untrained_twin/novel-3way-1shot--logistic_regression.parquet",
        "transfer/all.parquet",
        "summary.json",
        "chunks.jsonl",
    ]
    for path in gone:
        content = (directory.path / path).read_bytes()
        (directory.path / path).unlink()
        assert not cells.is_finished(plan, directory), path
        (directory.path / path).write_bytes(content)
        assert cells.is_finished(plan, directory)
    for path in gone:
        (directory.path / path).unlink()
    main(["sweep", "--config", str(grid_file), *overrides])
    assert all((directory.path / path).is_file() for path in gone)
    assert directory.read_outcomes()[1].val_accuracy == outcomes[1].val_accuracy
    capsys.readouterr()
    main(["sweep", "--config", str(grid_file), *overrides, "--dry-run"])
    assert capsys.readouterr().out.startswith("finished, nothing to do")


def test_a_cell_with_a_damaged_file_is_told_by_its_name(
    grid_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ((name, plan),) = plans_of(grid_file, "seed=0").items()
    directory = RunDirectory(tmp_path / "runs" / name)
    cells.run_one(plan.config, directory, "run")
    path = directory.identity_path
    path.write_bytes(path.read_bytes()[:100])
    for extra in ([], ["--dry-run"]):
        with pytest.raises(SystemExit) as caught:
            main(["sweep", "--config", str(grid_file), "seed=0", *extra])
        assert caught.value.code == 2
        assert f"{path} is damaged" in capsys.readouterr().err


def test_a_damaged_configuration_of_a_finished_cell_is_written_again(
    grid_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ((name, plan),) = plans_of(grid_file, "seed=0").items()
    directory = RunDirectory(tmp_path / "runs" / name)
    cells.run_one(plan.config, directory, "run")
    content, weights = directory.config_path.read_bytes(), directory.checkpoint_path(1).stat().st_mtime_ns
    for damaged in (content[:200], content.replace(b"n_query: 5", b"n_query: 4")):
        assert damaged != content
        directory.config_path.write_bytes(damaged)
        main(["sweep", "--config", str(grid_file), "seed=0"])
        assert directory.config_path.read_bytes() == content
    assert directory.checkpoint_path(1).stat().st_mtime_ns == weights
    directory.config_path.write_bytes(damaged)
    capsys.readouterr()
    main(["compare", str(directory.path), "--output", str(tmp_path / "compared")])
    words = f"{name}: config.yaml states other settings than those of these results"
    assert words in " ".join(capsys.readouterr().out.split())
    assert words in (tmp_path / "compared" / "report.html").read_text(encoding="utf-8")
    main(["run", "--run-dir", str(directory.path)])
    main(["compare", str(directory.path), "--output", str(tmp_path / "compared")])
    assert "other settings" not in capsys.readouterr().out
    assert directory.read_manifest("novel-3way-1shot").spec.n_query == 4


def test_a_cell_keeps_what_it_said_and_why_it_failed(
    grid_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ((name, plan),) = plans_of(grid_file, "seed=0").items()
    directory = RunDirectory(tmp_path / "runs" / name)
    log = directory.log_path

    def fail(*_: object, **__: object) -> None:
        os.write(2, b"said by a library\n")
        raise ZeroDivisionError("no reason")

    monkeypatch.setattr("lurefs.stages.run.run_stage", fail)
    with pytest.raises(ZeroDivisionError):
        cells.run_one(plan.config, directory, "run")
    os.write(2, b"said later\n")
    assert capfd.readouterr().err == "said later\n"
    assert log.read_text().startswith("said by a library\nTraceback")
    assert log.read_text().endswith("ZeroDivisionError: no reason\n")


def test_the_exit_code_says_whether_a_user_can_put_it_right() -> None:
    user, other = Failure(reason="a", is_user_error=True), Failure(reason="b")
    assert cells.exit_code({}) == 0
    assert cells.exit_code({"a": user}) == 2
    assert cells.exit_code({"a": user, "b": other}) == 1


IDLE = """
import torch
from lurefs.learning.unlearn.contract import parameters_of, reset

def almost_nothing():
    def change(model, twin, images, generator):
        name, first = next((name, value) for name, value in parameters_of(model).items() if value.ndim == 4)
        chosen = torch.zeros_like(first, dtype=torch.bool)
        chosen.view(-1)[0] = True
        return reset(model, {name: first + 1e-6}, {name: chosen})
    return change
"""


def test_pretrain_alone_says_that_resets_changed_no_prediction(
    make_config: Callable[..., RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "idle_strategy.py").write_text(IDLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LUREFS_ALLOW_CODE", "1")
    config = make_config(unlearn={"name": "idle_strategy:almost_nothing"}, after_chunk={"few_shot": False})
    (tmp_path / "small.yaml").write_text(to_yaml(config))
    main(["pretrain", "--config", str(tmp_path / "small.yaml"), "--run-dir", str(tmp_path / "run")])
    assert "small: unlearning changed no prediction: this run is a warm start in effect" in capsys.readouterr().err
