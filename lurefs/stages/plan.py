"""The plan of a run, made from its configuration and checked against the data's labels before any work."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from episodes.bank import images_digest
from episodes.manifest import Manifest
from episodes.specs import EpisodeSpec, SpecError, check_fits
from lurefs.config.schema import BenchmarkConfig, CorruptConfig, RunConfig, TransferConfig
from lurefs.data.arrival import limit_images
from lurefs.data.chunks import Chunk, make_chunks
from lurefs.data.content import content_of, settings_of
from lurefs.data.corruptions import check_corruptible, corrupted_dataset
from lurefs.data.dataset import ImageDataset
from lurefs.data.noise import give_labels
from lurefs.data.splits import ClassSplit, ImageSplit, held_back_sources, split_classes, split_images
from lurefs.errors import UserError, first_line
from lurefs.stages.decode import open_dataset


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images of some classes, in the order of their feature bank.

    Attributes:
        name: Name of the feature bank.
        dataset: The data set of the images.
        rows: (n_images,) int64 rows of the data set, class by class.
        labels: (n_images,) int64, index into `class_names`.
        class_names: The classes.
    """

    name: str
    dataset: ImageDataset
    rows: IntArray
    labels: IntArray
    class_names: tuple[str, ...]

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        """One id per image."""
        return tuple(self.dataset.image_ids[row] for row in self.rows)

    @cached_property
    def images_digest(self) -> str:
        """Digest of the images; if two are equal, the banks have the same images in the same rows."""
        return images_digest(self.labels, self.image_ids, self.class_names)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Identity of the images, a part of the identity of their features: of these alone, not of the data set.

        Raises:
            UserError: An image is missing or damaged.
        """
        return {
            "dataset": settings_of(self.dataset.identity),
            "images_digest": self.images_digest,
            "content": content_of(self.dataset, self.rows),
        }


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Images, and the form of the episodes drawn from them.

    Attributes:
        images: Images of the classes that episodes are drawn from, not corrupted.
        spec: The form of its episodes.
        seed: Seed of the draw.
        manifest: The episodes of the file that the configuration names, as rows of the bank; None to draw them.
        target_ci95: Half width of the interval over episodes at which scoring stops; None scores all episodes.
        corrupt: Corruption of images of its episodes; None for none.
    """

    images: ImageSet
    spec: EpisodeSpec
    seed: int
    manifest: Manifest | None = None
    target_ci95: float | None = None
    corrupt: CorruptConfig | None = None

    @property
    def name(self) -> str:
        """Name of the benchmark, its key in the config."""
        return self.images.name

    @cached_property
    def sides(self) -> tuple[ImageSet, ImageSet]:
        """The images for support and for query."""
        images, corrupt = self.images, self.corrupt
        if corrupt is None:
            return images, images
        dataset = corrupted_dataset(images.dataset, corruption=corrupt.corruption, severity=corrupt.severity)
        support, query = (
            images if name == images.name else replace(images, name=name, dataset=dataset)
            for name in corrupt.bank_names(images.name)
        )
        return support, query


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that one run will do.

    Attributes:
        config: Its configuration.
        dataset: The images to learn on.
        classes: Base, validation and novel classes.
        images: Train, val and test images of the base classes; train and val without images that never arrive.
        chunks: The chunk stream; empty if nothing is learned.
        given_labels: (n_images of `dataset`,) int64, read-only: the labels for training, true except for
            `chunks.label_noise`.
        benchmarks: The benchmarks by name.
    """

    config: RunConfig
    dataset: ImageDataset
    classes: ClassSplit
    images: ImageSplit
    chunks: tuple[Chunk, ...]
    given_labels: IntArray
    benchmarks: dict[str, Benchmark]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about how the data were read."""
        datasets = [self.dataset, *(benchmark.images.dataset for benchmark in self.benchmarks.values())]
        return tuple(dict.fromkeys(note for dataset in datasets for note in dataset.notes))


def make_plan(config: RunConfig) -> Plan:
    """Divide classes and images, cut the chunks, and choose the images of each benchmark.

    Raises:
        UserError: The data cannot be read, or do not suit the configuration.
    """
    dataset = open_dataset(config.dataset, config)
    classes = split_classes(dataset, config.class_split, min_base=0 if config.frozen else 2)
    held_back = held_back_sources(dataset, config.source_split)
    images = split_images(dataset, classes.base, config.image_split, left_out=held_back)
    of_base = np.sort(np.concatenate([images.train, images.val, images.test]))
    if not config.frozen:
        images = limit_images(dataset, images, config.chunks, seed=config.seed)
    return Plan(
        config=config,
        dataset=dataset,
        classes=classes,
        images=images,
        chunks=() if config.frozen else make_chunks(dataset, images, config.chunks, seed=config.seed),
        given_labels=dataset.labels
        if config.frozen
        else give_labels(dataset, classes.base, of_base, images, config.chunks, seed=config.seed),
        benchmarks={
            name: make_benchmark(name, each, dataset, classes, images, config, held_back)
            for name, each in config.benchmarks.items()
        },
    )


