from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import norm, permutation_test, t, ttest_rel

from episodes.comparison import (
    N_FLIPS,
    compare_tables,
    correct_pairs,
    holm,
    manifest_difference,
    n_common_prefix,
    paired_difference,
    paired_differences,
    shaffer,
    tie_groups,
)
from episodes.manifest import Manifest, make_manifest
from episodes.metrics import empty_reliability
from episodes.sampler import EpisodeSpec
from episodes.summary import summarise
from episodes.table import EpisodeTable

CLASSES = np.array([[0, 1], [1, 2], [2, 3], [0, 3], [1, 3]])
A = np.array([0.8, 0.6, 0.4, 0.9, 0.5])
B = np.array([0.7, 0.6, 0.5, 0.7, 0.4])
LABELS = np.repeat(np.arange(6), 10).astype(np.int64)
SPEC = EpisodeSpec(n_way=3, n_shot=2, n_query=4, n_episodes=12)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestPairedDifference:
    def test_counts_wins_and_takes_the_intervals_of_differences(self) -> None:
        paired = paired_difference(A, B, CLASSES, rng=rng())
        assert (paired.n_wins, paired.n_ties, paired.n_losses) == (3, 1, 1)
        assert paired.difference.mean == pytest.approx(0.06)
        expected = summarise(A - B, CLASSES)
        assert paired.difference.ci95_episodes == pytest.approx(expected.ci95_episodes)
        assert paired.difference.ci95_classes == pytest.approx(expected.ci95_classes)
        assert paired.correlation == pytest.approx(np.corrcoef(A, B)[0, 1])

    def test_p_over_classes_belongs_to_the_interval_over_classes(self) -> None:
        paired = paired_difference(A, B, CLASSES, rng=rng())
        assert paired.difference.ci95_classes is not None
        error = paired.difference.ci95_classes / t.ppf(0.975, 3)
        assert paired.p_classes == pytest.approx(2 * t.sf(0.06 / error, 3))

    def test_shares_that_differ_by_rounding_are_ties(self) -> None:
        a, b = np.array([0.1 + 0.2, 0.5, 0.7]), np.array([0.3, 0.5, 0.6])
        assert paired_difference(a, b, CLASSES[:3], rng=rng()).n_ties == 2

    def test_equal_models_have_p_one(self) -> None:
        paired = paired_difference(A, A, CLASSES, rng=rng())
        assert (paired.p_episodes, paired.p_classes, paired.n_ties) == (1.0, 1.0, 5)

    def test_unequal_numbers_of_episodes_are_not_paired(self) -> None:
        with pytest.raises(ValueError, match="cannot be paired"):
            paired_difference(A, A[:3], CLASSES, rng=rng())


class TestManyModels:
    def test_are_compared_as_each_pair_is_alone(self) -> None:
        generator = rng(6)
        classes = np.stack([generator.permutation(7)[:3] for _ in range(90)])
        models = [generator.integers(0, 13, n) / 12 for n in (90, 90, 61, 32)]
        pairs = [(0, 1), (0, 2), (2, 1), (3, 0), (3, 2)]
        found = paired_differences(models, [classes[: len(model)] for model in models], pairs, rng=rng())
        assert list(found) == pairs
        for i, j in pairs:
            n = min(len(models[i]), len(models[j]))
            assert found[i, j] == paired_difference(models[i][:n], models[j][:n], classes[:n], rng=rng())

    def test_have_the_p_that_flips_of_their_difference_have(self) -> None:
        generator = rng(7)
        a, b = (generator.integers(0, 76, 300) / 75 for _ in range(2))
        classes = np.stack([generator.permutation(7)[:3] for _ in range(300)])
        found = paired_differences([a, b], [classes, classes], [(0, 1)], rng=rng())
        assert found[0, 1].p_episodes == sign_flip_p(a - b, rng=rng())

    def test_that_are_far_apart_are_told_apart_however_many_they_are(self) -> None:
        generator = rng(8)
        classes = np.stack([generator.permutation(7)[:3] for _ in range(400)])
        hits = generator.integers(0, 20, 400)
        models = [(hits + 2 * model + generator.integers(0, 2, 400)) / 200 for model in range(40)]
        pairs = [(i, j) for i in range(40) for j in range(i + 1, 40)]
        found = paired_differences(models, [classes] * 40, pairs, rng=rng(), n_flips=999)
        p_values = correct_pairs({pair: found[pair].p_episodes for pair in pairs}, 40)
        letters = tie_groups([model.mean() for model in models], p_values)
        assert len(set(letters)) == 40

    def test_of_no_pairs_have_no_differences(self) -> None:
        assert paired_differences([A], [CLASSES], [], rng=rng()) == {}


