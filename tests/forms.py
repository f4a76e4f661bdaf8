"""Small data sets in each form that people have, for the tests: six classes of eight images."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
from PIL import Image

CLASSES = tuple(f"class-{label}" for label in range(6))
N_PER_CLASS = 8


def image_of(label: int, number: int) -> Image.Image:
    """Return a colour image that depends on its class and number."""
    rng = np.random.default_rng([label, number])
    pixels = np.clip(rng.integers(0, 120, (20, 24, 3)) + label * 25, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


def write_images(folder: Path, ending: str = ".png") -> list[tuple[str, str]]:
    """Write all images into one folder; return name and class of each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for label, name in enumerate(CLASSES):
        for number in range(N_PER_CLASS):
            file = f"{name}-{number}{ending}"
            image_of(label, number).save(folder / file)
            rows.append((file, name))
    return rows


def write_folders(root: Path) -> Path:
    """Write one sub-folder per class."""
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(N_PER_CLASS):
            image_of(label, number).save(root / name / f"{number}.png")
    return root


def write_table(path: Path) -> Path:
    """Write the images and a table of their paths and classes."""
    rows = write_images(path.parent / "pixels")
    columns = {"path": [f"pixels/{file}" for file, _ in rows], "label": [name for _, name in rows]}
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        path.write_text("".join(f"{a},{b}\n" for a, b in (columns.keys(), *zip(*columns.values(), strict=True))))
    return path


def write_three_lists(root: Path) -> Path:
    """Write the images as mini-ImageNet is handed on: train.csv, val.csv and test.csv of different classes."""
    rows = write_images(root / "images", ".jpg")
    for part, names in (("train", CLASSES[:3]), ("val", CLASSES[3:4]), ("test", CLASSES[4:])):
        lines = [f"{file},{name}" for file, name in rows if name in names]
        (root / f"{part}.csv").write_text("\n".join(["filename,label", *lines]) + "\n")
    return root


def write_npz(path: Path) -> Path:
    """Write the images as arrays."""
    labels = np.repeat(np.arange(len(CLASSES)), N_PER_CLASS)
    images = [np.asarray(image_of(label, row % N_PER_CLASS)) for row, label in enumerate(labels)]
    np.savez(path, images=np.stack(images), labels=labels, class_names=np.array(CLASSES))
    return path


def write_archive(path: Path) -> Path:
    """Write folders of images as a tar or zip archive."""
    folder = write_folders(path.parent / "packed")
    files = sorted(file for file in folder.rglob("*.png"))
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
            tar.add(folder, "./")
    return path


def write_shards(folder: Path, *, n_shards: int = 3, part: str = "photos", with_json: bool = False) -> str:
    """Write the images as shards in the WebDataset format; return the pattern of their names."""
    folder.mkdir(exist_ok=True)
    samples = [(label, number) for number in range(N_PER_CLASS) for label in range(len(CLASSES))]
    for shard in range(n_shards):
        with tarfile.open(folder / f"{part}-{shard:06d}.tar", "w") as tar:
            for label, number in samples[shard::n_shards]:
                image = io.BytesIO()
                image_of(label, number).save(image, "png")
                described = ("json", json.dumps({"label": CLASSES[label]}).encode())
                for kind, content in (("png", image.getvalue()), described if with_json else ("cls", b"%d" % label)):
                    info = tarfile.TarInfo(f"{label}{number:05d}.{kind}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return str(folder / f"{part}-{{000000..{n_shards - 1:06d}}}.tar")


def rows_of_bytes() -> tuple[list[dict[str, object]], list[int]]:
    """Return all images as `datasets` stores them, and their labels."""
    rows, labels = [], []
    for label in range(len(CLASSES)):
        for number in range(N_PER_CLASS):
            content = io.BytesIO()
            image_of(label, number).save(content, "png")
            rows.append({"bytes": content.getvalue(), "path": None})
            labels.append(label)
    return rows, labels


def with_features(table: pyarrow.Table) -> pyarrow.Table:
    """Return a table with the note of `datasets` about its columns."""
    features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_saved(root: Path) -> Path:
    """Write train and test as `DatasetDict.save_to_disk` does."""
    rows, labels = rows_of_bytes()
    root.mkdir()
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    for part, chosen in (("train", range(0, len(labels), 2)), ("test", range(1, len(labels), 2))):
        (root / part).mkdir()
        table = pyarrow.table({"image": [rows[row] for row in chosen], "label": [labels[row] for row in chosen]})
        table = with_features(table)
        name = "data-00000-of-00001.arrow"
        with pyarrow.ipc.new_stream(str(root / part / name), table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
        state = {"_data_files": [{"filename": name}], "_fingerprint": "1", "_format_type": None, "_split": part}
        (root / part / "state.json").write_text(json.dumps(state))
        (root / part / "dataset_info.json").write_text("{}")
    return root


def write_parquet_bytes(root: Path) -> Path:
    """Write Parquet files with image bytes, as a data set of the hub has them."""
    rows, labels = rows_of_bytes()
    (root / "data").mkdir(parents=True)
    for shard in range(2):
        table = with_features(pyarrow.table({"image": rows[shard::2], "label": labels[shard::2]}))
        pyarrow.parquet.write_table(table, root / "data" / f"train-{shard:05d}-of-00002.parquet", row_group_size=7)
    return root


def write_idx(root: Path, *, start: str = "", compress: bool = False) -> Path:
    """Write train and test as the four idx files of MNIST."""
    root.mkdir(parents=True, exist_ok=True)
    for part, numbers in (("train", range(5)), ("t10k", range(5, N_PER_CLASS))):
        pairs = [(label, number) for number in numbers for label in range(len(CLASSES))]
        images = np.stack([np.asarray(image_of(*pair).convert("L"))[:, 2:22] for pair in pairs])
        labels = np.array([label for label, _ in pairs], np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            content = head + array.tobytes()
            name = f"{start}{part}-{kind}-ubyte" + (".gz" if compress else "")
            (root / name).write_bytes(gzip.compress(content) if compress else content)
    return root
