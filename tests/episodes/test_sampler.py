from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from episodes.blocks import Block, dirichlet_counts, draw_distinct, meta_dataset_counts, random_state
from episodes.sampler import EpisodeSampler, EpisodeSpec, MetaDatasetSpec
from episodes.specs import n_disjoint_episodes

LABELS = np.repeat(np.arange(7), 12).astype(np.int64)
SPEC = EpisodeSpec(n_way=4, n_shot=2, n_query=3, n_episodes=30)
SPECS = {
    "uniform": SPEC,
    "shots": EpisodeSpec(n_way=3, shots=(1, 2, 5), n_query=3, n_episodes=30),
    "shot_range": EpisodeSpec(n_way=3, shot_range=(1, 6), n_query=3, n_episodes=30),
    "query_alpha": EpisodeSpec(n_way=3, n_shot=2, n_query=3, query_alpha=2.0, n_episodes=30),
    "meta_dataset": EpisodeSpec(meta_dataset=MetaDatasetSpec(min_way=2, max_way=20, max_support=40), n_episodes=30),
    "disjoint": EpisodeSpec(n_way=2, n_shot=1, n_query=2, disjoint=True, n_episodes=13),
}
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def drawn(spec: EpisodeSpec, seed: int = 1, labels: np.ndarray = LABELS) -> list[list[list[int]]]:
    return [
        [part.tolist() for part in (episode.classes, episode.support, episode.query)]
        for episode in EpisodeSampler(labels, spec, seed)
    ]


def draw_in_worker(name: str) -> list[list[list[int]]]:
    return drawn(SPECS[name])


def whole(labels: np.ndarray, spec: EpisodeSpec, seed: int = 0) -> Block:
    blocks = list(EpisodeSampler(labels, spec, seed).blocks())
    return Block(**{name: np.concatenate([getattr(block, name) for block in blocks]) for name in vars(blocks[0])})


PUBLISHED = {
    "uniform": "b42402b88948",
    "shots": "69721dadb90d",
    "shot_range": "99c2a32c3e34",
    "query_alpha": "9fefbfb37b1a",
    "meta_dataset": "b2b16e8fae1e",
    "disjoint": "21b6f4dc7608",
}
"""SHA-256 of the first 13 episodes, the same with numpy 1.26 and 2.4."""


def test_the_first_episode_of_a_seed_is_this_one() -> None:
    assert drawn(SPEC)[0] == [
        [2, 4, 0, 6],
        [24, 34, 51, 58, 3, 8, 80, 77],
        [32, 29, 28, 56, 48, 57, 1, 7, 5, 79, 73, 83],
    ]


@pytest.mark.parametrize("name", SPECS)
def test_the_episodes_of_a_seed_never_change(name: str) -> None:
    """Published manifests can be drawn again only as long as these digests stand."""
    block = whole(LABELS, replace(SPECS[name], n_episodes=13), seed=1)
    content = hashlib.sha256()
    for part in (block.n_ways, block.classes, block.n_support, block.n_query, block.support, block.query):
        content.update(part.astype("<i8").tobytes())
    assert content.hexdigest()[:12] == PUBLISHED[name]


def test_large_classes_are_drawn_in_smaller_blocks_to_the_same_episodes_by_index() -> None:
    labels = np.repeat(np.arange(4), 60_000)
    spec = EpisodeSpec(n_way=3, n_shot=1, n_query=2, n_episodes=20)
    sampler = EpisodeSampler(labels, spec, seed=1)
    block = whole(labels, spec, seed=1)
    assert len(list(sampler.blocks())) > 1
    assert np.array_equal(sampler[17].query, block.query.reshape(20, -1)[17])
    assert block.query.reshape(20, -1)[17].tolist() == [14289, 18156, 194471, 187832, 176667, 130089]


@each_spec
def test_an_episode_is_independent_of_the_order_of_access(spec: EpisodeSpec) -> None:
    one, other = EpisodeSampler(LABELS, spec, seed=1), EpisodeSampler(LABELS, spec, seed=1)
    backwards = {index: other[index] for index in reversed(range(10))}
    for index in range(10):
        assert np.array_equal(one[index].query, backwards[index].query)


@each_spec
def test_the_first_episodes_do_not_depend_on_how_many_are_drawn(spec: EpisodeSpec) -> None:
    assert drawn(replace(spec, n_episodes=5)) == drawn(spec)[:5]


