"""Conformance of every strategy of the table, on several families, and what is particular to one of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs import plugins
from lurefs.errors import UserError
from lurefs.unlearn.contract import Changes, ProbeImages
from lurefs.unlearn.masks import by_saliency
from lurefs.unlearn.shrink import shrink_perturb
from lurefs.unlearn.whole import nothing

FAMILIES = {"test_resnet": {}, "test_convnext": {}, "test_vit": {"img_size": 32, "patch_size": 8}, "test_nfnet": {}}
STRATEGIES = [name for name in plugins.names("unlearn") if name != "nothing"]


def model_of(family: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(family, num_classes=5, **FAMILIES[family])


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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", STRATEGIES)
def test_kept_weights_are_bit_identical_and_changed_ones_are_marked(name: str, family: str) -> None:
    model, twin = model_of(family, 0), model_of(family, 1)
    before = copy_of(model)
    changes = apply(plugins.build("unlearn", name, {}), model, twin)
    n_changed = 0
    for parameter, after in model.named_parameters():
        mask = changes.masks.get(parameter, torch.zeros_like(after, dtype=torch.bool))
        assert torch.equal(before[parameter][~mask], after[~mask])
        assert torch.isfinite(after).all()
        n_changed += int((before[parameter] != after).sum())
    assert n_changed > 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_repeatable_by_seed(name: str, family: str) -> None:
    results = []
    for _ in range(2):
        model = model_of(family, 0)
        apply(plugins.build("unlearn", name, {}), model, model_of(family, 1), seed=3)
        results.append(copy_of(model))
    for parameter, tensor in results[0].items():
        assert torch.equal(tensor, results[1][parameter])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_model_can_learn_afterwards(name: str, family: str) -> None:
    model = model_of(family, 0)
    apply(plugins.build("unlearn", name, {}), model, model_of(family, 1))
    images, labels = next(draw_probe("seen", 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.8 * losses[0]


@pytest.mark.parametrize("keep_ratio", [0.8, 0.5])
def test_by_saliency_resets_the_asked_share_to_the_twins_values(keep_ratio: float) -> None:
    model, twin = model_of("test_resnet", 0), model_of("test_resnet", 1)
    fresh = copy_of(twin)
    changes = apply(by_saliency(keep_ratio=keep_ratio, saliency_images=32), model, twin)
    n_weights = sum(mask.numel() for mask in changes.masks.values())
    assert sum(int(mask.sum()) for mask in changes.masks.values()) == int((1 - keep_ratio) * n_weights)
    for parameter, after in model.named_parameters():
        if parameter in changes.masks:
            mask = changes.masks[parameter]
            assert torch.equal(after[mask], fresh[parameter][mask])


def released_masks(model: nn.Module, images: Tensor, labels: Tensor, reset_ratio: float) -> dict[str, Tensor]:
    """The released rule, from its definition: all parameters ranked together, ties included, "weight" tensors reset."""
    model.eval()
    model.zero_grad()
    functional.cross_entropy(model(images), labels).backward()
    parameters = dict(model.named_parameters())
    scores = {name: (p.detach() * p.grad.abs()).abs() for name, p in parameters.items() if p.grad is not None}
    ranked = torch.sort(torch.cat([score.flatten() for score in scores.values()])).values
    threshold = ranked[int(reset_ratio * len(ranked))]
    return {name: score <= threshold for name, score in scores.items() if "weight" in name}


def test_as_released_marks_what_the_released_rule_marks() -> None:
    """On ResNet-18 with 11,173,962 parameters: exact where all weights live, far too many where a layer is dead."""
    shares = []
    for n_dead in (0, 512):
        torch.manual_seed(0)
        model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
        assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962
        with torch.no_grad():
            model.layer4[1].conv2.weight[:n_dead] = 0
        images, labels = next(iter(draw_probe("oldest", 16)))
        probe = [(images, labels)]
        expected = released_masks(model, images, labels, 0.2)
        strategy = by_saliency(as_released=True)
        changes = strategy(
            model, model, ProbeImages(draw=lambda source, n, probe=probe: iter(probe)), torch.Generator().manual_seed(0)
        )
        for name, mask in expected.items():
            assert torch.equal(changes.masks[name], mask)
        shares.append(sum(int(mask.sum()) for mask in expected.values()) / 11_173_962)
    assert shares[0] == pytest.approx(0.2, abs=1e-3)
    assert shares[1] > 0.4


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


def test_shrink_perturb_by_hand() -> None:
    model, twin = nn.Linear(2, 1), nn.Linear(2, 1)
    old, fresh = copy_of(model), copy_of(twin)
    apply(shrink_perturb(shrink=0.4, perturb=0.1), model, twin)
    assert torch.allclose(model.weight, 0.4 * old["weight"] + 0.1 * fresh["weight"])
    assert torch.allclose(model.bias, 0.4 * old["bias"] + 0.1 * fresh["bias"])


def test_from_scratch_leaves_nothing_of_the_old_model() -> None:
    model, twin = model_of("test_resnet", 0), model_of("test_resnet", 1)
    changes = apply(plugins.build("unlearn", "from_scratch", {}), model, twin)
    assert changes.is_new_model
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name])


def test_nothing_is_no_strategy() -> None:
    assert plugins.build("unlearn", "nothing", {}) is None
    assert nothing() is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("by_saliency", {"keep_ratio": 0.0}, "keep_ratio is 0.0"),
        ("by_saliency", {"probe": "newest"}, "one of seen, new, oldest"),
        ("by_saliency", {"saliency_images": 0}, "at least 1"),
        ("shrink_perturb", {"shrink": 1.2}, r"shrink in \[0, 1\]"),
    ],
)
def test_wrong_settings_are_refused(name: str, params: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        plugins.build("unlearn", name, params)
