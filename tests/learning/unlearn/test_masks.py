"""Which weights the strategies with a mask choose, and what they put in their place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs import plugins
from lurefs.errors import UserError
from lurefs.learning import saliency
from lurefs.learning.saliency import smallest
from lurefs.learning.unlearn.contract import Changes, ProbeImages
from lurefs.learning.unlearn.masks import _up_to_threshold, by_magnitude, by_saliency, inverse_saliency, random_mask


def model_of(family: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(family, num_classes=5)


def draw_probe(source: str, n_images: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(len(source))
    images = torch.randn(n_images, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 5, (n_images,), generator=generator)
    yield from zip(images.split(64), labels.split(64), strict=True)


def apply(strategy: Any, model: nn.Module, twin: nn.Module, seed: int = 0) -> Changes:
    changes: Changes = strategy(model, twin, ProbeImages(draw=draw_probe), torch.Generator().manual_seed(seed))
    return changes


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.named_parameters()}


@pytest.mark.parametrize(("keep_ratio", "share"), [(0.8, Fraction(1, 5)), (0.5, Fraction(1, 2))])
def test_by_saliency_resets_the_asked_share_to_the_twins_values(keep_ratio: float, share: Fraction) -> None:
    model, twin = model_of("test_efficientnet", 0), model_of("test_efficientnet", 1)
    fresh = copy_of(twin)
    changes = apply(by_saliency(keep_ratio=keep_ratio, saliency_images=32), model, twin)
    n_weights = sum(mask.numel() for mask in changes.masks.values())
    assert sum(int(mask.sum()) for mask in changes.masks.values()) == int(share * n_weights)
    for parameter, after in model.named_parameters():
        if parameter in changes.masks:
            mask = changes.masks[parameter]
            assert torch.equal(after[mask], fresh[parameter][mask])


def released_scores(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """From the definition: |theta * |g|| of one batch in evaluation mode, for all named parameters."""
    model.eval()
    model.zero_grad()
    functional.cross_entropy(model(images), labels).backward()
    parameters = dict(model.named_parameters())
    return {name: (p.detach() * p.grad.abs()).abs() for name, p in parameters.items() if p.grad is not None}


@pytest.mark.parametrize("n_dead", [0, 512])
def test_as_released_does_what_the_released_rule_says(n_dead: int) -> None:
    """On ResNet-18 of 11,173,962 parameters, against a second implementation with NumPy's selection.

    The masked fraction is 0.200000 where all weights live, and far too large where a layer is dead.
    """
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962
    with torch.no_grad():
        model.layer4[1].conv2.weight[:n_dead] = 0
        for parameter in model.parameters():  # biases of 0 have a score of 0, as in no trained model
            parameter += 1e-3 * torch.randn(parameter.shape) if n_dead == 0 else 0
    batch = next(draw_probe("oldest", 4))
    scores = released_scores(model, *batch)
    k = int(0.2 * 11_173_962)  # counted from one, so that NumPy's index is one less
    flat = np.concatenate([score.flatten().numpy() for score in scores.values()])
    threshold = float(np.partition(flat, k - 1)[k - 1])
    before = copy_of(model)
    images = ProbeImages(draw=lambda source, n_images: iter([batch]))
    changes = by_saliency(as_released=True)(model, model, images, torch.Generator().manual_seed(0))
    for name, after in model.named_parameters():
        expected = (scores[name] <= threshold) & ("weight" in name)
        assert torch.equal(changes.masks.get(name, torch.zeros_like(expected)), expected)
        assert torch.equal(after[~expected], before[name][~expected])
        assert (after[expected] != before[name][expected]).float().mean() > 0.99 or not expected.any()
    share = sum(int((score <= threshold).sum()) for score in scores.values()) / 11_173_962
    assert f"{share:.6f}" == "0.200000" if n_dead == 0 else share > 0.4


def test_as_released_draws_one_batch_of_a_hundred_of_the_oldest() -> None:
    asked = []

    def draw(source: str, n_images: int) -> Iterator[tuple[Tensor, Tensor]]:
        asked.append((source, n_images))
        return draw_probe(source, n_images)

    by_saliency(as_released=True)(
        model_of("test_resnet", 0), model_of("test_resnet", 1), ProbeImages(draw=draw), torch.Generator()
    )
    assert asked == [("oldest", 100)]


def test_uniform_fresh_values_lie_within_one_over_the_root_of_fan_in() -> None:
    model = model_of("test_resnet", 0)
    strategy = by_saliency(scope="named_weight", fresh="uniform_fan_in", keep_ratio=0.5)
    changes = apply(strategy, model, model_of("test_resnet", 1))
    for name, after in model.named_parameters():
        if name in changes.masks and changes.masks[name].any():
            bound = 1.0 if after.ndim == 1 else after[0].numel() ** -0.5
            values = after[changes.masks[name]].abs()
            assert values.max() <= bound
            assert after.ndim == 1 or len(values) < 100 or values.max() > 0.9 * bound


def test_norm_scales_have_a_fan_in_of_one() -> None:
    model = nn.BatchNorm1d(256)
    strategy = by_magnitude(keep_ratio=0.01, scope="named_weight", fresh="uniform_fan_in")
    changes = apply(strategy, model, model)
    assert 0.9 < model.weight[changes.masks["weight"]].abs().max() <= 1


def test_the_most_salient_are_those_that_are_left_when_the_least_salient_go() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4), nn.Tanh(), nn.Linear(4, 8))
    lowest = apply(by_saliency(keep_ratio=0.25), copy.deepcopy(model), model)
    highest = apply(inverse_saliency(keep_ratio=0.75), copy.deepcopy(model), model)
    for name, mask in highest.masks.items():
        assert torch.equal(mask, ~lowest.masks[name])


def weights_of(*values: float) -> nn.Linear:
    """A linear map of one row with the given weights."""
    model = nn.Linear(len(values), 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([values]))
    return model


def test_magnitude_by_hand() -> None:
    model, twin = weights_of(-3.0, 0.1, 2.0, -0.2), weights_of(7.0, 7.0, 7.0, 7.0)
    changes = apply(by_magnitude(keep_ratio=0.5), model, twin)
    assert changes.masks["weight"].tolist() == [[False, True, False, True]]
    assert model.weight.tolist() == [[-3.0, 7.0, 2.0, 7.0]]


def test_within_layers_a_small_layer_is_not_emptied() -> None:
    model, twin = (
        nn.Sequential(weights_of(0.1, 0.2), weights_of(3.0, 4.0)),
        nn.Sequential(nn.Linear(2, 1), nn.Linear(2, 1)),
    )
    together = apply(by_magnitude(keep_ratio=0.5), copy.deepcopy(model), twin).masks
    apart = apply(by_magnitude(keep_ratio=0.5, ranking="layer"), model, twin).masks
    assert [together[f"{layer}.weight"].tolist() for layer in (0, 1)] == [[[True, True]], [[False, False]]]
    assert [apart[f"{layer}.weight"].tolist() for layer in (0, 1)] == [[[True, False]], [[True, False]]]


def test_a_random_mask_is_another_one_with_another_seed_and_looks_at_no_image() -> None:
    def draw(source: str, n_images: int) -> Iterator[tuple[Tensor, Tensor]]:
        raise AssertionError("no image is needed")

    masks = [
        random_mask()(
            model_of("test_resnet", 0),
            model_of("test_resnet", 1),
            ProbeImages(draw=draw),
            torch.Generator().manual_seed(seed),
        ).masks
        for seed in (0, 1)
    ]
    flat = [torch.cat([mask.flatten() for mask in of_seed.values()]) for of_seed in masks]
    overlap = (flat[0] & flat[1]).sum() / (flat[0] | flat[1]).sum()
    assert overlap == pytest.approx(0.2 * 0.2 / (2 * 0.2 - 0.2 * 0.2), abs=0.01)


@pytest.mark.parametrize("ranking", ["global", "layer"])
def test_weights_of_no_saliency_can_be_left_out(ranking: Any) -> None:
    """At 32 pixels the last stage of a ConvNeXt is 1 x 1: of its 7 x 7 kernels only the middle sees anything."""
    model, twin = model_of("test_convnext", 0), model_of("test_convnext", 1)
    scores = saliency.snip(model, draw_probe("seen", 32))
    names = saliency.weight_names(model)
    strategy = by_saliency(saliency_images=32, left_out="zero_score", ranking=ranking)
    masks = apply(strategy, model, twin).masks
    dead = [name for name in names if (scores[name] == 0).any()]
    assert any(name.endswith("conv_dw.weight") for name in dead)
    assert not any((masks[name] & (scores[name] == 0)).any() for name in names)
    living = [int((scores[name] > 0).sum()) for name in names]
    share = [n // 5 for n in ([sum(living)] if ranking == "global" else living)]
    assert sum(int(mask.sum()) for mask in masks.values()) == sum(share)


class RowOrNothing(nn.Linear):
    """A linear map of one row, whose answer is set against a logit of zero."""

    def __init__(self, *values: float) -> None:
        super().__init__(len(values), 1)
        with torch.no_grad():
            self.weight.copy_(torch.tensor([values]))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([super().forward(images), torch.zeros(len(images), 1)], dim=1)


def with_zeros_at(*places: int) -> ProbeImages:
    """Images of nothing, and a row of four weights of which those at the given places can never matter."""
    mask = torch.tensor([[place in places for place in range(4)]])
    return ProbeImages(draw=draw_four, structural_zeros={"weight": mask})


def draw_four(source: str, n_images: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.tensor([[1.0, 1.0, 1.0, 0.0]]), torch.tensor([0])


@pytest.mark.parametrize("strategy", [by_saliency, by_magnitude, random_mask, inverse_saliency])
def test_structural_zeros_are_never_reset_nor_counted(strategy: Any) -> None:
    model, twin = RowOrNothing(1.0, 2.0, 3.0, 4.0), RowOrNothing(7.0, 7.0, 7.0, 7.0)
    masks = strategy(keep_ratio=0.5)(model, twin, with_zeros_at(0, 3), torch.Generator().manual_seed(0)).masks
    assert masks["weight"][0, [0, 3]].tolist() == [False, False]
    assert int(masks["weight"].sum()) == 1  # half of the two others


def test_of_structural_zeros_a_dead_unit_is_told_apart_and_reset_first() -> None:
    """A weight without saliency that is none of the structural zeros may revive."""
    model, twin = RowOrNothing(3.0, 2.0, 0.0, 1.0), RowOrNothing(7.0, 7.0, 7.0, 7.0)
    changes = by_saliency(keep_ratio=0.7)(model, twin, with_zeros_at(3), torch.Generator())
    assert changes.masks["weight"].tolist() == [[False, False, False, False]]  # 0.9 of a weight is none
    changes = by_saliency(keep_ratio=0.6)(model, twin, with_zeros_at(3), torch.Generator())
    assert changes.masks["weight"].tolist() == [[False, False, True, False]]


def test_all_weights_can_be_ranked_structural_zeros_included() -> None:
    model, twin = RowOrNothing(3.0, 2.0, 2.0, 1.0), RowOrNothing(7.0, 7.0, 7.0, 7.0)
    changes = by_saliency(keep_ratio=0.75, left_out="nothing")(model, twin, with_zeros_at(3), torch.Generator())
    assert changes.masks["weight"].tolist() == [[False, False, False, True]]


@pytest.mark.parametrize("n", [1, 4, 5, 9, 10, 100, 41_080])
def test_the_released_threshold_is_the_kth_smallest_score_counted_from_one(n: int) -> None:
    """A fifth of n different scores, rounded down; `int((1 - 0.8) * n)` is one short of it for 10, 100 and 41,080."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    scores = {"weight": 1 + order.float()[None]}
    released = _up_to_threshold(scores, saliency.share_less(0.8))["weight"]
    assert released.tolist() == [[int(place) < n // 5 for place in order]]
    assert int(smallest(scores, saliency.share_less(0.8), torch.Generator())["weight"].sum()) == n // 5


def test_models_with_small_layer_scales_are_ranked_per_layer_and_others_as_a_whole() -> None:
    """Behind a scale of 1e-6 each weight is less salient than any other: together these would be all that is reset."""
    share = {}
    for ranking in ("auto", "global"):
        masks = apply(by_saliency(saliency_images=32, ranking=ranking), *pair_of("test_convnext")).masks  # type: ignore
        share[ranking] = {name: mask.float().mean().item() for name, mask in masks.items() if mask.numel() > 100}
    assert max(share["auto"].values()) == pytest.approx(0.2, abs=0.01)
    assert share["global"]["head.fc.weight"] == share["global"]["stem.0.weight"] == 0
    plain, twin = (timm.create_model("test_resnet", num_classes=5, zero_init_last=False) for _ in range(2))
    of_plain = [
        apply(by_saliency(saliency_images=32, ranking=ranking), copy.deepcopy(plain), twin).masks  # type: ignore
        for ranking in ("auto", "global")
    ]
    assert all(torch.equal(mask, of_plain[1][name]) for name, mask in of_plain[0].items())


def pair_of(family: str) -> tuple[nn.Module, nn.Module]:
    return model_of(family, 0), model_of(family, 1)


def test_a_model_without_weights_to_unlearn_is_refused() -> None:
    with pytest.raises(UserError, match="no weight that could be unlearned"):
        apply(by_magnitude(), nn.BatchNorm2d(3), nn.BatchNorm2d(3))


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("by_saliency", {"keep_ratio": 0.0}, "keep_ratio is 0.0"),
        ("by_saliency", {"keep_ratio": 1.0}, "keep_ratio is 1: nothing would be reset"),
        ("random_mask", {"keep_ratio": 1}, "set unlearn.name=nothing"),
        ("by_saliency", {"probe": "newest"}, "one of seen, new, oldest"),
        ("by_saliency", {"saliency_images": 0}, "at least 1"),
        ("by_saliency", {"left_out": "dead"}, "one of structural, zero_score, nothing"),
        ("inverse_saliency", {"fresh": "zero"}, "one of twin, uniform_fan_in"),
        ("by_magnitude", {"ranking": "stage"}, "one of auto, global, layer"),
        ("random_mask", {"scope": "all"}, "one of weights, named_weight"),
    ],
)
def test_wrong_settings_are_refused(name: str, params: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        plugins.build("unlearn", name, params)