def test_episodes_beyond_the_first_block_are_the_same_by_index_and_in_order() -> None:
    spec = replace(SPEC, n_episodes=600)
    sampler = EpisodeSampler(LABELS, spec, seed=1)
    block = whole(LABELS, spec, seed=1)
    for index in (599, 255, 256, 0):
        assert np.array_equal(sampler[index].support, block.support.reshape(600, -1)[index])


def test_drawing_leaves_the_global_generators_as_they_were() -> None:
    random.seed(5)
    np.random.seed(5)
    expected = random.random(), np.random.random()
    random.seed(5)
    np.random.seed(5)
    drawn(SPEC)
    assert (random.random(), np.random.random()) == expected


def test_episodes_differ_by_seed_and_by_index() -> None:
    assert drawn(SPEC)[0] != drawn(SPEC)[1]
    assert drawn(SPEC)[0] != drawn(SPEC, seed=2)[0]
    assert drawn(SPEC)[0] != drawn(SPEC, seed=-1)[0]


def test_every_class_and_every_image_is_drawn_about_equally_often() -> None:
    block = whole(LABELS, EpisodeSpec(n_way=3, n_shot=1, n_query=2, n_episodes=20_000))
    n_of_class = np.bincount(block.classes)
    n_of_image = np.bincount(block.support)
    assert np.abs(n_of_class / (60_000 / 7) - 1).max() < 0.03  # 4 standard deviations of a binomial share
    assert np.abs(n_of_image / (60_000 / 84) - 1).max() < 0.15


def test_draws_without_replacement_are_even_over_ordered_outcomes() -> None:
    outcomes = draw_distinct(random_state(0, 0), np.full(60_000, 4), np.full(60_000, 2)).reshape(-1, 2)
    counts = np.bincount(outcomes[:, 0] * 4 + outcomes[:, 1], minlength=16).reshape(4, 4)
    assert np.all(np.diag(counts) == 0)
    assert np.abs(counts[~np.eye(4, dtype=bool)] / 5000 - 1).max() < 0.06


def test_sets_of_unequal_size_are_drawn_from_side_by_side() -> None:
    values = draw_distinct(random_state(0, 0), np.array([3, 50, 1]), np.array([3, 2, 1]))
    assert sorted(values[:3]) == [0, 1, 2]
    assert len(values) == 6 and values[5] == 0 and values[3:5].max() < 50


def test_learn2learns_own_transform_has_the_same_distribution() -> None:
    from learn2learn.data import MetaDataset, Taskset
    from learn2learn.data.transforms import FusedNWaysKShots

    sampler = EpisodeSampler(LABELS, replace(SPEC, n_episodes=4000), seed=0)
    dataset = sampler._taskset.dataset
    assert isinstance(dataset, MetaDataset)
    assert isinstance(sampler._taskset, Taskset)
    by_label = {label: rows.tolist() for label, rows in dataset.labels_to_indices.items()}
    theirs = MetaDataset(dataset.dataset, labels_to_indices=by_label)
    taskset = Taskset(theirs, task_transforms=[FusedNWaysKShots(theirs, n=4, k=5)])
    random.seed(0)
    rows = [entry.index for _ in range(4000) for entry in taskset.sample_task_description()]
    block = whole(LABELS, replace(SPEC, n_episodes=4000))
    ours = np.concatenate([block.support, block.query])
    assert len(rows) == len(ours)
    difference = np.bincount(rows) - np.bincount(ours)
    assert np.abs(difference).max() / np.sqrt(2 * len(rows) / 84) < 4.5  # standard deviations of a difference of counts


