from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import Normalizer, StandardScaler

from episodes.transforms import fit_transform, needs_reference

RNG = np.random.default_rng(0)
REFERENCE, FEATURES = RNG.normal(2, 3, size=(50, 6)), RNG.normal(1, 2, size=(7, 6))


def test_steps_equal_those_of_scikit_learn() -> None:
    def of(chain: str) -> np.ndarray:
        return fit_transform(chain, REFERENCE)(FEATURES)

    np.testing.assert_allclose(of("l2"), Normalizer().fit_transform(FEATURES))
    np.testing.assert_allclose(of("center"), FEATURES - REFERENCE.mean(0))
    np.testing.assert_allclose(of("standardise"), StandardScaler().fit(REFERENCE).transform(FEATURES))
    np.testing.assert_allclose(np.abs(of("pca:3")), np.abs(PCA(3).fit(REFERENCE).transform(FEATURES)))
    np.testing.assert_allclose(of("power:0.5"), np.sign(FEATURES) * np.sqrt(np.abs(FEATURES)))
    np.testing.assert_array_equal(of("none"), FEATURES)


def test_chains_are_applied_and_fitted_step_by_step() -> None:
    centred = FEATURES - REFERENCE.mean(0)
    np.testing.assert_allclose(fit_transform("cl2n", REFERENCE)(FEATURES), Normalizer().fit_transform(centred))
    unit = Normalizer()
    expected = unit.fit_transform(FEATURES) - unit.fit_transform(REFERENCE).mean(0)
    np.testing.assert_allclose(fit_transform("l2, center", REFERENCE)(FEATURES), expected)


def test_a_short_name_may_stand_within_a_chain() -> None:
    features = REFERENCE[:5] + 1
    expected = fit_transform("power:0.5,center,l2", REFERENCE)(features)
    assert np.array_equal(fit_transform("power:0.5,cl2n", REFERENCE)(features), expected)


@pytest.mark.parametrize("chain", ["", "l2,,l2", "l2,", ",l2", "l2,none", "none,power:0.5", "none,none"])
def test_empty_steps_and_none_within_a_chain_are_refused(chain: str) -> None:
    with pytest.raises(ValueError, match="the chain without steps"):
        fit_transform(chain)


def test_rows_of_zeros_and_constant_features_stay_finite() -> None:
    constant = np.ones((4, 3))
    assert np.isfinite(fit_transform("standardise,l2", constant)(constant)).all()
    assert np.array_equal(fit_transform("l2")(np.zeros((2, 3))), np.zeros((2, 3)))


def test_only_some_steps_need_a_reference() -> None:
    assert needs_reference("cl2n")
    assert not needs_reference("power:0.5,l2")
    with pytest.raises(ValueError, match="needs reference features"):
        fit_transform("center")


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("l3", "no feature transform 'l3'; there are none, cl2n, l2"),
        ("pca", "principal components"),
        ("l2:3", "length 1"),
        ("power:x", "must be positive"),
        ("power:inf", "must be positive"),
        ("power:nan", "must be positive"),
        ("pca:2.5", "whole for pca"),
        ("pca:60", "more components than a reference"),
    ],
)
def test_wrong_chains_are_refused(chain: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit_transform(chain, REFERENCE)
