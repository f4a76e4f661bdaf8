"""Table of the results of one probe, one row per episode, and its Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from episodes.accuracies import check_accuracies
from episodes.arrays import FloatArray, IntArray
from episodes.cards import DECIMALS, NUMBERS, check_card, read_card
from episodes.files import atomic_path, check_columns
from episodes.metrics import N_BINS, Reliability, empty_reliability
from episodes.summary import Summary, summarise

COLUMNS = ("index", "classes", "accuracy", "nll", "brier", "converged", "seconds")
"""Columns of every results file; older files, without predictions, have only these."""
EXTRA = "extra."
"""Start of the names of the columns in `EpisodeTable.extra`."""
Rows = TypeVar("Rows", NDArray[np.int64], NDArray[np.int16])


@dataclass(frozen=True, kw_only=True)
class EpisodeTable:
    """The results of one probe, one row per episode.

    Attributes:
        index: (n_episodes,) int64, the episodes' numbers.
        classes: (n_episodes, n_way) int64; rows of episodes with fewer classes end with -1.
        accuracy: (n_episodes,) float64, share of queries classified correctly.
        nll: (n_episodes,) float64, mean negative log-likelihood of the queries, nats; NaN without probabilities.
        brier: (n_episodes,) float64, mean Brier score of the queries; NaN without probabilities.
        converged: (n_episodes,) bool, whether the fit met its stopping criterion before its limit of iterations.
        seconds: (n_episodes,) float64, time of fit and prediction; the mean if a block was solved together.
        reliability: Counts of predictions by confidence, pooled over all queries.
        predicted: (n_episodes, n_query) int16, the predicted episode label of each query, in the manifest's order of
            queries; rows of episodes with fewer queries end with -1. None if they are unknown or were not read.
        n_by_solver: Number of episodes by solver: `batched`, `scikit-learn`; of the batched ones, `audited` by both.
        extra: Further values of each episode by name, (n_episodes,) float64 each; empty for probes on fixed features.
        identity: JSON-serialisable: the manifest's hash, the probe's settings, the bank's identity.
        values: (n_episodes, n_query, n_way), probabilities, or decision values of the nearest centroid and of
            classifiers without probabilities; NaN where an episode has fewer classes or queries. None unless `score`
            was asked for them; they are not saved.
    """

    index: IntArray
    classes: IntArray
    accuracy: FloatArray
    nll: FloatArray
    brier: FloatArray
    converged: NDArray[np.bool_]
    seconds: FloatArray
    reliability: Reliability
    predicted: NDArray[np.int16] | None = None
    n_by_solver: dict[str, int] = field(default_factory=dict)
    extra: dict[str, FloatArray] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    values: NDArray[np.floating] | None = None

    def __len__(self) -> int:
        return len(self.accuracy)

    def summary(self) -> Summary:
        """Return the mean accuracy with its confidence intervals; `print` shows it as one line."""
        return summarise(self.accuracy, self.classes)

    def first(self, n_episodes: int) -> EpisodeTable:
        """Return the results of the first episodes; the counts over all of them, which cannot be cut, are empty."""
        columns: dict[str, Any] = {name: getattr(self, name)[:n_episodes] for name in COLUMNS}
        predicted = None if self.predicted is None else self.predicted[:n_episodes]
        extra = {name: values[:n_episodes] for name, values in self.extra.items()}
        columns["values"] = None if self.values is None else self.values[:n_episodes]
        return replace(
            self, **columns, predicted=predicted, extra=extra, reliability=empty_reliability(), n_by_solver={}
        )

    def save(self, path: Path | str) -> None:
        """Write a Parquet file with the columns `COLUMNS`, those of `extra`, and `predicted` if known.

        Identity and pooled counts go into its metadata.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        def lists(rows: NDArray[Any]) -> Any:
            offsets = np.concatenate([[0], np.cumsum((rows >= 0).sum(axis=1))])
            return pa.ListArray.from_arrays(offsets.astype(np.int32), rows[rows >= 0])

        columns = {
            "index": self.index,
            "classes": lists(self.classes),
            **{name: getattr(self, name) for name in COLUMNS[2:]},
            **{EXTRA + name: values for name, values in self.extra.items()},
            **({} if self.predicted is None else {"predicted": lists(self.predicted)}),
        }
        counts = {name: getattr(self.reliability, name).tolist() for name in ("n", "confidence", "correct")}
        metadata = {
            "identity": json.dumps(self.identity),
            "reliability": json.dumps(counts),
            "n_by_solver": json.dumps(self.n_by_solver),
        }
        with atomic_path(path) as temporary:
            pq.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary, compression="zstd")

    @classmethod
    def load(cls, path: Path | str, *, with_predicted: bool = True) -> EpisodeTable:
        """Read a file that `save` wrote.

        Args:
            path: The file.
            with_predicted: Whether to read the predictions, most of the file; otherwise `predicted` is None.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a table of episodes.
        """
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            metadata, names = file.schema_arrow.metadata or {}, tuple(file.schema_arrow.names)
            extra = [name for name in names if name.startswith(EXTRA)]
            if b"identity" not in metadata or names not in ((*COLUMNS, *extra), (*COLUMNS, *extra, "predicted")):
                raise ValueError(f"{path} is not a table of episodes: it should have the columns {', '.join(COLUMNS)}")
            table = file.read([name for name in names if name != "predicted" or with_predicted])
        check_columns(table, path, lists=("classes", "predicted"))
        names_of_counts = {"n": NUMBERS, "confidence": DECIMALS, "correct": NUMBERS}
        counts = read_card(metadata[b"reliability"], names_of_counts, what="the counts by confidence")
        if any(len(counts[name]) != N_BINS for name in names_of_counts):
            raise ValueError(f"{path} has counts by confidence that are not {N_BINS} bins")
        by_solver = read_card(metadata.get(b"n_by_solver", b"{}"), {}, what="the counts by solver")
        columns: dict[str, Any] = {name: table[name].to_numpy() for name in ("index", *COLUMNS[2:])}
        check_accuracies(columns["accuracy"], path)
        return cls(
            classes=_rows_of(table["classes"], np.int64),
            predicted=_rows_of(table["predicted"], np.int16) if "predicted" in table.column_names else None,
            reliability=Reliability(
                n=np.array(counts["n"], dtype=np.int64),
                confidence=np.array(counts["confidence"], dtype=np.float64),
                correct=np.array(counts["correct"], dtype=np.int64),
            ),
            n_by_solver=check_card(by_solver, dict.fromkeys(by_solver, int), what="the counts by solver"),
            extra={name.removeprefix(EXTRA): table[name].to_numpy() for name in extra},
            identity=read_card(metadata[b"identity"], {}, what="the identity of the results"),
            **columns,
        )