def test_episodes_do_not_depend_on_process_or_hash_seed() -> None:
    program = (
        "import json, numpy as np; from episodes.sampler import EpisodeSampler, EpisodeSpec, MetaDatasetSpec;"
        "labels = np.repeat(np.arange(7), 12);"
        f"specs = {list(SPECS.values())!r};"
        "print(json.dumps([[e.query.tolist() for e in EpisodeSampler(labels, s, seed=1)] for s in specs]))"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert eval(elsewhere) == [[query for _, _, query in drawn(spec)] for spec in SPECS.values()]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_draw_the_same_episodes() -> None:
    with multiprocessing.get_context("fork").Pool(2) as workers:
        assert workers.map(draw_in_worker, SPECS) == [drawn(spec) for spec in SPECS.values()]


@st.composite
def specs(draw: st.DrawFn) -> EpisodeSpec:
    n_way, n_query = draw(st.integers(2, 3)), draw(st.integers(1, 2))
    common = {"n_way": n_way, "n_query": n_query, "n_episodes": 3}
    kind = draw(st.sampled_from(list(SPECS)))
    if kind == "meta_dataset":
        bounds = MetaDatasetSpec(min_way=2, max_way=draw(st.integers(2, 9)), max_support=draw(st.integers(9, 30)))
        return EpisodeSpec(meta_dataset=bounds, n_episodes=3)
    if kind == "shots":
        return EpisodeSpec(**common, shots=tuple(draw(st.integers(1, 3)) for _ in range(n_way)))
    if kind == "shot_range":
        return EpisodeSpec(**common, shot_range=(1, draw(st.integers(1, 3))))
    if kind == "query_alpha":
        return EpisodeSpec(**common, query_alpha=draw(st.floats(0.05, 10)))
    return EpisodeSpec(**{**common, "n_episodes": 1 if kind == "disjoint" else 3}, disjoint=kind == "disjoint")


@settings(max_examples=60, deadline=None)
@given(n_per_class=st.lists(st.integers(8, 12), min_size=3, max_size=8), spec=specs(), seed=st.integers(-5, 10**6))
def test_support_and_query_are_disjoint_and_of_the_right_classes(
    n_per_class: list[int], spec: EpisodeSpec, seed: int
) -> None:
    labels = np.repeat(np.arange(len(n_per_class)) * 2, n_per_class).astype(np.int64)
    np.random.default_rng(abs(seed)).shuffle(labels)
    for episode in EpisodeSampler(labels, spec, seed=seed):
        n_way = len(episode.classes)
        assert len(set(episode.classes.tolist())) == n_way
        assert len({*episode.support.tolist(), *episode.query.tolist()}) == len(episode.support) + len(episode.query)
        assert np.array_equal(labels[episode.support], episode.classes[episode.support_labels])
        assert np.array_equal(labels[episode.query], episode.classes[episode.query_labels])
        assert len(np.unique(episode.support_labels)) == n_way
        if spec.meta_dataset is None:
            assert len(episode.query) == spec.n_way * spec.n_query


def test_given_shots_are_those_of_the_classes_in_turn() -> None:
    block = whole(LABELS, SPECS["shots"])
    assert np.array_equal(block.n_support.reshape(-1, 3), np.tile([1, 2, 5], (30, 1)))
    assert len(np.unique(block.classes.reshape(-1, 3)[:, 2])) == 7  # any class may be the one with most


def test_shots_of_a_range_are_even_over_it() -> None:
    block = whole(LABELS, replace(SPECS["shot_range"], n_episodes=4000))
    counts = np.bincount(block.n_support)
    assert counts[0] == 0 and len(counts) == 7
    assert np.abs(counts[1:] / 2000 - 1).max() < 0.1


@pytest.mark.parametrize("alpha", [0.5, 2.0, 50.0])
def test_dirichlet_queries_have_the_moments_of_the_distribution(alpha: float) -> None:
    """Var(p) = (1/K)(1 - 1/K) / (K alpha + 1); rounding adds 1/12 or less to the variance of a count."""
    counts = dirichlet_counts(random_state(0, 0), alpha, n_episodes=20_000, n_way=5, n_query=15)
    assert np.all(counts.sum(axis=1) == 75)
    assert counts.min() >= 0
    assert np.abs(counts.mean(axis=0) - 15).max() < 0.4
    variance = 75**2 * 0.2 * 0.8 / (5 * alpha + 1)
    assert counts.var() == pytest.approx(variance, rel=0.03, abs=0.15)


def test_shares_are_rounded_by_largest_remainders() -> None:
    class Fixed:
        def standard_gamma(self, alpha: float, size: tuple[int, int]) -> np.ndarray:
            return np.array([[1.0, 1.0, 1.0], [5.9, 2.8, 0.3]])

    counts = dirichlet_counts(Fixed(), 1.0, n_episodes=2, n_way=3, n_query=3)  # type: ignore[arg-type]
    assert counts.tolist() == [[3, 3, 3], [6, 3, 0]]


def test_meta_dataset_counts_by_hand() -> None:
    """Two classes of 10 and 40 images: q = min(10, 5); |S| = min(500, (floor(.5 * 5) + 1) + (floor(.5 * 35) + 1))."""

    class Fixed:
        def random_sample(self, n: int) -> np.ndarray:
            return np.full(n, 0.5)  # beta, and alpha = 0

    n_support, n_query = meta_dataset_counts(
        Fixed(),  # type: ignore[arg-type]
        MetaDatasetSpec(),
        np.array([2]),
        np.array([10, 40]),
    )
    assert n_query.tolist() == [5, 5]
    assert n_support.tolist() == [int(0.2 * 19) + 1, int(0.8 * 19) + 1]  # |S| = 3 + 18 = 21, R = 0.2 and 0.8


def test_meta_dataset_episodes_have_the_properties_of_the_procedure() -> None:
    n_images = np.tile([12, 30, 60, 200], 15)
    labels = np.repeat(np.arange(60), n_images)
    block = whole(labels, EpisodeSpec(meta_dataset=MetaDatasetSpec(), n_episodes=4000))
    first = np.cumsum(block.n_ways) - block.n_ways
    ways = np.bincount(block.n_ways)
    assert (block.n_ways.min(), block.n_ways.max()) == (5, 50)
    assert np.abs(ways[5:] / (4000 / 46) - 1).max() < 0.45  # uniform on 5..50
    n_query = block.n_query[first]
    assert np.array_equal(block.n_query, np.repeat(n_query, block.n_ways))  # balanced
    smallest = np.minimum.reduceat(n_images[block.classes], first)
    assert np.array_equal(n_query, np.minimum(10, smallest // 2))
    assert np.all(block.n_support >= 1)
    assert np.all(block.n_support <= n_images[block.classes] - block.n_query)
    n_support = np.add.reduceat(block.n_support, first)
    assert n_support.max() <= 500
    assert n_support.min() < 20  # beta reaches down to nothing
    mean = [block.n_support[n_images[block.classes] == size].mean() for size in (12, 30, 60, 200)]
    assert mean[0] < mean[1] < mean[2] < mean[3]  # imbalanced along with the classes
    counts = np.bincount(block.classes)
    assert np.abs(counts / counts.mean() - 1).max() < 0.1


def test_the_way_of_meta_dataset_is_bounded_by_the_classes() -> None:
    block = whole(LABELS, replace(SPECS["meta_dataset"], n_episodes=300))
    assert np.unique(block.n_ways).tolist() == [2, 3, 4, 5, 6, 7]


def test_no_image_is_in_two_disjoint_episodes() -> None:
    block = whole(LABELS, SPECS["disjoint"])
    rows = np.concatenate([block.support, block.query])
    assert len(np.unique(rows)) == len(rows) == 13 * 2 * 3


def test_disjoint_episodes_use_all_portions_that_can_be_used() -> None:
    """Classes of 6, 4, 2 and 2 images and 2 images a class: portions 3, 2, 1, 1 make 3 episodes of 2 classes."""
    labels = np.repeat(np.arange(4), [6, 4, 2, 2])
    spec = EpisodeSpec(n_way=2, n_shot=1, n_query=1, n_episodes=3, disjoint=True)
    assert n_disjoint_episodes(spec, np.array([6, 4, 2, 2])) == 3
    assert len(drawn(spec, labels=labels)) == 3


def test_early_disjoint_episodes_are_not_of_large_classes_alone() -> None:
    labels = np.repeat(np.arange(4), [60, 20, 20, 20])
    spec = EpisodeSpec(n_way=2, n_shot=1, n_query=1, n_episodes=30, disjoint=True)
    large = np.array([[0 in classes for classes, _, _ in drawn(spec, seed, labels)] for seed in range(40)])
    assert abs(large[:, :10].mean() - large.mean()) < 0.06


@settings(max_examples=30, deadline=None)
@given(n_per_class=st.lists(st.integers(2, 30), min_size=2, max_size=7), n_way=st.integers(2, 4))
def test_the_possible_number_of_disjoint_episodes_is_reached(n_per_class: list[int], n_way: int) -> None:
    n_way = min(n_way, len(n_per_class))
    labels = np.repeat(np.arange(len(n_per_class)), n_per_class)
    spec = EpisodeSpec(n_way=n_way, n_shot=1, n_query=1, n_episodes=1, disjoint=True)
    n_possible = n_disjoint_episodes(spec, np.array(n_per_class))
    block = whole(labels, replace(spec, n_episodes=n_possible))
    assert len(np.unique(np.concatenate([block.support, block.query]))) == n_possible * n_way * 2
    with pytest.raises(ValueError, match=f"give {n_possible} such episodes; lower n_episodes to {n_possible}"):
        EpisodeSampler(labels, replace(spec, n_episodes=n_possible + 1), seed=0)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (EpisodeSpec(n_way=8), "n_way is 8, but there are 7 classes"),
        (EpisodeSpec(n_way=2, n_shot=3, n_query=10), "smallest class has 12 images; lower n_query to 9 or less"),
        (EpisodeSpec(n_way=2, shot_range=(1, 8), n_query=10), "the most shots.*is 18 per class.*lower n_query to 4"),
        (EpisodeSpec(n_way=3, query_alpha=1.0, n_query=5), "may get all queries.*is 16 per class.*lower n_query to 3"),
        (EpisodeSpec(meta_dataset=MetaDatasetSpec(min_way=8)), "meta_dataset.min_way is 8, but there are 7 classes"),
        (EpisodeSpec(n_way=2, n_shot=5, n_query=7, disjoint=True), "84 images of 7 classes give 3 such episodes"),
    ],
)
def test_impossible_specs_are_refused(spec: EpisodeSpec, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EpisodeSampler(LABELS, spec, seed=0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"shots": (1, 2)}, r"shots is \[1, 2\]; change shots or n_way"),
        ({"shots": (0, 1, 1, 1, 1)}, "shots is"),
        ({"shot_range": (3, 1)}, r"shot_range is \[3, 1\]; write e.g. \[1, 10\]"),
        ({"shots": (1, 2, 3, 4, 5), "n_shot": 5}, "n_shot is 5 and shots is set; leave n_shot or shots out"),
        ({"meta_dataset": MetaDatasetSpec(), "n_way": 10}, "n_way is 10 and meta_dataset is set"),
        ({"query_alpha": 1.0, "disjoint": True}, "disjoint is True and query_alpha is set"),
        ({"query_alpha": 0.0}, "query_alpha is 0; raise query_alpha"),
        ({"n_way": 1}, "n_way is 1; raise n_way"),
        ({"n_shot": 0}, "n_shot is 0; raise n_shot"),
        ({"n_query": -1}, "n_query is -1; raise n_query"),
        ({"n_episodes": 0}, "n_episodes is 0; raise n_episodes"),
        ({"meta_dataset": MetaDatasetSpec(max_way=3)}, "min_way 5, max_way 3"),
        ({"meta_dataset": MetaDatasetSpec(max_query=0)}, "max_query 0"),
    ],
)
def test_specs_that_contradict_themselves_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EpisodeSpec(**values)  # type: ignore[arg-type]


