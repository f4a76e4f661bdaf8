"""Projection of features to a plane by t-SNE, for figures only; no number is computed from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PERPLEXITY = 30.0
"""Roughly, the number of neighbours of a point that count; the usual value of van der Maaten and Hinton (2008)."""


def project(features: NDArray[np.float32], *, seed: int) -> NDArray[np.float64]:
    """Project features to (n, 2) points of a plane by t-SNE, initialised with principal components.

    Neighbours stay neighbours, but distances between groups and their sizes mean nothing. One thread is used, so that
    equal features give equal points.

    Args:
        features: (n, n_features), at least 4 rows; scaled to length one here.
        seed: The seed of t-SNE.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(lengths > 0, lengths, 1)
    perplexity = min(PERPLEXITY, (len(unit) - 1) / 3)
    has_components = np.ptp(unit) > 0 and unit.shape[1] > 1
    with threadpool_limits(limits=1):
        tsne = TSNE(perplexity=perplexity, init="pca" if has_components else "random", random_state=seed, n_jobs=1)
        places: NDArray[np.float64] = tsne.fit_transform(unit).astype(np.float64)
    return places
