from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from episodes.arrays import FloatArray, IntArray
from episodes.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    apply_temperature,
    are_probabilities,
    fit_temperature,
    predicted,
    score_answers,
)
from episodes.fitting import proper_scores
from episodes.metrics import brier, ece, nll

N_WAY, N_QUERY, N_CLASSES = 5, 15, 40


def answers(n_episodes: int, *, seed: int = 0, spread: float = 0.0) -> tuple[FloatArray, IntArray, IntArray]:
    """Return logits, labels drawn from their softmax, and classes; a class's own temperature has the given spread."""
    rng = np.random.default_rng(seed)
    classes = np.stack([rng.choice(N_CLASSES, N_WAY, replace=False) for _ in range(n_episodes)])
    logits = rng.normal(0, 2, (n_episodes, N_QUERY, N_WAY))
    sharpness = np.exp(rng.normal(0, spread, N_CLASSES))[classes].mean(axis=1)[:, None, None]
    chances = softmax(logits * sharpness, axis=2)
    labels = (rng.random((n_episodes, N_QUERY, 1)) > chances.cumsum(axis=2)).sum(axis=2)
    return logits, np.minimum(labels, N_WAY - 1), classes


@pytest.mark.parametrize("factor", [0.2, 1.0, 4.0])
def test_the_factor_by_which_logits_were_scaled_is_recovered(factor: float) -> None:
    logits, labels, classes = answers(400)
    fitted = fit_temperature(softmax(factor * logits, axis=2), labels, classes)
    assert fitted.low is not None
    assert fitted.high is not None
    assert fitted.low < factor < fitted.high
    assert fitted.high / fitted.low < 1.15
    assert (fitted.n_episodes, fitted.n_classes, fitted.over) == (400, N_CLASSES, "classes")


def test_the_temperature_is_the_best_of_a_fine_grid() -> None:
    logits, labels, classes = answers(30, seed=1)
    probabilities = softmax(3 * logits, axis=2)
    grid = np.exp(np.linspace(np.log(2), np.log(5), 2001))
    losses = [score_answers(apply_temperature(probabilities, value), labels).nll.mean() for value in grid]
    fitted = fit_temperature(probabilities, labels, classes).value
    assert fitted == pytest.approx(grid[int(np.argmin(losses))], rel=1e-3)
    assert score_answers(apply_temperature(probabilities, fitted), labels).nll.mean() <= min(losses)


def test_scaled_probabilities_are_the_softmax_of_scaled_logits() -> None:
    logits, _, _ = answers(5)
    scaled = apply_temperature(softmax(logits, axis=2), 2.5)
    np.testing.assert_allclose(scaled, softmax(logits / 2.5, axis=2), atol=1e-14)


