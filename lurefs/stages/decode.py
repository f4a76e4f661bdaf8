"""Decoding of all images that a run will use, each once, before anything is learned; damaged ones are found here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from episodes.arrays import IntArray
from lurefs import cache, console, plugins
from lurefs.config.fields import PluginConfig
from lurefs.config.schema import RunConfig
from lurefs.data.dataset import ImageDataset
from lurefs.data.decoded import DecodedImages, Decoding, stored
from lurefs.data.pixels import REPLACE
from lurefs.errors import UserError

AT_ONCE = 32
"""Images that a worker process decodes at a time."""
N_NAMED = 10
"""Most damaged images that a message names."""
SKIP = "skip"


def open_dataset(part: PluginConfig, config: RunConfig) -> ImageDataset:
    """Build a data set of a run, with its images decoded once; if the run skips damaged images, it is without them.

    Raises:
        UserError: The data cannot be read, or all images of a class are damaged.
    """
    dataset = stored(plugins.build("dataset", part.name, part.params))
    if dataset.decoded is None or config.on_bad_image != SKIP:
        return dataset
    found = _fill(dataset.decoded, np.arange(len(dataset)), config.learner.n_workers)
    if not found:
        return dataset
    damages = {dataset.image_ids[row]: each.damage for row, each in found.items()}
    whole = dataset.decoded.without(np.array(list(found)))
    empty = [whole.class_names[label] for label in np.flatnonzero(whole.n_per_class == 0)]
    if empty:
        raise UserError(
            f"all images of class {empty[0]!r} are damaged:{_listed(damages)}",
            "at least one image that can be read in each class",
            "replace the files, or delete the class",
        )
    console.note_once(
        f"{len(damages)} of {len(dataset):,} images of {dataset.name} cannot be read and are left out:"
        f"{_listed(damages)}"
    )
    return whole


def decode(wanted: Iterable[tuple[ImageDataset, IntArray]], n_workers: int) -> None:
    """Decode the images of some rows of data sets, unless they are stored.

    Args:
        wanted: Data sets, and rows of them.
        n_workers: Number of processes that decode; 0 for this one.

    Raises:
        UserError: Images are damaged; it names the first of them, and says how many there are.
    """
    rows_of: dict[int, tuple[ImageDataset, list[IntArray]]] = {}
    for dataset, rows in wanted:
        rows_of.setdefault(id(dataset.decoded), (dataset, []))[1].append(rows)
    damages: dict[str, str] = {}
    fixes: dict[str, None] = {}
    n_images = 0
    for dataset, parts in rows_of.values():
        if dataset.decoded is not None:
            rows = np.unique(np.concatenate(parts))
            found = _fill(dataset.decoded, rows, n_workers)
            damages |= {dataset.image_ids[row]: each.damage for row, each in found.items()}
            fixes |= dict.fromkeys(each.fix for each in found.values() if each.fix != REPLACE)
            n_images = max(n_images, len(rows))
    if damages:
        raise UserError(
            f"{len(damages)} of {n_images:,} images cannot be read:{_listed(damages)}",
            "images that can be read",
            ", or ".join([*fixes, "replace or delete these files, or leave them out with on_bad_image=skip"]),
        )


def _fill(decoded: DecodedImages, rows: IntArray, n_workers: int) -> dict[int, Decoding]:
    """Decode the images that are not stored; return why some cannot be read, by row."""
    if not len(decoded.missing(rows)):
        return {}
    if decoded.is_being_filled():
        console.note("another process is decoding the same images; waiting for it")
    with decoded.filling():
        missing = decoded.missing(rows)
        parts = [missing[start : start + AT_ONCE] for start in range(0, len(missing), AT_ONCE)]
        blocks = _decode_parts(decoded, parts, n_workers if len(parts) > 1 else 0)
        description = f"decoding {decoded.source.name} at {decoded.source.image_size} pixels"
        tracked = console.track_blocks(blocks, len(missing), description)
        damages, unstored = {}, ""
        for row, each in zip(missing, chain.from_iterable(tracked), strict=True):
            unstored = each.unstored or unstored
            if each.damage:
                damages[int(row)] = each
    if unstored:
        console.note_once(f"{unstored}; {cache.WITHOUT}")
    return damages


def _decode_parts(decoded: DecodedImages, parts: Sequence[IntArray], n_workers: int) -> Iterator[list[Decoding]]:
    if n_workers == 0:
        return map(decoded.decode, parts)
    from lurefs.learning.images import read_ahead  # loads torch

    return read_ahead(decoded.decode, parts, n_workers)


def _listed(damages: Mapping[str, str]) -> str:
    """Return the first damaged images with the reasons, one line each."""
    lines = [
        f"\n    {damage if image_id in damage else f'{image_id}: {damage}'}"
        for image_id, damage in list(damages.items())[:N_NAMED]
    ]
    n_more = len(damages) - len(lines)
    return "".join(lines) + (f"\n    and {n_more:,} more" if n_more else "")
