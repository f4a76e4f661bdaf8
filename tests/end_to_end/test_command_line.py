"""The command as a person uses it: what it prints, what it refuses, and how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lurefs.cli import main
from lurefs.runs.directory import RunDirectory

HEAVY = "torch, timm, learn2learn, wandb, matplotlib"


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail as a user error; return what it says."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def assert_three_parts(error: str, *words: str) -> None:
    assert error.startswith("error: ") or "error: " in error
    assert "expected:" in error
    assert "to fix:" in error
    for word in words:
        assert word in error


ANSWER = f"""
import sys
from lurefs.cli import main
for line in sys.stdin.read().splitlines():
    try:
        main(line.split())
    except SystemExit as error:
        assert error.code in (0, 2), (line, error.code)
    heavy = [name for name in "{HEAVY}".split(", ") if name in sys.modules]
    assert not heavy, (line, heavy)
"""
LIGHT = """\
--help
--version
run --help
compare --help
compare nowhere
sweep --config quickstart
sweep --config compare_backbones learner.epoch=3
list datasets
list probes log
list unlearn
list settings
list recipes
list corruptions
run --config nothing
run --config quickstart learner.epoch=3
run --config quickstart unlearn.params.keep_ratio=3
run --config quickstart benchmarks.novel-5way-1shot.n_way=1000
run --config quickstart chunks.n_chunks=100000
"""


def test_light_answers_load_no_heavy_library(tmp_path: Path) -> None:
    """One process gives them all, and names the first one that loads a library."""
    command = [sys.executable, "-c", ANSWER]
    done = subprocess.run(command, cwd=tmp_path, input=LIGHT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    program = "from lurefs.cli import main; main(['list', 'datasets'])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_lists_hold_every_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "datasets"])
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    assert names[:5] == ["icons", "glyphs", "digits", "folder", "npz"]
    assert {"table", "archive", "webdataset", "arrow", "idx", "fashion_mnist"} <= set(names)
    assert all(len(line.split()) > 3 for line in lines)
    main(["list", "backbones", "test_resn"])
    assert "test_resnet" in capsys.readouterr().out.split()


def test_a_run_prints_its_table_and_paths_and_a_second_one_finds_them(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--config", str(config_file), "--run-dir", str(tmp_path / "run"), "learner.epochs=1"]
    main(arguments)
    first = capsys.readouterr().out
    main(arguments)
    assert capsys.readouterr() == (first, "finished, nothing to do\n")
    assert "novel-3way-1shot" in first
    assert str(tmp_path / "run" / "report.html") in first
    main(["evaluate", "--run-dir", str(tmp_path / "run")])
    assert "novel-3way-1shot" in capsys.readouterr().out


def test_a_finished_run_loads_no_heavy_library_and_runs_what_it_is_asked_for_in_addition(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--config", str(config_file), "--run-dir", str(tmp_path / "run"), "learner.epochs=1"]
    main(arguments)
    page = (tmp_path / "run" / "report.html").stat().st_mtime_ns
    program = (
        f"import sys\nfrom lurefs.cli import main\nmain({arguments!r})\n"
        f"heavy = [name for name in '{HEAVY}'.split(', ') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert (tmp_path / "run" / "report.html").stat().st_mtime_ns == page
    capsys.readouterr()
    main([*arguments, "--dry-run"])
    assert capsys.readouterr().out == f"finished, nothing to do; see {tmp_path / 'run'}\n"
    main([*arguments, "controls=true"])
    assert "nothing to do" not in capsys.readouterr().err
    assert (tmp_path / "run" / "controls" / "untrained_twin").is_dir()
    assert (tmp_path / "run" / "report.html").stat().st_mtime_ns > page


def test_variants_become_runs_with_one_page(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = config_file.read_text().replace("name: small\n", "name: pair\n")
    config_file.write_text(text + "variants:\n  lure: {}\n  warm: {unlearn: {name: nothing}}\n")
    main(["run", "--config", str(config_file), "--run-dir", str(tmp_path / "pair")])
    assert (tmp_path / "pair" / "report.html").exists()
    lure, warm = (RunDirectory(tmp_path / "pair" / name) for name in ("lure", "warm"))
    assert lure.read_manifest("novel-3way-1shot").hash == warm.read_manifest("novel-3way-1shot").hash
    one, other = lure.read_outcomes()[0], warm.read_outcomes()[0]
    assert (one.val_accuracy, one.test_nll, one.few_shot) == (other.val_accuracy, other.test_nll, other.few_shot)
    capsys.readouterr()
    main(["report", str(tmp_path / "pair"), "--output", str(tmp_path / "elsewhere")])
    assert (tmp_path / "elsewhere" / "report.html").exists()


def test_a_dry_run_says_what_would_happen_and_writes_nothing(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", "--config", str(config_file), "--run-dir", str(tmp_path / "run"), "--dry-run"])
    assert "4 base, 0 validation and 4 novel classes" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_an_unknown_model_is_refused_before_anything_is_written(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--config", str(config_file), "--run-dir", str(tmp_path / "run"), "backbone.name=resnet81"]
    assert_three_parts(refused(arguments, capsys), "unknown timm model 'resnet81'", "did you mean 'resnet")
    assert not (tmp_path / "run").exists()


def test_wrong_settings_are_refused(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for override, words in (
        ("lerner.epochs=3", "did you mean 'learner'?"),
        ("benchmarks.novel-3way-1shot.n_way=1000", "n_way is 1000, but npz has 4 novel classes"),
        ("chunks.n_chunks=0", "a number of at least 1"),
        ("device=gpu", "set device=auto"),
    ):
        assert_three_parts(refused(["run", "--config", str(config_file), override], capsys), words)
    assert_three_parts(refused(["run", "--config", "absent.yaml"], capsys), "there is no config 'absent.yaml'")
    assert_three_parts(refused(["run"], capsys), "neither --config nor --run-dir")
    assert_three_parts(refused(["report", "nowhere"], capsys), "nowhere is no directory, and no run below runs has")


def test_a_folder_for_named_runs_needs_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, run = str(tmp_path / "root"), str(tmp_path / "run")
    assert_three_parts(refused(["run", "--run-root", root], capsys), "--run-root is given without --config")
    both = ["run", "--run-root", root, "--run-dir", run]
    assert_three_parts(refused(both, capsys), "--run-dir and --run-root are both given")
    assert not list(tmp_path.iterdir())


def test_a_dry_run_names_the_parts_that_learn_less_and_what_is_mixed_or_averaged(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["learner.freeze=1", "learner.ema_decay=0.99", "learner.augment.mixup=0.2", "learner.augment.cutmix=1.0"]
    settings += ["learner.optimizer={name: adamw, params: {layer_decay: 0.7}}"]
    main(["run", "--config", str(config_file), "--dry-run"])
    assert "frozen:" not in capsys.readouterr().out
    main(["run", "--config", str(config_file), "--dry-run", *settings])
    assert (
        "            frozen: timm's first stage; layer decay 0.7; mixup 0.2; CutMix 1.0; "
        "the weights' moving average (decay 0.99) is kept\n"
    ) in capsys.readouterr().out
    main(["run", "--config", str(config_file), "--dry-run", "learner.freeze=[stem, stages.0]"])
    assert "            frozen: stem, stages.0\n" in capsys.readouterr().out


def test_folders_without_images_or_with_a_damaged_one_are_refused(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    arguments = ["run", "--config", str(config_file), "--run-dir", str(tmp_path / "run"), "dataset.name=folder"]
    arguments.append(f"dataset.params={{path: {photos}, image_size: 32}}")
    assert_three_parts(refused(arguments, capsys), "photos", "sub-folder")
    rng = np.random.default_rng(0)
    for label in range(8):
        (photos / f"class-{label}").mkdir()
        for number in range(12):
            pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(photos / f"class-{label}" / f"{number}.png")
            (photos / f"class-{label}" / "text.png").write_text("no image")
    assert_three_parts(refused(arguments, capsys), "text.png")


def test_an_unwritable_place_is_refused(config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    arguments = ["run", "--config", str(config_file), "--run-dir", str(tmp_path / "file" / "run")]
    assert_three_parts(refused(arguments, capsys), "cannot be written", "--run-dir")


def test_a_truncated_checkpoint_is_refused(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pretrain", "--config", str(config_file), "--run-dir", str(tmp_path / "run")]
    main(arguments)
    path = RunDirectory(tmp_path / "run").checkpoint_path(2)
    path.write_bytes(path.read_bytes()[:500])
    assert_three_parts(refused(arguments, capsys), "chunk-002.safetensors is damaged", "delete")


def test_the_summary_is_plain_json_of_fractions(config_file: Path, tmp_path: Path) -> None:
    main(["run", "--config", str(config_file), "--run-dir", str(tmp_path / "run")])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary) == ["version", "run", "pretrain", "benchmarks"]
    cell = summary["benchmarks"]["novel-3way-1shot"]["probes"]["logistic_regression"]
    assert 0 <= cell["accuracy"]["mean"] <= 1
    assert {"mean", "n", "ci95_episodes", "ci95_classes"} <= set(cell["accuracy"])
    assert {"strategy", "n_chunks", "test_accuracy", "anytime_accuracy", "cumulative_errors"} <= set(
        summary["pretrain"]
    )
