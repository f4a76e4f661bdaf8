"""Images, features and folders that are damaged, or lie about their content."""

from __future__ import annotations

import io
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bad_input_kinds.damage import damaged_bytes
from bad_input_kinds.worlds import Case, World


def bad_data(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield files of images and features, and folders, that are damaged or lie about their content."""
    images, features = (dict(np.load(path)) for path in (world.images, world.features))

    def npz(name: str, **arrays: Any) -> Path:
        path = world.fresh(f"{name}.npz")
        np.savez(path, **arrays)
        return path

    f, labels = features["features"], features["labels"]
    arrays = {
        "neither images nor features": npz("none", x=labels),
        "zeros": npz("zeros", features=f * 0, labels=labels),
        "complex features": npz("complex", features=f.astype(complex), labels=labels),
        "NaN": npz("nan", features=np.where(f > 1, np.nan, f), labels=labels),
        "features in words": npz("words", features=f.astype(str), labels=labels),
        "boolean features": npz("bools", features=f > 0, labels=labels),
        "times": npz("times", features=f.astype("m8[s]"), labels=labels),
        "structured": npz("struct", features=np.zeros(len(f), dtype=[("a", "f4")]), labels=labels),
        "labels of half numbers": npz("half", features=f, labels=labels + 0.5),
        "huge labels": npz("huge", features=f, labels=labels.astype(np.uint64) + np.uint64(2**63)),
        "complex labels": npz("clabel", features=f, labels=labels.astype(complex)),
        "too few labels": npz("few", features=f, labels=labels[:5]),
        "no rows": npz("empty", features=f[:0], labels=labels[:0]),
        "scalars": npz("scalars", features=np.float32(1), labels=np.int64(1)),
        "five dimensions": npz("five", features=f.reshape(len(f), 1, 1, 1, -1), labels=labels),
        "objects": npz("objects", features=np.array([{}] * len(f)), labels=labels),
        "images of floats": npz("floats", images=images["images"].astype(float), labels=labels),
        "names with escapes": npz("escapes", features=f, labels=np.array([f"\x1b[3{v}m" for v in labels])),
        "names with NUL": npz("nul", features=f, labels=np.array([f"a\0{v}" for v in labels])),
        "names of surrogates": npz("surrogates", features=f, labels=np.array([f"a\ud800{v}" for v in labels])),
        "empty names": npz("emptynames", features=f, labels=np.array(["" if v == 0 else str(v) for v in labels])),
        "pages as names": npz("pages", features=f, labels=np.array([f"<script>{v}" for v in labels])),
        "long names": npz("long", features=f, labels=np.array([f"{v}" * 3000 for v in labels])),
    }
    one = npz("one", features=f[:, :1], labels=labels)  # no dry run: the page failed
    run = [word for word in _evaluate(one, is_images=False) if word != "--dry-run"]
    yield Case(name="features of one number", commands=[[*run, "benchmarks.2way-1shot.n_episodes=4"]])
    fine = {"names with escapes", "names with NUL", "names of surrogates", "empty names", "pages as names",
            "long names", "huge labels", "boolean features"}  # fmt: skip
    for name, path in arrays.items():
        yield Case(name=name, commands=[_evaluate(path, is_images="images" in name)], is_meaningless=name not in fine)
    odd: dict[str, Callable[[Path], Any]] = {
        "10^13 labels": lambda path: _lying_npz(path, "labels", (10**13,)),
        "features of 10^13 rows": lambda path: _lying_npz(path, "features", (10**13, 8)),
        "images of 10^13 rows": lambda path: _lying_npz(path, "images", (10**13, 8, 8)),
        "members outside": lambda path: _lying_npz(path, "../../labels", (3,)),
        "a named pipe": os.mkfifo,
        "a link to itself": lambda path: path.symlink_to(path),
        "a dangling link": lambda path: path.symlink_to("no such file"),
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a folder": lambda path: path.mkdir(),
        "an empty file": lambda path: path.write_bytes(b""),
    }
    for name, write in odd.items():
        for ending in (".npz", ".npy", ".parquet", ".zip", ".csv", ".tar"):
            path = world.fresh(f"odd{ending}")
            write(path)
            is_images = name.startswith("images") or ending not in (".npz", ".npy")
            yield Case(name=f"{name} as {ending}", commands=[_evaluate(path, is_images=is_images)], is_meaningless=True)
    folders: dict[str, Callable[[Path], Any]] = {
        "a pipe": lambda folder: os.mkfifo(folder / "class 0" / "p.png"),
        "a device": lambda folder: (folder / "class 0" / "d.png").symlink_to("/dev/zero"),
        "a dangling link": lambda folder: (folder / "class 0" / "d.png").symlink_to("nowhere"),
        "a circle": lambda folder: (folder / "class 0" / "c").symlink_to("..", target_is_directory=True),
        "a loop": lambda folder: (folder / "class 0" / "l").symlink_to("l"),
        "bytes as a name": lambda folder: os.rename(folder / "class 0", os.fsencode(folder) + b"/caf\xe9"),
        "an escape as a name": lambda folder: os.rename(folder / "class 0", folder / "\x1b[31m"),
        "a page as a name": lambda folder: os.rename(folder / "class 0", folder / "<script>"),
        "a text as an image": lambda folder: (folder / "class 0" / "t.png").write_text("text"),
        "no images": lambda folder: _remove(*folder.iterdir()),
        "one class": lambda folder: _remove(*sorted(folder.iterdir())[1:]),
    }
    for name, write_in in folders.items():
        folder = world.fresh("photos")
        shutil.copytree(world.photos, folder)
        write_in(folder)
        yield Case(name=f"{name} in a folder", commands=[_evaluate(folder, is_images=True)])
    while True:
        source = rng.choice((world.images, world.features))
        path = world.fresh(source.name)
        path.write_bytes(damaged_bytes(source.read_bytes(), rng))
        yield Case(name=f"bytes of {source.name}", commands=[_evaluate(path, is_images=source == world.images)])


def _evaluate(path: Path, *, is_images: bool) -> list[str]:
    words = ["evaluate", str(path), "--way", "2", "--shots", "1", "--dry-run", "--run-dir", str(path) + "-run"]
    return [*words, "--backbone", "test_resnet", "backbone.pretrained=false"] if is_images else words


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder)


def _lying_npz(path: Path, member: str, shape: tuple[int, ...]) -> None:
    header = io.BytesIO()
    descr = "<i8" if member.endswith("labels") else "|u1" if member == "images" else "<f4"
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    other = "labels" if member != "labels" else "features"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{member}.npy", header.getvalue() + b"\0" * 64)
        rest = io.BytesIO()
        np.save(rest, np.zeros(3, dtype=np.int64) if other == "labels" else np.ones((3, 2), dtype=np.float32))
        archive.writestr(f"{other}.npy", rest.getvalue())
