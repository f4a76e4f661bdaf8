from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs.errors import UserError
from lurefs.learning import images as images_module
from lurefs.learning.saliency import share_less, smallest, snip, weight_names


def batches(n: int = 2) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(6, 3, 32, 32, generator=generator), torch.randint(0, 5, (6,), generator=generator))
        for _ in range(n)
    ]


def test_score_is_weight_times_summed_absolute_gradient() -> None:
    """Against backward() on the whole model, batch by batch."""
    model = timm.create_model("test_resnet", num_classes=5).eval()
    expected = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for images, labels in batches():
        model.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            expected[name] += parameter.grad.abs()
    model.zero_grad()
    model.train()
    scores = snip(model, batches())
    for name, parameter in model.named_parameters():
        assert torch.allclose(scores[name], (parameter.detach() * expected[name]).abs())
        assert parameter.grad is None
    assert model.training


@pytest.mark.parametrize("name", ["test_resnet", "levit_128s"])
def test_score_does_not_depend_on_the_parts_of_a_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are added before their absolute values are taken; a LeViT keeps tensors of one pass for the next."""
    model = timm.create_model(name, num_classes=5, **({} if name == "test_resnet" else {"img_size": 64}))
    images = torch.randn(20, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    batch = images, torch.arange(20) % 5
    whole = snip(model, [batch, batch])
    monkeypatch.setattr(images_module, "PIXELS_WITH_GRADIENTS", 0)  # two images each
    parts = snip(model, [batch, batch])
    for name, score in whole.items():
        assert torch.allclose(parts[name], score, rtol=1e-3, atol=1e-6 * float(score.max()) + 1e-12)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit", "test_efficientnet", "test_nfnet"])
def test_weights_are_all_but_biases_and_norm_scales(name: str) -> None:
    model = timm.create_model(name, num_classes=5)
    names = weight_names(model)
    assert names
    modules = dict(model.named_modules())
    for parameter in names:
        owner = modules[parameter.rpartition(".")[0]]
        assert not isinstance(owner, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm)
        assert not parameter.endswith("bias")
    heavy = (nn.Linear, nn.Conv2d)
    expected = [f"{path}.weight" for path, module in modules.items() if isinstance(module, heavy)]
    assert set(expected) <= set(names)


def test_a_norm_of_its_own_kind_is_told_by_the_name_of_its_type() -> None:
    class ScaleNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4, 1, 1))

    assert weight_names(nn.Sequential(nn.Conv2d(3, 4, 1), ScaleNorm())) == ["0.weight"]


def test_exactly_the_smallest_are_marked_across_tensors() -> None:
    scores = {"a": torch.tensor([[0.5, 0.1], [0.9, 0.3]]), "b": torch.tensor([0.2, 0.8])}
    masks = smallest(scores, Fraction(1, 2), torch.Generator())
    assert masks["a"].tolist() == [[False, True], [False, True]]
    assert masks["b"].tolist() == [True, False]


def test_ties_are_broken_so_that_the_share_is_exact() -> None:
    scores = {"dead": torch.zeros(100), "alive": torch.ones(100)}
    masks = smallest(scores, Fraction(1, 5), torch.Generator().manual_seed(0))
    assert int(masks["dead"].sum()) == 40
    assert int(masks["alive"].sum()) == 0
    again = smallest(scores, Fraction(1, 5), torch.Generator().manual_seed(0))
    assert torch.equal(masks["dead"], again["dead"])
    assert masks["dead"][:40].sum() < 40


def test_a_share_of_nothing_marks_nothing() -> None:
    assert not smallest({"a": torch.rand(10)}, Fraction(0), torch.Generator())["a"].any()


def test_diverged_weights_are_told() -> None:
    model = timm.create_model("test_resnet", num_classes=5)
    with torch.no_grad():
        model.fc.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="diverged"):
        snip(model, batches(1))


@pytest.mark.parametrize(("keep_ratio", "share"), [(0.8, "1/5"), (1, "0"), (0.7, "3/10"), (1e-5, "99999/100000")])
def test_what_is_reset_is_one_less_what_is_kept_without_rounding(keep_ratio: float, share: str) -> None:
    assert share_less(keep_ratio) == Fraction(share)


@pytest.mark.parametrize("shape", [(8,), (8, 1, 1), (1, 1, 8)])
def test_a_scale_per_channel_is_no_weight_whatever_its_dimensions(shape: tuple[int, ...]) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(shape))
            self.table = nn.Parameter(torch.ones(2, 8))
            self.row = nn.Linear(8, 1)

    assert weight_names(Scaled()) == ["table", "row.weight"]


def test_a_model_that_keeps_what_it_computed_in_evaluation_mode_is_scored_batch_by_batch() -> None:
    """As LeViT does with its attention biases, and after a prediction without gradients."""

    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0, 2.0]]))
            self.cache: list[Tensor] = []

        def train(self, mode: bool = True) -> Caching:
            if mode:
                self.cache.clear()
            return super().train(mode)

        def forward(self, images: Tensor) -> Tensor:
            if self.training or not self.cache:
                self.cache.append(2 * self.weight)
            return images.flatten(1).sum(1, keepdim=True) * self.cache[-1]

    model = Caching().eval()
    with torch.inference_mode():
        model(torch.ones(1, 1))

    def draw() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(2):
            yield torch.ones(3, 1), torch.zeros(3, dtype=torch.long)

    scores = snip(model, draw())["weight"]
    assert scores.shape == (1, 2) and bool((scores > 0).all())