def make_benchmark(
    name: str,
    config: BenchmarkConfig,
    dataset: ImageDataset,
    classes: ClassSplit,
    images: ImageSplit,
    run: RunConfig,
    held_back: NDArray[np.bool_],
) -> Benchmark:
    """Choose the images of one benchmark, and check that they suffice for its episodes.

    Raises:
        UserError: The data cannot be read, or has too few classes or images.
    """
    if config.dataset is not None and config.classes != "all":
        raise UserError(
            f"benchmarks.{name} has a data set of its own and classes {config.classes!r}",
            "classes: all, since the class split is that of the run's own data set",
            f"set benchmarks.{name}.classes to all",
        )
    benchmark = Benchmark(
        images=choose_images(name, config, dataset, classes, images, run, held_back),
        spec=config.spec(),
        seed=config.seed,
        target_ci95=config.target_ci95,
        corrupt=config.corrupt,
    )
    if config.corrupt is not None:
        where = f"benchmarks.{name}.corrupt"
        check_corruptible(benchmark.images.dataset.image_size, setting=where, way_out=f"{where} to null")
    if config.manifest is not None:
        return _with_manifest(benchmark, config, Path(config.manifest))
    _check_spec(benchmark, config)
    return benchmark


def choose_images(
    name: str,
    config: BenchmarkConfig | TransferConfig,
    dataset: ImageDataset,
    classes: ClassSplit,
    images: ImageSplit,
    run: RunConfig,
    held_back: NDArray[np.bool_] | None = None,
) -> ImageSet:
    """Return the images of a benchmark's or transfer's classes; of base classes only the test images.

    `held_back` says which images have a source that is held back. Of these, all images of base classes are taken.

    Raises:
        UserError: Its data set cannot be read.
    """
    if config.dataset is not None:
        dataset = open_dataset(config.dataset, run)
    chosen = np.arange(len(dataset.class_names)) if config.classes == "all" else getattr(classes, config.classes)
    sources = config.sources if isinstance(config, BenchmarkConfig) and held_back is not None else "all"
    of_classes = np.flatnonzero(np.isin(dataset.labels, chosen))
    rows = images.test if config.classes == "base" and sources != "held_back" else of_classes
    if held_back is not None and sources != "all":
        rows = rows[held_back[rows] == (sources == "held_back")]
    rows = rows[np.argsort(dataset.labels[rows], kind="stable")].astype(np.int64)
    return ImageSet(
        name=name,
        dataset=dataset,
        rows=rows,
        labels=np.searchsorted(chosen, dataset.labels[rows]).astype(np.int64),
        class_names=tuple(dataset.class_names[label] for label in chosen),
    )


def _with_manifest(benchmark: Benchmark, config: BenchmarkConfig, path: Path) -> Benchmark:
    """Take episodes from a file instead of drawing them; if the config gives their form, it must be the file's."""
    where = f"benchmarks.{benchmark.name}"
    stored = read_manifest(path)
    for field in fields(EpisodeSpec):
        value, found = getattr(benchmark.spec, field.name), getattr(stored.spec, field.name)
        if value not in (found, getattr(BenchmarkConfig(), field.name)):
            raise UserError(
                f"{where}.{field.name} is {value!r}, but the episodes of {path} have {found!r}",
                "the form of the file, or none",
                f"leave {where}.{field.name} out, or leave {where}.manifest out",
            )
    if config.seed not in (stored.seed, 0):
        raise UserError(
            f"{where}.seed is {config.seed}, but the episodes of {path} were drawn with {stored.seed}",
            "the seed of the file, or none",
            f"leave {where}.seed out",
        )
    return replace(
        benchmark, spec=stored.spec, seed=stored.seed, manifest=rebase_manifest(stored, benchmark.images, path, where)
    )


def read_manifest(path: Path | str) -> Manifest:
    """Read a file of episodes.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():  # opening a named pipe would wait for ever
            raise ValueError("it is not a file")
        return Manifest.load(path)
    except FileNotFoundError as error:
        raise UserError(
            f"there is no file {path}", "a file that 'lurefs episodes make' wrote", "check the path"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises errors of many kinds
        raise UserError(
            f"{path} is not a complete file of episodes: {first_line(error)}",
            "a file as 'lurefs episodes make' wrote it",
            "get the file again, or make it again",
        ) from error


def rebase_manifest(manifest: Manifest, images: ImageSet, path: Path, where: str) -> Manifest:
    """Return the episodes of a file as rows of the images of the benchmark `where`.

    Raises:
        UserError: An image is missing, or is in another class.
    """
    try:
        return manifest.rebase(images)
    except ValueError as error:
        raise UserError(
            f"the episodes of {path} do not match the images of {where}: {error}",
            "all images of the episodes, in the same classes",
            f"check dataset, class_split and {where}.classes, or make the episodes again",
        ) from error


def _check_spec(benchmark: Benchmark, config: BenchmarkConfig) -> None:
    group = config.classes
    spec, images, where = benchmark.spec, benchmark.images, f"benchmarks.{benchmark.name}"
    n_classes = len(images.class_names)
    if spec.min_way > n_classes:
        name = "n_way" if spec.meta_dataset is None else "meta_dataset.min_way"
        raise UserError(
            f"{where}.{name} is {spec.min_way}, but {images.dataset.name} has {n_classes} {group} classes",
            f"at most {n_classes}",
            f"lower {name}, or give the benchmark more classes with class_split.{group}",
        )
    try:
        check_fits(spec, np.bincount(images.labels, minlength=n_classes), images.class_names)
    except SpecError as error:
        more = "" if config.sources == "all" else ", or change source_split.held_back"
        raise UserError(f"{where}: {error.problem}", error.expected, f"{error.fix}{more}") from error
