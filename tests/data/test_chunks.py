from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lurefs.config.learning_schema import ChunksConfig
from lurefs.data.chunks import Chunk, make_chunks
from lurefs.data.dataset import ImageDataset
from lurefs.data.splits import ImageSplit
from lurefs.errors import UserError
from lurefs.seeding import numpy_generator

MakeDataset = Callable[..., ImageDataset]
SPLIT = ImageSplit(train=np.arange(0, 60), val=np.arange(60, 80), test=np.arange(80, 120))
"""Three classes of 20 training images, and one of 20 validation images."""
SHUFFLED = np.random.default_rng(0).permutation(120)
MIXED = ImageSplit(train=np.sort(SHUFFLED[:60]), val=np.sort(SHUFFLED[60:80]), test=np.sort(SHUFFLED[80:]))
"""Training and validation images of all six classes."""
REGIMES: dict[str, dict[str, object]] = {
    "random": {},
    "growing": {"schedule": "growing"},
    "large_first": {"schedule": "large_first"},
    "balanced": {"class_order": "balanced"},
    "balanced_growing": {"class_order": "balanced", "schedule": "growing"},
    "skewed": {"class_order": "skewed", "skew_alpha": 1.0},
    "source": {"chunk_by": "source"},
}


@pytest.fixture
def chunks_of(make_dataset: MakeDataset) -> Callable[..., tuple[Chunk, ...]]:
    def make(seed: int = 0, **settings: object) -> tuple[Chunk, ...]:
        return make_chunks(make_dataset(), SPLIT, ChunksConfig(**settings), seed=seed)  # type: ignore[arg-type]

    return make


