"""The results of one probe on episodes, one row an episode, and their file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.files import atomic_path
from episodes.metrics import Reliability, empty_reliability
from episodes.summary import Summary, summarise

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
COLUMNS = ("index", "classes", "accuracy", "nll", "brier", "converged", "seconds")


@dataclass(frozen=True, kw_only=True)
class EpisodeTable:
    """The results of one probe on episodes.

    Attributes:
        index: (n_episodes,) int64, the episodes' numbers.
        classes: (n_episodes, n_way) int64; rows of episodes with fewer classes end with -1.
        accuracy: (n_episodes,) float64, share of queries classified rightly.
        nll: (n_episodes,) float64, mean negative log-likelihood of the queries, nats; NaN without probabilities.
        brier: (n_episodes,) float64, mean Brier score of the queries; NaN without probabilities.
        converged: (n_episodes,) bool, whether the fit ended by its own criterion, not by its limit of iterations.
        seconds: (n_episodes,) float64, time of fit and prediction; of a block solved together, its mean.
        reliability: Counts by confidence, pooled over all queries.
        n_by_solver: How many episodes were solved how: `batched`, `scikit-learn`, and of the batched ones `audited`.
        identity: JSON-serialisable: the manifest's hash, the probe's settings, the bank's identity.
    """

    index: IntArray
    classes: IntArray
    accuracy: FloatArray
    nll: FloatArray
    brier: FloatArray
    converged: NDArray[np.bool_]
    seconds: FloatArray
    reliability: Reliability
    n_by_solver: dict[str, int] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.accuracy)

    def summary(self) -> Summary:
        """Return the mean accuracy with its intervals; printed, it is one line for people."""
        return summarise(self.accuracy, self.classes)

    def save(self, path: Path) -> None:
        """Write a Parquet file with the columns `COLUMNS`; identity and pooled counts are in its metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        n_classes = (self.classes >= 0).sum(axis=1)
        offsets = np.concatenate([[0], np.cumsum(n_classes)]).astype(np.int32)
        columns = {
            "index": self.index,
            "classes": pa.ListArray.from_arrays(offsets, self.classes[self.classes >= 0]),
            **{name: getattr(self, name) for name in COLUMNS[2:]},
        }
        counts = {name: getattr(self.reliability, name).tolist() for name in ("n", "confidence", "correct")}
        metadata = {
            "identity": json.dumps(self.identity),
            "reliability": json.dumps(counts),
            "n_by_solver": json.dumps(self.n_by_solver),
        }
        with atomic_path(path) as temporary:
            pq.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary)

    @classmethod
    def load(cls, path: Path) -> EpisodeTable:
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no table of episodes.
        """
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        if b"identity" not in metadata or tuple(table.column_names) != COLUMNS:
            raise ValueError(f"{path} is no table of episodes: it should have the columns {', '.join(COLUMNS)}")
        counts = json.loads(metadata[b"reliability"])
        columns: dict[str, Any] = {name: table[name].to_numpy() for name in ("index", *COLUMNS[2:])}
        return cls(
            classes=pad_classes(table["classes"].to_pylist()),
            reliability=Reliability(
                n=np.array(counts["n"], dtype=np.int64),
                confidence=np.array(counts["confidence"], dtype=np.float64),
                correct=np.array(counts["correct"], dtype=np.int64),
            ),
            n_by_solver=json.loads(metadata.get(b"n_by_solver", b"{}")),
            identity=json.loads(metadata[b"identity"]),
            **columns,
        )


def collect(blocks: Iterable[EpisodeTable], identity: dict[str, Any]) -> EpisodeTable:
    """Gather blocks of results into one table."""
    tables = list(blocks)
    pooled = empty_reliability()
    n_by_solver: dict[str, int] = {}
    for table in tables:
        pooled = pooled + table.reliability
        for name, n in table.n_by_solver.items():
            n_by_solver[name] = n_by_solver.get(name, 0) + n
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(table, name) for table in tables]) for name in ("index", *COLUMNS[2:])
    }
    return EpisodeTable(
        classes=pad_classes([row for table in tables for row in table.classes])
        if len({table.classes.shape[1] for table in tables}) > 1
        else np.concatenate([table.classes for table in tables]),
        reliability=pooled,
        n_by_solver=n_by_solver,
        identity=identity,
        **columns,
    )


def pad_classes(rows: Iterable[Iterable[int]]) -> IntArray:
    """Return (n_episodes, max n_way) int64 from lists of classes, short ones filled up with -1."""
    lists = [[int(label) for label in row if label >= 0] for row in rows]
    width = max(map(len, lists), default=0)
    return np.array([row + [-1] * (width - len(row)) for row in lists], dtype=np.int64).reshape(len(lists), width)
