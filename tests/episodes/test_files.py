"""Whatever is saved takes a path as text, too, and relative paths start at the working directory."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from episodes import EpisodeSpec, EpisodeTable, FeatureBank, Manifest, Probe, collect, draw_manifest, score
from episodes.accuracies import Accuracies
from episodes.files import atomic_path
from episodes.probes import nearest_centroid


def test_a_path_may_be_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labels = np.repeat(np.arange(3), 6)
    bank = FeatureBank.from_arrays(np.random.default_rng(0).normal(size=(18, 4)) + labels[:, None], labels)
    manifest = draw_manifest(bank, EpisodeSpec(n_way=3, n_shot=1, n_query=2, n_episodes=4), seed=0)
    probe = Probe(name="nearest_centroid", classifier=nearest_centroid())
    table = collect(score(bank, manifest, probe), {"manifest": manifest.hash})
    bank.save("features")
    manifest.save("manifest.parquet")
    table.save("made/on/the way.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features", "made", "manifest.parquet"]
    assert FeatureBank.load("features").images_digest == bank.images_digest
    assert Manifest.load("manifest.parquet").hash == manifest.hash
    assert np.array_equal(EpisodeTable.load("made/on/the way.parquet").accuracy, table.accuracy)
    assert np.array_equal(Accuracies.load("made/on/the way.parquet").accuracy, table.accuracy)


@pytest.mark.parametrize(("free", "number"), [(0, errno.ENOSPC), (10**9, None)])
def test_a_library_that_fails_without_a_reason_on_a_full_disk_gets_this_reason(
    free: int, number: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    path = tmp_path / "features.npy"
    with pytest.raises(OSError) as caught, atomic_path(path) as temporary:
        temporary.write_bytes(b"a part")
        raise OSError("128 requested and 7 written")  # as NumPy says it
    assert caught.value.errno == number
    assert not [*tmp_path.iterdir()]