ChunksOf = Callable[..., tuple[Chunk, ...]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(
    n_chunks=st.integers(2, 5),
    replay=st.sampled_from(["full", "buffer", "none"]),
    regime=st.sampled_from(sorted(REGIMES)),
    seed=st.integers(0, 99),
)
def test_every_image_arrives_exactly_once(
    make_dataset: MakeDataset, n_chunks: int, replay: str, regime: str, seed: int
) -> None:
    config = ChunksConfig(n_chunks=n_chunks, replay=replay, buffer_size=5, **REGIMES[regime])  # type: ignore[arg-type]
    chunks = make_chunks(make_dataset(n_sources=6), MIXED, config, seed=seed)
    arrived = np.concatenate([chunk.new for chunk in chunks])
    assert sorted(arrived) == sorted([*MIXED.train, *MIXED.val])
    assert all(len(chunk.train) for chunk in chunks)


def test_full_replay_brings_all_that_was_seen(chunks_of: ChunksOf) -> None:
    chunks = chunks_of(n_chunks=3)
    assert [len(chunk.train) for chunk in chunks] == [20, 40, 60]
    assert set(chunks[1].train) == {row for chunk in chunks[:2] for row in chunk.new if row < 60}


def test_without_replay_only_new_images_are_trained_on(chunks_of: ChunksOf) -> None:
    for chunk in chunks_of(n_chunks=3, replay="none"):
        assert sorted([*chunk.train, *chunk.validation]) == chunk.new.tolist()


def test_a_buffer_is_a_sample_of_the_old_images_to_which_nothing_returns(chunks_of: ChunksOf) -> None:
    chunks = chunks_of(n_chunks=6, replay="buffer", buffer_size=8)
    buffers = [set(chunk.train) - set(chunk.new) for chunk in chunks]
    assert [len(buffer) for buffer in buffers] == [0, 8, 8, 8, 8, 8]
    for earlier, later, chunk in zip(buffers[1:], buffers[2:], chunks[1:], strict=False):
        assert later <= earlier | set(chunk.new)


@pytest.mark.parametrize("regime", ["random", "growing", "balanced"])
def test_a_buffer_holds_every_old_image_equally_often(chunks_of: ChunksOf, regime: str) -> None:
    n_seeds, size = 600, 10
    held, seen = np.zeros(60), np.zeros(60)
    for seed in range(n_seeds):
        chunks = chunks_of(n_chunks=3, replay="buffer", buffer_size=size, seed=seed, **REGIMES[regime])
        arrived = np.concatenate([chunk.new for chunk in chunks[:2]])
        seen[arrived[arrived < 60]] += 1
        held[sorted(set(chunks[2].train) - set(chunks[2].new))] += 1
    assert held.sum() == n_seeds * size
    expected = seen * size / (60 - len(chunks[2].new[chunks[2].new < 60]))
    assert np.abs(held - expected).max() < 5 * np.sqrt(expected.mean())


def test_a_buffer_does_not_favour_images_that_came_early_or_late(chunks_of: ChunksOf) -> None:
    n_from_first = 0
    for seed in range(600):
        chunks = chunks_of(n_chunks=3, replay="buffer", buffer_size=10, seed=seed)
        n_from_first += len(set(chunks[2].train) & set(chunks[0].new))
    mean, variance = 600 * 5.0, 600 * 10 * 0.25 * 30 / 39  # hypergeometric: 10 of 40, of which 20 came first
    assert abs(n_from_first - mean) < 4 * np.sqrt(variance)


def test_chunk_size_gives_full_chunks_and_a_last_smaller_one(chunks_of: ChunksOf) -> None:
    chunks = chunks_of(chunk_size=25, replay="none")
    assert [len(chunk.train) for chunk in chunks] == [25, 25, 10]


def test_the_random_order_is_one_permutation_cut_into_equal_parts(chunks_of: ChunksOf) -> None:
    chunks = chunks_of(n_chunks=7, replay="none", seed=3)
    for part, rows in (("train", SPLIT.train), ("validation", SPLIT.val)):
        order = numpy_generator(3, "chunks", part.removesuffix("idation")).permutation(rows)
        expected = [sorted(piece) for piece in np.array_split(order, 7)]
        assert [getattr(chunk, part).tolist() for chunk in chunks] == expected


@pytest.mark.parametrize(
    ("settings", "train", "validation"),
    [
        ({"n_chunks": 4, "schedule": "growing"}, [6, 12, 18, 24], [2, 4, 6, 8]),
        ({"n_chunks": 3, "schedule": "large_first"}, [30, 15, 15], [10, 5, 5]),
        ({"n_chunks": 4, "schedule": "large_first", "first_share": 0.7}, [42, 6, 6, 6], [14, 2, 2, 2]),
        ({"n_chunks": 7, "schedule": "equal"}, [9, 9, 9, 9, 8, 8, 8], [3, 3, 3, 3, 3, 3, 2]),
    ],
)
@pytest.mark.parametrize("class_order", ["random", "balanced"])
def test_the_schedule_sets_the_sizes_of_the_chunks(
    chunks_of: ChunksOf, settings: dict[str, object], train: list[int], validation: list[int], class_order: str
) -> None:
    chunks = chunks_of(replay="none", class_order=class_order, **settings)
    assert [len(chunk.train) for chunk in chunks] == train
    assert [len(chunk.validation) for chunk in chunks] == validation


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(
    n_chunks=st.integers(2, 8),
    schedule=st.sampled_from(["equal", "growing", "large_first"]),
    seed=st.integers(0, 99),
)
def test_balanced_chunks_have_their_share_of_every_class_rounded_down_or_up(
    make_dataset: MakeDataset, n_chunks: int, schedule: str, seed: int
) -> None:
    dataset = make_dataset(n_classes=9, n_per_class=30)
    rows = np.random.default_rng(seed).permutation(len(dataset))
    split = ImageSplit(train=rows[:150], val=rows[150:220], test=rows[220:])
    config = ChunksConfig(n_chunks=n_chunks, schedule=schedule, class_order="balanced", replay="none")  # type: ignore[arg-type]
    chunks = make_chunks(dataset, split, config, seed=seed)
    weights = {
        "equal": [1] * n_chunks,
        "growing": list(range(1, n_chunks + 1)),
        "large_first": [n_chunks - 1] + [1] * (n_chunks - 1),
    }[schedule]
    of_all = np.bincount(dataset.labels[split.train])
    for chunk, weight in zip(chunks, weights, strict=True):
        exact = of_all * weight / sum(weights)
        n_of_class = np.bincount(dataset.labels[chunk.train], minlength=9)
        assert (np.floor(exact) <= n_of_class).all()
        assert (n_of_class <= np.ceil(exact)).all()
        assert abs(len(chunk.train) - 150 * weight / sum(weights)) < 2


def test_balanced_chunks_of_fewer_images_than_classes_are_still_equal(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(n_classes=20, n_per_class=12)
    split = ImageSplit(train=np.arange(0, 240, 2), val=np.arange(1, 240, 4), test=np.arange(3, 240, 4))
    chunks = make_chunks(dataset, split, ChunksConfig(n_chunks=40, class_order="balanced", replay="none"), seed=0)
    assert {len(chunk.train) for chunk in chunks} == {3}
    assert all(np.bincount(dataset.labels[chunk.train]).max() == 1 for chunk in chunks)


@pytest.mark.parametrize(("alpha", "low", "high"), [(1000.0, 0.25, 0.35), (0.1, 0.6, 1.0)])
def test_skew_alpha_says_how_unevenly_a_class_arrives(
    make_dataset: MakeDataset, alpha: float, low: float, high: float
) -> None:
    dataset = make_dataset(n_classes=20, n_per_class=60)
    split = ImageSplit(train=np.arange(0, 1200, 2), val=np.arange(1, 1200, 4), test=np.arange(3, 1200, 4))
    config = ChunksConfig(n_chunks=4, class_order="skewed", skew_alpha=alpha, replay="none")
    chunks = make_chunks(dataset, split, config, seed=0)
    n_of_class = np.array([np.bincount(dataset.labels[chunk.train], minlength=20) for chunk in chunks])
    assert low <= (n_of_class.max(0) / n_of_class.sum(0)).mean() <= high
    n_val = np.array([np.bincount(dataset.labels[chunk.validation], minlength=20) for chunk in chunks])
    assert np.abs(n_val / 15 - n_of_class / 30).max() < 1 / 15 + 1 / 30


def test_skewed_shares_are_those_of_the_schedule_on_average(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(n_classes=200, n_per_class=12)
    split = ImageSplit(train=np.arange(0, 2400, 2), val=np.arange(1, 2400, 4), test=np.arange(3, 2400, 4))
    config = ChunksConfig(n_chunks=3, schedule="growing", class_order="skewed", skew_alpha=50, replay="none")
    shares = [len(chunk.train) / 1200 for chunk in make_chunks(dataset, split, config, seed=0)]
    assert shares == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.03)


def test_skewed_chunks_have_two_images_to_train_on_and_one_to_validate(make_dataset: MakeDataset) -> None:
    for seed in range(50):
        config = ChunksConfig(n_chunks=4, class_order="skewed", skew_alpha=0.2, replay="none")
        chunks = make_chunks(make_dataset(), MIXED, config, seed=seed)
        assert min(len(chunk.train) for chunk in chunks) >= 2
        assert min(len(chunk.validation) for chunk in chunks) >= 1


def test_a_chunk_without_validation_images_is_refused_unless_old_ones_come_again(make_dataset: MakeDataset) -> None:
    dataset, rows = make_dataset(n_sources=2), np.arange(120)
    split = ImageSplit(train=rows[:60], val=rows[60::2], test=rows[61::2])  # validation images of the first source only

    def n_validation(replay: str, seed: int) -> list[int]:
        config = ChunksConfig(n_chunks=2, chunk_by="source", replay=replay)  # type: ignore[arg-type]
        return [len(chunk.validation) for chunk in make_chunks(dataset, split, config, seed=seed)]

    assert n_validation("full", seed=2) == [30, 30]
    words = r"chunk 1 has 30 training and 0 validation images(.*\n)*.*n_chunks, set chunks\.chunk_by to random"
    with pytest.raises(UserError, match=words):
        n_validation("none", seed=2)
    with pytest.raises(UserError, match="chunk 0 has 30 training and 0 validation images"):
        n_validation("full", seed=0)


@pytest.mark.parametrize("regime", sorted(REGIMES))
def test_noise_and_replay_leave_the_order_of_arrival_alone(make_dataset: MakeDataset, regime: str) -> None:
    changes: list[dict[str, object]] = [{}, {"label_noise": 0.5}, {"replay": "none"}, {"images_per_class": 99}]
    streams = [
        [
            chunk.new.tolist()
            for chunk in make_chunks(
                make_dataset(),
                MIXED,
                ChunksConfig(n_chunks=3, **REGIMES[regime], **change),  # type: ignore[arg-type]
                seed=4,
            )
        ]
        for change in changes
    ]
    assert all(stream == streams[0] for stream in streams)


def test_by_source_a_source_arrives_whole(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(n_sources=6)
    chunks = make_chunks(dataset, SPLIT, ChunksConfig(n_chunks=3, chunk_by="source"), seed=0)
    homes = [set(dataset.sources[chunk.new]) for chunk in chunks]
    assert sum(len(home) for home in homes) == len(set.union(*homes)) == 6


def test_order_follows_the_run_seed_unless_it_has_one_of_its_own(chunks_of: ChunksOf) -> None:
    def first(**settings: object) -> list[int]:
        return chunks_of(n_chunks=3, **settings)[0].new.tolist()  # type: ignore[no-any-return]

    assert first(seed=0) == first(seed=0) != first(seed=1)


def test_the_order_seed_wins_over_the_run_seed(make_dataset: MakeDataset) -> None:
    config = ChunksConfig(n_chunks=3, seed=7)
    one, other = (make_chunks(make_dataset(), SPLIT, config, seed=seed) for seed in (0, 1))
    assert one[0].new.tolist() == other[0].new.tolist()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_chunks": 61}, "there are 60 train images"),
        ({"n_chunks": 21}, "there are 20 val images"),
        ({"n_chunks": 5, "chunk_by": "source"}, "have 4 sources"),
        (
            {"n_chunks": 12, "schedule": "growing"},
            "60 training and 20 validation images over 12 chunks, the smallest with 1 and 0",
        ),
        ({"n_chunks": 12, "schedule": "growing"}, "at least 2 training images and 1 validation image per chunk"),
        ({"n_chunks": 3, "schedule": "large_first", "first_share": 0.95}, "the smallest with 1 and 0"),
        ({"n_chunks": 12, "schedule": "growing"}, "lower chunks.n_chunks, set chunks.schedule to equal"),
        (
            {"n_chunks": 20, "class_order": "skewed", "skew_alpha": 0.1},
            "chunks.skew_alpha is 0.1, which in each of 100 draws left one of 20 chunks with fewer than 2 training",
        ),
        ({"n_chunks": 20, "class_order": "skewed", "skew_alpha": 0.1}, "raise chunks.skew_alpha, lower"),
    ],
)
def test_more_chunks_than_there_is_data_for_are_refused(
    chunks_of: ChunksOf, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        chunks_of(**settings)
