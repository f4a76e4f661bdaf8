from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from episodes.sampler import EpisodeSampler, EpisodeSpec

LABELS = np.repeat(np.arange(7), 12).astype(np.int64)
SPEC = EpisodeSpec(n_way=4, n_shot=2, n_query=3, n_episodes=30)


def test_an_episode_is_independent_of_the_order_of_access() -> None:
    one, other = EpisodeSampler(LABELS, SPEC, seed=1), EpisodeSampler(LABELS, SPEC, seed=1)
    backwards = {index: other[index] for index in reversed(range(10))}
    for index in range(10):
        assert np.array_equal(one[index].query, backwards[index].query)


def test_the_first_episodes_do_not_depend_on_how_many_are_drawn() -> None:
    few = list(EpisodeSampler(LABELS, EpisodeSpec(n_way=4, n_shot=2, n_query=3, n_episodes=5), seed=1))
    many = list(EpisodeSampler(LABELS, SPEC, seed=1))
    assert [episode.support.tolist() for episode in few] == [episode.support.tolist() for episode in many[:5]]


def test_drawing_leaves_the_global_generator_as_it_was() -> None:
    random.seed(5)
    expected = [random.random() for _ in range(3)]
    random.seed(5)
    list(EpisodeSampler(LABELS, SPEC, seed=1))
    assert [random.random() for _ in range(3)] == expected


def test_episodes_differ_by_seed_and_by_index() -> None:
    sampler = EpisodeSampler(LABELS, SPEC, seed=1)
    assert not np.array_equal(sampler[0].support, sampler[1].support)
    assert not np.array_equal(sampler[0].support, EpisodeSampler(LABELS, SPEC, seed=2)[0].support)


def test_every_class_and_every_image_is_drawn_about_equally_often() -> None:
    spec = EpisodeSpec(n_way=3, n_shot=1, n_query=2, n_episodes=2000)
    episodes = list(EpisodeSampler(LABELS, spec, seed=0))
    of_class = np.bincount(np.concatenate([episode.classes for episode in episodes]), minlength=7)
    of_image = np.bincount(np.concatenate([episode.support for episode in episodes]), minlength=84)
    assert np.abs(of_class / (2000 * 3 / 7) - 1).max() < 0.08  # 2.5 standard deviations of a binomial share
    assert np.abs(of_image / (2000 * 3 / 84) - 1).max() < 0.5


def test_episodes_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "import numpy as np; from episodes.sampler import EpisodeSampler, EpisodeSpec;"
        "labels = np.repeat(np.arange(7), 12);"
        "spec = EpisodeSpec(n_way=4, n_shot=2, n_query=3, n_episodes=3);"
        "print([e.query.tolist() for e in EpisodeSampler(labels, spec, seed=1)])"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    here = [episode.query.tolist() for episode in EpisodeSampler(LABELS, SPEC, seed=1)][:3]
    assert elsewhere == f"{here}\n"


@settings(max_examples=25, deadline=None)
@given(
    n_per_class=st.lists(st.integers(5, 9), min_size=3, max_size=8),
    n_way=st.integers(2, 3),
    n_shot=st.integers(1, 2),
    n_query=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_support_and_query_are_disjoint_and_of_the_right_classes(
    n_per_class: list[int], n_way: int, n_shot: int, n_query: int, seed: int
) -> None:
    labels = np.repeat(np.arange(len(n_per_class)), n_per_class).astype(np.int64)
    np.random.default_rng(seed).shuffle(labels)
    spec = EpisodeSpec(n_way=n_way, n_shot=n_shot, n_query=n_query, n_episodes=3)
    for episode in EpisodeSampler(labels, spec, seed=seed):
        assert len(set(episode.classes.tolist())) == n_way
        assert len({*episode.support.tolist(), *episode.query.tolist()}) == n_way * (n_shot + n_query)
        assert np.array_equal(labels[episode.support], episode.classes[episode.support_labels])
        assert np.array_equal(labels[episode.query], episode.classes[episode.query_labels])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (EpisodeSpec(n_way=8), "n_way is 8, but there are 7 classes"),
        (EpisodeSpec(n_way=2, n_shot=3, n_query=10), "smallest class has 12 images; lower n_query to 9 or less"),
    ],
)
def test_impossible_specs_are_refused(spec: EpisodeSpec, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EpisodeSampler(LABELS, spec, seed=0)
