"""Small data sets in each form that people have, for the tests: six classes of eight images."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
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
