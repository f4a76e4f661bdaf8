from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lurefs.data.folder import folder
from lurefs.errors import UserError


def save_image(path: Path, colour: object = "white", size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    save_image(tmp_path / "wolf" / "b.png", "black")
    save_image(tmp_path / "wolf" / "deep" / "a.PNG", "red")
    save_image(tmp_path / "cat" / "x.jpg", "white", size=(20, 10))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    save_image(tmp_path / "cat" / ".hidden.png")
    save_image(tmp_path / ".thumbnails" / "t.png")
    return tmp_path


def test_importing_the_sources_imports_no_heavy_package() -> None:
    heavy = "{'torch', 'timm', 'sklearn', 'matplotlib', 'PIL', 'fontTools'}"
    modules = "icons", "folder", "npz", "digits", "glyphs"
    imports = ", ".join(f"lurefs.data.{module}" for module in modules)
    code = f"import sys, {imports}; print({heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_a_folder_is_listed_by_class_and_path(animals: Path) -> None:
    dataset = folder(str(animals))
    assert dataset.class_names == ("cat", "wolf")
    assert dataset.image_ids == ("cat/x.jpg", "wolf/b.png", "wolf/deep/a.PNG")
    assert dataset.labels.tolist() == [0, 1, 1]


def test_a_folder_is_read_in_the_order_asked_for(animals: Path) -> None:
    images = folder(str(animals), image_size=4).read(np.array([2, 1]))
    assert images.shape == (2, 4, 4, 3)
    assert images[0, 0, 0].tolist() == [255, 0, 0]
    assert images[1].max() == 0


def test_a_folder_can_be_read_in_grey(animals: Path) -> None:
    assert folder(str(animals), image_size=4, n_channels=1).read(np.array([0])).shape == (1, 4, 4, 1)


def test_the_shorter_side_is_resized_and_the_centre_cropped(tmp_path: Path) -> None:
    pixels = np.zeros((4, 12), np.uint8)
    pixels[:, 4:8] = 255
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "bar.png")
    assert folder(str(tmp_path), image_size=4, n_channels=1).read(np.array([0])).min() == 255


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    save_image(tmp_path / "a" / "clear.png", (0, 0, 0, 0), mode="RGBA")
    assert folder(str(tmp_path), image_size=4).read(np.array([0])).min() == 255


@pytest.mark.parametrize(("suffix", "kind"), [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2"), ("tif", "<i4")])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_grey_values_of_more_than_8_bits_are_scaled_and_not_clipped(
    tmp_path: Path, suffix: str, kind: str, n_channels: int
) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.array([[0, 255], [32768, 65535]], kind)).save(tmp_path / "a" / f"deep.{suffix}")
    image = folder(str(tmp_path), image_size=2, n_channels=n_channels).read(np.array([0]))[0]
    assert image.shape == (2, 2, n_channels)
    assert image[:, :, 0].tolist() == [[0, 0], [128, 255]]


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.array([[0.0, 1.0]], np.float32), r"its pixels are floating-point numbers.*\n.*from 0 to 65535"),
        (np.array([[-5, 70000]], np.int32), r"its pixels go from -5 to 70000\n.*from 0 to 65535"),
    ],
)
def test_pixels_of_an_unknown_range_are_refused(tmp_path: Path, pixels: np.ndarray, words: str) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "depth.tif")
    with pytest.raises(UserError, match=r"a/depth\.tif cannot be read as an image: " + words):
        folder(str(tmp_path), image_size=1).read(np.array([0]))


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    image = Image.new("L", (8, 8))
    image.paste(255, (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a" / "turned.png", exif=exif)
    upright = folder(str(tmp_path), image_size=8, n_channels=1).read(np.array([0]))[0, :, 0, 0]
    assert (upright[0], upright[-1]) == (0, 255)


def test_a_folder_is_decoded_only_when_read(animals: Path) -> None:
    (animals / "wolf" / "b.png").write_bytes(b"broken")
    dataset = folder(str(animals))
    dataset.read(np.array([0]))
    with pytest.raises(UserError, match=r"b\.png cannot be read as an image"):
        dataset.read(np.array([1]))


def test_a_truncated_image_is_refused_by_name(animals: Path) -> None:
    file = animals / "wolf" / "b.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(
        UserError, match=r"wolf/b\.png cannot be read[^\n]*\n.*intact image file[^\n]*\n.*replace the file"
    ):
        folder(str(animals)).read(np.array([1]))


def test_the_identity_of_a_folder_ignores_where_it_lies(
    animals: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = folder(str(animals)).identity
    moved = animals.rename(tmp_path_factory.mktemp("elsewhere") / "animals")
    assert folder(str(moved)).identity == before


def test_the_identity_of_a_folder_changes_with_its_files(animals: Path) -> None:
    before = folder(str(animals)).identity
    save_image(animals / "wolf" / "b.png", size=(90, 90))
    assert folder(str(animals)).identity != before


def test_a_relative_path_starts_at_the_working_directory(animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(animals.parent)
    assert len(folder(animals.name)) == 3


def test_a_tilde_is_the_home_folder(animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(animals.parent))
    assert len(folder(f"~/{animals.name}")) == 3


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing is not a folder \(looked at /.*\n.*working directory"):
        folder(str(tmp_path / "missing"))


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "loose.png")
    with pytest.raises(UserError, match=r"has no sub-folders\n.*one sub-folder per class"):
        folder(str(tmp_path))


def test_a_class_without_images_is_refused_by_name(animals: Path) -> None:
    (animals / "bear").mkdir()
    with pytest.raises(UserError, match=r"class 'bear' has no images: .*bear\n.*\.png"):
        folder(str(animals))


def test_two_channels_are_refused(animals: Path) -> None:
    with pytest.raises(UserError, match=r"n_channels is 2\n.*1 \(grey\) or 3 \(RGB\)"):
        folder(str(animals), n_channels=2)
