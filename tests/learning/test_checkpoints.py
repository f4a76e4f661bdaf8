from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from lurefs.config.fields import PluginConfig
from lurefs.errors import UserError
from lurefs.learning.checkpoints import (
    load_checkpoint,
    load_optimizer,
    read_identity,
    remove_checkpoint,
    remove_older_optimizers,
    save_checkpoint,
)
from lurefs.learning.optimizers import build_optimizer


@pytest.fixture
def model() -> nn.Module:
    return timm.create_model("test_byobnet", num_classes=3)


@pytest.fixture
def saved(tmp_path: Path, model: nn.Module) -> Path:
    optimizer = build_optimizer(model, PluginConfig(name="sgd", params={"lr": 0.1, "momentum": 0.9}))
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    path = tmp_path / "checkpoints" / "chunk-000.safetensors"
    save_checkpoint(path, model, optimizer, {"chunk_index": 0})
    return path


def test_a_checkpoint_loads_in_plain_timm(saved: Path, model: nn.Module) -> None:
    plain = timm.create_model("test_byobnet", num_classes=3)
    plain.load_state_dict(load_file(saved))
    assert torch.equal(plain.head.fc.weight, model.head.fc.weight)


def test_weights_and_moments_come_back(saved: Path, model: nn.Module) -> None:
    other = timm.create_model("test_byobnet", num_classes=3)
    optimizer = build_optimizer(other, PluginConfig(name="sgd", params={"lr": 0.1, "momentum": 0.9}))
    assert load_checkpoint(saved, other)["chunk_index"] == 0
    load_optimizer(saved, optimizer)
    assert torch.equal(other.head.fc.weight, model.head.fc.weight)
    assert optimizer.state[other.head.fc.weight]["momentum_buffer"].abs().sum() > 0


def test_a_module_in_two_places_is_stored_under_both_names(tmp_path: Path) -> None:
    def build() -> nn.Module:
        shared = nn.Linear(3, 3)
        return nn.Sequential(nn.Linear(3, 3), shared, nn.Sequential(shared))

    model, other, path = build(), build(), tmp_path / "chunk-000.safetensors"
    optimizer = build_optimizer(model, PluginConfig(name="sgd", params={"lr": 0.1}))
    save_checkpoint(path, model, optimizer, {})
    assert set(load_file(path)) == set(model.state_dict())
    load_checkpoint(path, other)
    for name, weight in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight)


def test_weights_may_be_read_by_whoever_may_read_the_other_files(saved: Path) -> None:
    modes = {path.stat().st_mode for path in saved.parent.iterdir()}
    assert len(list(saved.parent.iterdir())) == 3
    assert len(modes) == 1


def test_equal_weights_are_equal_bytes(saved: Path, model: nn.Module, tmp_path: Path) -> None:
    optimizer = build_optimizer(model, PluginConfig(name="sgd", params={"lr": 0.1}))
    other = tmp_path / "other" / "chunk-000.safetensors"
    save_checkpoint(other, model, optimizer, {})
    assert other.read_bytes() == saved.read_bytes()


def test_older_optimizer_states_are_kept_until_they_are_told_to_go(saved: Path, model: nn.Module) -> None:
    optimizer = build_optimizer(model, PluginConfig(name="sgd", params={"lr": 0.1}))
    newest = saved.with_name("chunk-001.safetensors")
    save_checkpoint(newest, model, optimizer, {})
    load_optimizer(saved, optimizer)
    remove_older_optimizers(newest)
    assert [path.name for path in saved.parent.glob("*.resume.pt")] == ["chunk-001.resume.pt"]
    assert not [path for path in saved.parent.iterdir() if "partial" in path.name]


def test_a_file_cut_short_is_noticed_by_its_size(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"is damaged: it has \d+ bytes in place of \d+"):
        read_identity(saved)


def test_a_changed_byte_is_noticed_when_the_weights_are_loaded(saved: Path, model: nn.Module) -> None:
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(UserError, match="its content is not what was written"):
        load_checkpoint(saved, model)


def test_a_missing_or_broken_identity_is_told(saved: Path) -> None:
    saved.with_suffix(".json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        read_identity(saved)
    saved.with_suffix(".json").unlink()
    with pytest.raises(UserError, match="is damaged"):
        read_identity(saved)


def test_a_broken_optimizer_state_is_told(saved: Path, model: nn.Module) -> None:
    saved.with_suffix(".resume.pt").write_bytes(b"broken")
    optimizer = build_optimizer(model, PluginConfig(name="sgd", params={"lr": 0.1}))
    with pytest.raises(UserError, match=r"resume\.pt is damaged"):
        load_optimizer(saved, optimizer)


def test_weights_whose_channels_stand_last_in_memory_are_stored_like_any(
    saved: Path, model: nn.Module, tmp_path: Path
) -> None:
    last = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    other = tmp_path / "other" / "chunk-000.safetensors"
    save_checkpoint(other, last, build_optimizer(last, PluginConfig(name="sgd", params={"lr": 0.1})), {})
    assert other.read_bytes() == saved.read_bytes()


def test_there_is_an_identity_only_after_all_else_is_written(tmp_path: Path, model: nn.Module) -> None:
    class FullDisk(torch.optim.SGD):
        def state_dict(self) -> dict[str, Any]:
            raise OSError("no space left")

    path = tmp_path / "chunk-000.safetensors"
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(path, model, FullDisk(model.parameters(), lr=0.1), {})
    assert path.exists()
    assert not path.with_suffix(".json").exists()


def test_the_identity_says_what_the_weights_are(saved: Path) -> None:
    card = json.loads(saved.with_suffix(".json").read_text())
    assert set(card) == {"chunk_index", "sha256", "n_bytes"}
    assert card["n_bytes"] == saved.stat().st_size


def test_a_removed_checkpoint_is_gone_and_can_be_removed_again(saved: Path) -> None:
    for _ in range(2):
        remove_checkpoint(saved)
        assert not saved.exists()
        assert not saved.with_suffix(".json").exists()