def sign_flip_p(differences: np.ndarray, *, rng: np.random.Generator, n_flips: int = N_FLIPS) -> float:
    """The p of a model that differs by these from one that is always 0."""
    classes = np.arange(len(differences))[:, None]
    return paired_difference(differences, np.zeros(len(differences)), classes, rng=rng, n_flips=n_flips).p_episodes


class TestSignFlips:
    def test_of_few_differences_are_counted_by_hand(self) -> None:
        differences = [3.0, 1.0, 2.0, -1.0]
        sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=4)]
        expected = np.mean([value >= 5 for value in sums])
        assert sign_flip_p(np.array(differences), rng=rng()) == expected == 0.375

    @pytest.mark.parametrize("n", [7, 12])
    def test_equal_those_of_scipy(self, n: int) -> None:
        differences = rng(n).normal(0.4, 1, n)
        exact = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
        assert sign_flip_p(differences, rng=rng()) == pytest.approx(exact)

    @pytest.mark.parametrize("n_values", [8, 10_000])
    def test_of_many_differences_agree_with_the_normal_limit(self, n_values: int) -> None:
        differences = np.round(rng(1).normal(0.02, 1, 2000) * n_values) / n_values
        limit = 2 * norm.sf(abs(differences.sum()) / np.sqrt(np.square(differences).sum()))
        assert sign_flip_p(differences, rng=rng(), n_flips=40_000) == pytest.approx(limit, abs=0.01)

    def test_that_no_drawn_flip_reaches_have_hoeffdings_bound_and_never_less_than_all_flips_give(self) -> None:
        assert sign_flip_p(np.ones(20), rng=rng(), n_flips=999) == pytest.approx(2 * np.exp(-10))
        assert 2 * np.exp(-10) > 2 / 2**20

    def test_that_no_drawn_flip_reaches_have_no_more_than_the_number_of_flips_tells(self) -> None:
        assert sign_flip_p(np.ones(20), rng=rng(), n_flips=99_999) <= 2 * np.exp(-10)
        assert sign_flip_p(np.r_[np.ones(17), np.zeros(5)], rng=rng(), n_flips=9_999) <= 2 / 10_000

    def test_are_never_zero(self) -> None:
        assert 0 < sign_flip_p(np.ones(20_000), rng=rng(), n_flips=99) < 1e-300

    def test_zeros_and_the_order_change_nothing(self) -> None:
        differences = np.array([0.5, -0.25, 1.0, 0.5])
        padded = np.concatenate([np.zeros(50), differences[::-1]])
        assert sign_flip_p(padded, rng=rng()) == sign_flip_p(differences, rng=rng())

    def test_are_the_same_for_the_same_generator(self) -> None:
        differences = rng(2).normal(0.05, 1, 300)
        assert sign_flip_p(differences, rng=rng(3)) == sign_flip_p(differences, rng=rng(3))

    @pytest.mark.parametrize("n", [10, 60])
    def test_reject_a_true_hypothesis_at_the_level(self, n: int) -> None:
        generator = rng(4)
        p = [sign_flip_p(generator.integers(-4, 5, n) / 15, rng=generator, n_flips=199) for _ in range(1000)]
        assert np.mean(np.array(p) <= 0.05) < 0.07


class TestHolm:
    def test_by_hand(self) -> None:
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_a_single_p_stays_and_none_exceeds_one(self) -> None:
        assert holm([0.04]) == [0.04]
        assert holm([0.9, 0.8]) == [1.0, 1.0]
        assert holm([]) == []

    def test_of_forty_true_hypotheses_seldom_rejects_any(self) -> None:
        generator = rng(0)
        any_rejected = [min(holm(generator.random(40).tolist())) <= 0.05 for _ in range(1000)]
        assert np.mean(any_rejected) < 0.07


def multipliers(n_models: int) -> list[float]:
    """Return what the p-values of all pairs are multiplied by, the smallest first."""
    # Each is so much larger than the one before it that no product is raised to the product before it.
    steep = {pair: 1e-30 * 20.0**place for place, pair in enumerate(combinations(range(n_models), 2))}
    return [round(shaffer(steep, n_models)[pair] / p, 6) for pair, p in steep.items()]


