"""Further columns of a table of episodes: stored, cut and joined like the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from episodes.accuracies import Accuracies
from episodes.metrics import empty_reliability
from episodes.table import EpisodeTable, collect


def table(start: int, n: int, **extra: float) -> EpisodeTable:
    values = np.arange(start, start + n)
    return EpisodeTable(
        index=values,
        classes=np.stack([values, values + 1], axis=1),
        accuracy=values / 10,
        nll=np.zeros(n),
        brier=np.zeros(n),
        converged=np.ones(n, dtype=bool),
        seconds=np.zeros(n),
        reliability=empty_reliability(),
        predicted=np.zeros((n, 3), dtype=np.int16),
        extra={name: values + value for name, value in extra.items()},
        identity={"manifest": "m"},
    )


@pytest.mark.parametrize("with_predicted", [True, False])
def test_further_columns_are_stored_cut_and_joined(tmp_path: Path, with_predicted: bool) -> None:
    joined = collect([table(0, 2, moved=0.5, passes=7.0), table(2, 3, moved=0.5, passes=7.0)], {"manifest": "m"})
    joined.save(tmp_path / "table.parquet")
    stored = EpisodeTable.load(tmp_path / "table.parquet", with_predicted=with_predicted)
    assert stored.extra.keys() == {"moved", "passes"} and (stored.predicted is not None) is with_predicted
    assert stored.extra["moved"].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert stored.first(2).extra["passes"].tolist() == [7.0, 8.0]
    assert Accuracies.load(tmp_path / "table.parquet").accuracy.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]


def test_a_table_without_further_columns_has_none(tmp_path: Path) -> None:
    table(0, 2).save(tmp_path / "table.parquet")
    assert EpisodeTable.load(tmp_path / "table.parquet").extra == {}
