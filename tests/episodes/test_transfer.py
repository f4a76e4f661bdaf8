from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from episodes.bank import FeatureBank
from episodes.fitting import ProbeError
from episodes.metrics import ece, nll
from episodes.probes import Probe, knn, lda, logistic_regression, nearest_centroid, ridge
from episodes.transfer.fits import TransferFit, TransferSpec, macro_accuracy, transfer
from episodes.transfer.split import RowSplit, draw_rows, smallest_class, split_rows
from episodes.transfer.table import TransferTable, collect_fits, paired_transfer, summarise_transfer, wilson

GRID = (0.1, 1.0, 10.0, 100.0)
SPEC = TransferSpec(sizes=(1, 2, 4, "all"), n_repeats=3, grid=GRID)
FIXED = TransferSpec(sizes=(2, "all"), n_repeats=2, parameter=None, grid=())


def make_bank(n_classes: int = 5, n_per_class: int = 20, seed: int = 0, shift: float = 1.0) -> FeatureBank:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_classes), n_per_class)
    centres = rng.normal(size=(n_classes, 8)) * shift
    return FeatureBank.from_arrays(centres[labels] + rng.normal(size=(len(labels), 8)), labels)


@pytest.fixture
def bank() -> FeatureBank:
    return make_bank()


@pytest.fixture
def split(bank: FeatureBank) -> RowSplit:
    return split_rows(bank.labels, bank.class_names, validation=0.2, test=0.3, seed=0)


def probe(classifier: object, transform: str = "l2") -> Probe:
    return Probe(name="probe", classifier=classifier, transform=transform, settings={})


def table_of(bank: FeatureBank, split: RowSplit, classifier: object, spec: TransferSpec) -> TransferTable:
    identity = {"images": bank.images_digest, "split": {}, "spec": str(spec)}
    return collect_fits(transfer(bank, split, probe(classifier), spec), bank.labels[split.test], identity)


def without_time(fit: TransferFit) -> dict[str, Any]:
    return {name: value for name, value in vars(fit).items() if name not in ("seconds", "correct")}


def test_a_split_is_stratified_disjoint_and_whole(bank: FeatureBank, split: RowSplit) -> None:
    for part, n_images in ((split.train, 10), (split.validation, 4), (split.test, 6)):
        assert np.bincount(bank.labels[part]).tolist() == [n_images] * 5
    rows = np.concatenate([split.train, split.validation, split.test])
    assert np.array_equal(np.sort(rows), np.arange(100))


def test_a_class_is_split_and_drawn_alike_whatever_other_classes_there_are(bank: FeatureBank, split: RowSplit) -> None:
    few = FeatureBank.from_arrays(bank.features[:40], bank.labels[:40])
    part = split_rows(few.labels, few.class_names, validation=0.2, test=0.3, seed=0)
    assert np.array_equal(part.train, split.train[split.train < 40])
    drawn = draw_rows(few, part.train, 3, seed=1, repeat=2)
    assert np.array_equal(drawn, draw_rows(bank, split.train, 3, seed=1, repeat=2)[:6])


def test_draws_are_nested_across_sizes_and_differ_between_repeats(bank: FeatureBank, split: RowSplit) -> None:
    for repeat in range(3):
        draws = [set(draw_rows(bank, split.train, size, seed=0, repeat=repeat)) for size in (1, 2, 4, 8, 10)]
        assert [len(draw) for draw in draws] == [5, 10, 20, 40, 50]
        assert all(small < large for small, large in pairwise(draws))
        assert draws[-1] == set(split.train)
    first, second = (set(draw_rows(bank, split.train, 4, seed=0, repeat=repeat)) for repeat in (0, 1))
    assert first != second


