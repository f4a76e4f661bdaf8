from __future__ import annotations

import numpy as np
import pytest

from episodes.metrics import N_BINS, accuracy, brier, count_by_confidence, ece, empty_reliability, nll, reliability

PROBABILITIES = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]])
LABELS = np.array([0, 1, 1, 0])


def test_metrics_of_four_predictions_by_hand() -> None:
    assert accuracy(PROBABILITIES, LABELS) == 0.5
    assert nll(PROBABILITIES, LABELS) == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.45]).mean())
    assert brier(PROBABILITIES, LABELS) == pytest.approx((0.02 + 0.72 + 0.08 + 0.605) / 4)


def test_ece_by_hand() -> None:
    # bins of width 1/15: 0.55 and 0.6 fall into (8/15, 9/15], 0.8 into (11/15, 12/15], 0.9 into (13/15, 14/15]
    assert ece(PROBABILITIES, LABELS) == pytest.approx((abs(0.55 + 0.6 - 0) + abs(0.8 - 1) + abs(0.9 - 1)) / 4)


def test_a_confidence_at_the_edge_of_two_bins_is_in_the_lower_one() -> None:
    """0.6 is 9/15, and belongs to 0.55 in (8/15, 9/15]; of the two, one is right."""
    counts = reliability(PROBABILITIES[[1, 3]], np.array([0, 0]))
    assert counts.n.nonzero()[0].tolist() == [8]
    assert counts.ece == pytest.approx(abs(0.55 + 0.6 - 1) / 2)


def test_a_wrong_certainty_has_a_finite_cost() -> None:
    assert nll(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(1e-12))


def test_pooled_counts_equal_the_counts_of_the_pool() -> None:
    parts = reliability(PROBABILITIES[:1], LABELS[:1]) + reliability(PROBABILITIES[1:], LABELS[1:])
    assert parts.ece == pytest.approx(reliability(PROBABILITIES, LABELS).ece)
    assert parts.n.sum() == 4


def test_ece_of_no_predictions_is_not_a_number() -> None:
    assert np.isnan(empty_reliability().ece)


def test_ece_and_nll_are_those_of_torchmetrics_and_torch() -> None:
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(7), 500), rng.integers(0, 7, 500)
    theirs = multiclass_calibration_error(torch.tensor(probabilities), torch.tensor(labels), 7, n_bins=15, norm="l1")
    assert ece(probabilities, labels) == pytest.approx(theirs.item(), abs=1e-6)
    log_probabilities = torch.tensor(probabilities).log()
    assert nll(probabilities, labels) == pytest.approx(
        torch.nn.functional.nll_loss(log_probabilities, torch.tensor(labels)).item()
    )


def test_a_calibrated_model_has_an_ece_near_zero_on_many_predictions() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 200_000)
    labels = (rng.random(200_000) > confidence).astype(np.int64)
    assert ece(np.stack([confidence, 1 - confidence], axis=1), labels) < 0.005


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_confidence_of_exactly_an_edge_is_in_the_bin_below_in_either_precision(dtype: type) -> None:
    edges = (np.arange(1, N_BINS + 1) / N_BINS).astype(dtype)
    for place, edge in enumerate(edges):
        counts = count_by_confidence(np.array([edge], dtype=dtype), np.array([True]))
        assert counts.n.nonzero()[0].tolist() == [place], edge


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_next_number_above_an_edge_is_in_the_bin_above(dtype: type) -> None:
    edges = (np.arange(1, N_BINS) / N_BINS).astype(dtype)
    counts = count_by_confidence(np.nextafter(edges, dtype(1)), np.ones(len(edges), dtype=bool))
    assert counts.n.tolist() == [0] + [1] * (N_BINS - 1)
