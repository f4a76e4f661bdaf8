from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lurefs.cli import main
from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.load import to_yaml
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone, build_backbone
from lurefs.learning.padding import layers_on_padding, padding_note
from lurefs.stages.plan import make_plan
from lurefs.stages.run import padding_notes


def build(name: str, *, image_size: int = 32, **settings: Any) -> Backbone:
    config = BackboneConfig(name=name, **settings)
    return build_backbone(config, n_classes=4, n_channels=1, image_size=image_size, seed=0)


def test_a_kernel_on_maps_of_one_position_is_found_with_its_taps() -> None:
    assert layers_on_padding(build("test_resnet")) == {"layer4.0.conv2": 9}
    assert set(layers_on_padding(build("test_convnext")).values()) == {49}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("test_resnet", {"stem": "small"}),
        ("test_resnet", {"image_size": 64}),
        ("test_vit", {}),
        ("test_byobnet", {"stem": "small"}),
        ("test_mambaout", {"stem": "small"}),  # channels last
        ("test_efficientnet", {"stem": "small", "image_size": 24}),
    ],
)
def test_a_backbone_whose_kernels_see_larger_maps_or_none_has_no_note(name: str, settings: dict[str, Any]) -> None:
    assert padding_note(build(name, **settings)) is None


@pytest.mark.parametrize("name", ["test_efficientnet", "test_byobnet", "test_coatnet"])
def test_last_maps_of_one_position_are_told_where_no_kernel_sees_them(name: str) -> None:
    note = padding_note(build(name))
    assert note is not None and "its last maps are 1 x 1" in note and "backbone.image_size" in note


def test_the_note_names_the_share_of_taps_and_the_way_out() -> None:
    note = padding_note(build("resnet18"))
    assert note is not None
    assert "resnet18 at 32 x 32 pixels" in note and "3 convolutions, layer4.0.conv2 to layer4.1.conv2," in note
    assert "8 of 9 taps" in note and "backbone.stem=small or a larger backbone.image_size" in note


@pytest.mark.parametrize("name", ["test_convnext"])
def test_a_small_stem_is_not_offered_where_it_would_be_refused(name: str) -> None:
    note = padding_note(build(name))
    assert note is not None and "stem" not in note and "backbone.image_size" in note
    with pytest.raises(UserError, match="no overlapping first convolution"):
        build(name, stem="small")


def test_the_backbone_stays_as_it_was() -> None:
    backbone = build("test_resnet")
    backbone.model.train()
    layers_on_padding(backbone)
    assert backbone.model.training
    assert not any(module._forward_pre_hooks for module in backbone.model.modules())


def test_each_backbone_is_told_once_whatever_its_variants_and_seeds(make_config: Callable[..., RunConfig]) -> None:
    config = make_config(backbone={"name": "test_resnet", "image_size": 32})
    byobnet = replace(config, backbone=replace(config.backbone, name="test_byobnet"))
    convnext = replace(config, backbone=replace(config.backbone, name="test_convnext"))
    plans = [make_plan(each) for each in (config, replace(config, seed=1), byobnet, convnext)]
    assert [note.split()[0] for note in padding_notes(plans)] == ["test_resnet", "test_byobnet", "test_convnext"]


@pytest.mark.parametrize("extra", [["--dry-run"], []], ids=["planned", "run"])
def test_a_run_says_it_on_stderr(
    extra: list[str], make_config: Callable[..., RunConfig], tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deep.yaml"
    variants = "variants:\n  lure: {}\n  warm: {unlearn: {name: nothing}}\n"
    path.write_text(to_yaml(make_config(backbone={"name": "test_resnet", "image_size": 32})) + variants)
    main(["run", "--config", str(path), "--run-dir", str(tmp_path / "runs"), "learner.epochs=1", *extra])
    out, err = capsys.readouterr()
    assert err.count("meet nothing but padding") == 1
    assert "padding" not in out
