"""The chunk stream: the images that arrive at one time, and which old ones come again with them.

Which images arrive when is in `arrival`, and what they are called in `noise`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from episodes.arrays import IntArray
from lurefs.config.schema import ChunksConfig
from lurefs.data.arrival import arrivals
from lurefs.data.dataset import ImageDataset
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
        dataset: Where the rows come from; its `sources` matter for `chunk_by: source`, its labels for `class_order`.
        split: Training and validation rows.
        config: Number, sizes and order of chunks, replay. How many images a class has and what they are called was
            settled before: see `limit_images` and `give_labels`.
        seed: The run's seed; `config.seed` takes its place where it is set.

    Raises:
        UserError: More chunks than training images or sources, or a chunk that would have none.
    """
    order_seed = config.seed_of(seed)
    train, val = arrivals(dataset, split, config, order_seed)
    n_val_buffer = round((config.buffer_size or 0) * len(split.val) / len(split.train))
    train_replay = _replay(train, config.replay, config.buffer_size or 0, order_seed)
    val_replay = _replay(val, config.replay, n_val_buffer, order_seed)
    chunks = tuple(
        Chunk(
            index=index,
            train=np.sort(np.concatenate([train_replay[index], train[index]])),
            validation=np.sort(np.concatenate([val_replay[index], val[index]])),
            new=np.sort(np.concatenate([train[index], val[index]])),
        )
        for index in range(len(train))
    )
    _check_filled(chunks, config)
    return chunks


def _check_filled(chunks: Sequence[Chunk], config: ChunksConfig) -> None:
    for chunk in chunks:
        if not len(chunk.train) or not len(chunk.validation):
            fewer = "raise chunks.chunk_size" if config.chunk_size is not None else "lower chunks.n_chunks"
            other = "set chunks.chunk_by to random, or " if config.chunk_by == "source" else ""
            raise UserError(
                f"chunk {chunk.index} has {len(chunk.train)} training and {len(chunk.validation)} validation images, "
                "replayed ones included",
                "images to learn, and validation images to choose the epoch by",
                f"{fewer}, {other}raise image_split.val",
            )


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
