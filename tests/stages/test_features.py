"""What a backbone sees of a file is what timm's own evaluation gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

from lurefs.config.learning_schema import BackboneConfig
from lurefs.data.decoded import stored
from lurefs.data.folder import folder
from lurefs.learning.backbones import Backbone, build_backbone
from lurefs.stages.features import embed_batches, viewed
from lurefs.stages.plan import ImageSet

SHAPES = {"wide": (70, 131, 3), "tall": (119, 64, 3), "square": (90, 90, 3), "small": (20, 33, 3)}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "pictures" / "all").mkdir(parents=True)
    for name, shape in SHAPES.items():
        Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(
            tmp_path / "pictures" / "all" / f"{name}.png"
        )
    return tmp_path / "pictures"


@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("size", [64, 75])
def test_a_file_becomes_the_input_that_timm_makes_of_it(
    pictures: Path, weights_path: Path, crop_pct: float, interpolation: str, crop_mode: str, size: int
) -> None:
    card: dict[str, Any] = {
        "input_size": (3, size, size),
        "crop_pct": crop_pct,
        "interpolation": interpolation,
        "crop_mode": crop_mode,
    }
    config = BackboneConfig(
        name="test_byobnet", checkpoint_path=str(weights_path), params={"pretrained_cfg_overlay": card}
    )
    backbone = build_backbone(config, n_classes=0, n_channels=3, image_size=32, seed=0)
    images = viewed(folder(str(pictures), image_size=32), backbone)
    assert images.image_size == backbone.image_size == size
    found = backbone.prepare(torch.from_numpy(images.read(np.arange(len(images)))).permute(0, 3, 1, 2))

    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(backbone.model))
    for image_id, image in zip(images.image_ids, found, strict=True):
        expected: Tensor = transform(Image.open(pictures / image_id).convert("RGB"))
        step = 1 / 255 / min(backbone.std)
        assert float((image - expected).abs().max()) < 0.01 * step, image_id


def test_initial_weights_see_a_data_set_as_it_is(pictures: Path) -> None:
    images = folder(str(pictures), image_size=32)
    backbone = build_backbone(BackboneConfig(name="test_byobnet"), n_classes=0, n_channels=3, image_size=32, seed=0)
    assert viewed(images, backbone) is images


def test_another_view_is_another_identity(pictures: Path, weights_path: Path) -> None:
    images = folder(str(pictures), image_size=32)
    config = BackboneConfig(name="test_byobnet", checkpoint_path=str(weights_path))
    backbone = build_backbone(config, n_classes=0, n_channels=3, image_size=32, seed=0)
    plain = BackboneConfig(name="test_byobnet", image_size=160)
    other = build_backbone(plain, n_classes=0, n_channels=3, image_size=32, seed=0)
    assert viewed(images, backbone).identity != viewed(images, other).identity


@pytest.mark.parametrize("n_workers", [0, 2])
def test_features_are_the_same_whoever_reads_the_images(
    pictures: Path, n_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUREFS_CACHE", str(tmp_path / "cache"))
    dataset = stored(folder(str(pictures), image_size=32))
    backbone = build_backbone(BackboneConfig(name="test_byobnet"), n_classes=0, n_channels=3, image_size=32, seed=0)
    rows = np.array([3, 1, 0, 2])
    images = ImageSet(name="all", dataset=dataset, rows=rows, labels=np.zeros(4, np.int64), class_names=("all",))
    batches = list(embed_batches(backbone, images, 3, range(2), n_workers=n_workers))
    assert [len(batch) for batch in batches] == [3, 1]
    plain = torch.from_numpy(folder(str(pictures), image_size=32).read(rows)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = torch.cat([backbone.embed(plain[:3]), backbone.embed(plain[3:])])
    assert np.array_equal(np.concatenate(batches), expected.numpy())


def untrained(pictures: Path) -> tuple[Backbone, ImageSet]:
    dataset = folder(str(pictures), image_size=32)
    backbone = build_backbone(BackboneConfig(name="test_byobnet"), n_classes=0, n_channels=3, image_size=32, seed=0)
    labels = np.zeros(4, np.int64)
    return backbone, ImageSet(name="all", dataset=dataset, rows=np.arange(4), labels=labels, class_names=("all",))


OUT_OF_MEMORY = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_too_little_memory_halves_the_images_at_one_time_and_the_features_stay(
    pictures: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone, images = untrained(pictures)
    (whole,) = embed_batches(backbone, images, 4, range(1))
    sizes: list[int] = []
    fitting = Backbone.embed

    def embed(self: Backbone, batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        if len(batch) > 1:
            raise error
        return fitting(self, batch)

    monkeypatch.setattr(Backbone, "embed", embed)
    (halved,) = embed_batches(backbone, images, 4, range(1))
    assert sizes == [4, 2, 1, 1, 1, 1]
    np.testing.assert_allclose(halved, whole, rtol=1e-5, atol=1e-6)
    assert "too little memory to embed 2 images at one time: going on with 1" in capfd.readouterr().err


def test_an_image_that_does_not_fit_at_all_and_other_errors_are_raised(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, images = untrained(pictures)
    for error in (*OUT_OF_MEMORY, RuntimeError("shapes do not fit")):

        def embed(self: Backbone, batch: Tensor, error: Exception = error) -> Tensor:
            raise error

        monkeypatch.setattr(Backbone, "embed", embed)
        with pytest.raises(type(error)):
            list(embed_batches(backbone, images, 4, range(1)))
