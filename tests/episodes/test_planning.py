"""Plans: what values vary by is found again, and power is that of the very tests that comparisons use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from episodes.components import (
    MOST_SKEWNESS,
    Components,
    components_over_seeds,
    deviation_of_images,
    variance_components,
)
from episodes.over_classes import ClassError, error_over_classes
from episodes.over_seeds import summarise_seeds
from episodes.planning import Design, Quantity, Scope, expected_width, needed, plausible, power, smallest_difference

TRUTH = Components(n_way=5, of_class=0.03, of_pair=0.05, of_episode=0.05, of_seed=0.01, of_rest=0.04)
DESIGN = Design(n_classes=20, n_episodes=1000, n_seeds=4)


def drawn(
    rng: np.random.Generator, design: Design = DESIGN, truth: Components = TRUTH
) -> tuple[np.ndarray, np.ndarray]:
    """Return values of episodes with the effects of classes and pairs, and the episodes' classes."""
    classes = np.stack([rng.permutation(design.n_classes)[: int(truth.n_way)] for _ in range(design.n_episodes)])
    of_class = rng.normal(0, truth.of_class, design.n_classes)
    of_pair = np.triu(rng.normal(0, truth.of_pair, (design.n_classes, design.n_classes)), 1)
    first, second = np.triu_indices(int(truth.n_way), 1)
    low, high = np.sort([classes[:, first], classes[:, second]], axis=0)
    values = of_class[classes].mean(axis=1) + of_pair[low, high].mean(axis=1)
    return values + rng.normal(0, truth.of_episode, design.n_episodes), classes


def test_components_are_found_again_from_simulated_values() -> None:
    rng = np.random.default_rng(0)
    found = [variance_components(*drawn(rng)) for _ in range(60)]
    for name, tolerance in (("of_class", 0.1), ("of_pair", 0.1), ("of_episode", 0.02)):
        deviation = np.sqrt(np.mean([getattr(each, name) ** 2 for each in found]))
        assert deviation == pytest.approx(getattr(TRUTH, name), rel=tolerance), name


def test_components_of_seeds_are_found_again() -> None:
    rng, found = np.random.default_rng(1), []
    for _ in range(200):
        shared, own = rng.normal(0, 0.05, 200), rng.normal(0, 0.01, (4, 1))
        classes = np.stack([rng.permutation(20)[:5] for _ in range(200)])
        found.append(components_over_seeds(shared + own + rng.normal(0, 0.04, (4, 200)), classes))
    assert np.sqrt(np.mean([each.of_seed**2 for each in found if each.of_seed])) == pytest.approx(0.01, rel=0.1)
    assert np.mean([each.of_rest for each in found if each.of_rest]) == pytest.approx(0.04, rel=0.02)
    assert np.mean([each.of_episode for each in found]) == pytest.approx(np.hypot(0.05, 0.04), rel=0.03)


def test_effect_of_images_is_found_again_beyond_that_of_their_classes() -> None:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 600, 20_000)
    classes = images // 30
    effects, of_class = rng.normal(0, 0.2, 600), rng.normal(0, 1, 20)
    values = effects[images] + of_class[classes] + rng.normal(0, 0.5, 20_000)
    assert deviation_of_images(values, images, classes) == pytest.approx(0.2, rel=0.1)
    assert deviation_of_images(np.ones(4), np.arange(4), np.zeros(4, dtype=np.int64)) == 0


def test_a_plan_for_what_is_at_hand_foretells_the_width_that_is_found() -> None:
    rng = np.random.default_rng(3)
    values, classes = drawn(rng)
    error = error_over_classes(values, classes)
    assert isinstance(error, ClassError)
    foretold = expected_width(variance_components(values, classes), DESIGN, scope="classes")
    assert foretold == pytest.approx(error.half_width, rel=0.05)


def test_power_on_this_pool_is_that_of_the_non_central_t() -> None:
    from scipy.stats import nct, t

    truth, design = Components(n_way=5, of_episode=0.05), Design(n_classes=20, n_episodes=8)
    quantile, shift = t.ppf(0.975, 7), 0.04 / (0.05 / np.sqrt(8))
    expected = nct.sf(quantile, 7, shift) + nct.cdf(-quantile, 7, shift)
    assert power(truth, design, 0.04, scope="pool") == pytest.approx(expected, abs=1e-5)


def test_power_on_new_classes_is_that_of_the_non_central_t_where_only_classes_vary() -> None:
    from scipy.stats import nct, t

    truth = Components(n_way=5, of_episode=0.0, of_class=0.05)
    design = Design(n_classes=7, n_episodes=10**9)  # so few classes that no interval is widened
    quantile, shift = t.ppf(0.975, 6), 0.04 / (0.05 / np.sqrt(7))
    expected = nct.sf(quantile, 6, shift) + nct.cdf(-quantile, 6, shift)
    assert power(truth, design, 0.04, scope="classes") == pytest.approx(expected, abs=1e-4)