@each_spec
def test_a_spec_reads_back_from_its_card(spec: EpisodeSpec) -> None:
    assert EpisodeSpec.from_card(spec.to_card()) == spec


def test_the_card_of_a_usual_spec_has_nothing_else() -> None:
    assert SPEC.to_card() == {"n_way": 4, "n_shot": 2, "n_query": 3, "n_episodes": 30}


@pytest.mark.parametrize(
    ("values", "fixed"),
    [
        ({}, {"n_way", "n_shot", "n_query"}),
        ({"disjoint": True}, {"n_way", "n_shot", "n_query"}),
        ({"shots": (1, 2, 4, 4, 5)}, {"n_way", "n_query"}),
        ({"shot_range": (1, 10)}, {"n_way", "n_query"}),
        ({"query_alpha": 2.0}, {"n_way", "n_shot"}),
        ({"meta_dataset": MetaDatasetSpec()}, set()),
    ],
)
def test_counts_are_stated_only_where_all_episodes_and_classes_have_them(
    values: dict[str, Any], fixed: set[str]
) -> None:
    counts = EpisodeSpec(**values).counts
    assert {name for name, count in counts.items() if count is not None} == fixed
    assert list(counts) == ["n_way", "n_shot", "n_query"]


def test_specs_in_words() -> None:
    assert SPEC.words() == "4-way 2-shot, 3 queries per class"
    assert SPECS["shots"].words() == "3-way 1, 2, 5 shots, 3 queries per class"
    assert SPECS["query_alpha"].words() == "3-way 2-shot, 9 queries, class shares Dirichlet(2)"
    assert SPECS["disjoint"].words() == "2-way 1-shot, 2 queries per class, no image in two episodes"
