"""The images that the report shows: samples of the classes, and one episode with what a probe made of it."""

from __future__ import annotations

import string
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from episodes.probes import Probe, converged
from episodes.sampler import Episode
from episodes.scoring import predict
from episodes.transforms import needs_reference
from lurefs import plugins
from lurefs.data.corruptions import corrupted_dataset
from lurefs.data.dataset import ImageArray, ImageDataset, IntArray
from lurefs.errors import UserError
from lurefs.reporting.comparison import Run
from lurefs.results import REFERENCE

MAX_CLASSES, MAX_IMAGES = 12, 5
MAX_WAY, MAX_SHOT, MAX_QUERY = 10, 5, 15
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
        query: (n, size, size, channels) uint8, what it was asked; the first `MAX_QUERY`.
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
        median_accuracy: Median accuracy over all episodes of the manifest, fraction.
        rows: One a class; at most `MAX_WAY`.
        n_right: Right answers in the whole episode.
        n_query: Queries in the whole episode.
        n_way: Classes in the whole episode.
        n_shot: Support images a class.
        is_ink: See `Strip`.
    """

    index: int
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
            images=read(_spread(np.flatnonzero(dataset.labels == label), MAX_IMAGES)),
            is_ink=is_ink,
        )
        for label in _spread(classes, MAX_CLASSES)
    ]


def typical_episode(run: Run, benchmark: str, probe_name: str, dataset: ImageDataset) -> EpisodeSheet:
    """Return the first of the episodes whose accuracy is nearest to the median, with the probe's answers.

    Raises:
        UserError: A file of the run is missing or damaged, or the data set has not the images that the run met.
    """
    corrupt = run.config.benchmarks[benchmark].corrupt
    bank_names = (benchmark, benchmark) if corrupt is None else corrupt.bank_names(benchmark)
    bank, query_bank = (run.directory.read_bank(name) for name in bank_names)
    manifest = run.directory.read_manifest(benchmark)
    accuracy = run.directory.read_episodes(benchmark, probe_name).accuracy
    index = int(np.abs(accuracy - np.median(accuracy)).argmin())
    episode = manifest[index]
    row_of = {image_id: row for row, image_id in enumerate(dataset.image_ids)}
    read, is_ink = _reader(dataset)
    read_corrupted = read
    if corrupt is not None:
        changed = corrupted_dataset(dataset, corruption=corrupt.corruption, severity=corrupt.severity)
        read_corrupted, _ = _reader(dataset, of=changed)

    def images(bank_rows: IntArray, bank_name: str) -> ImageArray:
        ids = [bank.image_ids[row] for row in bank_rows]
        if any(image_id not in row_of for image_id in ids):
            raise UserError(
                f"the data set {dataset.name} no longer has the images of {benchmark}",
                "the images that the run met",
                "give the run's own data back, or run again",
            )
        rows = np.array([row_of[image_id] for image_id in ids], dtype=np.int64)
        return read(rows) if bank_name == benchmark else read_corrupted(rows)

    predicted = _predict(run, probe_name, bank.features, query_bank.features, episode)
    n_way = len(episode.classes)
    support = [episode.support[episode.support_labels == way] for way in range(n_way)]
    query = [episode.query[episode.query_labels == way] for way in range(n_way)]
    answers = [predicted[episode.query_labels == way] for way in range(n_way)]
    letters = _letters(n_way)
    rows = tuple(
        EpisodeRow(
            letter=letters[way],
            class_name=bank.class_names[episode.classes[way]],
            support=images(support[way][:MAX_SHOT], bank_names[0]),
            query=images(query[way][:MAX_QUERY], bank_names[1]),
            taken_for=tuple("" if answer == way else letters[answer] for answer in answers[way][:MAX_QUERY]),
            n_right=int((answers[way] == way).sum()),
            n_query=len(query[way]),
        )
        for way in range(min(n_way, MAX_WAY))
    )
    return EpisodeSheet(
        index=index,
        median_accuracy=float(np.median(accuracy)),
        rows=rows,
        n_right=int((predicted == episode.query_labels).sum()),
        n_query=len(episode.query),
        n_way=n_way,
        n_shot=max(len(rows) for rows in support),
        is_ink=is_ink,
    )


def _predict(
    run: Run,
    probe_name: str,
    features: NDArray[np.float32],
    query_features: NDArray[np.float32],
    episode: Episode,
) -> IntArray:
    from threadpoolctl import threadpool_limits

    config = run.config.probes[probe_name]
    classifier = plugins.build("probe", config.name, config.params)
    probe = Probe(
        name=probe_name,
        classifier=converged(classifier) if config.solver == "auto" else classifier,
        transform=config.transform,
        reference=run.directory.read_bank(REFERENCE).features if needs_reference(config.transform) else None,
    )
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        # What did not converge is counted in the results.
        warnings.simplefilter("ignore")
        return predict(features, episode, probe, query_features=query_features)


def _reader(dataset: ImageDataset, *, of: ImageDataset | None = None) -> tuple[Callable[[IntArray], ImageArray], bool]:
    """Return what reads images as people draw, dark ink on light paper, and whether they are such drawings.

    Where `of` is given, it is read in place of the data set whose drawings are judged.
    """
    of = of or dataset
    median = float(np.median(dataset.read(_spread(np.arange(len(dataset)), 200))))
    if dataset.n_channels == 1 and median < DARK_PAPER:
        return lambda rows: (255 - of.read(rows)).astype(np.uint8), True
    return of.read, dataset.n_channels == 1 and median > 255 - DARK_PAPER


def _spread(values: IntArray, n_most: int) -> IntArray:
    """Return at most `n_most` of the values, at even distances."""
    places = np.linspace(0, len(values) - 1, min(n_most, len(values))).round().astype(np.int64)
    return values[places]


def _letters(n_way: int) -> list[str]:
    return list(string.ascii_uppercase[:n_way]) if n_way <= 26 else [str(way + 1) for way in range(n_way)]
