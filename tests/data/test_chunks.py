from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lurefs.config import ChunksConfig
from lurefs.data.chunks import Chunk, make_chunks
from lurefs.data.dataset import ImageDataset
from lurefs.data.splits import ImageSplit
from lurefs.errors import UserError

MakeDataset = Callable[..., ImageDataset]
SPLIT = ImageSplit(train=np.arange(0, 60), val=np.arange(60, 80), test=np.arange(80, 120))


@pytest.fixture
def chunks_of(make_dataset: MakeDataset) -> Callable[..., tuple[Chunk, ...]]:
    def make(seed: int = 0, **settings: object) -> tuple[Chunk, ...]:
        return make_chunks(make_dataset(), SPLIT, ChunksConfig(**settings), seed=seed)  # type: ignore[arg-type]

    return make


ChunksOf = Callable[..., tuple[Chunk, ...]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(
    n_chunks=st.integers(1, 6),
    replay=st.sampled_from(["full", "buffer", "none"]),
    chunk_by=st.sampled_from(["random", "source"]),
    seed=st.integers(0, 99),
)
def test_every_image_arrives_exactly_once(
    make_dataset: MakeDataset, n_chunks: int, replay: str, chunk_by: str, seed: int
) -> None:
    config = ChunksConfig(n_chunks=n_chunks, replay=replay, chunk_by=chunk_by, buffer_size=5)  # type: ignore[arg-type]
    chunks = make_chunks(make_dataset(n_sources=6), SPLIT, config, seed=seed)
    assert sorted(np.concatenate([chunk.new for chunk in chunks])) == list(range(80))
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


def test_a_buffer_holds_every_old_image_equally_often(chunks_of: ChunksOf) -> None:
    counts = np.zeros(60)
    for seed in range(400):
        last = chunks_of(n_chunks=3, replay="buffer", buffer_size=10, seed=seed)[-1]
        counts[sorted(set(last.train) - set(last.new))] += 1
    expected = 400 * 10 / 60
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_chunk_size_gives_full_chunks_and_a_last_smaller_one(chunks_of: ChunksOf) -> None:
    chunks = chunks_of(chunk_size=25, replay="none")
    assert [len(chunk.train) for chunk in chunks] == [25, 25, 10]


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
    ],
)
def test_more_chunks_than_there_is_data_for_are_refused(
    chunks_of: ChunksOf, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        chunks_of(**settings)