def collect(blocks: Iterable[EpisodeTable], identity: dict[str, Any]) -> EpisodeTable:
    """Join tables of consecutive episodes into one table with the given identity."""
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
    predicted = [table.predicted for table in tables if table.predicted is not None]
    values = [table.values for table in tables if table.values is not None]
    return EpisodeTable(
        classes=_stacked([table.classes for table in tables]),
        predicted=_stacked(predicted) if len(predicted) == len(tables) else None,
        reliability=pooled,
        n_by_solver=n_by_solver,
        extra={name: np.concatenate([table.extra[name] for table in tables]) for name in tables[0].extra},
        identity=identity,
        values=_stacked_values(values) if len(values) == len(tables) else None,
        **columns,
    )


def _stacked_values(blocks: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
    """Stack (n_episodes, n_query, n_way) values of all blocks, padding those of narrower blocks with NaN."""
    sizes = [max(block.shape[axis] for block in blocks) for axis in (1, 2)]
    missing = [[size - block.shape[axis] for axis, size in enumerate(sizes, start=1)] for block in blocks]
    return np.concatenate(
        [
            np.pad(block, [(0, 0), *((0, n) for n in more)], constant_values=np.nan) if any(more) else block
            for block, more in zip(blocks, missing, strict=True)
        ]
    )


def _stacked(blocks: Sequence[Rows]) -> Rows:
    """Stack the rows of all blocks, padding those of narrower blocks with -1."""
    width = max(block.shape[1] for block in blocks)
    if any(block.shape[1] < width for block in blocks):
        blocks = [np.pad(block, ((0, 0), (0, width - block.shape[1])), constant_values=-1) for block in blocks]
    return np.concatenate(blocks)


def _rows_of(column: Any, dtype: type[np.int64] | type[np.int16]) -> NDArray[Any]:
    """Turn an Arrow column of lists into an array (n_episodes, longest), shorter lists padded with -1."""
    lists = column.combine_chunks()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    rows = np.full((len(lengths), max(lengths, default=0)), -1, dtype=dtype)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = lists.flatten().to_numpy(zero_copy_only=False)
    return rows
