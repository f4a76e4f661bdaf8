from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs.config.learning_schema import BackboneConfig
from lurefs.data.dataset import View
from lurefs.errors import UserError
from lurefs.learning import images as images_module
from lurefs.learning.backbones import Backbone, build_backbone
from lurefs.stages import attacks

SETTINGS: dict[str, Any] = {"n_steps": 10, "step_size": 0.25}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (24, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return torch.arange(24) % 3


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A linear classifier of 3 classes, so that the gradient of the loss is known."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    return Backbone(
        name="linear",
        model=model,
        n_features=16,
        n_classes=3,
        view=View(image_size=4),
        n_channels=1,
        mean=(0.5,),
        std=(0.25,),
    )


def test_fgsm_is_one_step_along_the_sign_of_the_gradient(backbone: Backbone, images: Tensor, labels: Tensor) -> None:
    found = attacks.attack(backbone, images, labels, name="fgsm", epsilon=0.1, **SETTINGS)
    pixels = (images.float() / 255).requires_grad_()
    functional.cross_entropy(backbone.model((pixels - 0.5) / 0.25), labels).backward()
    assert pixels.grad is not None
    expected = (pixels + 0.1 * pixels.grad.sign()).clamp(0, 1)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_an_attack_does_not_depend_on_the_parts_of_its_images(
    backbone: Backbone, images: Tensor, labels: Tensor, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = attacks.attack(backbone, images, labels, name=name, epsilon=0.1, **SETTINGS)
    sizes: list[int] = []
    monkeypatch.setattr(images_module, "PIXELS_WITH_GRADIENTS", 0)
    with backbone.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0]))):
        parts = attacks.attack(backbone, images, labels, name=name, epsilon=0.1, **SETTINGS)
    assert set(sizes) == {2}
    assert torch.equal(parts, whole)


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
@pytest.mark.parametrize("epsilon", [0.01, 0.3])
def test_no_pixel_moves_by_more_than_epsilon_or_leaves_the_unit_interval(
    backbone: Backbone, images: Tensor, labels: Tensor, name: str, epsilon: float
) -> None:
    found = attacks.attack(backbone, images, labels, name=name, epsilon=epsilon, **SETTINGS)
    moved = (found - images.float() / 255).abs().max()
    assert 0.9 * epsilon < moved <= epsilon + 1e-6
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_epsilon_zero_changes_nothing(backbone: Backbone, images: Tensor, labels: Tensor, name: str) -> None:
    found = attacks.attack(backbone, images, labels, name=name, epsilon=0.0, **SETTINGS)
    assert torch.equal(found * 255, images.float())


def test_the_random_start_is_seeded_and_leaves_no_trace(backbone: Backbone, images: Tensor, labels: Tensor) -> None:
    weights = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    one = attacks.attack(backbone, images, labels, name="pgd", epsilon=0.1, **SETTINGS)
    assert np.random.random() == expected
    other = attacks.attack(backbone, images, labels, name="pgd", epsilon=0.1, **SETTINGS)
    assert torch.equal(one, other)
    assert all(torch.equal(weights[name], tensor) for name, tensor in backbone.model.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


def test_a_missing_library_is_answered_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "art.attacks.evasion", None)
    with pytest.raises(UserError) as caught:
        attacks.check_installed()
    assert 'pip install "lurefs[robustness]"' in str(caught.value)
    assert "robustness.attacks needs" in str(caught.value)


def test_a_model_that_keeps_tensors_of_a_pass_is_attacked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a LeViT does with its attention biases in evaluation mode."""
    config = BackboneConfig(name="levit_128s")
    levit = build_backbone(config, n_classes=3, n_channels=1, image_size=64, seed=0)
    images = torch.randint(0, 256, (6, 1, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    settings = {**SETTINGS, "n_steps": 2}
    found = [attacks.attack(levit, images, torch.arange(6) % 3, name="pgd", epsilon=0.1, **settings)]
    monkeypatch.setattr(images_module, "PIXELS_WITH_GRADIENTS", 0)
    found.append(attacks.attack(levit, images, torch.arange(6) % 3, name="pgd", epsilon=0.1, **settings))
    assert (found[0] - found[1]).abs().mean() < 1e-3
