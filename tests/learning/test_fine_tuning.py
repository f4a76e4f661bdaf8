"""Fine-tuning on one episode: what is trained, what it leads to, and that nothing of it stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs.config.fine_tuning import FineTuningConfig
from lurefs.config.learning_schema import BackboneConfig
from lurefs.errors import UserError
from lurefs.learning import fine_tuning
from lurefs.learning.backbones import Backbone, build_backbone
from lurefs.learning.fine_tuning import LinearHead, Tuned, fine_tune, trained_names

FAMILIES = ["test_byobnet", "test_resnet", "test_efficientnet", "test_convnext2", "test_nfnet", "test_vit"]
"""Convolutions with and without batch norm, and attention."""
CHOICES: tuple[Literal["full", "last_stage", "bias_and_norm"], ...] = ("full", "last_stage", "bias_and_norm")
LABELS = torch.arange(3).repeat_interleave(2)


def build(name: str = "test_byobnet", n_classes: int = 4) -> Backbone:
    return build_backbone(BackboneConfig(name=name), n_classes=n_classes, n_channels=1, image_size=32, seed=0)


def pictures(n: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (n, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def head_of(backbone: Backbone, *, on_unit_length: bool = True) -> LinearHead:
    weight = torch.randn(3, backbone.n_features, generator=torch.Generator().manual_seed(1))
    return LinearHead(weight=weight, bias=torch.tensor([0.1, 0.0, -0.1]), on_unit_length=on_unit_length)


def tune(backbone: Backbone, query: Tensor, *, support: Tensor | None = None, seed: int = 0, **settings: Any) -> Tuned:
    config = FineTuningConfig(**{"steps": 3, "lr": 1e-2, "train": "full", **settings})
    support = pictures(6) if support is None else support
    generator = torch.Generator().manual_seed(seed)
    names = trained_names(backbone.model, config.train)
    return fine_tune(backbone, names, head_of(backbone), support, LABELS, query, config, generator)


def everything(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in [*model.named_parameters(), *model.named_buffers()]}


@pytest.mark.parametrize("train", CHOICES)
@pytest.mark.parametrize("name", FAMILIES)
def test_any_family_learns_its_support_and_has_its_weights_back_to_the_bit(name: str, train: str) -> None:
    backbone = build(name)
    before = everything(backbone.model)
    untouched, tuned = (tune(backbone, pictures(6), steps=steps, train=train) for steps in (0, 20))
    assert functional.cross_entropy(tuned.logits, LABELS) < functional.cross_entropy(untouched.logits, LABELS)
    assert untouched.weights_moved == 0 < tuned.weights_moved
    after = everything(backbone.model)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_weights_are_back_even_if_an_episode_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = build()
    before = everything(backbone.model)
    monkeypatch.setattr(fine_tuning, "_norm", lambda values: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tune(backbone, pictures(4))
    assert all(torch.equal(before[name], value) for name, value in everything(backbone.model).items())


def test_without_steps_the_logits_are_those_of_the_head_on_the_features() -> None:
    backbone = build()
    head, query = head_of(backbone), pictures(5, seed=1)
    backbone.model.eval()
    with torch.no_grad():
        features = backbone.embed(query)
    unit = features / features.norm(dim=1, keepdim=True)
    expected = unit @ head.weight.T + head.bias
    assert torch.allclose(tune(backbone, query, steps=0).logits, expected, atol=1e-6)


def test_features_keep_their_length_without_a_transform_and_zeros_stay() -> None:
    backbone = build()
    features = torch.cat([torch.full((1, backbone.n_features), 2.0), torch.zeros(1, backbone.n_features)])
    raw, unit = (head_of(backbone, on_unit_length=on)(features) for on in (False, True))
    bias = head_of(backbone).bias
    assert torch.allclose(raw[0] - bias, (unit[0] - bias) * 2 * backbone.n_features**0.5, atol=1e-4)
    assert torch.equal(unit[1], bias)


def test_an_episode_does_not_depend_on_the_one_before_nor_a_query_on_the_others() -> None:
    backbone = build()
    query = pictures(8, seed=1)
    first = tune(backbone, query).logits
    tune(backbone, query, support=pictures(6, seed=5))
    assert torch.equal(tune(backbone, query).logits, first)
    assert torch.allclose(tune(backbone, query[:1]).logits, first[:1], atol=1e-4)


def test_the_head_that_is_given_is_not_changed() -> None:
    backbone = build()
    head = head_of(backbone)
    names = trained_names(backbone.model, "full")
    settings = FineTuningConfig(steps=2, lr=0.1)
    fine_tune(backbone, names, head, pictures(6), LABELS, pictures(2), settings, torch.Generator())
    assert torch.equal(head.weight, head_of(backbone).weight) and torch.equal(head.bias, head_of(backbone).bias)


def test_a_large_support_in_parts_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = build("test_vit")
    whole = tune(backbone, pictures(5, seed=1), lr=1e-3)
    monkeypatch.setattr(fine_tuning, "IMAGES_AT_ONCE", 2)
    parts = tune(backbone, pictures(5, seed=1), lr=1e-3)
    assert torch.allclose(whole.logits, parts.logits, atol=1e-3)
    assert parts.weights_moved == pytest.approx(whole.weights_moved, rel=1e-3)


def test_the_generator_decides_the_augmentation_and_nothing_else() -> None:
    backbone, query = build(), pictures(4, seed=1)
    plain = [tune(backbone, query, seed=seed).logits for seed in (0, 1)]
    shifted = [tune(backbone, query, seed=seed, crop_padding=2, flip=True).logits for seed in (0, 0, 1)]
    assert torch.equal(*plain)
    assert torch.equal(shifted[0], shifted[1]) and not torch.equal(shifted[0], shifted[2])
    assert not torch.equal(shifted[0], plain[0])


def test_the_distance_is_that_of_the_trained_weights_alone() -> None:
    backbone = build()
    moved = tune(backbone, pictures(2), train="bias_and_norm", steps=1, lr=1e-3).weights_moved
    parameters = dict(backbone.model.named_parameters())
    names = trained_names(backbone.model, "bias_and_norm")
    norm = sum(float(parameters[name].detach().double().square().sum()) for name in names) ** 0.5
    # Adam's first step moves each weight that has a gradient by the learning rate.
    n_most = sum(parameters[name].numel() for name in names)
    assert 0 < moved <= 1e-3 * n_most**0.5 / norm * 1.0001


def test_what_is_trained() -> None:
    model = build("test_vit").model
    blocks = [name for name in trained_names(model, "full") if name.startswith("blocks.")]
    last = max(int(name.split(".")[1]) for name in blocks)
    chosen = trained_names(model, "last_stage")
    assert {name.partition(".")[0] for name in chosen} <= {"blocks", "norm", "fc_norm"}
    assert {name.split(".")[1] for name in chosen if name.startswith("blocks.")} == {str(last)}
    vectors = trained_names(model, "bias_and_norm")
    parameters = dict(model.named_parameters())
    assert vectors and all(parameters[name].ndim == 1 for name in vectors)
    assert {name for name in parameters if parameters[name].ndim == 1} - set(vectors) == {"head.bias"}
    assert set(parameters) - set(trained_names(model, "full")) == {"head.weight", "head.bias"}


def test_a_frozen_backbone_without_a_head_trains_the_same_weights() -> None:
    with_head, without = build(), build(n_classes=0)
    for train in CHOICES:
        assert trained_names(with_head.model, train) == trained_names(without.model, train)


def test_a_model_that_cannot_be_divided_is_refused_in_words() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 3)

    with pytest.raises(UserError, match="does not divide Plain into stages") as caught:
        trained_names(Plain(), "last_stage")
    assert "full or bias_and_norm" in caught.value.expected
    assert trained_names(Plain(), "full") == ["layer.weight", "layer.bias"]
    bare = replace(build(), model=nn.Flatten())
    with pytest.raises(UserError, match="has no parameters to fine-tune"):
        trained_names(bare.model, "full")
