"""The accuracy of every episode, read without the rest of the results: enough to compare two models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from episodes.arrays import FloatArray, IntArray
from episodes.cards import read_card
from episodes.files import check_columns

COLUMNS = ("index", "classes", "accuracy")


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """The accuracies of one probe on episodes: three columns of an `EpisodeTable`, read without the others.

    Attributes:
        index: (n_episodes,) int64, the episodes' numbers.
        classes: (n_episodes, n_way) int64; rows of episodes with fewer classes end with -1.
        accuracy: (n_episodes,) float64, share of queries classified correctly.
        identity: The table's identity; its `manifest` is the hash of the episodes.
    """

    index: IntArray
    classes: IntArray
    accuracy: FloatArray
    identity: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.accuracy)

    def first(self, n_episodes: int, *, manifest: str) -> Accuracies:
        """Return the first `n_episodes`, labelled with `manifest`, the hash of that shorter manifest."""
        return Accuracies(
            index=self.index[:n_episodes],
            classes=self.classes[:n_episodes],
            accuracy=self.accuracy[:n_episodes],
            identity={**self.identity, "manifest": manifest},
        )

    @classmethod
    def load(cls, path: Path | str) -> Accuracies:
        """Read the columns from a file that `EpisodeTable.save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a table of episodes.
        """
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            if b"identity" not in metadata or not set(COLUMNS) <= set(file.schema_arrow.names):
                raise ValueError(f"{path} is not a table of episodes: it should have the columns {', '.join(COLUMNS)}")
            table = file.read(columns=list(COLUMNS))
        check_columns(table, path, lists=("classes",))
        check_accuracies(table["accuracy"].to_numpy(), path)
        lists = table["classes"].combine_chunks()
        return cls(
            index=table["index"].to_numpy(),
            classes=_padded(lists.flatten().to_numpy(), lists.value_lengths().to_numpy()),
            accuracy=table["accuracy"].to_numpy(),
            identity=read_card(metadata[b"identity"], {}, what="the identity of the results"),
        )


def check_accuracies(accuracy: FloatArray, path: Path | str) -> None:
    """Raise unless there are accuracies, all of them shares.

    Raises:
        ValueError: There are none, or one is outside [0, 1] or NaN.
    """
    if not len(accuracy) or not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise ValueError(f"{path} has no accuracies, or accuracies outside 0 to 1")


def _padded(labels: IntArray, n_of_row: IntArray) -> IntArray:
    """Return (n_episodes, max n_way) int64 from labels in episode order, short rows padded with -1."""
    width = int(n_of_row.max(initial=0))
    rows = np.full((len(n_of_row), width), -1, dtype=np.int64)
    rows[np.arange(width) < n_of_row[:, None]] = labels
    return rows
