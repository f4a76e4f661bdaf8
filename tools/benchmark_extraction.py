"""What extraction costs beside decoding and the bare forward pass, and how much memory it needs for many images.

    OMP_NUM_THREADS=1 uv run python tools/benchmark_extraction.py [--model resnet18] [--image-size 64] [--images 600]
        [--rounds 3] [--many 100000]

Speed: JPEG files of 320 x 240 pixels. Each round times, one after the other and in processor time of one core, a bare
loop (Pillow decodes and resizes, the timm model embeds), the stage `extract` of a run with an empty cache, the bare
forward pass on images in memory, and the stage with another backbone of the same size, whose images are decoded
already. The table has the medians of the ratios over rounds, and their range.

Memory and index: the stage `extract` in a process of its own, with two workers, on 1,000 and on `--many` files of 32 x
32 pixels. Memory is that of the process and its workers, without mapped files, beyond that with the model loaded. The
search for duplicates, exact and near ones, is a part of the stage and is timed once more by itself. `--rounds 0` leaves
the speed out.
"""

from __future__ import annotations

import argparse
import io
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from episodes.arrays import IntArray
from lurefs import cache
from lurefs.config.load import run_config
from lurefs.data.dataset import ImageArray, ImageDataset, View
from lurefs.data.folder import folder
from lurefs.data.pixels import read_image
from lurefs.runs.directory import RunDirectory
from lurefs.stages.duplicates import find_duplicates
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage
from lurefs.stages.stage import open_stage

N_CLASSES = 10
BATCH_SIZE = 64
"""Images that the bare loop embeds at a time: those that stay in the cache of a core at 64 pixels."""
LOG = "BENCHMARK_DECODES"
"""Environment variable: the file that gets a byte per decoded image."""


