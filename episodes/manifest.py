"""A frozen, hashed list of episodes: what makes the results of two backbones comparable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.files import atomic_path
from episodes.sampler import Episode, EpisodeSampler, EpisodeSpec

IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Episodes as rows of a bank.

    Attributes:
        spec: The form of the episodes; `spec.n_episodes` is their number.
        seed: What they were drawn with.
        images_digest: `FeatureBank.images_digest` of the bank whose rows are meant.
        classes: (n_episodes, n_way) int64.
        support: (n_episodes, n_way * n_shot) int64, class by class.
        query: (n_episodes, n_way * n_query) int64, class by class.
    """

    spec: EpisodeSpec
    seed: int
    images_digest: str
    classes: IntArray
    support: IntArray
    query: IntArray

    def __post_init__(self) -> None:
        for array in (self.classes, self.support, self.query):
            array.setflags(write=False)

    def __len__(self) -> int:
        return self.spec.n_episodes

    def __getitem__(self, index: int) -> Episode:
        return Episode(
            index=index,
            classes=self.classes[index],
            support=self.support[index],
            query=self.query[index],
            support_labels=np.repeat(np.arange(self.spec.n_way), self.spec.n_shot),
            query_labels=np.repeat(np.arange(self.spec.n_way), self.spec.n_query),
        )

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the episodes and of the images that they mean; equal hashes mean comparable results."""
        content = hashlib.sha256(json.dumps([asdict(self.spec), self.images_digest], sort_keys=True).encode())
        for array in (self.classes, self.support, self.query):
            content.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return content.hexdigest()

    def prefix(self, n_episodes: int) -> Manifest:
        """Return the first `n_episodes` as a manifest of their own; all of them if there are fewer."""
        if n_episodes >= len(self):
            return self
        return replace(
            self,
            spec=replace(self.spec, n_episodes=n_episodes),
            classes=self.classes[:n_episodes].copy(),
            support=self.support[:n_episodes].copy(),
            query=self.query[:n_episodes].copy(),
        )

    def save(self, path: Path) -> None:
        """Write a Parquet file: one row an episode (index, classes, support, query), spec and hash in its metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        def lists(array: IntArray) -> Any:
            offsets = np.arange(0, array.size + 1, array.shape[1], dtype=np.int32)
            return pa.ListArray.from_arrays(offsets, array.reshape(-1))

        card = {"spec": asdict(self.spec), "seed": self.seed, "images_digest": self.images_digest, "hash": self.hash}
        columns = {
            "index": np.arange(len(self)),
            "classes": lists(self.classes),
            "support": lists(self.support),
            "query": lists(self.query),
        }
        table = pa.table(columns).replace_schema_metadata({"manifest": json.dumps(card)})
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary)

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a Parquet file that `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no manifest, or its episodes do not have the hash that it states.
        """
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        if b"manifest" not in metadata:
            raise ValueError(f"{path} is no manifest: its metadata has no entry 'manifest'")
        card = json.loads(metadata[b"manifest"])

        def rows(name: str) -> IntArray:
            flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            array: IntArray = flat.astype(np.int64).reshape(len(table), -1)
            return array

        manifest = cls(
            spec=EpisodeSpec(**card["spec"]),
            seed=card["seed"],
            images_digest=card["images_digest"],
            classes=rows("classes"),
            support=rows("support"),
            query=rows("query"),
        )
        if manifest.hash != card["hash"]:
            raise ValueError(f"{path} states hash {card['hash'][:12]}, but its episodes have {manifest.hash[:12]}")
        return manifest


def make_manifest(labels: IntArray, spec: EpisodeSpec, *, seed: int, images_digest: str) -> Manifest:
    """Draw all episodes of `spec`.

    Args:
        labels: (n_images,) int64 class of each row of the bank.
        spec: The form and number of the episodes.
        seed: What to draw with.
        images_digest: Which bank the rows belong to.

    Raises:
        ValueError: There are too few classes, or too few images in one of them.
    """
    episodes = list(EpisodeSampler(labels, spec, seed))
    return Manifest(
        spec=spec,
        seed=seed,
        images_digest=images_digest,
        classes=np.stack([episode.classes for episode in episodes]),
        support=np.stack([episode.support for episode in episodes]),
        query=np.stack([episode.query for episode in episodes]),
    )
