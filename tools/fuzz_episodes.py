"""Random tasks and features, also extreme ones, scored at once and by scikit-learn: no certain answer may differ.

    OMP_NUM_THREADS=1 uv run python tools/fuzz_episodes.py --seconds 600

Each round draws the number of classes and images, the form of the episodes, the kind and scale of the features, and a
probe. Every episode that a solver marks as certain is fitted by scikit-learn, too. The round also draws the episodes
again, one by one, and compares mean and interval with their definitions.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from episodes.bank import FeatureBank
from episodes.fitting import ProbeError
from episodes.manifest import Manifest, draw_manifest
from episodes.probes import Probe, knn, logistic_regression, nearest_centroid, ridge
from episodes.sampler import EpisodeSampler
from episodes.scoring import AuditError, score
from episodes.specs import EpisodeSpec
from episodes.table import EpisodeTable, collect

Features = NDArray[np.float32]
KINDS = ("normal", "clusters", "equal", "few values", "one axis", "far from zero", "heavy tails", "some zero")
SCALES = (1e-25, 1e-18, 1e-12, 1e-9, 1e-6, 1e-3, 1.0, 30.0, 1e3, 1e6, 1e12)
"""Of the features before a transform; single precision ends near 1e38, and products of features at its root."""
TRANSFORMS = ("none", "l2", "cl2n", "standardise")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One round: what was drawn, and what did not agree."""

    words: str
    n_episodes: int
    n_certain: int
    problem: str = ""


def draw_features(rng: np.random.Generator, kind: str, labels: NDArray[np.int64], n_features: int) -> Features:
    """Return features (n, n_features) of a kind, about of length one per entry."""
    n = len(labels)
    found = rng.normal(size=(n, n_features))
    if kind == "clusters":
        found = 0.1 * found + rng.normal(size=(labels.max() + 1, n_features))[labels]
    elif kind == "equal":
        found = np.repeat(found[:1], n, axis=0)
    elif kind == "few values":
        found = rng.integers(0, 3, size=(n, n_features)).astype(float)
    elif kind == "one axis":
        found[:, 1:] = 0
    elif kind == "far from zero":
        found += 1000
    elif kind == "heavy tails":
        found = rng.standard_t(1.5, size=(n, n_features))
    elif kind == "some zero":
        found[rng.random(n) < 0.3] = 0
    return found.astype(np.float32)


def draw_spec(rng: np.random.Generator, n_classes: int, n_images: int) -> EpisodeSpec:
    """Return a form of episodes that classes of `n_images` images can fill."""
    n_way = int(rng.integers(2, min(n_classes, 12) + 1))
    n_shot = int(rng.integers(1, min(6, n_images)))
    n_query = int(rng.integers(1, n_images - n_shot + 1))
    return EpisodeSpec(n_way=n_way, n_shot=n_shot, n_query=n_query, n_episodes=int(rng.integers(2, 25)))


def draw_probe(rng: np.random.Generator, reference: Features) -> Probe:
    """Return a probe with random settings."""
    transform = str(rng.choice(TRANSFORMS))
    if np.abs(reference).max() > 100 and transform == "none":  # scikit-learn's descent would take a minute per round
        transform = "l2"
    strength = float(10.0 ** rng.integers(-4, 5))
    classifiers = (
        ridge(alpha=strength),
        logistic_regression(C=strength),
        nearest_centroid(),
        knn(n_neighbors=int(rng.integers(1, 4))),
    )
    return Probe(
        name="fuzzed", classifier=classifiers[rng.integers(len(classifiers))], transform=transform, reference=reference
    )


def one_case(rng: np.random.Generator) -> Case:
    """Draw and check one round."""
    n_classes, n_images = int(rng.integers(2, 20)), int(rng.integers(2, 25))
    labels = rng.permutation(np.repeat(np.arange(n_classes), n_images))
    kind, scale = str(rng.choice(KINDS)), float(rng.choice(SCALES))
    features = draw_features(rng, kind, labels, int(rng.integers(1, 80))) * np.float32(scale)
    bank = FeatureBank(
        features=features,
        labels=labels,
        image_ids=tuple(map(str, range(len(labels)))),
        class_names=tuple(map(str, range(n_classes))),
    )
    spec, seed, probe = draw_spec(rng, n_classes, n_images), int(rng.integers(2**31)), draw_probe(rng, features)
    manifest = draw_manifest(bank, spec, seed=seed)
    words = f"{kind} x {scale:g}, {spec.words()}, {probe.classifier}, {probe.transform}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fits that do not converge, and of overflows
            table = collect(score(bank, manifest, probe, audit_share=1.0), {})
    except ProbeError:  # scikit-learn refuses the features, e.g. nearest centroids of equal ones
        return Case(words=words, n_episodes=0, n_certain=0)
    except AuditError as error:
        return Case(words=words, n_episodes=len(manifest), n_certain=0, problem=str(error))
    problem = check_manifest(manifest, bank, seed) or check_accuracies(table, spec)
    n_certain = table.n_by_solver.get("audited", 0)
    return Case(words=words, n_episodes=len(manifest), n_certain=n_certain, problem=problem)


def check_manifest(manifest: Manifest, bank: FeatureBank, seed: int) -> str:
    """Return what is wrong with drawn episodes; empty if nothing is."""
    sampler = EpisodeSampler(bank.labels, manifest.spec, seed)
    for index in range(len(manifest)):
        found, alone = manifest[index], sampler[index]
        if not (np.array_equal(found.support, alone.support) and np.array_equal(found.query, alone.query)):
            return f"episode {index} drawn alone differs"
        rows = np.concatenate([found.support, found.query])
        if len(set(rows)) < len(rows) or set(bank.labels[rows]) != set(found.classes):
            return f"episode {index} has an image twice, or of another class"
    return ""


def check_accuracies(table: EpisodeTable, spec: EpisodeSpec) -> str:
    """Return what is wrong with accuracies of episodes; empty if nothing is."""
    assert table.predicted is not None
    expected = (table.predicted == np.repeat(np.arange(spec.n_way), spec.n_query)).mean(axis=1)
    if not np.allclose(table.accuracy, expected, atol=1e-12):
        return "an accuracy is not the share of correct answers"
    mean = table.summary().mean
    return "" if abs(mean - expected.mean()) < 1e-9 else "the mean is not that of the episodes"


def cases(seed: int) -> Iterator[Case]:
    """Yield rounds without end."""
    rng = np.random.default_rng(seed)
    while True:
        yield one_case(rng)


def main() -> None:
    """Print how many rounds and certain episodes there were, and every round that did not agree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    found = list(itertools.takewhile(lambda _: time.monotonic() < end, cases(arguments.seed)))
    wrong = [case for case in found if case.problem]
    n_episodes, n_certain = (sum(getattr(case, key) for case in found) for key in ("n_episodes", "n_certain"))
    print(f"{len(found)} rounds, {n_episodes} episodes, {n_certain} certain, {len(wrong)} rounds that do not agree")
    for case in wrong:
        print(f"{case.words}: {case.problem}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
