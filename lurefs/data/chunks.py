"""The chunk stream: for each chunk, the images that are new and the old ones that are replayed.

The order of arrival is in `arrival`, label noise in `noise`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from episodes.arrays import IntArray
from lurefs.config.learning_schema import ChunksConfig
from lurefs.data.arrival import arrivals
from lurefs.data.dataset import ImageDataset
from lurefs.data.splits import ImageSplit
from lurefs.errors import UserError
from lurefs.seeding import numpy_generator


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The images that the learner has at one time.

    Attributes:
        index: Number of the chunk, from 0.
        train: Rows to train on, new and replayed, int64.
        validation: Rows to choose the best epoch on, new and replayed, int64.
        new: Rows that are new in this chunk, for training or validation, int64.
    """

    index: int
    train: IntArray
    validation: IntArray
    new: IntArray


def make_chunks(dataset: ImageDataset, split: ImageSplit, config: ChunksConfig, *, seed: int) -> tuple[Chunk, ...]:
    """Divide the training and validation images into chunks, and add the replayed images to each.

    Args:
        dataset: The data set that the rows belong to; `chunk_by` uses its sources, `class_order` its labels.
        split: Training and validation rows.
        config: Number, sizes and order of chunks, and replay. Images per class and label noise are applied elsewhere,
            by `limit_images` and `give_labels`.
        seed: The run's seed; `config.seed` replaces it if set.

    Raises:
        UserError: There are more chunks than training images or sources, or a chunk would be empty.
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
                "training images to learn, and validation images to choose the epoch",
                f"{fewer}, {other}raise image_split.val",
            )


def _replay(new: list[IntArray], replay: str, size: int, seed: int) -> list[IntArray]:
    """Return the rows of earlier chunks that each chunk replays.

    A buffer is a reservoir: of the rows seen, it keeps the `size` with the lowest random priority. So it is a uniform
    sample at any time, and a dropped row never returns.
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