def test_power_on_new_classes_agrees_with_simulated_tests() -> None:
    rng = np.random.default_rng(4)
    design = Design(n_classes=12, n_episodes=200)
    difference = smallest_difference(TRUTH, design, scope="classes")
    found = []
    for _ in range(600):
        values, classes = drawn(rng, design)
        error = error_over_classes(values + difference, classes)
        assert isinstance(error, ClassError)
        found.append(error.p(float(values.mean()) + difference) < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(("n_classes", "skewness", "of_pair"), [(8, -1.5, 0.02), (20, -2.0, 0.0), (20, 1.5, 0.02)])
def test_power_for_skewed_classes_agrees_with_simulated_tests_in_the_harder_direction(
    n_classes: int, skewness: float, of_pair: float
) -> None:
    rng = np.random.default_rng(6)
    truth = replace(TRUTH, of_pair=of_pair, skewness=skewness)
    design = Design(n_classes=n_classes, n_episodes=200)
    difference = smallest_difference(truth, design, scope="classes")
    assert difference > 1.01 * smallest_difference(replace(truth, skewness=0.0), design, scope="classes")
    shape, found = 4 / skewness**2, []
    for _ in range(400):
        values, classes = drawn(rng, design, replace(truth, of_class=0.0))
        effects = np.sign(skewness) * (rng.gamma(shape, size=n_classes) - shape) / np.sqrt(shape)
        values += truth.of_class * effects[classes].mean(axis=1)
        error = error_over_classes(values, classes)
        assert isinstance(error, ClassError)
        found.append([error.p(float(values.mean()) + shift) < 0.05 for shift in (difference, -difference)])
    one, other = np.mean(found, axis=0)
    harder, easier = (one, other) if skewness < 0 else (other, one)
    assert harder == pytest.approx(0.8, abs=0.05)
    assert easier > 0.8


def test_a_plan_is_the_same_for_either_sign_of_skewness_and_of_the_difference() -> None:
    left, right = (replace(TRUTH, skewness=skewness) for skewness in (-1.5, 1.5))
    chances = {
        round(power(components, DESIGN, difference, scope="classes"), 9)
        for components in (left, right)
        for difference in (-0.02, 0.02)
    }
    assert len(chances) == 1
    assert power(left, DESIGN, 0.02, scope="pool") == power(TRUTH, DESIGN, 0.02, scope="pool")


def test_skewness_of_classes_is_found_again_and_its_sign_is_that_of_the_effects() -> None:
    rng, found = np.random.default_rng(7), []
    design = Design(n_classes=85, n_episodes=1500)
    for _ in range(40):
        values, classes = drawn(rng, design, replace(TRUTH, of_class=0.0, of_pair=0.02))
        values += 0.03 * (1 - rng.exponential(size=85))[classes].mean(axis=1)
        found.append(variance_components(values, classes).skewness)
    assert np.mean(found) == pytest.approx(-2, abs=0.6)
    chance = [variance_components(*drawn(rng, design)).skewness for _ in range(40)]
    assert abs(np.mean(chance)) < 0.2 and np.median(np.abs(chance)) < 0.2
    assert all(abs(skewness) <= MOST_SKEWNESS for skewness in found + chance)


def test_the_true_effect_of_classes_is_between_the_plausible_ones_of_a_pilot() -> None:
    rng, design = np.random.default_rng(8), Design(n_classes=12, n_episodes=100)
    below = above = 0
    for _ in range(300):
        least, most = plausible(variance_components(*drawn(rng, design)), design)
        below += most.of_class < TRUTH.of_class
        above += least.of_class > TRUTH.of_class
    assert 0 < below + above < 27  # 15 are expected; effects of zero are never too large


def test_more_classes_make_a_plan_surer_and_what_never_varies_is_sure() -> None:
    widths = []
    for n_classes in (8, 20, 85):
        least, most = plausible(TRUTH, Design(n_classes=n_classes, n_episodes=2000))
        assert least.of_class < TRUTH.of_class < most.of_class
        assert replace(most, of_class=TRUTH.of_class) == TRUTH
        widths.append(most.of_class - least.of_class)
    assert widths == sorted(widths, reverse=True)
    still = Components(n_way=5, of_episode=0.0)
    assert plausible(still, DESIGN) == (still, still)


def test_power_over_seeds_agrees_with_simulated_tests() -> None:
    rng = np.random.default_rng(5)
    truth = replace(TRUTH, of_class=0.0, of_pair=0.0, of_episode=float(np.hypot(0.05, 0.04)))
    design = Design(n_classes=20, n_episodes=200, n_seeds=3)
    difference = smallest_difference(truth, design, scope="seeds")
    found = []
    for _ in range(2000):
        shared, own = rng.normal(difference, 0.05, 200), rng.normal(0, 0.01, (3, 1))
        found.append(summarise_seeds(shared + own + rng.normal(0, 0.04, (3, 200))).p < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_without_a_difference_the_power_is_the_level() -> None:
    pool = Components(n_way=5, of_episode=0.05)
    assert power(pool, DESIGN, 0.0, scope="pool") == pytest.approx(0.05, abs=1e-4)
    assert power(pool, DESIGN, 0.0, scope="pool", level=0.01) == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize("scope", ["pool", "classes", "seeds"])
def test_power_grows_with_the_difference_and_falls_with_a_stricter_level(scope: Scope) -> None:
    found = [power(TRUTH, DESIGN, difference, scope=scope) for difference in (0.005, 0.01, 0.02, 0.04)]
    assert found == sorted(found) and found[0] < found[-1]
    assert power(TRUTH, DESIGN, 0.005, scope=scope, level=0.01) < found[0]
    assert power(TRUTH, DESIGN, -0.02, scope=scope) == pytest.approx(found[2])


@pytest.mark.parametrize(
    ("scope", "quantity", "numbers"),
    [
        ("pool", "n_episodes", (100, 200, 1000)),
        ("classes", "n_episodes", (100, 500, 5000)),
        ("classes", "n_classes", (8, 20, 85)),
        ("seeds", "n_seeds", (3, 5, 9)),
        ("seeds", "n_episodes", (100, 500, 5000)),
    ],
)
def test_more_of_anything_shows_smaller_differences(scope: Scope, quantity: Quantity, numbers: tuple[int, ...]) -> None:
    found = [smallest_difference(TRUTH, replace(DESIGN, **{quantity: n}), scope=scope) for n in numbers]
    assert found == sorted(found, reverse=True) and found[-1] < found[0]


def test_more_images_of_a_class_help_on_new_classes_as_far_as_images_matter() -> None:
    truth = replace(TRUTH, of_image=0.1, n_images=20)
    few, more = (smallest_difference(truth, replace(DESIGN, n_images=n), scope="classes") for n in (10, 40))
    assert more < smallest_difference(truth, DESIGN, scope="classes") < few


@pytest.mark.parametrize(
    ("scope", "quantity"), [("pool", "n_episodes"), ("classes", "n_classes"), ("seeds", "n_seeds")]
)
def test_the_number_needed_is_the_least_that_suffices(scope: Scope, quantity: Quantity) -> None:
    number = needed(quantity, TRUTH, DESIGN, 0.015, scope=scope)
    assert number is not None
    assert power(TRUTH, replace(DESIGN, **{quantity: number}), 0.015, scope=scope) >= 0.8
    assert power(TRUTH, replace(DESIGN, **{quantity: number - 1}), 0.015, scope=scope) < 0.8


def test_no_number_of_episodes_shows_what_few_classes_hide() -> None:
    assert needed("n_episodes", TRUTH, DESIGN, 0.005, scope="classes") is None
    assert smallest_difference(TRUTH, replace(DESIGN, n_episodes=10**6), scope="classes") > 0.005


@pytest.mark.parametrize("scope", ["pool", "classes", "seeds"])
def test_what_never_varies_shows_any_difference(scope: Scope) -> None:
    still = Components(n_way=5, of_episode=0.0, of_seed=0.0, of_rest=0.0)
    assert power(still, DESIGN, 1e-6, scope=scope) == 1 and power(still, DESIGN, 0.0, scope=scope) == 0
    assert smallest_difference(still, DESIGN, scope=scope) == 0


def test_what_has_no_test_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="needs 3 seeds"):
        power(TRUTH, replace(DESIGN, n_seeds=2), 0.02, scope="seeds")
    with pytest.raises(ValueError, match="seeds vary is unknown"):
        power(replace(TRUTH, of_seed=None), DESIGN, 0.02, scope="seeds")
    with pytest.raises(ValueError, match="5 classes are too few"):
        power(TRUTH, replace(DESIGN, n_classes=5), 0.02, scope="classes")
    with pytest.raises(ValueError, match="effect of images is unknown"):
        needed("n_images", TRUTH, DESIGN, 0.02, scope="classes")
    with pytest.raises(ValueError, match="a single seed"):
        components_over_seeds(np.zeros((1, 50)), np.zeros((50, 2), dtype=np.int64))
    classes = np.array([[0, 1], [2, 3], [4, 5], [0, 2]])
    with pytest.raises(ValueError, match="needs 9"):
        variance_components(np.arange(4.0), classes)
