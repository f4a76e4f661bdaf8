"""From a configuration to all that a run will do, checked against the data's labels before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from episodes.bank import images_digest
from episodes.sampler import EpisodeSpec
from lurefs import plugins
from lurefs.config import BenchmarkConfig, RunConfig
from lurefs.data.chunks import Chunk, make_chunks
from lurefs.data.dataset import ImageDataset, IntArray
from lurefs.data.splits import ClassSplit, ImageSplit, split_classes, split_images
from lurefs.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The images of one benchmark, in the order of its feature bank, and the form of its episodes.

    Attributes:
        name: Its key in the config.
        dataset: Where the images come from.
        rows: (n_images,) int64 rows of the data set, class by class.
        labels: (n_images,) int64, index into `class_names`.
        class_names: The benchmark's classes.
        spec: The form of its episodes.
        seed: What they are drawn with.
    """

    name: str
    dataset: ImageDataset
    rows: IntArray
    labels: IntArray
    class_names: tuple[str, ...]
    spec: EpisodeSpec
    seed: int

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        """One id an image."""
        return tuple(self.dataset.image_ids[row] for row in self.rows)

    @cached_property
    def images_digest(self) -> str:
        """Equal digests mean the same images in the same rows of the bank."""
        return images_digest(self.labels, self.image_ids, self.class_names)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run will do.

    Attributes:
        config: Its configuration.
        dataset: The images to learn on.
        classes: Base, validation and novel classes.
        images: Train, val and test images of the base classes.
        chunks: The chunk stream.
        benchmarks: By name.
    """

    config: RunConfig
    dataset: ImageDataset
    classes: ClassSplit
    images: ImageSplit
    chunks: tuple[Chunk, ...]
    benchmarks: dict[str, Benchmark]


def make_plan(config: RunConfig) -> Plan:
    """Divide classes and images, cut the chunks, and choose the images of each benchmark.

    Raises:
        UserError: The data cannot be read, or cannot give what the configuration asks of it.
    """
    dataset: ImageDataset = plugins.build("dataset", config.dataset.name, config.dataset.params)
    classes = split_classes(dataset, config.class_split)
    images = split_images(dataset, classes.base, config.image_split)
    benchmarks = {
        name: _make_benchmark(name, benchmark, dataset, classes, images)
        for name, benchmark in config.benchmarks.items()
    }
    chunks = make_chunks(dataset, images, config.chunks, seed=config.seed)
    return Plan(config=config, dataset=dataset, classes=classes, images=images, chunks=chunks, benchmarks=benchmarks)


def _make_benchmark(
    name: str, config: BenchmarkConfig, dataset: ImageDataset, classes: ClassSplit, images: ImageSplit
) -> Benchmark:
    if config.dataset is not None:
        if config.classes != "all":
            raise UserError(
                f"benchmarks.{name} has a data set of its own and classes {config.classes!r}",
                "classes: all, since the class split is that of the run's own data set",
                f"set benchmarks.{name}.classes to all",
            )
        dataset = plugins.build("dataset", config.dataset.name, config.dataset.params)
    chosen = np.arange(len(dataset.class_names)) if config.classes == "all" else getattr(classes, config.classes)
    rows = images.test if config.classes == "base" else np.flatnonzero(np.isin(dataset.labels, chosen))
    rows = rows[np.argsort(dataset.labels[rows], kind="stable")].astype(np.int64)
    labels = np.searchsorted(chosen, dataset.labels[rows]).astype(np.int64)
    benchmark = Benchmark(
        name=name,
        dataset=dataset,
        rows=rows,
        labels=labels,
        class_names=tuple(dataset.class_names[label] for label in chosen),
        spec=EpisodeSpec(
            n_way=config.n_way, n_shot=config.n_shot, n_query=config.n_query, n_episodes=config.n_episodes
        ),
        seed=config.seed,
    )
    _check_spec(benchmark, config.classes)
    return benchmark


def _check_spec(benchmark: Benchmark, group: str) -> None:
    spec, where = benchmark.spec, f"benchmarks.{benchmark.name}"
    n_classes = len(benchmark.class_names)
    if spec.n_way > n_classes:
        raise UserError(
            f"{where}.n_way is {spec.n_way}, but {benchmark.dataset.name} has {n_classes} {group} classes",
            f"at most {n_classes}",
            f"lower n_way, or give the benchmark more classes with class_split.{group}",
        )
    n_per_class = np.bincount(benchmark.labels, minlength=n_classes)
    smallest = int(n_per_class.argmin())
    needed, available = spec.n_shot + spec.n_query, int(n_per_class[smallest])
    if needed > available:
        raise UserError(
            f"{where}: n_shot + n_query is {needed} per class, but class {benchmark.class_names[smallest]!r} "
            f"has {available} images",
            f"at most {available}",
            f"lower n_query to {available - spec.n_shot} or less, or drop the class"
            if available > spec.n_shot
            else "lower n_shot and n_query, or drop the class",
        )
