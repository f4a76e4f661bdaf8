"""Division of the base images into chunks: images per class, sizes of the chunks, and the order of arrival."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from episodes.arrays import FloatArray, IntArray
from lurefs.config.learning_schema import ChunksConfig
from lurefs.data.dataset import ImageDataset
from lurefs.data.splits import ImageSplit
from lurefs.errors import UserError
from lurefs.seeding import numpy_generator

N_SKEW_DRAWS = 100
FILLED = "at least 2 training images and 1 validation image per chunk"


def limit_images(dataset: ImageDataset, split: ImageSplit, config: ChunksConfig, *, seed: int) -> ImageSplit:
    """Return the split with at most `config.images_per_class` training and validation images per class.

    Validation keeps its share of these, and both parts keep at least one image. A smaller limit keeps a subset of the
    images of a larger one. A class with fewer images keeps all.

    Args:
        dataset: The data set that the rows belong to.
        split: Training, validation and test rows; the test rows stay as they are.
        config: `images_per_class`; None leaves the split as it is.
        seed: The run's seed; `config.seed` replaces it if set.
    """
    if config.images_per_class is None:
        return split
    train, val = [], []
    for label in np.unique(dataset.labels[split.train]):
        rows = {part: _of_class(dataset, getattr(split, part), label) for part in ("train", "val")}
        n_images = len(rows["train"]) + len(rows["val"])
        limit = min(config.images_per_class, n_images)
        n_val = min(max(1, round(limit * len(rows["val"]) / n_images)), limit - 1)
        stream = ("images_per_class", dataset.class_names[label])
        train.append(
            numpy_generator(config.seed_of(seed), *stream, "train").permutation(rows["train"])[: limit - n_val]
        )
        val.append(numpy_generator(config.seed_of(seed), *stream, "val").permutation(rows["val"])[:n_val])
    return ImageSplit(train=np.sort(np.concatenate(train)), val=np.sort(np.concatenate(val)), test=split.test)


def arrivals(
    dataset: ImageDataset, split: ImageSplit, config: ChunksConfig, seed: int
) -> tuple[list[IntArray], list[IntArray]]:
    """Return the training rows and the validation rows that are new in each chunk.

    Args:
        dataset: The data set that the rows belong to.
        split: Training and validation rows; each is new in exactly one chunk.
        config: Number or size of the chunks, schedule, order.
        seed: The seed of all draws.

    Raises:
        UserError: There are too few images or sources for the number of chunks.
    """
    n_chunks = config.n_chunks or -(-len(split.train) // (config.chunk_size or len(split.train)))
    if config.chunk_by == "source":
        return _by_source(dataset, split, n_chunks, seed)
    _check_count(split, n_chunks)
    weights = _schedule_weights(config, n_chunks)
    if config.class_order == "skewed":
        assert config.skew_alpha is not None
        return _skewed(dataset, split, weights, config.skew_alpha, seed)
    train_sizes = apportion(len(split.train), weights)
    if config.chunk_size is not None:
        train_sizes = np.diff([*range(0, len(split.train), config.chunk_size), len(split.train)])
    if config.class_order == "balanced":
        train, val = (_balanced(dataset, getattr(split, part), weights, seed, part) for part in ("train", "val"))
    else:
        train = _at_random(split.train, train_sizes, seed, "train")
        val = _at_random(split.val, apportion(len(split.val), weights), seed, "val")
    if config.schedule != "equal" and not _are_filled(train, val):
        raise UserError(
            f"chunks.schedule {config.schedule!r} divides {len(split.train)} training and {len(split.val)} validation "
            f"images over {n_chunks} chunks, the smallest with {min(map(len, train))} and {min(map(len, val))}",
            FILLED,
            "lower chunks.n_chunks, set chunks.schedule to equal, or change the shares of image_split",
        )
    return train, val


def apportion(n_images: int, weights: FloatArray, owed: FloatArray | None = None) -> IntArray:
    """Divide a number of images by weights into integers, each its exact share rounded down or up.

    Shares with the largest remainders are rounded up, the first ones of equal remainders (Hamilton's method).

    Args:
        n_images: The number to divide.
        weights: (n_chunks,), positive.
        owed: (n_chunks,), how many images too few each chunk got in earlier divisions; added to its remainder.

    Returns:
        (n_chunks,) int64 with sum `n_images`.
    """
    exact = np.round(n_images * weights / weights.sum(), 9)
    sizes: IntArray = np.floor(exact).astype(np.int64)
    remainder = exact - sizes
    claim = np.where(remainder > 0, remainder if owed is None else remainder + owed, -np.inf)
    sizes[np.argsort(-claim, kind="stable")[: n_images - sizes.sum()]] += 1
    return sizes


def _schedule_weights(config: ChunksConfig, n_chunks: int) -> FloatArray:
    if config.schedule == "growing":
        return np.arange(1.0, n_chunks + 1)
    weights = np.ones(n_chunks)
    if config.schedule == "large_first":
        weights[0] = (n_chunks - 1) * config.first_share / (1 - config.first_share)
    return weights


def _at_random(rows: IntArray, sizes: IntArray, seed: int, part: str) -> list[IntArray]:
    return _pieces(numpy_generator(seed, "chunks", part).permutation(rows), sizes)


def _balanced(dataset: ImageDataset, rows: IntArray, weights: FloatArray, seed: int, part: str) -> list[IntArray]:
    """Divide each class by the weights; remaining images go to the chunks that got too few of earlier classes."""
    sizes_of_class = {}
    owed = np.zeros(len(weights))
    for label in numpy_generator(seed, "class_order", part).permutation(np.unique(dataset.labels[rows])):
        n_images = len(_of_class(dataset, rows, label))
        sizes_of_class[label] = apportion(n_images, weights, owed)
        owed = owed + n_images * weights / weights.sum() - sizes_of_class[label]
    return _by_class(dataset, rows, sizes_of_class, seed, part)


def _skewed(
    dataset: ImageDataset, split: ImageSplit, weights: FloatArray, alpha: float, seed: int
) -> tuple[list[IntArray], list[IntArray]]:
    """Divide each class by shares from a Dirichlet distribution, the same for training and validation.

    After Hsu, Qi and Brown 2019, "Measuring the effects of non-identical data distribution". They draw the class shares
    of each client; here the chunk shares of each class are drawn, so that every image is used. Shares are redrawn if
    they leave a chunk with fewer than two training images or without a validation image.
    """
    classes = np.unique(dataset.labels[split.train])
    for draw in range(N_SKEW_DRAWS):
        generator = numpy_generator(seed, "skew", draw)
        shares = generator.dirichlet(np.full(len(weights), alpha), size=len(classes)) * weights
        train, val = (
            _by_class(dataset, rows, _sizes_by_shares(dataset, rows, classes, shares), seed, part)
            for part, rows in (("train", split.train), ("val", split.val))
        )
        if _are_filled(train, val):
            return train, val
    raise UserError(
        f"chunks.skew_alpha is {alpha}, which in each of {N_SKEW_DRAWS} draws left one of {len(weights)} chunks with "
        "fewer than 2 training images or without a validation image",
        FILLED,
        "raise chunks.skew_alpha, lower chunks.n_chunks, or raise class_split.base",
    )


def _sizes_by_shares(
    dataset: ImageDataset, rows: IntArray, classes: IntArray, shares: FloatArray
) -> dict[int, IntArray]:
    counts = np.bincount(dataset.labels[rows], minlength=len(dataset.class_names))
    return {label: apportion(counts[label], of_class) for label, of_class in zip(classes, shares, strict=True)}


def _by_class(
    dataset: ImageDataset, rows: IntArray, sizes_of_class: Mapping[int, IntArray], seed: int, part: str
) -> list[IntArray]:
    """Shuffle the rows of each class and divide them over the chunks by the given sizes."""
    dealt = []
    for label, sizes in sizes_of_class.items():
        generator = numpy_generator(seed, "chunks", part, dataset.class_names[label])
        dealt.append(_pieces(generator.permutation(_of_class(dataset, rows, label)), sizes))
    return [np.concatenate(of_chunk) for of_chunk in zip(*dealt, strict=True)]


def _by_source(
    dataset: ImageDataset, split: ImageSplit, n_chunks: int, seed: int
) -> tuple[list[IntArray], list[IntArray]]:
    """Assign whole sources to chunks at random, so that each chunk has about as many training images as the others."""
    n_of_source = np.bincount(dataset.sources[split.train], minlength=len(dataset.source_names))
    present = np.flatnonzero(n_of_source)
    if n_chunks > len(present):
        raise UserError(
            f"chunks asks for {n_chunks} chunks by source, but the training images have {len(present)} sources",
            "at least one source per chunk",
            f"lower chunks.n_chunks to {len(present)} or less, or set chunks.chunk_by to random",
        )
    order = numpy_generator(seed, "chunks", "sources").permutation(present)
    middle = np.cumsum(n_of_source[order]) - n_of_source[order] / 2
    chunk_of = np.minimum((middle * n_chunks / len(split.train)).astype(np.int64), n_chunks - 1)
    if len(np.unique(chunk_of)) < n_chunks:  # a few sources hold most images: count sources, not images
        chunk_of = np.arange(len(order)) * n_chunks // len(order)
    chunk_of_source = np.full(len(dataset.source_names), n_chunks - 1)
    chunk_of_source[order] = chunk_of

    def deal(rows: IntArray) -> list[IntArray]:
        chunk_of_row = chunk_of_source[dataset.sources[rows]]
        return [rows[chunk_of_row == index] for index in range(n_chunks)]

    return deal(split.train), deal(split.val)


def _of_class(dataset: ImageDataset, rows: IntArray, label: int) -> IntArray:
    found: IntArray = rows[dataset.labels[rows] == label]
    return found


def _pieces(rows: IntArray, sizes: IntArray) -> list[IntArray]:
    return np.split(rows, np.cumsum(sizes)[:-1])


def _check_count(split: ImageSplit, n_chunks: int) -> None:
    for part, rows in (("train", split.train), ("val", split.val)):
        if n_chunks > len(rows):
            raise UserError(
                f"chunks asks for {n_chunks} chunks, but there are {len(rows)} {part} images",
                "at least one image per chunk",
                f"lower chunks.n_chunks to {len(rows)} or less, or raise chunks.chunk_size",
            )


def _are_filled(train: list[IntArray], val: list[IntArray]) -> bool:
    """Return whether every chunk can be learned: batch norm needs two images, choosing an epoch needs one."""
    return min(map(len, train)) >= 2 and min(map(len, val)) >= 1
