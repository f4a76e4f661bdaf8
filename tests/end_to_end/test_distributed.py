"""Several processes on a CPU, with a model without batch norm: torch cannot share its statistics there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lurefs.config.schema import RunConfig
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory
from processes import Lurefs


@pytest.fixture
def config_file(make_config: Callable[..., RunConfig], tmp_path: Path) -> Path:
    config = make_config(
        backbone={"name": "test_vit", "image_size": 32, "params": {"patch_size": 8}},
        learner={"epochs": 3, "batch_size": 15, "optimizer": {"name": "sgd", "params": {"lr": 0.02}}},
        benchmarks={"novel-3way-1shot": {"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 20}},
    )
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(to_mapping(config)))
    return path


def test_two_processes_learn_what_one_learns(
    config_file: Path, tmp_path: Path, start_all: Callable[..., list[Lurefs]]
) -> None:
    one, two = RunDirectory(tmp_path / "one"), RunDirectory(tmp_path / "two")
    for n_processes, directory in enumerate((one, two), start=1):
        commands = start_all(n_processes, "run", "--config", config_file, "--run-dir", directory.path)
        assert "".join(command.finish() for command in commands).count("results ") == 1
    for expected, found in zip(one.read_outcomes(), two.read_outcomes(), strict=True):
        assert found.n_images_seen == expected.n_images_seen
        assert found.train_loss == pytest.approx(expected.train_loss, rel=1e-3)
        assert found.test_nll == pytest.approx(expected.test_nll, rel=1e-3)
        assert found.val_accuracy == pytest.approx(expected.val_accuracy, abs=0.05)
        assert found.n_test_errors == pytest.approx(expected.n_test_errors, abs=1)
        if expected.unlearn is not None:
            assert found.unlearn is not None
            assert found.unlearn.n_reset == expected.unlearn.n_reset
            assert found.unlearn.reset_share == pytest.approx(expected.unlearn.reset_share, abs=0.01)
    figures = [
        directory.read_summary().benchmarks["novel-3way-1shot"].probes["logistic_regression"].accuracy
        for directory in (one, two)
    ]
    assert figures[1].mean == pytest.approx(figures[0].mean, abs=0.05)
    assert not list(two.path.rglob("*partial*"))


def test_two_processes_average_and_freeze_what_one_does(
    config_file: Path, tmp_path: Path, start_all: Callable[..., list[Lurefs]]
) -> None:
    """The weights that are kept: an average of all but the frozen first stage, which stays as it starts."""
    settings = ["learner.ema_decay=0.9", "learner.freeze=1", "unlearn.name=nothing"]
    found = []
    for n_processes in (1, 2):
        directory = RunDirectory(tmp_path / str(n_processes))
        command = ["pretrain", "--config", config_file, "--run-dir", directory.path, *settings]
        for process in start_all(n_processes, *command):
            process.finish()
        found.append([load_file(directory.checkpoint_path(index)) for index in range(3)])
    one, two = found
    for expected, weights in zip(one, two, strict=True):
        assert list(weights) == list(expected)
        for name, tensor in expected.items():
            assert torch.allclose(weights[name], tensor, rtol=1e-3, atol=1e-4), name
    first, last = one[0], one[-1]
    assert torch.equal(first["patch_embed.proj.weight"], last["patch_embed.proj.weight"])
    assert torch.equal(two[0]["patch_embed.proj.weight"], first["patch_embed.proj.weight"])
    assert not torch.allclose(first["head.weight"], last["head.weight"], rtol=1e-3, atol=1e-4)


MASKS = """
import sys
import timm
import torch
from lurefs import plugins
from lurefs.ranks import ranks_of
from lurefs.learning.unlearn.contract import ProbeImages

ranks = ranks_of()
torch.manual_seed(0)
model, twin = (timm.create_model("test_resnet", num_classes=5, in_chans=1) for _ in range(2))
images, labels = torch.randn(4, 32, 1, 32, 32), torch.randint(0, 5, (4, 32))


def draw(source, n_images):
    for batch, of_batch in zip(images, labels, strict=True):
        yield batch[ranks.part(32)], of_batch[ranks.part(32)]


for name in ("by_saliency", "dash", "redo"):
    strategy = plugins.build("unlearn", name, {"tau": 0.5} if name == "redo" else {})
    changes = strategy(model, twin, ProbeImages(draw=draw, ranks=ranks), torch.Generator().manual_seed(0))
    torch.save(dict(changes.masks), f"{sys.argv[1]}/{name}-{ranks.world_size}-{ranks.rank}.pt")
ranks.leave()
"""


def test_all_processes_mark_the_weights_that_one_marks(tmp_path: Path, start_all: Callable[..., list[Lurefs]]) -> None:
    """From the same weights and images, each process seeing its half of every batch."""
    script = tmp_path / "masks.py"
    script.write_text(MASKS)
    for n_processes in (1, 2):
        for process in start_all(n_processes, script, tmp_path):
            process.finish()
    for name in ("by_saliency", "dash", "redo"):
        expected, *found = (torch.load(tmp_path / f"{name}-{world}.pt") for world in ("1-0", "2-0", "2-1"))
        assert any(mask.any() for mask in expected.values())
        for masks in found:
            assert list(masks) == list(expected)
            for parameter, mask in masks.items():
                assert torch.equal(mask, expected[parameter])


def test_too_many_processes_for_a_batch_are_refused(
    config_file: Path, tmp_path: Path, start_all: Callable[..., list[Lurefs]]
) -> None:
    for process in start_all(2, "run", "--config", config_file, "--run-dir", tmp_path / "run", "learner.batch_size=3"):
        assert process.wait() != 0
        assert "the smallest training batch has 3 images for 2 processes" in process.output


def test_two_processes_write_the_features_that_one_writes(
    photos: Path, tmp_path: Path, start: Callable[..., Lurefs], environment: dict[str, str]
) -> None:
    """Started as a user does, by `torchrun`."""
    values = {
        "name": "frozen",
        "frozen": True,
        "device": "cpu",
        "dataset": {"name": "folder", "params": {"path": str(photos), "image_size": 32}},
        "backbone": {"name": "test_byobnet"},
        "learner": {"eval_batch_size": 10},
        "benchmarks": {"b": {"n_way": 3, "n_query": 5, "n_episodes": 10}},
        "trackers": {"wandb": {"mode": "disabled"}},
    }
    path = tmp_path / "frozen.yaml"
    path.write_text(yaml.safe_dump(values))
    start("run", "--config", path, "--run-dir", tmp_path / "1", LUREFS_CACHE=str(tmp_path / "cache-1")).finish()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command += ["lurefs", "run", "--config", str(path), "--run-dir", str(tmp_path / "2")]
    environment |= {"LUREFS_CACHE": str(tmp_path / "cache-2")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("results ") == 1
    found = []
    for n_processes in (1, 2):
        folder = tmp_path / str(n_processes) / "features" / "b"
        assert sorted(file.name for file in folder.iterdir()) == [
            "bank.json",
            "features.npy",
            "labels.npy",
            "transferability.json",
        ]
        found.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert found[0] == found[1]
