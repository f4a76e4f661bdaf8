"""A short form of `tools/fuzz_episodes.py`, and the corners that it once found."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from episodes.bank import FeatureBank
from episodes.manifest import draw_manifest
from episodes.probes import Probe, knn, nearest_centroid, ridge
from episodes.scoring import score
from episodes.specs import EpisodeSpec

ROOT = Path(__file__).resolve().parent.parent.parent


def test_certain_answers_on_random_tasks_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import fuzz_episodes

    found = list(itertools.islice(fuzz_episodes.cases(seed=20), 40))
    assert [case for case in found if case.problem] == []
    assert sum(case.n_certain for case in found) > 20


@pytest.mark.parametrize("length", [1e-9, 1e-15, 1e-19, 1e-21, 1e-30])
@pytest.mark.parametrize("classifier", [ridge(), ridge(alpha=1e-6), nearest_centroid(), knn()])
def test_very_short_features_are_answered_as_scikit_learn_does(length: float, classifier: object) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 8)).astype(np.float32) * np.float32(length)
    labels = np.repeat(np.arange(6), 10)
    names = tuple(map(str, range(60)))
    bank = FeatureBank(features=features, labels=labels, image_ids=names, class_names=names[:6])
    manifest = draw_manifest(bank, EpisodeSpec(n_way=5, n_shot=2, n_query=5, n_episodes=20), seed=1)
    probe = Probe(name="p", classifier=classifier, transform="none")  # type: ignore[arg-type]
    assert sum(len(part) for part in score(bank, manifest, probe, audit_share=1.0)) == 20
