"""Inner products of the features of many episodes, computed in portions that fit into the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from episodes.files import release_pages
from episodes.manifest import Manifest
from episodes.solver import DOUBLE_ERROR, SINGLE_ERROR, SMALL_PRODUCT, SMALL_RESULT, GramBlock, multiply
from episodes.transforms import FeatureTransform

if TYPE_CHECKING:
    from torch import Tensor


ROWS_AT_ONCE = 128
"""Rows transformed in double precision at a time, few enough to stay in the cache."""
RELEASED_ROWS = 256 * ROWS_AT_ONCE
"""Rows after which what was read of a mapped file is released."""
CENTRE_ROWS = 1024
"""Rows from which the centre (mean) of the features is estimated."""
GRAM_ROWS = 8
"""Rows of a Gram matrix computed at a time."""
GATHERED_VALUES = 2**19
"""Feature values multiplied at a time on a CPU: they fill about its second-level cache."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """(n_images, n_features) float32 features of support and query: one matrix, or two with equal image order."""

    support: NDArray[np.float32]
    query: NDArray[np.float32]


class Products:
    """Transformed features of a uniform manifest, from which the inner products of its episodes are computed.

    Subtracting one vector from all features changes no solver's answer, so the centre is subtracted. Features of an
    untrained network are almost equal. Without their common part, rounding to single precision is relative to the
    differences between them.

    Args:
        raw: The features.
        manifest: The episodes.
        transform: Applied to the features in double precision; the result is kept in single precision.
        device: Where the features are kept and multiplied.
        chosen: The episodes needed.
    """

    def __init__(
        self, raw: Features, manifest: Manifest, transform: FeatureTransform, device: str, chosen: range
    ) -> None:
        import torch

        self._raw, self._manifest, self._transform = raw, manifest, transform
        n_images = len(raw.support)
        self._query_offset = 0 if raw.query is raw.support else n_images  # a second matrix follows the first
        is_used = np.zeros(self._query_offset + n_images, dtype=bool)
        is_used[manifest.support[chosen.start : chosen.stop]] = True
        is_used[manifest.query[chosen.start : chosen.stop] + self._query_offset] = True
        self._place = np.cumsum(is_used) - 1
        every = np.linspace(0, n_images - 1, min(n_images, CENTRE_ROWS)).astype(np.int64)
        self._centre = centre = transform(raw.support[every]).mean(axis=0)
        release_pages(raw.support)
        features = np.empty((int(is_used.sum()), len(centre)), dtype=np.float32)
        squared_lengths, place = np.empty(len(features), dtype=np.float32), 0
        for matrix, used in ((raw.support, is_used[:n_images]), (raw.query, is_used[n_images:])):
            rows = np.flatnonzero(used)
            for start in range(0, len(rows), ROWS_AT_ONCE):
                part = slice(place, place + len(rows[start : start + ROWS_AT_ONCE]))
                np.subtract(transform(matrix[rows[start : start + ROWS_AT_ONCE]]), centre, out=features[part])
                np.einsum("ij,ij->i", features[part], features[part], out=squared_lengths[part])
                place = part.stop
                if start % RELEASED_ROWS == 0:
                    release_pages(matrix)
            release_pages(matrix)
        self._features = torch.from_numpy(features).to(device)
        self._squared_lengths = torch.from_numpy(squared_lengths).to(device)
        self._centre_length = float(np.linalg.norm(centre))
        self._error_in_double = DOUBLE_ERROR * self._centre_length**2
        self._underflow = features.shape[1] * float(np.finfo(np.float32).tiny)
        self._buffer = torch.empty(0, features.shape[1], device=device)

    def block(self, start: int, stop: int) -> GramBlock:
        """Return the inner products of the episodes start..stop-1."""
        import torch

        spec, chosen = self._manifest.spec, slice(start, stop)
        query = self._manifest.query[chosen] + self._query_offset
        rows = np.concatenate([self._manifest.support[chosen], query], axis=1)
        places = torch.from_numpy(self._place[rows]).to(self._features.device)
        n_support = self._manifest.support.shape[1]
        gram = torch.empty(len(places), n_support, n_support, device=places.device)
        for part, support in self._gather(places[:, :n_support]):
            multiply_rows(support, out=gram[part])

        def of_query(weights: Tensor | None) -> Tensor:
            n_rows = n_support if weights is None else weights.shape[1]
            products = torch.empty(len(places), n_rows, places.shape[1] - n_support, device=places.device)
            for part, images in self._gather(places):
                support, query = images[:, :n_support], images[:, n_support:].transpose(1, 2)
                multiply(support if weights is None else multiply(weights[part], support), query, out=products[part])
            return products

        longest = self._squared_lengths[places].amax(1)
        return GramBlock(
            support=gram,
            of_query=of_query,
            longest=longest,
            reach=(longest.sqrt() + self._centre_length).square(),
            error=longest * SINGLE_ERROR + self._error_in_double + self._underflow,
            n_way=spec.n_way,
            n_shot=spec.n_shot,
        )

    def block_in_double(self, chosen: IntArray) -> GramBlock:
        """Return the inner products of the episodes `chosen` (n,) in double precision, computed on the CPU."""
        import torch

        def features(matrix: NDArray[np.float32], rows: IntArray) -> Tensor:
            found = self._transform(matrix[rows.reshape(-1)]) - self._centre
            return torch.from_numpy(found.reshape(*rows.shape, -1))

        spec = self._manifest.spec
        support = features(self._raw.support, self._manifest.support[chosen])
        query = features(self._raw.query, self._manifest.query[chosen]).transpose(1, 2)
        longest = torch.maximum(support.square().sum(2).amax(1), query.square().sum(1).amax(1))
        return GramBlock(
            support=multiply(support, support.transpose(1, 2)),
            of_query=lambda weights: multiply(support if weights is None else multiply(weights, support), query),
            longest=longest,
            reach=(longest.sqrt() + self._centre_length).square(),
            error=longest * DOUBLE_ERROR + self._error_in_double,
            n_way=spec.n_way,
            n_shot=spec.n_shot,
        )

    def _gather(self, places: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield (episodes, features (n, n_rows, n_features)) in portions that fit into the cache."""
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