def main() -> None:
    """Time the rounds, measure the memory, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--measured", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.measured:
        measured(arguments.measured)
        return
    with tempfile.TemporaryDirectory() as place:
        ratios = [
            one_round(arguments.model, arguments.image_size, arguments.images, Path(place) / str(number))
            for number in range(arguments.rounds)
        ]
        rows = [
            (name, f"{statistics.median(found):.2f}", f"{min(found):.2f} to {max(found):.2f}")
            for name in (ratios[0] if ratios else ())
            for found in [[of_round[name] for of_round in ratios]]
        ]
        if rows:
            print_table(f"{arguments.model} at {arguments.image_size} pixels", ("ratio", "median", "range"), rows)
        found = [many_files(n_files, Path(place) / f"many-{n_files}") for n_files in (1000, arguments.many)]
        print_table(
            "extract of test_resnet at 32 pixels",
            ("", "1,000 files", f"{arguments.many:,} files"),
            [(name, *(f"{of_run[name]:,.1f}" for of_run in found)) for name in found[0]],
        )


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one table."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def one_round(model: str, image_size: int, n_images: int, place: Path) -> dict[str, float]:
    """Return the ratios of one round."""
    write_files(place / "files", n_images, n_different=n_images, size=(320, 240))
    os.environ[cache.PLACE] = str(place / "cache")
    files = sorted((place / "files").rglob("*.jpg"))
    backbone = timm.create_model(model, num_classes=0).eval().to(memory_format=torch.channels_last)
    view = View(image_size=image_size)
    decoded = np.stack([read_image(file, view, 3) for file in files])

    def decode(batch: slice) -> ImageArray:
        return np.stack([read_image(file, view, 3) for file in files[batch]])

    def bare(read: Callable[[slice], ImageArray]) -> None:
        with torch.inference_mode():
            for start in range(0, n_images, BATCH_SIZE):
                pixels = torch.from_numpy(read(slice(start, start + BATCH_SIZE))).permute(0, 3, 1, 2).float()
                backbone(((pixels / 255 - 0.5) / 0.5).contiguous(memory_format=torch.channels_last))

    def extract(name: str, seed: int) -> None:
        config = config_of(place / "files", model, image_size, seed=seed, n_workers=0)
        run_stage(make_plan(config), RunDirectory(place / name), "extract")

    bare(lambda batch: decoded[batch])  # what is slow only the first time
    from_files, first = seconds(lambda: bare(decode)), seconds(lambda: extract("first", 0))
    from_memory, second = seconds(lambda: bare(lambda batch: decoded[batch])), seconds(lambda: extract("second", 1))
    return {
        "extract / (decoding + forward pass)": first / from_files,
        "extract of a second backbone / forward pass": second / from_memory,
        "extract of a second backbone / of the first": second / first,
    }


def seconds(part: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    start = time.process_time()
    part()
    return time.process_time() - start


def config_of(files: Path, model: str, image_size: int, *, seed: int, n_workers: int) -> Any:
    """Return the configuration of a frozen run on a folder."""
    return run_config(
        {
            "name": "benchmark",
            "seed": seed,
            "frozen": True,
            "device": "cpu",
            "dataset": {
                "name": "benchmark_extraction:counted_folder",
                "params": {"path": str(files), "image_size": image_size},
            },
            "backbone": {"name": model},
            "learner": {"n_workers": n_workers},
            "benchmarks": {"all": {"classes": "all", "n_way": 2, "n_query": 1, "n_episodes": 2}},
            "controls": False,
            "near_duplicates": 4,
            "trackers": {"wandb": {"mode": "disabled"}},
        }
    )


def counted_folder(path: str, image_size: int) -> ImageDataset:
    """Return a folder as a data set that counts its decoded images, also those of worker processes."""
    return counted(folder(path, image_size=image_size))


def counted(dataset: ImageDataset) -> ImageDataset:
    """Return the data set, whose reading adds a byte per image to the file that `LOG` names."""

    def read(rows: IntArray) -> ImageArray:
        with open(os.environ.get(LOG, os.devnull), "ab") as log:
            log.write(b"." * len(rows))
        return dataset.read(rows)

    def viewed(view: View) -> ImageDataset:
        assert dataset.viewed is not None
        return counted(dataset.viewed(view))

    return replace(dataset, read=read, viewed=viewed)


def write_files(root: Path, n_files: int, *, n_different: int, size: tuple[int, int]) -> None:
    """Write JPEG files of smooth noise into a folder per class."""
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(n_different):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
        stream = io.BytesIO()
        small.resize(size, Image.Resampling.BICUBIC).save(stream, "jpeg")
        contents.append(stream.getvalue())
    for number in range(n_files):
        file = root / f"class {number % N_CLASSES}" / f"{number:06d}.jpg"
        if number < N_CLASSES:
            file.parent.mkdir(parents=True)
        file.write_bytes(contents[number % n_different])


def many_files(n_files: int, place: Path) -> dict[str, float]:
    """Return the figures of `measured` for a folder of `n_files` files, and the most memory, in MB."""
    write_files(place / "files", n_files, n_different=n_files, size=(32, 32))
    environment = {**os.environ, cache.PLACE: str(place / "cache"), LOG: str(place / "log")}
    command = [sys.executable, __file__, "--measured", str(place)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        figures: dict[str, float] = json.loads(process.stdout.readline())
        before, most = memory(process.pid), 0.0
        while process.poll() is None:
            most = max(most, memory(process.pid))
            time.sleep(0.02)
        figures |= json.loads(process.stdout.read())
    if process.returncode:
        raise SystemExit(process.returncode)
    decodes = (place / "log").stat().st_size
    return {**figures, "decodings per image": decodes / n_files, "memory with the model, MB": before} | {
        "most memory beyond it, MB": most - before
    }


def measured(place: Path) -> None:
    """Index a folder, extract its features, and print the processor time of both: what `many_files` starts."""
    config = config_of(place / "files", "test_resnet", 32, seed=0, n_workers=2)
    model = timm.create_model("test_resnet", num_classes=0).eval()
    with torch.inference_mode():
        model(torch.zeros(64, 3, 32, 32))
    print(json.dumps({"index, processor s": seconds(lambda: make_plan(config))}), flush=True)
    time.sleep(0.5)  # so that the memory before can be read
    start, directory, plan = time.perf_counter(), RunDirectory(place / "run"), make_plan(config)
    run_stage(plan, directory, "extract")
    figures = {"extract, s on the clock": time.perf_counter() - start}
    directory.duplicates_path.unlink()
    stage = open_stage(plan, directory, is_tracked=False)
    print(json.dumps({**figures, "duplicates, processor s": seconds(lambda: find_duplicates(stage))}))


def memory(pid: int) -> float:
    """Return the memory of a process and its children that is no mapped file, in MB; shared memory counts once."""
    total = 0
    for each in tree(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem")))
    return total / 1000


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return
    for child in children:
        yield from tree(int(child))


if __name__ == "__main__":
    main()
