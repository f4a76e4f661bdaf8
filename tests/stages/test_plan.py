from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lurefs.config.identity import digest, pretrain_identity
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.stages.plan import make_plan
from lurefs.stages.stage import reference_images

MakeConfig = Callable[..., RunConfig]


def test_a_benchmark_has_the_images_of_its_classes_class_by_class(make_config: MakeConfig) -> None:
    plan = make_plan(make_config())
    images = plan.benchmarks["novel-3way-1shot"].images
    assert images.class_names == tuple(plan.dataset.class_names[label] for label in plan.classes.novel)
    assert np.array_equal(plan.classes.novel[images.labels], plan.dataset.labels[images.rows])
    assert np.bincount(images.labels).tolist() == [24] * 4
    assert images.image_ids[0] == plan.dataset.image_ids[images.rows[0]]


def test_base_training_and_novel_images_are_disjoint(make_config: MakeConfig) -> None:
    plan = make_plan(make_config())
    base_rows = {*plan.images.train, *plan.images.val, *plan.images.test}
    assert not base_rows & set(plan.benchmarks["novel-3way-1shot"].images.rows)


def test_a_benchmark_of_base_classes_has_held_out_images_only(make_config: MakeConfig) -> None:
    spec = {"classes": "base", "n_way": 2, "n_shot": 1, "n_query": 2}
    plan = make_plan(make_config(benchmarks={"base": spec}))
    assert sorted(plan.benchmarks["base"].images.rows) == plan.images.test.tolist()


def test_a_benchmark_may_be_of_another_data_set(make_config: MakeConfig) -> None:
    spec = {"dataset": {"name": "digits"}, "classes": "all", "n_query": 3}
    plan = make_plan(make_config(benchmarks={"digits": spec}))
    assert plan.benchmarks["digits"].images.class_names == tuple("0123456789")


NOISY = {"n_chunks": 3, "label_noise": 0.5}


def test_training_sees_the_given_labels_and_everything_else_the_true_ones(make_config: MakeConfig) -> None:
    spec = {"classes": "base", "n_way": 2, "n_shot": 1, "n_query": 2}
    plan = make_plan(make_config(chunks=NOISY, benchmarks={"base": spec, "novel": {**spec, "classes": "novel"}}))
    arriving = np.concatenate([plan.images.train, plan.images.val])
    is_wrong = plan.given_labels != plan.dataset.labels
    assert is_wrong[plan.images.train].sum() == round(0.5 * len(plan.images.train))
    assert is_wrong.sum() == is_wrong[arriving].sum()
    for images in (*(benchmark.images for benchmark in plan.benchmarks.values()), reference_images(plan)):
        named = [images.class_names[label] for label in images.labels]
        assert named == [plan.dataset.class_names[label] for label in plan.dataset.labels[images.rows]]


def test_without_noise_the_given_labels_are_the_true_ones(make_config: MakeConfig) -> None:
    plan = make_plan(make_config())
    assert np.array_equal(plan.given_labels, plan.dataset.labels)
    assert not plan.given_labels.flags.writeable


def test_images_that_do_not_arrive_are_nowhere_in_the_plan_but_test_images_stay(make_config: MakeConfig) -> None:
    plan, whole = (make_plan(make_config(chunks={"n_chunks": 2, **few})) for few in ({"images_per_class": 6}, {}))
    arrived = np.concatenate([chunk.new for chunk in plan.chunks])
    assert np.bincount(plan.dataset.labels[arrived])[plan.classes.base].tolist() == [6] * 4
    assert sorted(arrived) == sorted([*plan.images.train, *plan.images.val])
    assert plan.images.test.tolist() == whole.images.test.tolist()
    assert reference_images(plan).rows.tolist() == plan.images.train.tolist()


@pytest.mark.parametrize(
    "regime",
    [
        {"schedule": "growing"},
        {"schedule": "large_first"},
        {"class_order": "balanced"},
        {"class_order": "skewed", "skew_alpha": 1.0},
        {"images_per_class": 6},
        {"label_noise": 0.2},
    ],
    ids=lambda regime: "-".join(map(str, regime.values())),
)
def test_weights_of_another_regime_are_other_weights(make_config: MakeConfig, regime: dict[str, Any]) -> None:
    identities = [pretrain_identity(make_config(chunks={"n_chunks": 3, **more})) for more in ({}, regime)]
    assert digest(identities[0]) != digest(identities[1])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"n_way": 1000}, "benchmarks.b.n_way is 1000, but npz has 4 novel classes"),
        ({"n_way": 2, "n_shot": 20, "n_query": 15}, r"n_shot \+ n_query is 35 per class, but class '\d' has 24 images"),
        ({"n_way": 2, "n_shot": 20, "n_query": 15}, "lower n_query to 4 or less"),
        ({"n_way": 2, "n_shot": 24}, "lower n_shot and n_query"),
        ({"classes": "validation"}, "has 0 validation classes"),
        ({"dataset": {"name": "digits"}}, "set benchmarks.b.classes to all"),
    ],
)
def test_impossible_benchmarks_are_refused(make_config: MakeConfig, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_plan(make_config(benchmarks={"b": spec}))


def test_images_too_small_to_be_corrupted_are_refused_by_the_benchmark_that_asks(make_config: MakeConfig) -> None:
    spec = {"n_way": 3, "n_query": 5, "corrupt": {"corruption": "fog"}}
    with pytest.raises(UserError, match=r"these have 8[^$]*or benchmarks\.foggy\.corrupt to null"):
        make_plan(make_config(benchmarks={"foggy": spec}))


def test_a_missing_file_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a file"):
        make_plan(make_config(dataset={"name": "npz", "params": {"path": str(tmp_path / "nothing.npz")}}))
