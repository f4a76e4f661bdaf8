from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from episodes.bank import FeatureBank
from episodes.image_names import ImageNames
from episodes.manifest import Manifest, draw_manifest, make_manifest
from episodes.sampler import EpisodeSampler, EpisodeSpec, MetaDatasetSpec

LABELS = np.repeat(np.arange(6), 10).astype(np.int64)
SPEC = EpisodeSpec(n_way=3, n_shot=2, n_query=4, n_episodes=12)
NAMES = ImageNames(
    labels=LABELS,
    image_ids=tuple(f"{label}/{row}" for row, label in enumerate(LABELS)),
    class_names=tuple("abcdef"),
)
SPECS = {
    "uniform": SPEC,
    "shots": EpisodeSpec(n_way=3, shots=(1, 2, 5), n_query=3, n_episodes=12),
    "query_alpha": EpisodeSpec(n_way=2, n_shot=2, n_query=3, query_alpha=0.5, n_episodes=12),
    "meta_dataset": EpisodeSpec(meta_dataset=MetaDatasetSpec(min_way=2, max_way=6), n_episodes=12),
    "disjoint": EpisodeSpec(n_way=2, n_shot=1, n_query=2, n_episodes=8, disjoint=True),
}
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
PARTS = ("classes", "support", "query", "support_labels", "query_labels")


@pytest.fixture
def manifest() -> Manifest:
    return make_manifest(LABELS, SPEC, seed=3, images_digest="abc")


def shuffled(n_more: int = 0) -> ImageNames:
    """The same images in another order, with classes in another order, and others beside them."""
    order = np.random.default_rng(0).permutation(len(LABELS) + n_more)
    ids = [*NAMES.image_ids, *(f"new/{row}" for row in range(n_more))]
    labels = np.concatenate([5 - LABELS, np.full(n_more, 6, dtype=np.int64)])
    class_names = (*reversed(NAMES.class_names), *(["new"] if n_more else []))
    return ImageNames(
        labels=labels[order], image_ids=tuple(ids[place] for place in order), class_names=tuple(class_names)
    )


def in_words(manifest: Manifest) -> list[tuple[list[str], list[str], list[str]]]:
    assert manifest.images is not None
    names = manifest.images
    return [
        (
            [names.class_names[label] for label in episode.classes],
            [names.image_ids[row] for row in episode.support],
            [names.image_ids[row] for row in episode.query],
        )
        for episode in manifest
    ]


def test_a_uniform_manifest_has_arrays_of_two_dimensions(manifest: Manifest) -> None:
    assert (manifest.classes.shape, manifest.support.shape, manifest.query.shape) == ((12, 3), (12, 6), (12, 12))
    assert manifest.n_ways is None and manifest.n_support is None and manifest.n_query is None


@each_spec
def test_a_saved_manifest_reads_back_with_its_hash(spec: EpisodeSpec, tmp_path: Path) -> None:
    manifest = draw_manifest(NAMES, spec, seed=3)
    manifest.save(tmp_path / "m.parquet")
    again = Manifest.load(tmp_path / "m.parquet")
    assert again.hash == manifest.hash
    assert (again.spec, again.seed, again.images_digest) == (spec, 3, NAMES.images_digest)
    assert in_words(again) == in_words(manifest)
    for name in ("classes", "support", "query", "n_ways", "n_support", "n_query"):
        one, other = getattr(again, name), getattr(manifest, name)
        assert (one is None and other is None) or (one.shape == other.shape and np.array_equal(one, other))


def test_the_episodes_cannot_be_changed(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="read-only"):
        manifest.support[0, 0] = 1


def test_a_manifest_without_names_reads_back(manifest: Manifest, tmp_path: Path) -> None:
    manifest.save(tmp_path / "m.parquet")
    again = Manifest.load(tmp_path / "m.parquet")
    assert (again.hash, again.images) == (manifest.hash, None)


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


def test_the_file_of_another_form_has_the_counts_of_each_class(tmp_path: Path) -> None:
    draw_manifest(NAMES, SPECS["shots"], seed=3).save(tmp_path / "m.parquet")
    row = pq.read_table(tmp_path / "m.parquet").slice(0, 1).to_pylist()[0]
    assert (row["n_support"], row["n_query"]) == ([1, 2, 5], [3, 3, 3])
    assert (len(row["support"]), len(row["query"])) == (8, 9)


