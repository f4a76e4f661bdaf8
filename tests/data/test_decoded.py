"""The store of decoded images: each file is decoded once, and nothing that happens to the store changes an image."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lurefs import cache
from lurefs.data import encoded
from lurefs.data.dataset import ImageDataset, View
from lurefs.data.decoded import DecodedImages, stored
from lurefs.data.digits import digits
from lurefs.data.folder import folder
from lurefs.errors import UserError

ALL = np.arange(48)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded."""
    found: list[Path] = []
    decode = encoded.read_image

    def counted(path: Path, *arguments: object, **more: object) -> np.ndarray:
        found.append(path)
        return decode(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(encoded, "read_image", counted)
    return found


def images_of(photos: Path, size: int = 16) -> ImageDataset:
    return stored(folder(str(photos), image_size=size))


def store_of(dataset: ImageDataset) -> DecodedImages:
    assert dataset.decoded is not None
    return dataset.decoded


def pixels_of(folder: Path) -> Path:
    (path,) = folder.glob("images/*/pixels.bin")
    return path


def test_each_file_is_decoded_once_per_size_by_all_data_sets(photos: Path, decodes: list[Path]) -> None:
    expected = folder(str(photos), image_size=16).read(ALL)
    decodes.clear()
    for _ in range(2):
        dataset = images_of(photos)
        assert np.array_equal(dataset.read(ALL), expected)
        assert np.array_equal(dataset.read(np.array([7, 3, 7])), expected[[7, 3, 7]])
        assert dataset.viewed is not None
        assert dataset.viewed(View(image_size=24)).read(ALL).shape == (48, 24, 24, 3)
    assert sorted(decodes) == sorted([*photos.rglob("*.png")] * 2)
    assert dataset.identity == folder(str(photos), image_size=16).identity


def test_a_source_that_decodes_no_files_is_not_stored(own_cache: Path) -> None:
    whole = digits()
    assert stored(whole) is whole
    assert not own_cache.exists()


def test_a_file_replaced_by_one_of_the_same_name_size_and_time_is_decoded_again(tmp_path: Path) -> None:
    folder = tmp_path / "drawings"
    file = folder / "class" / "a.bmp"
    file.parent.mkdir(parents=True)
    Image.new("L", (8, 8), 10).save(file)
    before = file.stat()
    assert images_of(folder, 8).read(np.array([0])).max() == 10
    Image.new("L", (8, 8), 200).save(tmp_path / "b.bmp")
    os.utime(tmp_path / "b.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "b.bmp").replace(file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert images_of(folder, 8).read(np.array([0])).min() == 200


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "sums cut", "sums flipped", "removed", "card"])
def test_a_damaged_entry_gives_the_right_images(
    damage: str, photos: Path, own_cache: Path, decodes: list[Path]
) -> None:
    expected = images_of(photos).read(ALL)
    pixels = pixels_of(own_cache)
    sums = pixels.with_name("checksums.bin")
    damaged = {"sums cut": sums, "sums flipped": sums, "card": pixels.with_name("entry.json")}.get(damage, pixels)
    content = bytearray(damaged.read_bytes())
    if damage.endswith("flipped"):
        content[1000 % len(content)] ^= 1
    elif damage != "removed":
        del content[0 if damage == "emptied" else len(content) // 2 :]
    damaged.write_bytes(content)
    if damage == "removed":
        damaged.unlink()
    decodes.clear()
    assert np.array_equal(images_of(photos).read(ALL), expected)
    assert len(decodes) < 48 or damage in ("emptied", "removed")
    decodes.clear()
    assert np.array_equal(images_of(photos).read(ALL), expected)
    assert not decodes


def test_damaged_checksums_are_not_taken_for_those_of_images(photos: Path, own_cache: Path) -> None:
    expected = store_of(images_of(photos)).checksums(ALL)
    sums = pixels_of(own_cache).with_name("checksums.bin")
    flipped = bytearray(sums.read_bytes())
    flipped[8] ^= 1
    for content in (bytes(flipped), np.random.default_rng(0).bytes(len(flipped))):
        sums.write_bytes(content)
        assert np.array_equal(store_of(images_of(photos)).checksums(ALL), expected)


def test_an_entry_that_is_cut_short_while_it_is_open_gives_the_right_images(photos: Path, own_cache: Path) -> None:
    dataset = images_of(photos)
    expected = dataset.read(ALL)
    os.truncate(pixels_of(own_cache), 1000)
    assert np.array_equal(dataset.read(ALL), expected)


@pytest.mark.parametrize("is_full", [True, False])
def test_without_a_store_images_are_decoded_and_the_reason_is_told(
    is_full: bool, photos: Path, own_cache: Path, decodes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = folder(str(photos), image_size=16).read(ALL)
    if is_full:

        def refuse(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "pwrite", refuse)
    else:
        own_cache.write_text("a file where the folder should be")
    dataset = images_of(photos)
    decodes.clear()
    for n_times in (1, 2):
        assert np.array_equal(dataset.read(ALL), expected)
        assert len(decodes) == 48 * n_times
    reasons = {each.unstored for each in store_of(dataset).decode(ALL)}
    assert len(reasons) == 1
    assert ("No space left" if is_full else "cannot be used") in reasons.pop()
    assert len(store_of(dataset).missing(ALL)) == 48


def test_damaged_images_are_reported_and_not_remembered(photos: Path) -> None:
    (photos / "class 1" / "3.png").write_bytes(b"no image")
    dataset = images_of(photos)
    found = store_of(dataset).decode(ALL)
    (bad,) = [row for row, each in enumerate(found) if each.damage]
    assert dataset.image_ids[bad] == "class 1/3.png"
    assert "cannot be read as an image" in found[bad].damage
    assert store_of(dataset).missing(ALL).tolist() == [bad]
    with pytest.raises(UserError, match="cannot be read as an image"):
        dataset.read(ALL)
    without = store_of(dataset).without(np.array([bad]))
    assert len(without) == 47
    assert without.identity["skipped"] == ["class 1/3.png"]
    assert without.viewed is not None
    for view in (without, without.viewed(View(image_size=24))):
        plain = folder(str(photos), image_size=view.image_size)
        assert np.array_equal(view.read(np.array([bad, 0])), plain.read(np.array([bad + 1, 0])))
        assert view.image_ids == tuple(name for name in dataset.image_ids if name != "class 1/3.png")


FILL = """
import sys
import numpy as np
from lurefs.data.decoded import stored
from lurefs.data.folder import folder
dataset = stored(folder(sys.argv[1], image_size=64))
print("ready", flush=True)
sys.stdin.readline()
for row in np.random.default_rng(int(sys.argv[2])).permutation(len(dataset)):
    dataset.read(np.array([row]))
"""


def start(photos: Path, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FILL, str(photos), str(seed)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_fill_one_entry_and_a_killed_one_leaves_right_images(photos: Path, decodes: list[Path]) -> None:
    processes = [start(photos, seed) for seed in range(3)]
    for process in processes:
        go(process)
    time.sleep(0.03)
    processes[2].send_signal(signal.SIGKILL)
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes[:2]] == [0, 0]
    found = images_of(photos, 64).read(ALL)
    assert not decodes
    assert np.array_equal(found, folder(str(photos), image_size=64).read(ALL))


def test_only_one_process_at_a_time_fills(photos: Path) -> None:
    one, two = store_of(images_of(photos)), store_of(images_of(photos))
    with one.filling():
        assert two.is_being_filled()
    assert not two.is_being_filled()
