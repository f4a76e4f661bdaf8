"""Malformed data on the command line: read rightly, or refused in three parts before anything is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import forms
from lurefs.cli import main
from lurefs.runs.directory import RunDirectory


def words_for(data: Path, out: Path) -> list[str]:
    words = ["evaluate", str(data), "--backbone", "test_resnet", "--way", "2", "--shots", "1", "--run-dir", str(out)]
    words += ["backbone.pretrained=false", "backbone.image_size=32", "benchmarks.2way-1shot.n_episodes=20"]
    words += ["benchmarks.2way-1shot.n_query=3", "controls=false", "trackers.wandb.mode=disabled"]
    return [*words, "dataset.params.image_size=16"]


def truncated(root: Path) -> None:
    file = root / "class-1" / "2.png"
    file.write_bytes(file.read_bytes()[:200])


def dead_link(root: Path) -> None:
    (root / "class-1" / "9.png").symlink_to(root / "nowhere.png")


def text_as_png(root: Path) -> None:
    (root / "class-1" / "2.png").write_text("this is no image")


def twelve_bits_in_sixteen(root: Path) -> None:
    for file in root.rglob("*.png"):
        pixels = np.random.default_rng(0).integers(0, 4096, (20, 24)).astype(np.uint16)
        Image.fromarray(pixels).save(file)


def two_levels(root: Path) -> None:
    for name in ("class-0", "class-1"):
        for part in ("inner", "outer"):
            (root / name / part).mkdir()
        for number, file in enumerate(sorted((root / name).glob("*.png"))):
            file.rename(root / name / ("inner" if number % 2 else "outer") / file.name)
    for name in forms.CLASSES[2:]:
        shutil.rmtree(root / name)


def empty_class(root: Path) -> None:
    (root / "nobody").mkdir()


def class_of_one_image(root: Path) -> None:
    for file in sorted((root / "class-1").iterdir())[1:]:
        file.unlink()


REFUSED: dict[Callable[[Path], None], tuple[str, ...]] = {
    truncated: ("1 of 48 images cannot be read", "class-1/2.png", "on_bad_image=skip"),
    dead_link: ("class-1/9.png is a link that leads nowhere", "replace it or delete it"),
    text_as_png: ("1 of 48 images cannot be read", "class-1/2.png", "on_bad_image=skip"),
    twelve_bits_in_sixteen: ("48 of 48 images cannot be read", "white_level"),
    two_levels: ("can be read in two ways", "dataset.params.layout=class/class"),
    empty_class: ("class 'nobody' has no images", "delete it"),
    class_of_one_image: ("class 'class-1' has 1 image",),
}


@pytest.mark.parametrize("damage", REFUSED, ids=lambda damage: damage.__name__)
def test_what_cannot_be_read_is_refused_before_anything_is_written(
    damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = forms.write_folders(tmp_path / "photos")
    damage(root)
    with pytest.raises(SystemExit) as caught:
        main(words_for(root, tmp_path / "out"))
    said = capsys.readouterr().err
    assert caught.value.code == 2 and "Traceback" not in said
    assert "expected:" in said and "to fix:" in said
    for words in REFUSED[damage]:
        assert words in said
    assert not (tmp_path / "out").exists()


def split_folders(root: Path) -> None:
    for name in forms.CLASSES:
        for number in range(forms.N_PER_CLASS):
            part = root / ("train" if number % 2 else "test") / name
            part.mkdir(parents=True, exist_ok=True)
            (root / name / f"{number}.png").rename(part / f"{number}.png")
        (root / name).rmdir()


def odd_exif(root: Path) -> None:
    for number, file in enumerate(sorted(root.rglob("*.png"))):
        with Image.open(file) as image:
            image.load()
        exif = image.getexif()
        exif[0x0112] = (0, 6, 9, 255)[number % 4]  # orientations; only the second exists
        image.save(file.with_suffix(".jpg"), exif=exif.tobytes() + b"\xff\x00odd" * (number % 3))
        file.unlink()


def names_of_other_codes(root: Path) -> None:
    os.rename(os.fsencode(root / "class-1"), os.fsencode(root) + b"/caf\xe9")
    os.rename(os.fsencode(root) + b"/caf\xe9/2.png", os.fsencode(root) + b"/caf\xe9/2\xff.png")


@pytest.mark.parametrize("change", [split_folders, odd_exif, names_of_other_codes], ids=lambda change: change.__name__)
def test_what_is_odd_is_measured(
    change: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = forms.write_folders(tmp_path / "photos")
    change(root)
    assert main(words_for(root, tmp_path / "out")) in (0, None)
    assert "test_resnet" in capsys.readouterr().out
    (summary,) = (tmp_path / "out").rglob("summary.json")
    bank = RunDirectory(summary.parent).read_bank("2way-1shot")
    assert len(bank.class_names) == 6 and len(set(bank.image_ids)) == 48
    assert all(name.isprintable() for name in (*bank.class_names, *bank.image_ids))