def test_a_changed_file_is_noticed(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    manifest.save(path)
    table = pq.read_table(path)
    pq.write_table(table.take(list(range(11, -1, -1))).replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(ValueError, match="should have hash"):
        Manifest.load(path)


def test_a_file_whose_names_are_others_is_noticed(tmp_path: Path) -> None:
    other = replace(NAMES, image_ids=(*NAMES.image_ids[:-1], "other"))
    replace(draw_manifest(NAMES, SPEC, seed=3), images=other).save(tmp_path / "m.parquet")
    with pytest.raises(ValueError, match="was drawn on images"):
        Manifest.load(tmp_path / "m.parquet")


def test_any_other_parquet_file_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"a": [1]}), tmp_path / "m.parquet")
    with pytest.raises(ValueError, match="is not a manifest"):
        Manifest.load(tmp_path / "m.parquet")


def test_the_hash_depends_on_episodes_and_images_and_not_on_who_drew_them(manifest: Manifest) -> None:
    assert make_manifest(LABELS, SPEC, seed=3, images_digest="abc").hash == manifest.hash
    assert make_manifest(LABELS, SPEC, seed=4, images_digest="abc").hash != manifest.hash
    assert make_manifest(LABELS, SPEC, seed=3, images_digest="abd").hash != manifest.hash


@pytest.mark.parametrize("images", [None, NAMES], ids=["rows", "names"])
def test_the_hash_depends_on_the_form_and_on_how_many_images_a_class_has(images: ImageNames | None) -> None:
    shots = replace(make_manifest(LABELS, SPECS["shots"], seed=3, images_digest="abc"), images=images)
    assert shots.n_support is not None
    assert replace(shots, n_support=np.roll(shots.n_support, 1)).hash != shots.hash
    assert replace(shots, spec=replace(shots.spec, shots=(1, 3, 4))).hash != shots.hash


def test_the_hash_depends_on_the_names_of_images_and_classes() -> None:
    manifest = draw_manifest(NAMES, SPEC, seed=3)
    used = manifest.support[0, 0]
    ids = [f"{image_id}*" if row == used else image_id for row, image_id in enumerate(NAMES.image_ids)]
    assert draw_manifest(replace(NAMES, image_ids=tuple(ids)), SPEC, seed=3).hash != manifest.hash
    assert draw_manifest(replace(NAMES, class_names=tuple("abcdeg")), SPEC, seed=3).hash != manifest.hash


@each_spec
def test_a_prefix_is_the_manifest_of_fewer_episodes(spec: EpisodeSpec) -> None:
    manifest = draw_manifest(NAMES, spec, seed=3)
    short = draw_manifest(NAMES, replace(spec, n_episodes=5), seed=3)
    assert manifest.prefix(5).hash == short.hash
    assert manifest.prefix(5).seed == 3
    assert in_words(manifest.prefix(5)) == in_words(manifest)[:5]
    assert manifest.prefix(100) is manifest


@each_spec
def test_episodes_of_a_manifest_equal_those_of_the_sampler(spec: EpisodeSpec) -> None:
    manifest = make_manifest(LABELS, spec, seed=3, images_digest="abc")
    for stored, drawn in zip(manifest, EpisodeSampler(LABELS, spec, seed=3), strict=True):
        for name in PARTS:
            assert np.array_equal(getattr(stored, name), getattr(drawn, name))


def test_there_is_no_episode_before_the_first_or_after_the_last(manifest: Manifest) -> None:
    for index in (-1, 12):
        with pytest.raises(IndexError):
            manifest[index]


@each_spec
@pytest.mark.parametrize("n_more", [0, 25])
def test_episodes_are_found_in_a_bank_of_another_order_or_with_more_images(spec: EpisodeSpec, n_more: int) -> None:
    manifest = draw_manifest(NAMES, spec, seed=3)
    bank = shuffled(n_more)
    there = manifest.rebase(bank)
    assert there.images_digest == bank.images_digest
    assert in_words(there) == in_words(manifest)
    assert there.hash == manifest.hash
    for episode in there:
        assert np.array_equal(bank.labels[episode.query], episode.classes[episode.query_labels])


def test_a_bank_of_the_same_images_needs_no_names() -> None:
    bank = FeatureBank.from_arrays(np.zeros((60, 2)), LABELS)
    bare = make_manifest(LABELS, SPEC, seed=3, images_digest=bank.images_digest)
    assert bare.rebase(bank).hash == draw_manifest(bank, SPEC, seed=3).hash


def test_a_manifest_without_names_cannot_be_found_elsewhere(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match=r"has no image ids.*draw it with 'draw_manifest'"):
        manifest.rebase(NAMES)


def test_missing_images_are_refused() -> None:
    manifest = draw_manifest(NAMES, SPEC, seed=3)
    row = int(manifest.rows[0])
    kept = np.arange(60) != row
    bank = replace(NAMES, labels=LABELS[kept], image_ids=tuple(np.array(NAMES.image_ids)[kept].tolist()))
    with pytest.raises(ValueError, match=f"1 of the manifest's {len(manifest.rows)} images are missing, such as '0/"):
        manifest.rebase(bank)