class SharedProducts(Products):
    """The same for several solvers in turn: the last block is kept, with the products of all its images."""

    _kept: tuple[range, GramBlock] | None = None

    def block(self, start: int, stop: int) -> GramBlock:
        """Return the inner products of the episodes start..stop-1, computed at the first of equal calls."""
        if self._kept is None or self._kept[0] != range(start, stop):
            block = super().block(start, stop)
            products = block.of_query(None)

            def of_query(weights: Tensor | None) -> Tensor:
                return products if weights is None else multiply(weights, products)

            self._kept = range(start, stop), replace(block, of_query=of_query)
        return self._kept[1]


def multiply_rows(rows: Tensor, out: Tensor) -> None:
    """Write the inner products of (b, n, n_features) rows with each other to `out` (b, n, n).

    On a CPU, a few rows at a time are multiplied with themselves and those that follow: about half of the products, and
    few enough for the fast kernels of numpy's BLAS. For a matrix and its own transpose numpy is slower; the last part
    has one more column to avoid that.
    """
    import torch

    n, n_features = rows.shape[1:]
    n_at_once = min(GRAM_ROWS, (n + 1) // 2, SMALL_PRODUCT // (n * n_features), SMALL_RESULT // n)
    if rows.device.type != "cpu" or n_at_once < min(n, 2):
        torch.bmm(rows, rows.transpose(1, 2), out=out)
        return
    left, products = rows.numpy(), out.numpy()
    right = left.transpose(0, 2, 1)
    for start in range(0, n, n_at_once):
        stop = start + n_at_once
        first = start if stop < n else max(0, start - 1)
        np.matmul(left[:, start:stop], right[:, :, first:], out=products[:, start:stop, first:])
        products[:, stop:, start:stop] = products[:, start:stop, stop:].transpose(0, 2, 1)
