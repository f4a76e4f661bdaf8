"""Where the time of training goes: the real epoch against a bare loop of forward, backward and step.

    OMP_NUM_THREADS=1 uv run python tools/benchmark_training.py [--model resnet18] [--image-size 32] [--batch-size 64]
        [--batches 8] [--rounds 5] [--device cpu]

Each round times all parts once, one after the other, so that a machine that is busy for a while is busy for all of
them; the table shows the median over rounds and the range. Both sides have the same model (a small stem where it can
have one), batch and optimizer; the bare loop is given ready batches. Shares are of the real epoch's time. Unlearning is
`by_saliency` with its default settings, without the measurement of the two accuracies, as a share of the training time
of one chunk of `--chunk-images` images for `--epochs` epochs. On a CPU all times are processor time of one thread.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from lurefs import plugins
from lurefs.config.learning_schema import AugmentConfig, BackboneConfig, LearnerConfig
from lurefs.data.chunks import Chunk
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone, build_backbone
from lurefs.learning.images import LabelledImages, augment, draw_moves
from lurefs.learning.learner import Course, Learner, _train_epoch, _unlearn, make_learner
from lurefs.learning.predictions import predict

N_CLASSES = 10
VAL_SHARE = 0.1
N_PROBED = 512
"""`saliency_images` of `by_saliency` unless it is told otherwise."""


def main() -> None:
    """Time the rounds and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=8, help="batches an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--chunk-images", type=int, default=5625)
    parser.add_argument("--epochs", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = LearnerConfig(
        epochs=arguments.rounds + 1,
        batch_size=arguments.batch_size,
        augment=AugmentConfig(crop_padding=4, flip=True),
        precision=arguments.precision,
        compile=arguments.compile,
    )
    device = torch.device(arguments.device)
    parts = make_parts(arguments.model, arguments.image_size, arguments.batches, settings, device)
    for part in parts.values():  # what is slow only the first time
        part()
    rounds = [{name: seconds(part, device) for name, part in parts.items()} for _ in range(arguments.rounds)]
    n_images = arguments.batches * arguments.batch_size
    print_table([figures(times, n_images, arguments.chunk_images * arguments.epochs) for times in rounds])


def make_parts(
    model: str, image_size: int, n_batches: int, settings: LearnerConfig, device: torch.device
) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    n_train = n_batches * settings.batch_size
    images, course = make_course(n_train, image_size, settings, device)
    learner, bare = (make_learner(*build(model, image_size, device), settings) for _ in range(2))
    moves = draw_moves([settings.batch_size] * n_batches, settings.augment, torch.Generator(), device)
    batches = [images.images[positions] for positions in torch.arange(n_train).split(settings.batch_size)]
    inputs = [bare.backbone.prepare(batch) for batch in batches]
    labels = course.images.labels[:n_train].split(settings.batch_size)
    validation = torch.arange(n_train, n_train + round(VAL_SHARE * n_train), device=device)
    strategy = plugins.build("unlearn", "by_saliency", {})

    def bare_epoch(*, with_step: bool) -> None:
        bare.backbone.model.train()
        for batch, of_batch in zip(inputs, labels, strict=True):
            forward_backward(bare, batch, of_batch, settings)
            if with_step:
                bare.optimizer.step()

    def prepare_batches() -> None:
        for number, positions in enumerate(torch.arange(n_train, device=device).split(settings.batch_size)):
            part = moves.of(slice(number * settings.batch_size, (number + 1) * settings.batch_size))
            learner.backbone.prepare(augment(images.images[positions], part, settings.augment.crop_padding))

    return {
        "epoch": lambda: _train_epoch(learner, course, 0, 0),
        "bare": lambda: bare_epoch(with_step=True),
        "network": lambda: bare_epoch(with_step=False),
        "optimizer": lambda: [bare.optimizer.step() for _ in range(n_batches)],
        "images": prepare_batches,
        "validation": lambda: predict(learner.backbone, course.images, validation, settings.eval_batch_size),
        "unlearning": lambda: _unlearn(learner, course, strategy, "by_saliency", course.chunks[1]),
    }


def forward_backward(learner: Learner, batch: torch.Tensor, labels: torch.Tensor, settings: LearnerConfig) -> None:
    """Compute the gradients of one batch, and nothing else."""
    forward = learner.backbone.model if learner.forward is None else learner.forward
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
        logits = forward(batch)
    learner.optimizer.zero_grad()
    functional.cross_entropy(logits.float(), labels).backward()


def build(model: str, image_size: int, device: torch.device) -> tuple[Backbone, BackboneConfig]:
    """Build the model, with a small stem where it can have one."""
    sized = partial(build_backbone, n_classes=N_CLASSES, n_channels=3, image_size=image_size, seed=0)
    try:
        config = BackboneConfig(name=model, stem="small")
        backbone = sized(config)
    except UserError:
        config = BackboneConfig(name=model)
        backbone = sized(config)
    backbone.model.to(device)
    return backbone, config


def make_course(
    n_train: int, image_size: int, settings: LearnerConfig, device: torch.device
) -> tuple[LabelledImages, Course]:
    """Make random images, and two chunks of them; the second has as many as unlearning looks at."""
    n_val = round(VAL_SHARE * n_train)
    n_images = max(n_train + n_val, N_PROBED)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n_images, 3, image_size, image_size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(N_CLASSES, (n_images,), generator=generator)
    rows = np.arange(n_images)
    validation = rows[n_train : n_train + n_val]
    chunks = [
        Chunk(index=index, train=train, validation=validation, new=rows)
        for index, train in enumerate((rows[:n_train], rows))
    ]
    images = LabelledImages(rows, pixels.to(device), labels.to(device))
    course = Course(
        images=images,
        chunks=chunks,
        test=torch.from_numpy(validation).to(device),
        settings=settings,
        seed=0,
    )
    return images, course


def seconds(part: Callable[[], object], device: torch.device) -> float:
    """Return the time of a part: of the processor on a CPU, where other programs may run, else of the clock."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    synchronise(device)
    start = clock()
    part()
    synchronise(device)
    return clock() - start


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def figures(times: Mapping[str, float], n_images: int, n_images_of_chunk: int) -> dict[str, float]:
    """Return one round's figures by the words of the table."""
    chunk_seconds = times["epoch"] / n_images * n_images_of_chunk
    unlearning = times["unlearning"] - 2 * times["validation"]  # it measures the accuracy before and after
    return {
        "real epoch, images/s": n_images / times["epoch"],
        "bare loop, images/s": n_images / times["bare"],
        "real / bare, time": times["epoch"] / times["bare"],
        "forward and backward, % of the epoch": 100 * times["network"] / times["epoch"],
        "optimizer, %": 100 * times["optimizer"] / times["epoch"],
        "augment and prepare, %": 100 * times["images"] / times["epoch"],
        "rest, %": 100 * (1 - (times["network"] + times["optimizer"] + times["images"]) / times["epoch"]),
        "validation after it, %": 100 * times["validation"] / times["epoch"],
        "unlearning, s": unlearning,
        "one chunk's training, s": chunk_seconds,
        "unlearning, % of it": 100 * unlearning / chunk_seconds,
    }


def print_table(rounds: list[dict[str, float]]) -> None:
    """Print median and range of each figure."""
    table = Table("figure", "median", "range")
    for name in rounds[0]:
        values = [found[name] for found in rounds]
        table.add_row(name, f"{statistics.median(values):.4g}", f"{min(values):.4g} .. {max(values):.4g}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
