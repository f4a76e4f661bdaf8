"""Named seed streams from one root seed: draws are independent of each other and of their order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def seed_stream(root: int, *path: str | int) -> int:
    """Return the seed of one named draw, derived from the root seed.

    Args:
        root: The seed of the whole run.
        path: The name of the draw, e.g. `("augmentation", chunk_index, epoch)`.

    Returns:
        An integer in [0, 2**63), the first eight bytes of a SHA-256 digest: independent of `PYTHONHASHSEED`.
    """
    text = "/".join(str(part) for part in (root, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(root: int, *path: str | int) -> np.random.Generator:
    """Return a NumPy generator for one named draw."""
    return np.random.default_rng(seed_stream(root, *path))


@contextmanager
def seeded_numpy(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, for a library that draws from it, and restore its state afterwards.

    Args:
        seed: In [0, 2**32).
    """
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