def test_images_of_another_class_are_refused() -> None:
    manifest = draw_manifest(NAMES, SPEC, seed=3)
    labels = LABELS.copy()
    labels[manifest.support[0, 0]] = (labels[manifest.support[0, 0]] + 1) % 6
    with pytest.raises(ValueError, match=r"is of class '\w' in the manifest, but of class '\w' here"):
        manifest.rebase(replace(NAMES, labels=labels))


def test_names_are_stored_once_and_small(tmp_path: Path) -> None:
    many = ImageNames(
        labels=np.repeat(np.arange(40), 500),
        image_ids=tuple(f"class-{row // 500}/image-{row:06d}.png" for row in range(20_000)),
        class_names=tuple(f"class-{label}" for label in range(40)),
    )
    draw_manifest(many, SPEC, seed=0).save(tmp_path / "m.parquet")
    assert (tmp_path / "m.parquet").stat().st_size < 150_000  # 580,000 characters of names


def wrong_arrays(name: str, manifest: Manifest) -> dict[str, np.ndarray]:
    arrays = {part: getattr(manifest, part).copy() for part in ("classes", "support", "query")}
    if name == "a query among the support":
        arrays["query"][5, 0] = arrays["support"][5, 0]
    elif name == "one image twice":
        arrays["query"][5, 0] = arrays["query"][5, 1]
    elif name == "one class twice":
        arrays["classes"][5, 0] = arrays["classes"][5, 1]
    elif name == "support of another class":
        arrays["support"][5] = np.roll(arrays["support"][5], 2)
    else:
        arrays["support"][5, 0] = -1
    return arrays


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a query among the support", "episode 5 has one image twice"),
        ("one image twice", "episode 5 has one image twice"),
        ("one class twice", "episode 5 has one class twice"),
        ("support of another class", "episode 5 has images of other classes"),
        ("a negative row", "an image that does not exist"),
    ],
)
def test_episodes_with_a_right_hash_that_no_draw_gives_are_refused(name: str, words: str, tmp_path: Path) -> None:
    drawn = draw_manifest(NAMES, SPEC, seed=0)
    replace(drawn, **wrong_arrays(name, drawn)).save(tmp_path / "wrong.parquet")
    with pytest.raises(ValueError, match=words):
        Manifest.load(tmp_path / "wrong.parquet")


def test_episodes_without_names_are_checked_against_the_bank_that_they_are_used_with(tmp_path: Path) -> None:
    bare = make_manifest(LABELS, SPEC, seed=0, images_digest=NAMES.images_digest)
    replace(bare, **wrong_arrays("support of another class", bare)).save(tmp_path / "wrong.parquet")
    with pytest.raises(ValueError, match="episode 5 has images of other classes"):
        Manifest.load(tmp_path / "wrong.parquet").rebase(NAMES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda card: [card], "should be a mapping"),
        (lambda card: card | {"seed": "one"}, "seed 'one', which should be a whole number"),
        (lambda card: card | {"seed": 10**30}, "seed '10000"),
        (lambda card: card | {"hash": 7}, "hash '7', which should be a text"),
        (lambda card: card | {"spec": card["spec"] | {"weather": 1}}, "'weather', which this version does not know"),
        (lambda card: card | {"spec": card["spec"] | {"n_shot": 1.5}}, "n_shot '1.5'"),
        (lambda card: card | {"spec": card["spec"] | {"n_episodes": 10**12}}, "has 12 episodes"),
        (lambda card: {key: card[key] for key in card if key != "images_digest"}, "has no entry 'images_digest'"),
    ],
)
def test_a_card_of_another_form_is_refused(
    change: Callable[[dict[str, Any]], Any], words: str, manifest: Manifest, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    manifest.save(path)
    table = pq.read_table(path)
    card = change(json.loads(table.schema.metadata[b"manifest"]))
    pq.write_table(table.replace_schema_metadata({"manifest": json.dumps(card)}), path)
    with pytest.raises(ValueError, match=re.escape(words)):
        Manifest.load(path)


def test_names_that_expand_without_bound_are_refused() -> None:
    packed = zlib.compress(b'[[0], ["' + b"a" * 2**28 + b'"], ["b"]]')
    with pytest.raises(ValueError, match="expand to far more"):
        ImageNames.from_text(base64.b64encode(packed))


@pytest.mark.parametrize("text", [b"", b"!!!", b"AAAA", base64.b64encode(zlib.compress(b"[[5], [1], [2]]"))])
def test_damaged_names_are_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="names of the images"):
        ImageNames.from_text(text)
