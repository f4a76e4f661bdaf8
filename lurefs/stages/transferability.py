"""Scores of a run's features without episodes: LogME, H-score and nearest centroid, stored beside the features."""

from __future__ import annotations

import json
from pathlib import Path

from episodes.bank import FeatureBank
from episodes.files import write_text
from episodes.transferability import SCORES
from lurefs import console
from lurefs.config.identity import digest
from lurefs.errors import UserError
from lurefs.records import from_mapping, to_mapping
from lurefs.runs.directory import damaged, read_json
from lurefs.runs.summary import TransferabilitySummary
from lurefs.stages.stage import Stage

VERSION = 1
"""Version of the scores; it changes with their values."""
FILE = "transferability.json"
MAX_SIDE = 4096
"""Largest size of the smaller side of a feature matrix that is scored: time grows with its third power."""


def score_features(stage: Stage) -> dict[str, TransferabilitySummary]:
    """Return the scores of each benchmark's support features, and store them; valid stored ones are kept.

    All images of the benchmark count with their labels. Benchmarks whose features cannot be scored are left out, with a
    note on stderr.

    Raises:
        UserError: Stored scores are damaged.
    """
    found: dict[str, TransferabilitySummary] = {}
    of_identity: dict[str, TransferabilitySummary] = {}
    for name, benchmark in stage.plan.benchmarks.items():
        images = benchmark.sides[0]
        bank, path = stage.directory.read_bank(images.name), stage.directory.features_dir(images.name) / FILE
        identity = digest([VERSION, dict(bank.identity)])
        scores = _read(path, identity)
        if scores is None:
            try:
                scores = of_identity.get(identity) or _score(bank)
            except ValueError as error:
                console.note(f"{name}: no scores without episodes: {error}")
                continue
            write_text(path, json.dumps({"identity": identity, **to_mapping(scores)}, indent=2) + "\n")
        found[name] = of_identity[identity] = scores
    return found


def _score(bank: FeatureBank) -> TransferabilitySummary:
    if min(bank.features.shape) > MAX_SIDE:
        n_images, n_features = bank.features.shape
        raise ValueError(
            f"they take too long for {n_features:,} features of {n_images:,} images; one of the two may be at most "
            f"{MAX_SIDE:,}"
        )
    return TransferabilitySummary(**{name: score(bank.features, bank.labels) for name, score in SCORES.items()})


def _read(path: Path, identity: str) -> TransferabilitySummary | None:
    """Return the stored scores; None if there are none of this identity."""
    values = read_json(path) if path.is_file() else {}
    if values.pop("identity", None) != identity:
        return None
    try:
        return from_mapping(TransferabilitySummary, values)
    except UserError as error:
        raise damaged(path, error.problem) from error
