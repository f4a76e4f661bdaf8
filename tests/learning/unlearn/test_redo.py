from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs.errors import UserError
from lurefs.learning.unlearn.contract import Changes, ProbeImages
from lurefs.learning.unlearn.redo import redo
from lurefs.learning.unlearn.units import watch_units
from lurefs.ranks import ONE_PROCESS, Ranks


def images_of(*, ranks: Ranks = ONE_PROCESS, size: int = 32) -> ProbeImages:
    def draw(source: str, n_images: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(2):
            yield torch.randn(8, 3, size, size, generator=generator), torch.zeros(8, dtype=torch.long)

    return ProbeImages(draw=draw, ranks=ranks)


def apply(model: nn.Module, twin: nn.Module, images: ProbeImages, **params: Any) -> Changes:
    return redo(**params)(model, twin, images, torch.Generator())


def two_layers(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4, 4), nn.ReLU(), nn.Linear(4, 2))


def test_a_dead_unit_is_recycled_by_hand() -> None:
    model, twin = two_layers(0), two_layers(1)
    with torch.no_grad():
        model[1].bias[2] = -100.0
    before = copy.deepcopy(model)
    changes = apply(model, twin, images_of(size=2))
    assert changes.masks["1.weight"].all(1).tolist() == [False, False, True, False]
    assert changes.masks["1.bias"].tolist() == [False, False, True, False]
    assert changes.masks["3.weight"].tolist() == [[False, False, True, False]] * 2
    assert torch.equal(model[1].weight[2], twin[1].weight[2])
    assert model[1].bias[2] == twin[1].bias[2]
    assert model[3].weight[:, 2].tolist() == [0.0, 0.0]
    assert "3.bias" not in changes.masks
    images, _ = next(images_of(size=2).draw("seen", 8))
    assert torch.allclose(model(images), before(images))


def test_the_threshold_is_a_share_of_the_layers_mean() -> None:
    """Activities 1, 2, 3 and 6: scores 1/3, 2/3, 1 and 2."""
    model, twin = two_layers(0), two_layers(1)
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    for tau, n_dormant in ((0.3, 0), (0.34, 1), (0.67, 2), (1.0, 3)):
        masks = apply(copy.deepcopy(model), twin, images_of(size=2), tau=tau).masks
        assert (int(masks["1.bias"].sum()) if masks else 0) == n_dormant


def test_a_unit_that_is_always_below_zero_is_not_dormant() -> None:
    """GELU of -0.75 is -0.17, a quarter of the mean size of the four."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4, 4), nn.GELU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([-0.75, 1.0, 1.0, 1.0]))
    assert not apply(model, two_layers(1), images_of(size=2), tau=0.1).masks


def test_nothing_dormant_is_a_result() -> None:
    changes = apply(two_layers(0), two_layers(1), images_of(size=2), tau=0.0)
    assert changes.may_be_empty
    assert not changes.masks


def test_a_unit_that_its_norm_keeps_off_gets_a_fresh_norm_and_the_output_stays() -> None:
    torch.manual_seed(0)
    model, twin = (timm.create_model("test_resnet", num_classes=5).eval() for _ in range(2))
    with torch.no_grad():
        model.layer2[0].bn1.bias[5] = -100.0
        model.layer2[0].bn1.running_mean[5] = 3.0
    before = copy.deepcopy(model)
    changes = apply(model, twin, images_of(), tau=0.0)
    expected = {"layer2.0.conv1.weight", "layer2.0.bn1.weight", "layer2.0.bn1.bias", "layer2.0.conv2.weight"}
    assert expected <= set(changes.masks)
    assert "bn1.bias" not in changes.masks
    assert model.layer2[0].bn1.bias[5] == 0 == model.layer2[0].bn1.running_mean[5]
    assert torch.equal(model.layer2[0].conv1.weight[5], twin.layer2[0].conv1.weight[5])
    assert model.layer2[0].conv2.weight[:, 5].abs().sum() == 0
    images, _ = next(images_of().draw("seen", 8))
    assert torch.allclose(model(images), before(images), atol=1e-5)


def test_what_a_shortcut_reads_is_reset_on_the_way_in_alone() -> None:
    model, twin = (timm.create_model("test_resnet", num_classes=5).eval() for _ in range(2))
    with torch.no_grad():
        model.bn1.bias[3] = -100.0
    masks = apply(model, twin, images_of(), tau=0.0).masks
    assert masks["conv1.6.weight"][3].all()
    assert masks["bn1.bias"].nonzero().tolist() == [[3]]
    assert "layer1.0.conv1.weight" not in masks or not masks["layer1.0.conv1.weight"][:, 3].all()


def test_the_outgoing_weights_of_a_depthwise_convolution_are_its_groups() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=2), nn.AdaptiveAvgPool2d(1))
    with torch.no_grad():
        model[0].bias[3] = -100.0
    changes = apply(model, copy.deepcopy(model), images_of(size=4), tau=0.0)
    mask = changes.masks["2.weight"]
    assert mask[:4].any() == torch.tensor(False)
    assert mask[4:, 1].all()
    assert not mask[4:, 0].any()


class Viewed(nn.Module):
    """What older models write in place of a flatten."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.view(maps.size(0), -1)


