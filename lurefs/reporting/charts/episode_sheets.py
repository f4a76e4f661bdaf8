"""The images that the report shows: samples of the classes, and episodes with what a probe made of them."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from episodes.arrays import IntArray
from lurefs.comparing.answers import Answers
from lurefs.data.corruptions import corrupted_dataset
from lurefs.data.dataset import ImageArray, ImageDataset
from lurefs.errors import UserError

MAX_CLASSES, MAX_IMAGES = 12, 5
MAX_WAY, MAX_SHOT, MAX_QUERY = 10, 5, 15
N_HARDEST = 3
DARK_PAPER = 64


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Images of one class.

    Attributes:
        class_name: Its name.
        images: (n, size, size, channels) uint8 as people see them.
        is_ink: Whether they are grey ink on light paper, so that a dark page may turn them round.
    """

    class_name: str
    images: ImageArray
    is_ink: bool


@dataclass(frozen=True, kw_only=True)
class EpisodeRow:
    """One class of an episode.

    Attributes:
        letter: What the class is called in the marks.
        class_name: Its name.
        support: (n, size, size, channels) uint8, what the probe learned from.
        query: (n, size, size, channels) uint8, what it was asked, or of that what was named wrongly; the first
            `MAX_QUERY`.
        taken_for: Of each of these queries the letter of the predicted class; "" where it is right.
        n_right: How many of all queries of the class are right.
        n_query: How many there are.
    """

    letter: str
    class_name: str
    support: ImageArray
    query: ImageArray
    taken_for: tuple[str, ...]
    n_right: int
    n_query: int


@dataclass(frozen=True, kw_only=True)
class EpisodeSheet:
    """One episode, by one probe on the features of one run.

    Attributes:
        index: Its number in the manifest, from 0.
        only_wrong: Whether only queries that were named wrongly are shown.
        median_accuracy: Median accuracy over all episodes of the manifest, fraction.
        rows: One a class; at most `MAX_WAY`.
        n_right: Right answers in the whole episode.
        n_query: Queries in the whole episode.
        n_way: Classes in the whole episode.
        n_shot: Support images a class.
        is_ink: See `Strip`.
    """

    index: int
    only_wrong: bool
    median_accuracy: float
    rows: tuple[EpisodeRow, ...]
    n_right: int
    n_query: int
    n_way: int
    n_shot: int
    is_ink: bool


def sample_strips(dataset: ImageDataset, classes: IntArray) -> list[Strip]:
    """Return up to `MAX_IMAGES` images of up to `MAX_CLASSES` of the classes, spread evenly over each."""
    read, is_ink = _reader(dataset)
    return [
        Strip(
            class_name=dataset.class_names[label],
            images=read(spread(np.flatnonzero(dataset.labels == label), MAX_IMAGES)),
            is_ink=is_ink,
        )
        for label in spread(classes, MAX_CLASSES)
    ]


def typical_episode(answers: Answers) -> int:
    """Return the first of the episodes whose accuracy is nearest to the median."""
    return int(np.abs(answers.accuracy - np.median(answers.accuracy)).argmin())


def hardest_episodes(answers: Answers) -> list[int]:
    """Return the `N_HARDEST` episodes of the lowest accuracy, the lowest first, of equals the first; none at 100 %."""
    lowest = np.argsort(answers.accuracy, kind="stable")[:N_HARDEST]
    return [int(index) for index in lowest if answers.accuracy[index] < 1]


def draw_episodes(
    answers: Answers, indices: Sequence[int], dataset: ImageDataset, *, only_wrong: bool
) -> list[EpisodeSheet]:
    """Return episodes with their images and what each query was taken for.

    Args:
        answers: Whose answers.
        indices: Which episodes.
        dataset: Where their images are read.
        only_wrong: Whether only queries that were named wrongly are shown.

    Raises:
        UserError: The data set has not the images that the run met.
    """
    readers = _episode_readers(answers, dataset)
    return [_draw_episode(answers, index, readers, only_wrong) for index in indices]


_Read = Callable[[IntArray], ImageArray]