class TestShaffer:
    @pytest.mark.parametrize(
        ("n_models", "expected"),
        [
            (2, [1]),
            (3, [3, 1, 1]),
            (4, [6, 3, 3, 3, 2, 1]),
            (5, [10, 6, 6, 6, 6, 4, 4, 3, 2, 1]),
        ],
    )
    def test_multiplies_by_how_many_can_still_be_true_at_once(self, n_models: int, expected: list[float]) -> None:
        assert multipliers(n_models) == expected

    def test_three_pairs_by_hand(self) -> None:
        p = {(0, 1): 0.04, (0, 2): 0.01, (1, 2): 0.03}
        assert shaffer(p, 3) == pytest.approx({(0, 1): 0.04, (0, 2): 0.03, (1, 2): 0.03})

    def test_six_pairs_by_hand(self) -> None:
        p = dict(zip(combinations(range(4), 2), [0.5, 0.001, 0.01, 0.015, 0.02, 0.03], strict=True))
        assert list(shaffer(p, 4).values()) == pytest.approx([0.5, 0.006, 0.03, 0.045, 0.06, 0.06])

    def test_a_value_stays_between_the_raw_one_and_that_of_holm(self) -> None:
        generator = rng(6)
        for n_models in range(2, 8):
            p = {pair: float(generator.random()) ** 3 for pair in combinations(range(n_models), 2)}
            corrected = shaffer(p, n_models)
            for pair, of_holm in zip(p, holm(list(p.values())), strict=True):
                assert p[pair] <= corrected[pair] <= of_holm <= 1

    @pytest.mark.parametrize("means", [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 1)])
    def test_seldom_rejects_any_true_hypothesis_whichever_are_true(self, means: tuple[float, ...]) -> None:
        generator = rng(7)
        pairs = list(combinations(range(4), 2))
        n_wrong = 0
        for _ in range(1500):
            models = generator.normal(0, 1, (4, 30)) + np.array(means)[:, None]
            p = {(i, j): float(ttest_rel(models[i], models[j]).pvalue) for i, j in pairs}
            corrected = shaffer(p, 4)
            n_wrong += any(corrected[i, j] < 0.05 for i, j in pairs if means[i] == means[j])
        assert n_wrong / 1500 < 0.065

    def test_a_pair_that_was_not_compared_is_refused(self) -> None:
        with pytest.raises(ValueError, match="models 0 and 2 were not compared"):
            shaffer({(0, 1): 0.5, (1, 2): 0.5}, 3)


class TestCorrectPairs:
    def test_of_all_pairs_is_shaffers_and_of_some_of_them_holms(self) -> None:
        some = {(0, 1): 0.01, (1, 2): 0.03}
        assert correct_pairs(some, 3) == pytest.approx({(0, 1): 0.02, (1, 2): 0.03})
        assert correct_pairs({**some, (0, 2): 0.5}, 3) == pytest.approx({(0, 1): 0.03, (1, 2): 0.03, (0, 2): 0.5})

    def test_of_no_pairs_are_none(self) -> None:
        assert correct_pairs({}, 1) == correct_pairs({}, 3) == {}


class TestTieGroups:
    def letters(self, means: list[float], differ: set[tuple[int, int]]) -> list[str]:
        n = len(means)
        p = {(i, j): 1e-9 if (i, j) in differ else 0.9 for i in range(n) for j in range(i + 1, n)}
        return tie_groups(means, p)

    def test_neighbours_that_cannot_be_told_apart_share_a_letter(self) -> None:
        differ = {(0, 2), (0, 3), (1, 3)}
        assert self.letters([4, 3, 2, 1], differ) == ["a", "ab", "bc", "c"]

    def test_the_best_has_the_first_letter_whatever_the_order_of_the_models(self) -> None:
        assert self.letters([1, 3, 2], {(0, 1), (0, 2)}) == ["b", "a", "a"]

    def test_all_alike_and_all_apart(self) -> None:
        assert self.letters([1, 2, 3], set()) == ["a", "a", "a"]
        assert self.letters([1, 2, 3], {(0, 1), (0, 2), (1, 2)}) == ["c", "b", "a"]
        assert tie_groups([0.5], {}) == ["a"]

    def test_two_share_a_letter_if_and_only_if_no_test_sets_them_apart(self) -> None:
        generator = rng(5)
        for _ in range(50):
            n = 6
            pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
            differ = {pair for pair in pairs if generator.random() < 0.5}
            letters = self.letters(generator.random(n).tolist(), differ)
            for i, j in pairs:
                assert bool(set(letters[i]) & set(letters[j])) == ((i, j) not in differ)

    def test_of_sixty_groups_are_still_told_apart_when_written_together(self) -> None:
        n = 60
        letters = self.letters(list(range(n, 0, -1)), {(i, j) for i in range(n) for j in range(i + 1, n)})
        assert letters[25:28] == ["z", "A", "B"]
        assert letters[51:54] == ["Z", "(53)", "(54)"]

    def test_a_pair_below_the_level_is_told_apart_and_one_at_it_is_not(self) -> None:
        assert tie_groups([2, 1], {(0, 1): 0.0499}) == ["a", "b"]
        assert tie_groups([2, 1], {(0, 1): 0.05}) == ["a", "a"]

    def test_a_pair_that_was_not_compared_is_refused(self) -> None:
        with pytest.raises(ValueError, match="models 0 and 2 were not compared"):
            tie_groups([3, 2, 1], {(0, 1): 0.5, (1, 2): 0.5})


