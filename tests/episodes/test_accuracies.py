from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from episodes.accuracies import Accuracies
from episodes.metrics import empty_reliability
from episodes.table import EpisodeTable

CLASSES = np.array([[0, 4, 2], [3, 1, -1], [2, 0, -1]])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    table = EpisodeTable(
        index=np.arange(3),
        classes=CLASSES,
        accuracy=np.array([0.5, 0.25, 1.0]),
        nll=np.full(3, np.nan),
        brier=np.full(3, np.nan),
        converged=np.ones(3, dtype=bool),
        seconds=np.zeros(3),
        reliability=empty_reliability(),
        identity={"manifest": "abc", "bank": "xyz"},
    )
    table.save(tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


def test_are_those_of_the_table_that_was_saved(path: Path) -> None:
    found, table = Accuracies.load(path), EpisodeTable.load(path)
    for name in ("index", "classes", "accuracy"):
        assert np.array_equal(getattr(found, name), getattr(table, name))
        assert getattr(found, name).dtype == getattr(table, name).dtype
    assert found.identity == table.identity
    assert len(found) == 3


def test_of_the_first_episodes_are_of_a_manifest_of_these(path: Path) -> None:
    first = Accuracies.load(path).first(2, manifest="def")
    assert (first.index.tolist(), first.accuracy.tolist()) == ([0, 1], [0.5, 0.25])
    assert np.array_equal(first.classes, CLASSES[:2])
    assert first.identity == {"manifest": "def", "bank": "xyz"}


def test_of_another_file_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"index": [0], "accuracy": [0.5]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="should have the columns index, classes, accuracy"):
        Accuracies.load(tmp_path / "other.parquet")


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("accuracy", ["a", "b", "c"], "has the type string in the column accuracy"),
        ("accuracy", [0.5, None, 1.0], "has empty values in the column accuracy"),
        ("classes", [0, 1, 2], "lists of numbers"),
        ("classes", [[0, 1], None, [2, 3]], "has empty values in the column classes"),
    ],
)
def test_of_a_damaged_column_are_refused(path: Path, column: str, values: list[object], words: str) -> None:
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, pa.array(values)), path)
    for load in (Accuracies.load, EpisodeTable.load):
        with pytest.raises(ValueError, match=words):
            load(path)
