from __future__ import annotations

from typing import Any

import pytest

from lurefs.config.learning_schema import LearnerConfig
from lurefs.learning.schedule import epoch_sizes, learning_rate_factor, n_batches


def test_learning_rate_starts_anew_with_every_chunk() -> None:
    def factors(**settings: Any) -> list[float]:
        config = LearnerConfig(**settings)
        return [round(learning_rate_factor(step, 10, 1, config), 4) for step in range(10)]

    assert factors(schedule="constant") == [1.0] * 10
    assert factors(schedule="step") == [1.0] * 4 + [0.1] * 4 + [0.01] * 2
    cosine = factors(schedule="cosine")
    assert (cosine[0], cosine[5]) == (1.0, 0.5)
    assert sorted(cosine, reverse=True) == cosine
    assert factors(schedule="constant", warmup_epochs=2)[:3] == [0.3333, 0.6667, 1.0]


def test_every_epoch_has_all_images_of_its_chunk() -> None:
    assert epoch_sizes([10, 20], 1, LearnerConfig(epochs=3)) == [20, 20, 20]


def test_later_chunks_can_have_fewer_epochs() -> None:
    settings = LearnerConfig(epochs=3, relearn_epochs=1)
    assert [epoch_sizes([10, 20], index, settings) for index in range(2)] == [[10, 10, 10], [20]]


def test_matched_chunks_see_as_many_images_as_all_chunks_up_to_them() -> None:
    settings = LearnerConfig(epochs=3, match_images_seen=True)
    assert [epoch_sizes([10, 20, 30], index, settings) for index in range(3)] == [[10] * 3, [18] * 5, [30] * 6]
    assert epoch_sizes([10, 20], 1, LearnerConfig(epochs=3, relearn_epochs=1, match_images_seen=True)) == [16, 17, 17]


@pytest.mark.parametrize("n_train", [[7, 5, 3], [100, 1, 100], [64, 65, 66]])
def test_no_epoch_is_longer_than_its_chunk_and_none_is_tiny(n_train: list[int]) -> None:
    for index, n in enumerate(n_train):
        sizes = epoch_sizes(n_train, index, LearnerConfig(epochs=2, match_images_seen=True))
        assert sum(sizes) == 2 * sum(n_train[: index + 1])
        assert n / 2 <= min(sizes) <= max(sizes) <= n


def test_no_batch_is_small() -> None:
    assert [n_batches(n, 64) for n in (1, 63, 64, 127, 128, 200)] == [1, 1, 1, 1, 2, 3]
