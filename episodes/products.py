"""Inner products of the images of many episodes, multiplied a cache-full at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from episodes.manifest import Manifest
from episodes.solver import GramBlock, multiply
from episodes.transforms import FeatureTransform

if TYPE_CHECKING:
    from torch import Tensor

ROWS_AT_ONCE = 512
"""Rows that are transformed in double precision at one time."""
GATHERED_VALUES = 2**18
"""Feature values that are multiplied at one time on a CPU: about its second-level cache."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """(n_images, n_features) float32 that support and query are taken from: often the same, else row by row alike."""

    support: NDArray[np.float32]
    query: NDArray[np.float32]


class Products:
    """The features that a uniform manifest uses, transformed once, and a buffer for the rows of some episodes.

    Args:
        raw: The features.
        manifest: The episodes.
        transform: What is done to the features, in double precision; they are kept in single precision.
        device: Where they are kept and multiplied.
        chosen: Which episodes are asked for.
    """

    def __init__(
        self, raw: Features, manifest: Manifest, transform: FeatureTransform, device: str, chosen: range
    ) -> None:
        import torch

        self._manifest = manifest
        n_images = len(raw.support)
        self._query_offset = 0 if raw.query is raw.support else n_images  # rows of another matrix follow the first's
        is_used = np.zeros(self._query_offset + n_images, dtype=bool)
        is_used[manifest.support[chosen.start : chosen.stop]] = True
        is_used[manifest.query[chosen.start : chosen.stop] + self._query_offset] = True
        self._place = np.cumsum(is_used) - 1
        parts = (
            matrix[rows[start : start + ROWS_AT_ONCE]]
            for matrix, rows in (
                (raw.support, np.flatnonzero(is_used[:n_images])),
                (raw.query, np.flatnonzero(is_used[n_images:])),
            )
            for start in range(0, len(rows), ROWS_AT_ONCE)
        )
        features = np.concatenate([transform(part).astype(np.float32) for part in parts])
        self._features = torch.from_numpy(features).to(device)
        self._squared_lengths = torch.from_numpy(np.einsum("ij,ij->i", features, features)).to(device)
        self._buffer = torch.empty(0, features.shape[1], device=device)

    def block(self, start: int, stop: int) -> GramBlock:
        """Return the products of the episodes start..stop-1."""
        import torch

        spec, chosen = self._manifest.spec, slice(start, stop)
        query = self._manifest.query[chosen] + self._query_offset
        rows = np.concatenate([self._manifest.support[chosen], query], axis=1)
        places = torch.from_numpy(self._place[rows]).to(self._features.device)
        n_support = self._manifest.support.shape[1]
        gram = torch.empty(len(places), n_support, n_support, device=places.device)
        for part, support in self._gather(places[:, :n_support]):
            torch.bmm(support, support.transpose(1, 2), out=gram[part])

        def of_query(weights: Tensor | None) -> Tensor:
            n_rows = n_support if weights is None else weights.shape[1]
            products = torch.empty(len(places), n_rows, places.shape[1] - n_support, device=places.device)
            for part, images in self._gather(places):
                support, query = images[:, :n_support], images[:, n_support:].transpose(1, 2)
                multiply(support if weights is None else multiply(weights[part], support), query, out=products[part])
            return products

        return GramBlock(
            support=gram,
            of_query=of_query,
            longest=self._squared_lengths[places].amax(1),
            n_way=spec.n_way,
            n_shot=spec.n_shot,
        )

    def _gather(self, places: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield which episodes, and their rows (n, n_rows, n_features), few enough at a time to stay in the cache."""
        import torch

        n_episodes, n_rows = places.shape
        n_features = self._features.shape[1]
        is_cpu = places.device.type == "cpu"
        n_at_once = min(n_episodes, max(1, GATHERED_VALUES // (n_rows * n_features)) if is_cpu else n_episodes)
        if len(self._buffer) < n_at_once * n_rows:
            self._buffer = torch.empty(n_at_once * n_rows, n_features, device=places.device)
        for start in range(0, n_episodes, n_at_once):
            part = slice(start, min(start + n_at_once, n_episodes))
            chosen = places[part]
            out = self._buffer[: chosen.numel()]
            yield part, torch.index_select(self._features, 0, chosen.reshape(-1), out=out).view(*chosen.shape, -1)