def test_fits_equal_those_of_scikit_learn_called_by_hand(bank: FeatureBank, split: RowSplit) -> None:
    from sklearn.linear_model import LogisticRegression

    unit = bank.features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    labels, test = bank.labels, split.test
    for fit in transfer(bank, split, probe(logistic_regression(tol=1e-9)), SPEC):
        train, validation = (
            draw_rows(bank, rows, fit.size, seed=0, repeat=fit.repeat) for rows in (split.train, split.validation)
        )
        fitted = [LogisticRegression(C=C, tol=1e-9, max_iter=1000).fit(unit[train], labels[train]) for C in GRID]
        losses = [nll(model.predict_proba(unit[validation]), labels[validation]) for model in fitted]
        best = int(np.argmin(losses))
        probabilities = fitted[best].predict_proba(unit[test])
        assert fit.chosen == GRID[best]
        assert (fit.n_train, fit.n_validation) == (len(train), len(validation))
        assert fit.nll == pytest.approx(nll(probabilities, labels[test]), abs=1e-5)
        assert fit.ece == pytest.approx(ece(probabilities, labels[test]), abs=1e-5)
        assert np.array_equal(fit.correct, probabilities.argmax(axis=1) == labels[test])
        assert fit.accuracy == fit.correct.mean()


def test_knn_is_the_vote_of_the_nearest_by_cosine(bank: FeatureBank, split: RowSplit) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    (fit,) = transfer(bank, split, probe(knn(n_neighbors=5)), replace(FIXED, sizes=("all",)))
    by_hand = KNeighborsClassifier(5, metric="cosine").fit(bank.features[split.train], bank.labels[split.train])
    assert fit.accuracy == by_hand.score(bank.features[split.test], bank.labels[split.test])
    assert np.isnan(fit.chosen)
    assert fit.n_validation == 0


def test_a_counted_setting_is_chosen_as_a_whole_number(bank: FeatureBank, split: RowSplit) -> None:
    spec = replace(SPEC, sizes=("all",), parameter="n_neighbors", grid=(1.0, 5.0, 9.0), choose_by="accuracy")
    (fit,) = transfer(bank, split, probe(knn()), spec)
    assert fit.chosen in spec.grid


@pytest.mark.parametrize("factory", [ridge, nearest_centroid, lda, logistic_regression, knn])
def test_any_probe_is_far_above_chance_on_separated_classes(factory: Any) -> None:
    far = make_bank(shift=6.0)
    split = split_rows(far.labels, far.class_names, validation=0.2, test=0.3, seed=0)
    fits = list(transfer(far, split, probe(factory()), FIXED))
    assert min(fit.accuracy for fit in fits) > 0.9
    assert all(np.isnan(fit.nll) == np.isnan(fit.ece) for fit in fits)


def test_a_probe_without_probabilities_has_accuracy_only(bank: FeatureBank, split: RowSplit) -> None:
    table = table_of(bank, split, ridge(), replace(SPEC, parameter="alpha"))
    for summary in summarise_transfer(table).values():
        assert summary.nll is None
        assert summary.ece is None
        assert summary.accuracy.mean > 0.4