def manifest(seed: int = 3, images: str = "abc", **changes: int) -> Manifest:
    return make_manifest(LABELS, replace(SPEC, **changes), seed=seed, images_digest=images)


def table(of: Manifest, gain: float = 0.0) -> EpisodeTable:
    n = len(of)
    accuracy = rng(9).integers(4, 9, 100)[:n] / 12 + gain * rng(8).integers(0, 2, 100)[:n] / 12
    return EpisodeTable(
        index=np.arange(n),
        classes=of.classes,
        accuracy=accuracy,
        nll=np.full(n, np.nan),
        brier=np.full(n, np.nan),
        converged=np.ones(n, dtype=bool),
        seconds=np.zeros(n),
        reliability=empty_reliability(),
        identity={"manifest": of.hash},
    )


class TestTables:
    def test_of_one_manifest_are_paired(self) -> None:
        a, b = table(manifest(), 1.0), table(manifest())
        expected = paired_difference(a.accuracy, b.accuracy, a.classes, rng=rng())
        assert compare_tables(a, b, rng=rng()) == expected

    def test_of_one_manifest_are_paired_on_the_episodes_that_both_scored(self) -> None:
        a, b = table(manifest(n_episodes=30), 1.0), table(manifest(n_episodes=30))
        stopped = replace(
            table(manifest()), identity=b.identity, **{name: getattr(b, name)[:12] for name in ("index", "accuracy")}
        )
        expected = paired_difference(a.accuracy[:12], b.accuracy[:12], a.classes[:12], rng=rng())
        assert compare_tables(a, stopped, rng=rng()) == expected
        assert expected.difference.n == 12

    def test_of_other_episodes_of_one_manifest_are_refused(self) -> None:
        later = replace(table(manifest()), index=np.arange(12) + 1)
        with pytest.raises(ValueError, match="hold different episodes of their manifests"):
            compare_tables(table(manifest()), later, rng=rng())

    def test_of_two_manifests_are_refused(self) -> None:
        with pytest.raises(ValueError, match="different manifests"):
            compare_tables(table(manifest()), table(manifest(seed=4)), rng=rng())

    def test_without_a_manifest_s_name_are_refused(self) -> None:
        with pytest.raises(ValueError, match="does not name its manifest"):
            compare_tables(replace(table(manifest()), identity={}), table(manifest()), rng=rng())

    def test_share_the_beginning_of_a_longer_manifest(self) -> None:
        long, short = manifest(n_episodes=30), manifest()
        a, b = table(long, 1.0), table(short)
        shared = compare_tables(a, b, rng=rng(), manifests=(long, short))
        assert shared == paired_difference(a.accuracy[:12], b.accuracy, b.classes, rng=rng())

    def test_that_do_not_begin_alike_are_refused_and_told_why(self) -> None:
        one, other = manifest(n_episodes=30), manifest(seed=4)
        with pytest.raises(ValueError, match=r"episode 0 differs \(seeds 3 and 4\)"):
            compare_tables(table(one), table(other), rng=rng(), manifests=(one, other))

    def test_manifests_of_other_tables_are_refused(self) -> None:
        one, other = manifest(), manifest(seed=4)
        with pytest.raises(ValueError, match="not those of the tables"):
            compare_tables(table(one), table(other), rng=rng(), manifests=(other, one))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (manifest(), ""),
        (manifest(images="xyz"), "their images differ (abc and xyz)"),
        (manifest(n_shot=1), "n_shot is 2 and 1"),
        (manifest(seed=4), "episode 0 differs (seeds 3 and 4)"),
        (manifest(n_episodes=5), "n_episodes is 12 and 5"),
    ],
)
def test_the_difference_of_two_manifests_is_said(other: Manifest, words: str) -> None:
    assert manifest_difference(manifest(), other) == words


@pytest.mark.parametrize(
    ("other", "n"),
    [
        (manifest(), 12),
        (manifest(n_episodes=30), 12),
        (manifest(n_episodes=5), 5),
        (manifest(seed=4), 0),
        (manifest(n_shot=1), 0),
    ],
)
def test_manifests_begin_alike_as_far_as_they_do(other: Manifest, n: int) -> None:
    assert n_common_prefix(manifest(), other) == n_common_prefix(other, manifest()) == n


def test_manifests_that_part_later_begin_alike_until_there() -> None:
    query = manifest().query.copy()
    query[7] = query[7][::-1]
    assert n_common_prefix(manifest(), replace(manifest(), query=query)) == 7
