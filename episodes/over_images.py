"""Error of a mean over episodes as an estimate for other images of the same classes.

All episodes draw from the same images, as support and as queries, so the mean is that of these images. The error over
episodes does not see how it would move with others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import FloatArray, IntArray
from episodes.intervals import student_quantile
from episodes.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class ImageError:
    """Error of a mean over episodes for other images of the same classes.

    Attributes:
        images: Square of the part that is due to the images; zero if chance makes it negative.
        episodes: Square of the part that is due to single episodes.
        freedom: Number of images less the number of classes.
    """

    images: float
    episodes: float
    freedom: int

    @property
    def half_width(self) -> float:
        """Half width of the 95 % interval."""
        return float(student_quantile(self.freedom) * np.sqrt(self.images + self.episodes))


def correct_answers(predicted: NDArray[np.int16], manifest: Manifest) -> FloatArray:
    """Return (number of all queries,) 1 for a correct answer and 0 for a wrong one, in the manifest's order.

    Args:
        predicted: (n_episodes, n_query), see `EpisodeTable.predicted`.
        manifest: A uniform one with these episodes.
    """
    labels = np.repeat(np.arange(manifest.spec.n_way), manifest.spec.n_query)
    correct: FloatArray = (predicted == labels).astype(np.float64).reshape(-1)
    return correct


def error_over_images(correct: FloatArray, manifest: Manifest) -> ImageError | str:
    """Return the error of the mean over episodes for other images of the same classes, or why there is none.

    It is the jackknife that leaves out one image of a class at a time (Efron and Stein 1981), from stored answers. For
    n images of a class, K shots and N ways, the mean over the episodes with that class moves without image i by
    -K / (n - K) u_i - w y_i with w = 1 / (N (n - K - 1)). Here u_i is how much higher an episode's accuracy plus w N
    times that on the class is with i as support, and y_i how much more often i is answered correctly as a query. Few
    episodes share an image, so u_i and y_i are mostly noise. Their squares and product are therefore estimated from
    pairs of different episodes that share the image, compared with all pairs that share the class; in both the noise
    of single episodes has the expectation zero.

    Args:
        correct: (number of all queries,) see `correct_answers`; a mean of several models, or a difference of two.
        manifest: The episodes.
    """
    spec = manifest.spec
    if manifest.n_ways is not None:
        return "the episodes differ in their numbers of classes or images"
    shape = (len(manifest), spec.n_way)
    queries = np.asarray(correct, dtype=np.float64).reshape(*shape, spec.n_query)
    accuracy = queries.mean(axis=(1, 2))
    support, query = manifest.support.reshape(*shape, spec.n_shot), manifest.query.reshape(*shape, spec.n_query)
    images, freedom = 0.0, 0
    for label in np.unique(manifest.classes):
        episodes, places = np.nonzero(manifest.classes == label)
        if len(episodes) < 2:
            return "a class is in fewer than two episodes"
        of_class = _of_class(
            accuracy[episodes],
            queries[episodes, places],
            support[episodes, places],
            query[episodes, places],
            spec.n_way,
        )
        if of_class is None:
            return "a class has too few images"
        variance, n_images = of_class
        images += (len(episodes) / len(manifest)) ** 2 * variance
        freedom += n_images - 1
    return ImageError(images=max(images, 0.0), episodes=float(accuracy.var(ddof=1)) / len(manifest), freedom=freedom)


def _of_class(
    accuracy: FloatArray, correct: FloatArray, support: IntArray, query: IntArray, n_way: int
) -> tuple[float, int] | None:
    """Return the variance of the mean over a class's episodes that is due to its images, and their number.

    None if there are too few images to leave one out.

    Args:
        accuracy: (n_episodes,) of each episode with the class.
        correct: (n_episodes, n_query) answers to the queries of the class.
        support: (n_episodes, n_shot) rows of its support images.
        query: (n_episodes, n_query) rows of its queries.
        n_way: Number of classes in an episode.
    """
    rows, places = np.unique(np.concatenate([support.ravel(), query.ravel()]), return_inverse=True)
    n, (n_episodes, shots) = len(rows), support.shape
    if n - shots < 2:
        return None
    as_support, as_query = places[: support.size], places[support.size :]
    weight = 1 / (n_way * (n - shots - 1))
    of_query = correct - correct.mean()
    of_episode = accuracy + weight * correct.mean(axis=1)
    of_episode -= of_episode.mean()
    by_support = np.bincount(as_support, weights=np.repeat(of_episode, shots), minlength=n)
    by_query = np.bincount(as_query, weights=of_query.ravel(), minlength=n)
    n_support, n_query = np.bincount(as_support, minlength=n), np.bincount(as_query, minlength=n)
    sums = of_query.sum(axis=1)
    share = shots / n

    # Two episodes share m support images; m has the mean K^2 / n and this variance.
    spread = shots * share * (1 - share) * (n - shots) / (n - 1)
    same_support = float(np.square(by_support).sum()) - shots * (1 - share) * float(np.square(of_episode).sum())
    as_support_squared = same_support / (n_episodes * (n_episodes - 1) * spread * n / (n - 1))
    same_query = float(np.square(by_query).sum()) - float(np.square(of_query).sum()) + float(np.square(sums).sum()) / n
    as_query_squared = same_query / max(float((n_query * (n_query - 1)).sum()), 1.0)
    same_both = float(by_support @ by_query) + share * float(of_episode @ sums)
    both = same_both / max(float(n_support @ n_query), 1.0)
    variance = (shots / (n - 1)) ** 2 * as_support_squared + weight**2 * as_query_squared
    return (n - 1) * (variance + 2 * shots / (n - shots) * weight * both), n
