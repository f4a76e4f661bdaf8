"""Feature transforms applied before a probe: a chain of steps, fitted on reference features where needed.

A chain is the names of its steps, separated by commas: `l2`, `center,l2` (short: `cl2n`), `power:0.5,pca:64,l2`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]
Step = Callable[[Features], Features]

NONE = "none"
"""The chain without steps."""
SHORT = {"cl2n": "center,l2"}
STEPS = {
    "l2": "length 1; rows of zeros stay",
    "center": "minus the mean of the reference",
    "standardise": "minus the mean of the reference, over its standard deviation",
    "power": "sign(x) |x|^exponent (power:0.5)",
    "pca": "the reference's first principal components (pca:64)",
}
NEED_REFERENCE = ("center", "standardise", "pca")


@dataclass(frozen=True, kw_only=True)
class FeatureTransform:
    """A fitted chain of steps; call it to transform features.

    Attributes:
        chain: The chain as text.
        steps: The fitted steps, in order.
    """

    chain: str
    steps: tuple[Step, ...]

    def __call__(self, features: NDArray[Any]) -> Features:
        """Transform features (n, n_features) to (n, n_features_out) float64."""
        transformed = np.asarray(features, dtype=np.float64)
        for step in self.steps:
            transformed = step(transformed)
        return transformed


def parse_chain(chain: str) -> list[tuple[str, float | None]]:
    """Parse a chain into its steps, each (name, argument).

    Raises:
        ValueError: A step is empty or does not exist, `none` is not alone, or a step's argument is missing, not
            allowed, or not a positive number.
    """
    parsed: list[tuple[str, float | None]] = []
    texts = chain.replace(" ", "").split(",")
    if texts == [NONE]:
        return parsed
    for text in ",".join(SHORT.get(text, text) for text in texts).split(","):
        name, _, argument = text.partition(":")
        if not text:
            raise ValueError(f"it has an empty step; the chain without steps is {NONE}")
        if name == NONE:
            raise ValueError(f"{NONE} is the chain without steps, and has no place in another chain")
        if name not in STEPS:
            raise ValueError(f"there is no feature transform {name!r}; there are {', '.join([NONE, *SHORT, *STEPS])}")
        takes_argument = name in ("power", "pca")
        if takes_argument != bool(argument):
            raise ValueError(f"feature transform {text!r}: {name} is {STEPS[name]}")
        try:
            value = float(argument) if argument else None
        except ValueError:
            value = -1.0
        if value is not None and (not 0 < value < math.inf or (name == "pca" and value != int(value))):
            raise ValueError(f"feature transform {text!r}: the number must be positive, and whole for pca")
        parsed.append((name, value))
    return parsed


def needs_reference(chain: str) -> bool:
    """Return whether a chain has a step that is fitted on reference features."""
    return any(name in NEED_REFERENCE for name, _ in parse_chain(chain))


def fit_transform(chain: str, reference: NDArray[Any] | None = None) -> FeatureTransform:
    """Fit a chain: each step on the reference features as transformed by the steps before it.

    Centring on base classes and scaling to length 1 is the CL2N of Wang et al. (2019, SimpleShot, section 3.2).

    Args:
        chain: The chain as text, see the top of this module.
        reference: (n, n_features), e.g. of the base classes; never of the episodes' own queries.

    Raises:
        ValueError: See `parse_chain`; or a step needs a reference and none was given.
    """
    if needs_reference(chain) and reference is None:
        raise ValueError(f"feature transform {chain!r} needs reference features, e.g. of the base classes")
    current = None if reference is None else np.asarray(reference, dtype=np.float64)
    steps: list[Step] = []
    for name, argument in parse_chain(chain):
        step = _fit_step(name, argument, current)
        steps.append(step)
        current = None if current is None else step(current)
    return FeatureTransform(chain=chain, steps=tuple(steps))


def _fit_step(name: str, argument: float | None, reference: Features | None) -> Step:
    if name == "l2":
        return scale_to_length_one
    if name == "power":
        exponent = argument or 0.5
        return lambda features: np.sign(features) * np.abs(features) ** exponent
    assert reference is not None
    mean = reference.mean(axis=0)
    if name == "center":
        return lambda features: features - mean
    if name == "standardise":
        std = reference.std(axis=0)
        scale = 1 / np.where(std > 0, std, 1)
        return lambda features: (features - mean) * scale
    n_components = int(argument or 0)
    if n_components > min(reference.shape):
        raise ValueError(f"pca:{n_components} needs more components than a reference of shape {reference.shape} has")
    components = np.linalg.svd(reference - mean, full_matrices=False)[2][:n_components].T
    return lambda features: (features - mean) @ components


def scale_to_length_one(features: Features) -> Features:
    """Scale each row to Euclidean length 1; rows of zeros stay."""
    norms = np.sqrt(np.einsum("ij,ij->i", features, features))[:, None]
    scaled: Features = features / np.where(norms > 0, norms, 1)
    return scaled
