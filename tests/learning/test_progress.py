from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lurefs.config.fields import PluginConfig
from lurefs.errors import UserError
from lurefs.learning.optimizers import build_optimizer
from lurefs.learning.progress import Progress, load_progress, save_progress
from lurefs.runs.outcomes import UnlearnReport

REPORT = UnlearnReport(
    strategy="by_saliency",
    n_kept=1,
    n_reset=2,
    reset_share={"weight": 0.5},
    accuracy_before=0.5,
    accuracy_after=0.25,
    seconds=1.0,
)
PROGRESS = Progress(
    chunk_index=1,
    unlearn=REPORT,
    was_right=torch.tensor([True, False]),
    n_epochs=2,
    weights={"weight": torch.ones(1, 2)},
    val_accuracy=0.75,
    seconds=3.0,
)


def make(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Linear(2, 1)
    optimizer = build_optimizer(model, PluginConfig(name="sgd", params={"lr": 0.1, "momentum": 0.9}))
    model(torch.rand(3, 2)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "progress.pt"
    save_progress(path, PROGRESS, *make(0), "digest")
    return path


def test_progress_weights_and_moments_come_back(path: Path) -> None:
    model, optimizer = make(1)
    found = load_progress(path, 1, model, optimizer, "digest")
    assert found is not None
    assert torch.equal(found.was_right, PROGRESS.was_right)
    assert torch.equal(found.weights["weight"], PROGRESS.weights["weight"])
    assert replace(found, was_right=None, weights={}) == replace(PROGRESS, was_right=None, weights={})
    expected, of_expected = make(0)
    assert torch.equal(model.weight, expected.weight)
    moments = [each.state[net.weight]["momentum_buffer"] for each, net in ((optimizer, model), (of_expected, expected))]
    assert torch.equal(*moments)


@pytest.mark.parametrize("chunk_index", [0, 2])
def test_progress_of_another_chunk_changes_nothing(path: Path, chunk_index: int) -> None:
    model, optimizer = make(1)
    before = model.weight.detach().clone()
    assert load_progress(path, chunk_index, model, optimizer, "digest") is None
    assert load_progress(path.with_name("none.pt"), 1, model, optimizer, "digest") is None
    assert torch.equal(model.weight, before)


def test_progress_of_the_first_chunk_has_nothing_of_earlier_ones(path: Path) -> None:
    first = Progress(chunk_index=0, n_epochs=1)
    save_progress(path, first, *make(0), "digest")
    assert load_progress(path, 0, *make(1), "digest") == first


@pytest.mark.parametrize("chunk_index", [1, 2])
def test_progress_of_another_run_is_refused(path: Path, chunk_index: int) -> None:
    with pytest.raises(UserError, match=r"progress\.pt is of another run: digest in place of other"):
        load_progress(path, chunk_index, *make(1), "other")


def test_damaged_progress_is_told_with_a_way_out(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"(?s)progress\.pt is damaged.*delete .*progress\.pt"):
        load_progress(path, 1, *make(1), "digest")