def test_equal_seeds_give_equal_fits_and_others_do_not(bank: FeatureBank, split: RowSplit) -> None:
    spec = replace(SPEC, sizes=(2,))
    one, same, other = (
        [without_time(fit) for fit in transfer(bank, split, probe(logistic_regression()), replace(spec, seed=seed))]
        for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other


def test_more_repeats_and_sizes_leave_the_first_ones_as_they_are(bank: FeatureBank, split: RowSplit) -> None:
    few = list(transfer(bank, split, probe(logistic_regression()), replace(SPEC, sizes=(2,), n_repeats=2)))
    many = list(transfer(bank, split, probe(logistic_regression()), replace(SPEC, sizes=(1, 2), n_repeats=4)))
    of_size = [without_time(fit) for fit in many if fit.size == 2]
    assert of_size[:2] == [without_time(fit) for fit in few]


def test_results_do_not_depend_on_test_labels_for_the_choice(bank: FeatureBank, split: RowSplit) -> None:
    labels = bank.labels.copy()
    labels[split.test] = np.roll(labels[split.test], 7)
    shuffled = FeatureBank.from_arrays(bank.features, labels)
    for one, other in zip(
        transfer(bank, split, probe(logistic_regression()), SPEC),
        transfer(shuffled, split, probe(logistic_regression()), SPEC),
        strict=True,
    ):
        assert one.chosen == other.chosen


@pytest.mark.parametrize(("grid", "is_at_edge"), [((1e-4, 1e-3), True), ((1e-4, 10.0, 1e9), False), ((1.0,), False)])
def test_a_choice_at_the_edge_of_the_grid_is_told(
    bank: FeatureBank, split: RowSplit, grid: tuple[float, ...], is_at_edge: bool
) -> None:
    spec = replace(SPEC, sizes=("all",), grid=grid)
    table = table_of(bank, split, logistic_regression(), spec)
    assert table.fits[0].is_at_edge == is_at_edge
    assert summarise_transfer(table)["all"].n_at_edge == is_at_edge


def test_of_equal_values_the_first_is_chosen() -> None:
    far = make_bank(shift=20.0)
    split = split_rows(far.labels, far.class_names, validation=0.2, test=0.3, seed=0)
    spec = replace(SPEC, sizes=("all",), choose_by="accuracy", grid=(10.0, 100.0, 1000.0))
    (fit,) = transfer(far, split, probe(logistic_regression()), spec)
    assert fit.chosen == 10.0


def test_fits_that_did_not_converge_are_counted(bank: FeatureBank, split: RowSplit) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = table_of(bank, split, logistic_regression(max_iter=2), replace(SPEC, sizes=(4,)))
    summary = summarise_transfer(table)[4]
    assert summary.n_fits == 12
    assert 6 <= summary.n_not_converged <= 12


def test_the_probe_is_left_unfitted_and_as_it_was(bank: FeatureBank, split: RowSplit) -> None:
    classifier = logistic_regression(C=3.0)
    list(transfer(bank, split, probe(classifier), replace(SPEC, sizes=(1,))))
    assert classifier.C == 3.0
    assert not classifier.warm_start
    assert not hasattr(classifier, "coef_")


def test_a_transform_without_a_reference_is_fitted_on_the_training_rows(bank: FeatureBank, split: RowSplit) -> None:
    """The test rows lie elsewhere, so that a mean over all rows is another one."""
    features = bank.features.astype(np.float64)
    features[split.test, 0] += 10.0
    moved = FeatureBank.from_arrays(features, bank.labels)
    (fit,) = transfer(moved, split, probe(knn(), "cl2n"), replace(FIXED, sizes=("all",)))
    unit = moved.features - moved.features[split.train].astype(np.float64).mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    by_hand = knn().fit(unit[split.train], bank.labels[split.train])
    assert np.array_equal(fit.correct, by_hand.predict(unit[split.test]) == bank.labels[split.test])


def test_every_value_of_a_grid_is_fitted_from_the_start_where_a_warm_start_would_go_on(
    bank: FeatureBank, split: RowSplit
) -> None:
    """A forest that starts warm adds trees to those that it has."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_estimators=30, max_depth=1, random_state=0)
    spec = replace(SPEC, sizes=("all",), parameter="max_depth", grid=(1.0, 6.0), choose_by="accuracy")
    (fit,) = transfer(bank, split, probe(forest, "none"), spec)
    by_hand = forest.set_params(max_depth=6).fit(bank.features[split.train], bank.labels[split.train])
    assert fit.chosen == 6.0
    assert np.array_equal(fit.correct, by_hand.predict(bank.features[split.test]) == bank.labels[split.test])


def test_macro_accuracy_weighs_classes_alike() -> None:
    correct = np.array([True, True, True, False, False])
    assert macro_accuracy(correct, np.array([0, 0, 0, 0, 3])) == pytest.approx((3 / 4 + 0) / 2)


def test_wilson_interval_of_small_cases() -> None:
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.277533), abs=1e-6)
    assert wilson(1.0, 10) == pytest.approx((0.722467, 1.0), abs=1e-6)
    assert wilson(0.8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)


def fake_table(correct: Any, labels: list[int], size: Any = 1) -> TransferTable:
    rows = np.array(correct, dtype=bool)
    fits = tuple(
        TransferFit(
            size=size,
            repeat=repeat,
            n_train=2,
            n_validation=2,
            chosen=1.0,
            is_at_edge=False,
            accuracy=float(row.mean()),
            macro_accuracy=macro_accuracy(row, np.array(labels)),
            nll=float(repeat),
            ece=0.0,
            n_fits=1,
            n_not_converged=0,
            seconds=0.0,
            correct=row,
        )
        for repeat, row in enumerate(rows)
    )
    return TransferTable(fits=fits, test_labels=np.array(labels), identity={})


def test_intervals_over_repeats_are_students_and_over_images_normal() -> None:
    from scipy.stats import t

    summary = summarise_transfer(fake_table([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]], [0, 0, 1, 1]))[1]
    assert summary.accuracy.mean == pytest.approx(0.5)
    assert summary.accuracy.ci95_repeats == pytest.approx(t.ppf(0.975, 2) * 0.25 / np.sqrt(3))
    error = np.std([1, 2 / 3, 1 / 3, 0], ddof=1) / 2
    assert summary.accuracy.ci95_images == pytest.approx((0.5 - 1.959964 * error, 0.5 + 1.959964 * error))
    assert summary.nll is not None
    assert summary.nll.ci95_repeats == pytest.approx(t.ppf(0.975, 2) / np.sqrt(3))
    assert summary.nll.ci95_images is None


def test_one_fit_has_wilsons_interval_and_none_over_repeats() -> None:
    summary = summarise_transfer(fake_table([[1, 1, 1, 0, 0, 1]], [0, 0, 0, 1, 1, 1], size="all"))["all"]
    assert summary.accuracy.ci95_repeats is None
    assert summary.accuracy.std is None
    assert summary.accuracy.ci95_images == wilson(4 / 6, 6)
    assert summary.macro_accuracy.mean == pytest.approx((1 + 1 / 3) / 2)
    error = np.sqrt(np.var([0, 0, 1], ddof=1) / 3) / 2
    low, high = summary.macro_accuracy.ci95_images or (0, 0)
    assert high - low == pytest.approx(2 * 1.959964 * error)


def test_macro_accuracy_has_no_interval_where_a_class_has_a_single_test_image() -> None:
    summary = summarise_transfer(fake_table([[1, 1, 0]], [0, 0, 1], size="all"))["all"]
    assert summary.macro_accuracy.ci95_images is None


def test_a_table_reads_back_as_it_was_saved(bank: FeatureBank, split: RowSplit, tmp_path: Path) -> None:
    table = table_of(bank, split, logistic_regression(), SPEC)
    table.save(tmp_path / "transfer.parquet")
    read = TransferTable.load(tmp_path / "transfer.parquet")
    assert read.sizes == [1, 2, 4, "all"]
    assert read.identity == table.identity
    assert summarise_transfer(read) == summarise_transfer(table)
    assert [without_time(fit) for fit in read.fits] == [without_time(fit) for fit in table.fits]


def test_another_parquet_file_is_no_transfer(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="is not a table of a transfer"):
        TransferTable.load(tmp_path / "other.parquet")


def test_a_paired_difference_is_zero_with_itself_and_refused_across_images(bank: FeatureBank, split: RowSplit) -> None:
    table = table_of(bank, split, logistic_regression(), SPEC)
    for figure in paired_transfer(table, table).values():
        assert figure.mean == 0
        assert figure.ci95_images == (0, 0)
    with pytest.raises(ValueError, match="differ in images"):
        paired_transfer(table, replace(table, identity={**table.identity, "images": "others"}))


def test_smallest_class_counts_classes_without_any_row() -> None:
    assert smallest_class(np.array([0, 0, 2, 2, 2]), np.array([0, 2, 3])) == (0, 1)
    assert smallest_class(np.array([0, 0, 2, 2, 2]), np.array([0, 1])) == (2, 0)


def test_errors_name_the_class_the_size_and_the_setting(bank: FeatureBank, split: RowSplit) -> None:
    def error(part: RowSplit, **changes: Any) -> str:
        with pytest.raises(ValueError) as caught:
            next(transfer(bank, part, probe(logistic_regression()), replace(SPEC, **changes)))
        return str(caught.value)

    assert "class '0' has 10; give sizes of 1 to 10" in error(split, sizes=(11,))
    assert "no setting 'alpha'; it has C," in error(split, parameter="alpha")
    assert "in two parts" in error(replace(split, test=split.train))
    kept = split.validation[bank.labels[split.validation] != 3]
    assert "class '3' has no image in part 'validation'" in error(replace(split, validation=kept))
    with pytest.raises(ValueError, match="class '0' has 2 images, of which 1 go to validation and 1 to test"):
        split_rows(np.array([0, 0]), ("0",), validation=0.2, test=0.2, seed=0)


def test_what_scikit_learn_refuses_is_told_with_the_size(bank: FeatureBank, split: RowSplit) -> None:
    with pytest.raises(ProbeError, match="probe cannot be fitted on 2 images per class"):
        next(transfer(bank, split, probe(knn(n_neighbors=11)), FIXED))
