"""Bank x manifest x probe -> one row of results an episode."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.bank import FeatureBank
from episodes.files import atomic_path
from episodes.manifest import Manifest
from episodes.metrics import Reliability, brier, empty_reliability, nll, reliability
from episodes.probes import Classifier, Probe
from episodes.sampler import Episode

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
COLUMNS = ("index", "classes", "accuracy", "nll", "brier", "converged", "seconds")


class ProbeError(ValueError):
    """A probe could not be fitted on an episode."""


@dataclass(frozen=True, kw_only=True)
class EpisodeScore:
    """The result of one probe on one episode.

    Attributes:
        index: The episode's number.
        classes: (n_way,) int64.
        accuracy: Share of queries classified rightly.
        nll: Mean negative log-likelihood of the queries, nats; NaN if the classifier has no probabilities.
        brier: Mean Brier score of the queries; NaN likewise.
        converged: Whether the fit ended by its own criterion, not by its limit of iterations.
        seconds: Time of fit and prediction.
        reliability: Counts by confidence; empty if the classifier has no probabilities.
    """

    index: int
    classes: IntArray
    accuracy: float
    nll: float
    brier: float
    converged: bool
    seconds: float
    reliability: Reliability


@dataclass(frozen=True, kw_only=True)
class EpisodeTable:
    """The results of one probe on the episodes of one manifest.

    Attributes:
        classes: (n_episodes, n_way) int64.
        accuracy: (n_episodes,) float64, and so are `nll`, `brier`, `seconds`; see `EpisodeScore`.
        converged: (n_episodes,) bool.
        reliability: Counts pooled over all queries.
        identity: JSON-serialisable: the manifest's hash, the probe's settings, the bank's identity.
    """

    classes: IntArray
    accuracy: FloatArray
    nll: FloatArray
    brier: FloatArray
    converged: NDArray[np.bool_]
    seconds: FloatArray
    reliability: Reliability
    identity: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.accuracy)

    def save(self, path: Path) -> None:
        """Write a Parquet file with the columns `COLUMNS`; identity and pooled reliability are in its metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        offsets = np.arange(0, self.classes.size + 1, self.classes.shape[1], dtype=np.int32)
        columns = {
            "index": np.arange(len(self)),
            "classes": pa.ListArray.from_arrays(offsets, self.classes.reshape(-1)),
            **{name: getattr(self, name) for name in COLUMNS[2:]},
        }
        counts = {name: getattr(self.reliability, name).tolist() for name in ("n", "confidence", "correct")}
        metadata = {"identity": json.dumps(self.identity), "reliability": json.dumps(counts)}
        with atomic_path(path) as temporary:
            pq.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary)

    @classmethod
    def load(cls, path: Path) -> EpisodeTable:
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no table of episodes.
        """
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        if b"identity" not in metadata or tuple(table.column_names) != COLUMNS:
            raise ValueError(f"{path} is no table of episodes: it should have the columns {', '.join(COLUMNS)}")
        counts = json.loads(metadata[b"reliability"])
        columns: dict[str, Any] = {name: table[name].to_numpy() for name in COLUMNS[2:]}
        return cls(
            classes=table["classes"].combine_chunks().flatten().to_numpy().reshape(len(table), -1),
            reliability=Reliability(
                n=np.array(counts["n"], dtype=np.int64),
                confidence=np.array(counts["confidence"], dtype=np.float64),
                correct=np.array(counts["correct"], dtype=np.int64),
            ),
            identity=json.loads(metadata[b"identity"]),
            **columns,
        )


def score(bank: FeatureBank, manifest: Manifest, probe: Probe) -> Iterator[EpisodeScore]:
    """Fit the probe on each episode's support and measure it on its query, one thread, in the manifest's order.

    Raises:
        ValueError: The manifest was drawn on other images than the bank's.
        ProbeError: scikit-learn refuses to fit the probe on an episode.
    """
    from threadpoolctl import threadpool_limits

    if manifest.images_digest != bank.images_digest:
        raise ValueError(
            f"the manifest means images {manifest.images_digest[:12]}, but the bank holds {bank.images_digest[:12]}"
        )
    features = _transform(bank.features, probe)
    with threadpool_limits(limits=1):
        for episode in manifest:
            yield _score_episode(features, episode, probe)


def collect(scores: Iterable[EpisodeScore], identity: dict[str, Any]) -> EpisodeTable:
    """Gather the results of all episodes into one table."""
    rows = list(scores)
    pooled = empty_reliability()
    for row in rows:
        pooled = pooled + row.reliability
    return EpisodeTable(
        classes=np.stack([row.classes for row in rows]),
        accuracy=np.array([row.accuracy for row in rows]),
        nll=np.array([row.nll for row in rows]),
        brier=np.array([row.brier for row in rows]),
        converged=np.array([row.converged for row in rows]),
        seconds=np.array([row.seconds for row in rows]),
        reliability=pooled,
        identity=identity,
    )


def predict(features: NDArray[np.floating], episode: Episode, probe: Probe) -> IntArray:
    """Fit the probe on one episode and return the predicted episode label of each query, (n_way * n_query,) int64.

    Args:
        features: (n_images, n_features) of the bank, before the probe's transform.
        episode: Which rows.
        probe: What to fit.
    """
    rows = np.concatenate([episode.support, episode.query])
    chosen = _transform(features[rows], probe)
    n_support = len(episode.support)
    probe.classifier.fit(chosen[:n_support], episode.support_labels)
    return np.asarray(probe.classifier.predict(chosen[n_support:]), dtype=np.int64)


def _probabilities(classifier: Classifier, query: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return class probabilities, or None where there are none: the nearest centroid gives none at one shot."""
    if not hasattr(classifier, "predict_proba"):
        return None
    try:
        probabilities: NDArray[np.float64] = classifier.predict_proba(query)
    except ValueError:
        return None
    return probabilities


def _transform(features: NDArray[Any], probe: Probe) -> NDArray[Any]:
    if probe.transform == "none":
        return features
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: NDArray[Any] = features / np.where(norms > 0, norms, 1)
    return scaled


def _score_episode(features: NDArray[Any], episode: Episode, probe: Probe) -> EpisodeScore:
    from sklearn.exceptions import ConvergenceWarning

    classifier, query = probe.classifier, features[episode.query]
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught, np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            classifier.fit(features[episode.support], episode.support_labels)
            predicted = classifier.predict(query)
            probabilities = _probabilities(classifier, query)
        except ValueError as error:
            raise ProbeError(f"{probe.name} cannot be fitted on episode {episode.index}: {error}") from error
    seconds = time.perf_counter() - start
    labels = episode.query_labels
    return EpisodeScore(
        index=episode.index,
        classes=episode.classes,
        accuracy=float((predicted == labels).mean()),
        nll=float("nan") if probabilities is None else nll(probabilities, labels),
        brier=float("nan") if probabilities is None else brier(probabilities, labels),
        converged=not any(issubclass(entry.category, ConvergenceWarning) for entry in caught),
        seconds=seconds,
        reliability=empty_reliability() if probabilities is None else reliability(probabilities, labels),
    )
