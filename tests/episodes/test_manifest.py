from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from episodes.manifest import Manifest, make_manifest
from episodes.sampler import EpisodeSampler, EpisodeSpec

LABELS = np.repeat(np.arange(6), 10).astype(np.int64)
SPEC = EpisodeSpec(n_way=3, n_shot=2, n_query=4, n_episodes=12)


@pytest.fixture
def manifest() -> Manifest:
    return make_manifest(LABELS, SPEC, seed=3, images_digest="abc")


def test_a_saved_manifest_reads_back_with_its_hash(manifest: Manifest, tmp_path: Path) -> None:
    manifest.save(tmp_path / "m.parquet")
    again = Manifest.load(tmp_path / "m.parquet")
    assert again.hash == manifest.hash
    assert (again.spec, again.seed, again.images_digest) == (SPEC, 3, "abc")
    assert np.array_equal(again.query, manifest.query)


def test_the_file_has_one_row_an_episode_with_lists_of_bank_rows(manifest: Manifest, tmp_path: Path) -> None:
    manifest.save(tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet")
    assert table.column_names == ["index", "classes", "support", "query"]
    episode = EpisodeSampler(LABELS, SPEC, seed=3)[5]
    row = table.slice(5, 1).to_pylist()[0]
    assert row == {
        "index": 5,
        "classes": episode.classes.tolist(),
        "support": episode.support.tolist(),
        "query": episode.query.tolist(),
    }


def test_a_changed_file_is_noticed(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    manifest.save(path)
    table = pq.read_table(path)
    pq.write_table(table.take(list(range(11, -1, -1))).replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(ValueError, match="states hash"):
        Manifest.load(path)


def test_the_hash_depends_on_episodes_and_images_and_not_on_who_drew_them(manifest: Manifest) -> None:
    assert make_manifest(LABELS, SPEC, seed=3, images_digest="abc").hash == manifest.hash
    assert make_manifest(LABELS, SPEC, seed=4, images_digest="abc").hash != manifest.hash
    assert make_manifest(LABELS, SPEC, seed=3, images_digest="abd").hash != manifest.hash


def test_a_prefix_is_the_manifest_of_fewer_episodes(manifest: Manifest) -> None:
    short = make_manifest(LABELS, replace(SPEC, n_episodes=5), seed=3, images_digest="abc")
    assert manifest.prefix(5).hash == short.hash
    assert manifest.prefix(100) is manifest


def test_episodes_of_a_manifest_equal_those_of_the_sampler(manifest: Manifest) -> None:
    for stored, drawn in zip(manifest, EpisodeSampler(LABELS, SPEC, seed=3), strict=True):
        for name in ("classes", "support", "query", "support_labels", "query_labels"):
            assert np.array_equal(getattr(stored, name), getattr(drawn, name))
