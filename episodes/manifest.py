"""Manifest: a frozen, hashed list of episodes, on which the results of several backbones are comparable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from episodes.arrays import IntArray
from episodes.blocks import Block, check_block
from episodes.cards import read_card
from episodes.files import atomic_path, check_columns
from episodes.image_names import ImageNames, Images, alphabetical, find_rows
from episodes.sampler import Episode, EpisodeSampler, episode_of
from episodes.specs import EpisodeSpec

COUNTS = ("n_support", "n_query")
_CARD = {"spec": dict, "seed": int, "images_digest": str, "hash": str}
"""Entries of the card of a file."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Episodes as rows of a bank.

    A uniform spec has two-dimensional arrays and no counts. Any other spec has flat arrays, episode after episode, and
    the counts that divide them. `manifest[i]` returns one episode in both cases.

    Attributes:
        spec: The form of the episodes; `spec.n_episodes` is their number.
        seed: The seed they were drawn with.
        images_digest: `FeatureBank.images_digest` of the bank that the rows belong to.
        classes: (n_episodes, n_way) int64, or flat.
        support: (n_episodes, n_way * n_shot) int64, class by class, or flat.
        query: (n_episodes, n_way * n_query) int64, class by class, or flat.
        n_ways: (n_episodes,) int64 classes of each episode; None if the spec is uniform.
        n_support: Like `classes`, number of support images of each; None if the spec is uniform.
        n_query: Like `classes`, number of query images of each; None if the spec is uniform.
        images: Names of the rows, so that the episodes can be found in other banks; None if unknown.
    """

    spec: EpisodeSpec
    seed: int
    images_digest: str
    classes: IntArray
    support: IntArray
    query: IntArray
    n_ways: IntArray | None = None
    n_support: IntArray | None = None
    n_query: IntArray | None = None
    images: ImageNames | None = None

    def __post_init__(self) -> None:
        for array in (self.classes, self.support, self.query, self.n_ways, self.n_support, self.n_query):
            if array is not None:
                array.setflags(write=False)

    def __len__(self) -> int:
        return self.spec.n_episodes

    def __getitem__(self, index: int) -> Episode:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return episode_of(self.block.part(index, index + 1), index)

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def block(self) -> Block:
        """All episodes as one block of flat arrays with explicit counts, for any spec."""
        n_entries = self.classes.size

        def explicit(counts: IntArray | None, n: int, implied: int) -> IntArray:
            return np.full(n, implied, dtype=np.int64) if counts is None else counts

        return Block(
            n_ways=explicit(self.n_ways, len(self), self.spec.n_way),
            classes=self.classes.reshape(-1),
            n_support=explicit(self.n_support, n_entries, self.spec.n_shot),
            n_query=explicit(self.n_query, n_entries, self.spec.n_query),
            support=self.support.reshape(-1),
            query=self.query.reshape(-1),
        )

    @cached_property
    def rows(self) -> IntArray:
        """All rows used by the episodes, ascending."""
        return np.union1d(self.support, self.query)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the episodes by the names of their images and classes; equal hashes mean comparable results.

        It depends neither on the order of the bank's rows nor on images that are in no episode. If the names are
        unknown, row numbers and `images_digest` are hashed in their place.
        """
        counts = [array for array in (self.n_ways, self.n_support, self.n_query) if array is not None]
        if self.images is None:
            names: list[Any] = [self.images_digest]
            arrays = [self.classes, self.support, self.query, *counts]
        else:
            ids, row_ranks = alphabetical(self.rows, self.images.image_ids)
            class_names, class_ranks = alphabetical(np.unique(self.classes), self.images.class_names)
            names = [ids, class_names]
            arrays = [class_ranks[self.classes], row_ranks[self.support], row_ranks[self.query], *counts]
        content = hashlib.sha256(json.dumps([self.spec.to_card(), *names], sort_keys=True).encode())
        for array in arrays:
            content.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return content.hexdigest()

    def prefix(self, n_episodes: int) -> Manifest:
        """Return a manifest of the first `n_episodes`, or this one if it has no more."""
        if n_episodes >= len(self):
            return self
        return _from_block(
            self.block.part(0, n_episodes),
            spec=replace(self.spec, n_episodes=n_episodes),
            seed=self.seed,
            images_digest=self.images_digest,
            images=self.images,
        )

    def rebase(self, images: Images) -> Manifest:
        """Return the same episodes, with the same hash, as rows of another bank.

        Args:
            images: A bank with all images of the episodes, in any order; it may have others.

        Raises:
            ValueError: An image is missing in the bank or has another class, the manifest has no names, or it has no
                names and images of other classes than those of its episodes.
        """
        if images.images_digest == self.images_digest:
            check_block(self.block, len(images.labels), images.labels)
            return replace(self, images=ImageNames.of(images))
        if self.images is None:
            raise ValueError(
                "the manifest has no image ids, so it can only be used with images "
                f"{self.images_digest[:12]}; draw it with 'draw_manifest'"
            )
        row_map = np.full(len(self.images.labels), -1, dtype=np.int64)
        row_map[self.rows] = find_rows(self.images, self.rows, images)
        label_of = {name: label for label, name in enumerate(images.class_names)}
        label_map = np.array([label_of.get(name, -1) for name in self.images.class_names], dtype=np.int64)
        return replace(
            self,
            images_digest=images.images_digest,
            images=ImageNames.of(images),
            classes=label_map[self.classes],
            support=row_map[self.support],
            query=row_map[self.query],
        )

    def save(self, path: Path | str) -> None:
        """Write a Parquet file: one row per episode (index, classes, support, query), the rest in its metadata.

        If the spec is not uniform, two more columns, `n_support` and `n_query`, hold the counts of each class.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        block = self.block

        def lists(values: IntArray, lengths: IntArray) -> Any:
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            return pa.ListArray.from_arrays(offsets.astype(np.int32), values)

        first = np.cumsum(block.n_ways) - block.n_ways
        columns = {
            "index": np.arange(len(self)),
            "classes": lists(block.classes, block.n_ways),
            "support": lists(block.support, np.add.reduceat(block.n_support, first)),
            "query": lists(block.query, np.add.reduceat(block.n_query, first)),
        }
        if not self.spec.is_uniform:
            columns |= {name: lists(getattr(block, name), block.n_ways) for name in COUNTS}
        card = {"spec": self.spec.to_card(), "seed": self.seed, "images_digest": self.images_digest, "hash": self.hash}
        table = pa.table(columns).replace_schema_metadata({"manifest": json.dumps(card)})
        with atomic_path(path) as temporary, pq.ParquetWriter(temporary, table.schema) as writer:
            writer.write_table(table)
            if self.images is not None:  # not in the schema: Arrow stores the schema twice
                writer.add_key_value_metadata({"images": self.images.to_text()})

    @classmethod
    def load(cls, path: Path | str) -> Manifest:
        """Read a Parquet file that `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a manifest, its episodes do not match the hash in it, or they are none: an image
                or a class is twice in an episode, does not exist, or is of another class.
        """
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            table, metadata = file.read(), file.metadata.metadata or {}
        if b"manifest" not in metadata:
            raise ValueError(f"{path} is not a manifest: its metadata has no entry 'manifest'")
        check_columns(table, path, lists=[name for name in table.column_names if name != "index"], integers=True)
        card = read_card(metadata[b"manifest"], _CARD, what=f"the card of {path}")

        def flat(name: str) -> IntArray:
            values: IntArray = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            return values.astype(np.int64)

        spec = EpisodeSpec.from_card(card["spec"])
        n_ways = np.array([len(classes) for classes in table["classes"].to_pylist()], dtype=np.int64)
        counts = [np.full(int(n_ways.sum()), count) for count in (spec.n_shot, spec.n_query)]
        n_support, n_query = counts if spec.is_uniform else [flat(name) for name in COUNTS]
        block = Block(
            n_ways=n_ways,
            classes=flat("classes"),
            n_support=n_support,
            n_query=n_query,
            support=flat("support"),
            query=flat("query"),
        )
        images = ImageNames.from_text(metadata[b"images"]) if b"images" in metadata else None
        if images is not None and images.images_digest != card["images_digest"]:
            raise ValueError(
                f"{path} was drawn on images {card['images_digest'][:12]}, but has names of {images.images_digest[:12]}"
            )
        if len(block) != spec.n_episodes or (spec.meta_dataset is None and (n_ways != spec.n_way).any()):
            raise ValueError(f"{path} has {len(block)} episodes, and not {spec.n_episodes} of {spec.words()}")
        check_block(block, *(() if images is None else (len(images.labels), images.labels)))
        manifest = _from_block(block, spec=spec, seed=card["seed"], images_digest=card["images_digest"], images=images)
        if manifest.hash != card["hash"]:
            raise ValueError(f"{path} should have hash {card['hash'][:12]}, but its episodes have {manifest.hash[:12]}")
        return manifest


def make_manifest(labels: IntArray, spec: EpisodeSpec, *, seed: int, images_digest: str) -> Manifest:
    """Draw all episodes of `spec` on rows without names; `draw_manifest` keeps names.

    Args:
        labels: (n_images,) int64 class of each row of the bank.
        spec: The form and number of the episodes.
        seed: The seed to draw with.
        images_digest: Digest of the bank that the rows belong to.

    Raises:
        SpecError: There are too few classes, or too few images in one of them.
    """
    blocks = list(EpisodeSampler(labels, spec, seed).blocks())
    joined = {field.name: np.concatenate([getattr(block, field.name) for block in blocks]) for field in fields(Block)}
    return _from_block(Block(**joined), spec=spec, seed=seed, images_digest=images_digest, images=None)


def draw_manifest(images: Images, spec: EpisodeSpec, *, seed: int) -> Manifest:
    """Draw all episodes of `spec` on named images, so that they can be found again in other banks.

    Args:
        images: A bank, or anything else with labels, image ids and class names.
        spec: The form and number of the episodes.
        seed: The seed to draw with.

    Raises:
        SpecError: There are too few classes, or too few images in one of them.
    """
    bare = make_manifest(images.labels, spec, seed=seed, images_digest=images.images_digest)
    return replace(bare, images=ImageNames.of(images))


def _from_block(
    block: Block, *, spec: EpisodeSpec, seed: int, images_digest: str, images: ImageNames | None
) -> Manifest:
    card: dict[str, Any] = {"spec": spec, "seed": seed, "images_digest": images_digest, "images": images}
    if not spec.is_uniform:
        return Manifest(**card, **{field.name: getattr(block, field.name) for field in fields(Block)})
    shape = spec.n_episodes, -1
    return Manifest(
        **card,
        classes=block.classes.reshape(shape),
        support=block.support.reshape(shape),
        query=block.query.reshape(shape),
    )