@dataclass(frozen=True, kw_only=True)
class _Readers:
    """What reads images by rows of the manifest."""

    support: _Read
    query: _Read
    is_ink: bool


def _draw_episode(answers: Answers, index: int, readers: _Readers, only_wrong: bool) -> EpisodeSheet:
    episode = answers.manifest[index]
    predicted = answers.predicted[index][: len(episode.query)].astype(np.int64)
    n_way = len(episode.classes)
    letters = _letters(n_way)

    def row(way: int) -> EpisodeRow:
        support = episode.support[episode.support_labels == way]
        is_asked = episode.query_labels == way
        shown = np.flatnonzero(is_asked & (predicted != way) if only_wrong else is_asked)[:MAX_QUERY]
        return EpisodeRow(
            letter=letters[way],
            class_name=answers.images.class_names[episode.classes[way]],
            support=readers.support(support[:MAX_SHOT]),
            query=readers.query(episode.query[shown]),
            taken_for=tuple("" if answer == way else letters[answer] for answer in predicted[shown]),
            n_right=int((predicted[is_asked] == way).sum()),
            n_query=int(is_asked.sum()),
        )

    return EpisodeSheet(
        index=index,
        only_wrong=only_wrong,
        median_accuracy=float(np.median(answers.accuracy)),
        rows=tuple(row(way) for way in range(min(n_way, MAX_WAY))),
        n_right=int((predicted == episode.query_labels).sum()),
        n_query=len(episode.query),
        n_way=n_way,
        n_shot=int(np.bincount(episode.support_labels).max()),
        is_ink=readers.is_ink,
    )


def _episode_readers(answers: Answers, dataset: ImageDataset) -> _Readers:
    corrupt = answers.run.config.benchmarks[answers.benchmark].corrupt
    row_of = {image_id: row for row, image_id in enumerate(dataset.image_ids)}
    plain, is_ink = _reader(dataset)
    corrupted = plain
    if corrupt is not None:
        changed = corrupted_dataset(dataset, corruption=corrupt.corruption, severity=corrupt.severity)
        corrupted, _ = _reader(dataset, of=changed)

    def by_row(read: _Read, rows: IntArray) -> ImageArray:
        ids = [answers.images.image_ids[row] for row in rows]
        if any(image_id not in row_of for image_id in ids):
            raise UserError(
                f"the data set {dataset.name} no longer has the images of {answers.benchmark}",
                "the images that the run met",
                "give the run's own data back, or run again",
            )
        if not ids:
            return np.zeros((0, dataset.image_size, dataset.image_size, dataset.n_channels), dtype=np.uint8)
        return read(np.array([row_of[image_id] for image_id in ids], dtype=np.int64))

    changes = corrupt.images if corrupt is not None else "none"
    return _Readers(
        support=partial(by_row, corrupted if changes in ("support", "both") else plain),
        query=partial(by_row, corrupted if changes in ("query", "both") else plain),
        is_ink=is_ink,
    )


def _reader(dataset: ImageDataset, *, of: ImageDataset | None = None) -> tuple[Callable[[IntArray], ImageArray], bool]:
    """Return what reads images as people draw, dark ink on light paper, and whether they are such drawings.

    Where `of` is given, it is read in place of the data set whose drawings are judged.
    """
    of = of or dataset
    median = float(np.median(dataset.read(spread(np.arange(len(dataset)), 200))))
    if dataset.n_channels == 1 and median < DARK_PAPER:
        return lambda rows: (255 - of.read(rows)).astype(np.uint8), True
    return of.read, dataset.n_channels == 1 and median > 255 - DARK_PAPER


def spread(values: IntArray, n_most: int) -> IntArray:
    """Return at most `n_most` of the values, at even distances."""
    places = np.linspace(0, len(values) - 1, min(n_most, len(values))).round().astype(np.int64)
    return values[places]


def _letters(n_way: int) -> list[str]:
    return list(string.ascii_uppercase[:n_way]) if n_way <= 26 else [str(way + 1) for way in range(n_way)]