@pytest.mark.parametrize("temperature", [MIN_TEMPERATURE, 0.3, 1.0, 7.0, MAX_TEMPERATURE])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_prediction_changes_not_even_between_equal_or_nearly_equal_classes(
    dtype: type[np.floating], temperature: float
) -> None:
    half = dtype(0.5)
    rows: NDArray[np.floating] = np.array(
        [
            [0.2, 0.4, 0.4],
            [0.4, 0.4, 0.2],
            [1 / 3, 1 / 3, 1 / 3],
            [0.0, 0.0, 1.0],
            [np.nextafter(half, dtype(0)), half, 0.0],  # the second is higher by one rounding
            [half, np.nextafter(half, dtype(0)), 0.0],
        ],
        dtype=dtype,
    )
    scaled = apply_temperature(rows, temperature)
    np.testing.assert_array_equal(scaled.argmax(axis=1), rows.argmax(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1, atol=1e-12)
    assert scaled[1, 0] == scaled[1, 1]


def test_votes_of_neighbours_keep_their_predictions_at_every_temperature() -> None:
    votes = np.random.default_rng(0).multinomial(5, np.full(5, 0.2), size=(20, 15)) / 5
    for temperature in (MIN_TEMPERATURE, 0.5, 3.0, MAX_TEMPERATURE):
        np.testing.assert_array_equal(predicted(apply_temperature(votes, temperature)), votes.argmax(axis=2))


def test_the_interval_covers_the_temperature_of_other_classes() -> None:
    """The classes differ in their own temperature, so the interval is over them; the truth is that of many classes."""
    truth = fit_temperature(*_softmax(answers_of_many_classes())).value
    n_covered, n_narrow = 0, 0
    for seed in range(200):
        fitted = fit_temperature(*_softmax(answers(150, seed=seed, spread=0.5)))
        assert fitted.low is not None
        assert fitted.high is not None
        n_covered += fitted.low < truth < fitted.high
        n_narrow += fitted.high / fitted.low < 1.6
    assert n_covered >= 181  # of binomial(200, 0.95), 1 in 200 is below
    assert n_narrow > 170


def answers_of_many_classes() -> tuple[FloatArray, IntArray, IntArray]:
    """Join the answers on many draws of classes."""
    parts = [answers(40, seed=1000 + seed, spread=0.5) for seed in range(100)]
    logits, labels, classes = (np.concatenate([part[place] for part in parts]) for place in range(3))
    return logits, labels, classes


def _softmax(found: tuple[FloatArray, IntArray, IntArray]) -> tuple[FloatArray, IntArray, IntArray]:
    return softmax(found[0], axis=2), found[1], found[2]


def test_the_interval_agrees_with_a_bootstrap_over_episodes_where_classes_do_not_matter() -> None:
    logits, labels, _ = answers(120, seed=3)
    probabilities = softmax(2 * logits, axis=2)
    same = np.tile(np.arange(N_WAY), (120, 1))  # the same classes in every episode: only episodes can be resampled
    fitted = fit_temperature(probabilities, labels, same)
    rng = np.random.default_rng(0)
    draws = (rng.integers(0, 120, 120) for _ in range(300))
    values = [fit_temperature(probabilities[rows], labels[rows], same).value for rows in draws]
    assert fitted.over == "episodes"
    assert [fitted.low, fitted.high] == pytest.approx(np.quantile(values, [0.025, 0.975]), rel=0.03)


def test_scores_are_those_of_the_metrics_and_of_the_table() -> None:
    logits, labels, _ = answers(6)
    probabilities = softmax(logits, axis=2)
    scores = score_answers(probabilities, labels)
    for found, known in ((scores.nll, nll), (scores.brier, brier)):
        expected = [known(p, y) for p, y in zip(probabilities, labels, strict=True)]
        np.testing.assert_allclose(found, expected)
    assert scores.reliability.ece == pytest.approx(ece(probabilities.reshape(-1, N_WAY), labels.reshape(-1)))
    one = np.tile(labels[:1], (6, 1))
    np.testing.assert_allclose(score_answers(probabilities, one).nll, proper_scores(probabilities, one[0], 6)[0])


def test_scaling_lowers_nll_brier_and_ece_of_an_underconfident_probe() -> None:
    logits, labels, classes = answers(300)
    probabilities = softmax(0.2 * logits, axis=2)
    held_out, measured = slice(0, 150), slice(150, None)
    fitted = fit_temperature(probabilities[held_out], labels[held_out], classes[held_out])
    before = score_answers(probabilities[measured], labels[measured])
    after = score_answers(apply_temperature(probabilities[measured], fitted.value), labels[measured])
    assert after.nll.mean() < before.nll.mean()
    assert after.brier.mean() < before.brier.mean()
    assert after.reliability.ece < 0.03 < before.reliability.ece


def test_episodes_with_fewer_classes_and_queries_count_as_they_are() -> None:
    logits, labels, classes = answers(40)
    probabilities = softmax(2 * logits, axis=2)
    wide = np.full((40, N_QUERY + 3, N_WAY + 2), np.nan)
    wide[:, :N_QUERY, :N_WAY] = probabilities
    wide_labels = np.pad(labels, ((0, 0), (0, 3)), constant_values=-1)
    wide_classes = np.pad(classes, ((0, 0), (0, 2)), constant_values=-1)
    fitted = fit_temperature(probabilities, labels, classes)
    padded = fit_temperature(wide, wide_labels, wide_classes)
    assert padded.value == pytest.approx(fitted.value, rel=1e-9)
    scaled = apply_temperature(wide, 2.0)
    np.testing.assert_allclose(scaled[:, :N_QUERY, :N_WAY], apply_temperature(probabilities, 2.0), rtol=1e-12)
    assert np.isnan(scaled[:, N_QUERY:]).all()
    assert np.isnan(scaled[..., N_WAY:]).all()
    np.testing.assert_allclose(score_answers(wide, wide_labels).brier, score_answers(probabilities, labels).brier)


def test_the_fit_ends_at_a_bound_without_an_interval_if_nothing_is_wrong_or_nothing_is_known() -> None:
    labels = np.tile(np.arange(3), (10, 5))
    classes = np.stack([np.random.default_rng(seed).choice(9, 3, replace=False) for seed in range(10)])
    always_right = np.where(labels[..., None] == np.arange(3), 0.6, 0.2)
    always_wrong = np.where((labels[..., None] + 1) % 3 == np.arange(3), 0.6, 0.2)
    no_idea = np.full_like(always_right, 1 / 3)
    found = [fit_temperature(each, labels, classes) for each in (always_right, always_wrong, no_idea)]
    assert [each.value for each in found] == pytest.approx([MIN_TEMPERATURE, MAX_TEMPERATURE, 1.0])
    assert [(each.low, each.high, each.over) for each in found] == [(None, None, None)] * 3


def test_probabilities_are_told_from_decision_values() -> None:
    probabilities = softmax(answers(3)[0], axis=2)
    padded = np.pad(probabilities, ((0, 0), (0, 2), (0, 1)), constant_values=np.nan)
    assert are_probabilities(probabilities.astype(np.float32))
    assert are_probabilities(padded)
    assert not are_probabilities(np.log(probabilities))
    assert not are_probabilities(2 * padded)


def test_a_temperature_of_no_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two episodes with queries; there are 3"):
        fit_temperature(np.full((3, 2, 2), 0.5), np.full((3, 2), -1), np.tile([0, 1], (3, 1)))
