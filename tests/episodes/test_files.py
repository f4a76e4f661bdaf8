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
from episodes.files import atomic_path, release_pages
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


def resident_of_file(path: Path) -> int:
    """Return how many kilobytes of a mapped file are resident in this process."""
    is_ours, n_kilobytes = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            is_ours = bool(rest) and rest[-1] == str(path)
        elif first == "Rss:" and is_ours:
            n_kilobytes += int(rest[0])
    return n_kilobytes


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="needs Linux")
def test_a_mapped_bank_is_scored_without_keeping_its_file_in_memory(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(4), 500)
    features = np.random.default_rng(0).normal(size=(2000, 512)) + labels[:, None]
    FeatureBank.from_arrays(features, labels).save(tmp_path / "bank")
    bank = FeatureBank.load(tmp_path / "bank")
    assert float(bank.features.sum()) > 0
    path = tmp_path / "bank" / "features.npy"
    assert resident_of_file(path) > 3000
    manifest = draw_manifest(bank, EpisodeSpec(n_way=4, n_shot=20, n_query=20, n_episodes=50), seed=0)
    probe = Probe(name="nearest_centroid", classifier=nearest_centroid())
    found = collect(score(bank, manifest, probe), {})
    assert resident_of_file(path) < 500
    in_memory = FeatureBank.from_arrays(np.array(bank.features), labels)
    again = draw_manifest(in_memory, manifest.spec, seed=0)
    assert np.array_equal(found.accuracy, collect(score(in_memory, again, probe), {}).accuracy)


def test_what_was_written_into_a_map_is_not_lost(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(4))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="c")
    mapped[1] = 5
    release_pages(mapped[:2])
    assert mapped.tolist() == [0, 5, 0, 0]
