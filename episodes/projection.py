"""Features of many dimensions as points of a plane, for people to look at. No number is taken from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PERPLEXITY = 30.0
"""How many neighbours of a point count, roughly; the usual value of van der Maaten and Hinton (2008)."""


def project(features: NDArray[np.float32], *, seed: int) -> NDArray[np.float64]:
    """Return (n, 2) places of features of length one by t-SNE, begun at their principal components.

    Neighbours stay neighbours; neither the distances between groups nor their sizes mean anything. One thread, so that
    equal features give equal places.

    Args:
        features: (n, n_features), at least 4 rows; scaled to length one here.
        seed: What t-SNE draws with.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(lengths > 0, lengths, 1)
    perplexity = min(PERPLEXITY, (len(unit) - 1) / 3)
    begin = np.ptp(unit) > 0
    with threadpool_limits(limits=1):
        tsne = TSNE(perplexity=perplexity, init="pca" if begin else "random", random_state=seed, n_jobs=1)
        places: NDArray[np.float64] = tsne.fit_transform(unit).astype(np.float64)
    return places
