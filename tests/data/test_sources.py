from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lurefs.data.sources import digits, folder, npz
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
    code = f"import sys, lurefs.data.icons, lurefs.data.sources, lurefs.data.glyphs; print({heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_digits_are_scaled_to_the_full_range() -> None:
    dataset = digits()
    images = dataset.read(np.arange(len(dataset)))
    assert images.shape == (1797, 8, 8, 1)
    assert (images.min(), images.max()) == (0, 255)
    assert images[0, 0, :4, 0].tolist() == [0, 0, 80, 207]  # 0, 0, 5 and 13 of 16


def test_digits_have_ten_classes_and_one_source() -> None:
    dataset = digits()
    assert dataset.class_names == tuple("0123456789")
    assert dataset.n_per_class.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert dataset.image_ids[:2] == ("0/0000", "1/0001")
    assert not dataset.sources.any()


def test_digits_come_in_another_size() -> None:
    assert digits(image_size=12).read(np.array([5])).shape == (1, 12, 12, 1)


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


def save_npz(path: Path, **changes: Any) -> str:
    arrays: dict[str, Any] = {
        "images": np.arange(4 * 6 * 6, dtype=np.uint8).reshape(4, 6, 6),
        "labels": np.array([3, 5, 5, 3]),
        **changes,
    }
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


def test_an_npz_file_without_names_takes_classes_from_its_labels(tmp_path: Path) -> None:
    dataset = npz(save_npz(tmp_path / "a.npz"))
    assert dataset.class_names == ("3", "5")
    assert dataset.labels.tolist() == [0, 1, 1, 0]
    assert dataset.image_ids == ("0", "1", "2", "3")
    assert (dataset.image_size, dataset.n_channels) == (6, 1)
    assert dataset.read(np.array([1]))[0, 0, :2, 0].tolist() == [36, 37]


def test_an_npz_file_may_name_classes_images_and_sources(tmp_path: Path) -> None:
    path = save_npz(
        tmp_path / "a.npz",
        labels=np.array([0, 1, 1, 0]),
        class_names=np.array(["cat", "wolf"]),
        image_ids=np.array(["a", "b", "c", "d"]),
        sources=np.array(["zoo", "zoo", "farm", "zoo"]),
    )
    dataset = npz(path)
    assert dataset.class_names == ("cat", "wolf")
    assert dataset.image_ids == ("a", "b", "c", "d")
    assert [dataset.source_names[source] for source in dataset.sources] == ["zoo", "zoo", "farm", "zoo"]


def test_an_npz_file_in_colour_is_resized(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", images=np.zeros((4, 6, 9, 3), np.uint8))
    assert npz(path, image_size=5).read(np.array([0, 3])).shape == (2, 5, 5, 3)


def test_a_changed_npz_file_is_read_again(tmp_path: Path) -> None:
    first = npz(save_npz(tmp_path / "a.npz"))
    first.read(np.array([0]))
    second = npz(save_npz(tmp_path / "a.npz", images=np.full((4, 6, 6), 9, np.uint8)))
    assert second.identity != first.identity
    assert second.read(np.array([0])).max() == 9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None}, r"has no array 'labels', only images\n.*images and labels"),
        ({"images": None}, r"has no array 'images', only labels"),
        ({"images": np.zeros((4, 6, 6))}, r"images of shape \(4, 6, 6\), float64\n.*uint8"),
        ({"images": np.zeros((4, 3, 6, 6), np.uint8)}, r"images of shape \(4, 3, 6, 6\).*\n.*\n.*channels come last"),
        ({"images": np.zeros((4, 6, 7), np.uint8)}, r"images of 6 x 7 pixels\n.*\n.*set image_size, e\.g\. to 6"),
        ({"labels": np.zeros(3, int)}, r"has labels of shape \(3,\)\n.*\(4,\), one entry per image"),
        ({"labels": np.zeros(4)}, r"labels of type float64\n.*integers"),
        ({"labels": np.array([0, 1, 2, 3], object)}, r"array 'labels' that cannot be read"),
        ({"class_names": np.array(["a", "b"])}, r"labels from 3 to 5, but 2 class_names\n.*labels from 0 to 1"),
        ({"class_names": np.array(list("abcdef"))}, r"has no image of class 'a'"),
        ({"image_ids": np.array(["a", "b", "c", "a"])}, r"image_ids that occur twice\n.*one unique id per image"),
    ],
)
def test_a_wrong_npz_file_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        npz(save_npz(tmp_path / "a.npz", **changes))


def test_a_truncated_npz_file_is_refused(tmp_path: Path) -> None:
    path = Path(save_npz(tmp_path / "a.npz"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"a\.npz is not an \.npz file, or is incomplete"):
        npz(str(path))


def test_damaged_pixels_are_refused_when_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (4, 32, 32)).astype(np.uint8)
    path = Path(save_npz(tmp_path / "a.npz", images=noise))
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"array 'images' that cannot be read"):
        npz(str(path)).read(np.array([0]))


def test_a_missing_npz_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.npz is not a file"):
        npz(str(tmp_path / "a.npz"))