@pytest.mark.parametrize(
    "between",
    [
        [nn.ReLU(), nn.Flatten()],
        [nn.Flatten(), nn.ReLU()],
        [nn.ReLU(), Viewed()],
        [nn.ReLU(), nn.MaxPool2d(1), nn.Flatten(), nn.Dropout(0.5)],
    ],
    ids=["flatten", "flatten first", "view", "pool and dropout"],
)
def test_a_linear_map_behind_a_flatten_is_silenced_at_all_positions_of_a_channel(between: list[nn.Module]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), *between, nn.Linear(3 * 2 * 2, 5))
    with torch.no_grad():
        model[0].bias[1] = -100.0
    before = copy.deepcopy(model).eval()
    changes = apply(model, copy.deepcopy(model), images_of(size=2), tau=0.0)
    assert changes.masks[f"{len(model) - 1}.weight"].tolist() == [[False] * 4 + [True] * 4 + [False] * 4] * 5
    images, _ = next(images_of(size=2).draw("seen", 8))
    assert torch.allclose(model.eval()(images), before(images))


def test_activity_behind_a_flatten_is_that_of_the_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.ReLU(), nn.Linear(12, 5))
    batches = list(images_of(size=2).draw("seen", 16))
    with torch.no_grad():
        hidden = torch.cat([functional.relu(model[0](images)) for images, _ in batches])
    activity = watch_units(model, batches, ONE_PROCESS)["0.weight"].activity
    assert activity is not None
    assert torch.allclose(activity, hidden.sum((0, 2, 3), dtype=torch.float64))


def test_a_linear_map_over_the_positions_of_each_channel_has_no_columns_to_set() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(2), nn.Linear(4, 5))
    units = watch_units(model, images_of(size=2).draw("seen", 16), ONE_PROCESS)["0.weight"]
    assert units.is_read_elsewhere and not units.outgoing


def test_what_a_flatten_does_to_the_rows_of_a_linear_map_is_not_followed() -> None:
    """Behind it the units of all tokens alternate, and no neighbouring columns belong to one of them."""
    model = nn.Sequential(nn.Flatten(2), nn.Linear(4, 6), nn.ReLU(), nn.Flatten(), nn.Linear(18, 5))
    units = watch_units(model, images_of(size=2).draw("seen", 16), ONE_PROCESS)["1.weight"]
    assert units.is_read_elsewhere and not units.outgoing


def test_a_weight_out_of_one_dormant_unit_and_into_another_is_zero() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        model[1].bias[0], model[3].bias[1] = -100.0, -100.0
    apply(model, twin, images_of(size=2), tau=0.0)
    assert model[3].weight[:, 0].tolist() == [0.0, 0.0]
    assert model[3].weight[1, 1] == twin[3].weight[1, 1] != 0


class Pair(Ranks):
    """A process whose partner saw the same images."""

    def sum(self, values: Tensor) -> Tensor:
        return values.mul_(2)


def test_activity_is_summed_over_processes_and_layers_are_told_from_what_is_computed() -> None:
    model = timm.create_model("test_resnet", num_classes=5)
    batches = list(images_of().draw("seen", 16))
    units = watch_units(model, batches, ONE_PROCESS)
    of_pair = watch_units(model, batches, Pair())
    model.eval()
    with torch.no_grad():
        hidden = torch.cat([functional.relu(model.bn1(model.conv1(images))) for images, _ in batches])
    found, doubled = units["conv1.6.weight"], of_pair["conv1.6.weight"]
    assert found.activity is not None and doubled.activity is not None
    assert torch.allclose(found.activity, hidden.abs().sum((0, 2, 3), dtype=torch.float64))
    assert torch.allclose(doubled.activity, 2 * found.activity)
    assert found.outgoing == {"layer1.0.conv1.weight"}
    assert found.is_read_elsewhere
    block = units["layer3.0.conv1.weight"]
    assert block.outgoing == {"layer3.0.conv2.weight"}
    assert not block.is_read_elsewhere
    assert "layer1.0.conv2.weight" not in units


@pytest.mark.parametrize(
    ("family", "inner", "outgoing"),
    [
        ("test_vit", "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight"),
        ("test_convnext", "stages.1.blocks.0.mlp.fc1.weight", "stages.1.blocks.0.mlp.fc2.weight"),
        ("test_efficientnet", "blocks.3.0.conv_pw.weight", "blocks.3.0.conv_dw.weight"),
    ],
)
def test_inner_units_are_found_in_any_family(family: str, inner: str, outgoing: str) -> None:
    size = {"test_vit": 160}.get(family, 32)
    units = watch_units(timm.create_model(family, num_classes=5), images_of(size=size).draw("seen", 8), ONE_PROCESS)
    assert units[inner].outgoing == {outgoing}
    assert not units[inner].is_read_elsewhere


def test_a_standardised_weight_is_an_incoming_one_but_has_no_columns_to_set() -> None:
    units = watch_units(timm.create_model("test_nfnet", num_classes=5), images_of().draw("seen", 8), ONE_PROCESS)
    stem = units["stem.conv1.weight"]
    assert stem.incoming == {"stem.conv1.weight", "stem.conv1.bias", "stem.conv1.gain"}
    assert stem.is_read_elsewhere and not stem.outgoing


def test_a_model_without_activations_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(UserError, match="followed by an activation function"):
        apply(model, model, images_of(size=2))


@pytest.mark.parametrize(
    ("params", "words"),
    [({"tau": -0.1}, "tau is -0.1"), ({"activation_images": 0}, "at least 1"), ({"probe": "old"}, "one of seen")],
)
def test_wrong_settings_are_refused(params: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        redo(**params)
