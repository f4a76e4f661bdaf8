"""The chunk stream: in which order the base images arrive, and which old ones come again with each chunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lurefs.config import ChunksConfig
from lurefs.data.dataset import ImageDataset, IntArray
from lurefs.data.splits import ImageSplit
from lurefs.errors import UserError
from lurefs.seeding import numpy_generator


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The images at hand at one time.

    Attributes:
        index: From 0.
        train: Rows to train on, new and replayed, int64.
        validation: Rows to select the epoch on, new and replayed, int64.
        new: Rows that arrived with this chunk, for training or validation, int64.
    """

    index: int
    train: IntArray
    validation: IntArray
    new: IntArray


def make_chunks(dataset: ImageDataset, split: ImageSplit, config: ChunksConfig, *, seed: int) -> tuple[Chunk, ...]:
    """Divide the training and validation images into chunks, and add to each what replay allows.

    Args:
        dataset: Where the rows come from; its `sources` matter for `chunk_by: source`.
        split: Training and validation rows.
        config: Number or size of chunks, order, replay.
        seed: The run's seed; `config.seed` takes its place where it is set.

    Raises:
        UserError: More chunks than training images or sources.
    """
    order_seed = seed if config.seed is None else config.seed
    n_chunks = config.n_chunks or -(-len(split.train) // (config.chunk_size or len(split.train)))
    if config.chunk_by == "source":
        train, val = _by_source(dataset, split, n_chunks, order_seed)
    else:
        train = _at_random(split.train, n_chunks, config.chunk_size, order_seed, "train")
        val = _at_random(split.val, n_chunks, None, order_seed, "val")
    n_val_buffer = round((config.buffer_size or 0) * len(split.val) / len(split.train))
    train_replay = _replay(train, config.replay, config.buffer_size or 0, order_seed)
    val_replay = _replay(val, config.replay, n_val_buffer, order_seed)
    return tuple(
        Chunk(
            index=index,
            train=np.sort(np.concatenate([train_replay[index], train[index]])),
            validation=np.sort(np.concatenate([val_replay[index], val[index]])),
            new=np.sort(np.concatenate([train[index], val[index]])),
        )
        for index in range(n_chunks)
    )


def _at_random(rows: IntArray, n_chunks: int, size: int | None, seed: int, part: str) -> list[IntArray]:
    if n_chunks > len(rows):
        raise UserError(
            f"chunks asks for {n_chunks} chunks, but there are {len(rows)} {part} images",
            "at least one image a chunk",
            f"lower chunks.n_chunks to {len(rows)} or less, or raise chunks.chunk_size",
        )
    shuffled = numpy_generator(seed, "chunks", part).permutation(rows)
    if size is None:
        return np.array_split(shuffled, n_chunks)
    return np.split(shuffled, range(size, len(shuffled), size))


def _by_source(
    dataset: ImageDataset, split: ImageSplit, n_chunks: int, seed: int
) -> tuple[list[IntArray], list[IntArray]]:
    """Deal whole sources to chunks in random order, so that each chunk has about the same number of training images."""
    n_of_source = np.bincount(dataset.sources[split.train], minlength=len(dataset.source_names))
    present = np.flatnonzero(n_of_source)
    if n_chunks > len(present):
        raise UserError(
            f"chunks asks for {n_chunks} chunks by source, but the training images have {len(present)} sources",
            "at least one source a chunk",
            f"lower chunks.n_chunks to {len(present)} or less, or set chunks.chunk_by to random",
        )
    order = numpy_generator(seed, "chunks", "sources").permutation(present)
    middle = np.cumsum(n_of_source[order]) - n_of_source[order] / 2
    chunk_of = np.minimum((middle * n_chunks / len(split.train)).astype(np.int64), n_chunks - 1)
    if len(np.unique(chunk_of)) < n_chunks:  # a few sources hold most of the images: deal sources, not images
        chunk_of = np.arange(len(order)) * n_chunks // len(order)
    chunk_of_source = np.full(len(dataset.source_names), n_chunks - 1)
    chunk_of_source[order] = chunk_of

    def deal(rows: IntArray) -> list[IntArray]:
        chunk_of_row = chunk_of_source[dataset.sources[rows]]
        return [rows[chunk_of_row == index] for index in range(n_chunks)]

    return deal(split.train), deal(split.val)


def _replay(new: list[IntArray], replay: str, size: int, seed: int) -> list[IntArray]:
    """Return the old rows that each chunk replays.

    A buffer is a reservoir: the `size` rows of the lowest random priority among those seen, so that it is a uniform
    sample at any time and a row that was dropped never returns.
    """
    nothing = np.array([], dtype=np.int64)
    if replay == "none":
        return [nothing for _ in new]
    seen = np.concatenate(new)
    priority = numpy_generator(seed, "buffer").permutation(len(seen))
    replayed, n_seen = [], 0
    for rows in new:
        old = seen[:n_seen]
        if replay == "buffer":
            old = old[np.argsort(priority[:n_seen], kind="stable")[:size]]
        replayed.append(old)
        n_seen += len(rows)
    return replayed
