"""Whatever bytes of a file are damaged, it is read or refused in words, as the errors of libraries are not."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import shutil
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lurefs.data import few_shot_set, idx, npz
from lurefs.data.archive import members
from lurefs.data.dataset import View
from lurefs.data.features_file import features, holds_features
from lurefs.data.pixels import read_image
from lurefs.data.table import read_columns
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory

N_DAMAGES = 120
Read = Callable[[Path], object]
GOLDEN = RunDirectory(Path(__file__).parents[1] / "golden" / "version-1" / "golden")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 20, 3)).astype(np.uint8))


def read_npz(path: Path) -> None:
    npz._npz_images.cache_clear()
    dataset = npz.npz(str(path))
    dataset.read(np.arange(len(dataset)))


def read_features(path: Path) -> None:
    if holds_features(path):
        dataset = features(str(path))
        assert dataset.read_features is not None
        dataset.read_features(np.arange(len(dataset)))


def read_archive(path: Path) -> None:
    for member in members(path):
        member.read()


def read_episodes(path: Path) -> None:
    run = RunDirectory(path.parents[1])
    run.read_episodes("novel-3way-1shot", "logistic_regression", with_predicted=True)


def read_bank(path: Path) -> None:
    for name in ("bank.json", "features.npy", "labels.npy"):
        if not (path.parent / name).exists():
            shutil.copy(GOLDEN.features_dir(path.parent.name) / name, path.parent)
    RunDirectory(path.parents[2]).read_bank(path.parent.name)


def picture(form: str) -> bytes:
    stream = io.BytesIO()
    PICTURE.save(stream, form)
    return stream.getvalue()


def arrays(*, packed: bool, **values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(stream, allow_pickle=False, **values)
    return stream.getvalue()


def table(**columns: list[object]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number, method in enumerate((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)):
            archive.writestr(f"a/{number}.png", picture("PNG"), compress_type=method)
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("a/0.png")
        info.size = len(picture("PNG"))
        archive.addfile(info, io.BytesIO(picture("PNG")))
    return stream.getvalue()


def an_image(path: Path) -> object:
    return read_image(path, View(image_size=16), 3)


LABELS = np.arange(6) % 3
IMAGES = {"images": np.zeros((6, 4, 4), np.uint8), "labels": LABELS, "class_names": np.array(["a", "b", "c"])}
FEATURES = {"features": np.ones((6, 4), np.float32), "labels": LABELS}
ROWS: list[object] = [f"class {row % 3}" for row in range(20)]
VECTORS: list[object] = [[float(row), 1.0, 2.0] for row in range(20)]
PICKLED = pickle.dumps({"image_data": np.zeros((2, 8, 8, 3), np.uint8), "class_dict": {"a": [0, 1]}})
FORMS: dict[str, tuple[bytes, Read]] = {
    "images.npz": (arrays(packed=False, **IMAGES), read_npz),
    "packed images.npz": (arrays(packed=True, **IMAGES), read_npz),
    "features.npz": (arrays(packed=True, **FEATURES), read_features),
    "features.parquet": (table(features=VECTORS, label=ROWS), read_features),
    "labels.parquet": (table(image=ROWS, label=ROWS), read_columns),
    "labels.csv": (b"image,label\n" + b"1.png,a\n" * 20, read_columns),
    "images.zip": (zipped(), read_archive),
    "images.tar": (tarred(), read_archive),
    "images.gz": (
        gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 2, 6, 6) + bytes(72)),
        lambda path: idx._array(path, 3),
    ),
    "images.pkl": (PICKLED, lambda path: few_shot_set._load(path, path.stat().st_mtime_ns)),
    "episodes/novel-3way-1shot--logistic_regression.parquet": (
        GOLDEN.episodes_path("novel-3way-1shot", "logistic_regression").read_bytes(),
        read_episodes,
    ),
    **{
        f"features/novel-3way-1shot/{name}": ((GOLDEN.features_dir("novel-3way-1shot") / name).read_bytes(), read_bank)
        for name in ("bank.json", "features.npy", "labels.npy")
    },
    **{f"image.{form}": (picture(form), an_image) for form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "ICO")},
}


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """Flip bits, put other bytes in the place of some, or cut the end off; most often in the first 400 bytes."""
    content = bytearray(whole)
    place = rng.randrange(min(len(content), 400) if rng.random() < 0.6 else len(content))
    match rng.randrange(4):
        case 0:
            return whole[:place]
        case 1:
            content[place : place + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(9))
        case _:
            content[place] ^= 1 << rng.randrange(8)
    return bytes(content)


@pytest.mark.parametrize("name", FORMS)
def test_damaged_bytes_are_read_or_refused_in_words(name: str, tmp_path: Path) -> None:
    whole, read = FORMS[name]
    rng = random.Random(name)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole)
    read(path)
    n_refused = 0
    for _ in range(N_DAMAGES):
        path.write_bytes(damaged(whole, rng))
        with warnings.catch_warnings(), suppress(UserError, MemoryError):  # a pickle may claim any size
            warnings.simplefilter("ignore")
            n_refused += 1
            read(path)
            n_refused -= 1
    assert n_refused


@pytest.mark.parametrize(
    ("place", "value"), [(6, 1), (8, 99), (30, ord("x"))], ids=["encrypted", "method that is unknown", "other name"]
)
def test_a_member_that_zipfile_refuses_is_told(tmp_path: Path, place: int, value: int) -> None:
    """The fields of the central directory lie two bytes after those of the file's own header."""
    content = bytearray(arrays(packed=True, **IMAGES))
    entry = content.index(b"PK\x01\x02")
    for start in (0, entry):
        content[start + place + (0 if start == 0 else 16 if place == 30 else 2)] = value
    (tmp_path / "images.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"images\.npz has (an array 'images' that cannot be read|no array 'images')"):
        npz.npz(str(tmp_path / "images.npz"))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("images.zip", "zlib.decompress"),
        ("images.gz", "gzip.decompress"),
        ("labels.parquet", "pyarrow.parquet.read_table"),
        ("features.parquet", "pyarrow.parquet.read_table"),
        ("image.PNG", "PIL.Image.open"),
        ("episodes/novel-3way-1shot--logistic_regression.parquet", "pyarrow.parquet.ParquetFile"),
    ],
)
def test_too_little_memory_is_no_damage(
    name: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **settings: object) -> None:
        raise MemoryError

    whole, read = FORMS[name]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole)
    monkeypatch.setattr(function, fail)
    with pytest.raises(MemoryError):
        read(path)
