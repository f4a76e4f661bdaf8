from __future__ import annotations

import numpy as np
import pytest

from episodes.arrays import FloatArray
from episodes.manifest import Manifest, make_manifest
from episodes.over_images import ImageError, correct_answers, error_over_images
from episodes.specs import EpisodeSpec

N_CLASSES, N_IMAGES = 8, 12
LABELS = np.repeat(np.arange(N_CLASSES), N_IMAGES)


def drawn(n_episodes: int = 600, n_shot: int = 1, seed: int = 0) -> Manifest:
    spec = EpisodeSpec(n_way=5, n_shot=n_shot, n_query=5, n_episodes=n_episodes)
    return make_manifest(LABELS, spec, seed=seed, images_digest="")


def answers(manifest: Manifest, as_support: FloatArray, as_query: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return answers to queries: effects of the images that support their class, of the query itself, and noise."""
    shape = (len(manifest), 5)
    of_class = as_support[manifest.support].reshape(*shape, -1).mean(axis=2)
    values = of_class[:, :, np.newaxis] + as_query[manifest.query].reshape(*shape, 5)
    noise = rng.normal(0, 0.05, (len(manifest), 1, 1)) + rng.normal(0, 0.3, values.shape)
    return np.asarray((0.6 + values + noise).reshape(-1))


@pytest.mark.parametrize("n_shot", [1, 4])
def test_error_is_the_spread_of_the_means_of_pools_with_other_images(n_shot: int) -> None:
    rng, means, errors = np.random.default_rng(0), [], []
    for seed in range(150):
        as_support, as_query = rng.normal(0, 0.1, (2, len(LABELS)))
        manifest = drawn(n_shot=n_shot, seed=seed)
        correct = answers(manifest, as_support, as_query + as_support, rng)
        error = error_over_images(correct, manifest)
        assert isinstance(error, ImageError)
        means.append(correct.mean())
        errors.append(error.images + error.episodes)
    assert np.sqrt(np.mean(errors)) == pytest.approx(np.std(means), rel=0.15)
    covers = np.abs(np.array(means) - 0.6) < 1.96 * np.sqrt(errors)
    assert covers.mean() >= 0.9


def test_images_that_do_not_matter_add_next_to_nothing() -> None:
    rng, zeros = np.random.default_rng(0), np.zeros(len(LABELS))
    error = error_over_images(answers(drawn(), zeros, zeros, rng), drawn())
    assert isinstance(error, ImageError)
    assert error.half_width < 1.5 * 1.96 * np.sqrt(error.episodes)
    assert error.freedom == N_CLASSES * (N_IMAGES - 1)


def test_half_width_is_students() -> None:
    error = ImageError(images=0.0003, episodes=0.0001, freedom=10)
    assert error.half_width == pytest.approx(2.2281 * 0.02, rel=1e-4)


def test_answers_are_compared_with_the_labels_of_the_queries() -> None:
    manifest = drawn(2)
    predicted = np.zeros((2, 25), dtype=np.int16)
    assert correct_answers(predicted, manifest).reshape(2, 5, 5).mean(axis=(0, 2)).tolist() == [1, 0, 0, 0, 0]


def test_too_few_episodes_or_images_have_no_interval() -> None:
    few = drawn(2)
    assert error_over_images(np.ones(50), few) == "a class is in fewer than two episodes"
    spec = EpisodeSpec(n_way=5, n_shot=4, n_query=1, n_episodes=40)
    tight = make_manifest(np.repeat(np.arange(8), 5), spec, seed=0, images_digest="")
    assert error_over_images(np.ones(200), tight) == "a class has too few images"
