"""Images of a benchmark that base training saw, too, or that occur twice among its own: found before training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from episodes.files import write_text
from lurefs import console
from lurefs.comparing.data_words import duplicate_words
from lurefs.config.identity import digest
from lurefs.data.duplicates import Images, difference_hashes, near_twins, pixel_keys
from lurefs.records import from_mapping
from lurefs.runs.directory import damaged, read_json
from lurefs.runs.summary import DuplicateCounts
from lurefs.stages.features import as_needed, viewed
from lurefs.stages.plan import ImageSet
from lurefs.stages.stage import Stage, plan_backbone

MANY = 0.01
"""Share of a benchmark's images from which on its duplicates are told before training."""
N_EXAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """Images with what they are compared by.

    Attributes:
        ids: Their names.
        labels: Their classes.
        keys: See `pixel_keys`.
        hashes: See `difference_hashes`; of images that are not flat, and empty unless near duplicates are asked for.
        hashed: The places of the images that have a hash.
    """

    ids: Sequence[str]
    labels: IntArray
    keys: IntArray
    hashes: NDArray[np.uint64]
    hashed: IntArray


def find_duplicates(stage: Stage) -> dict[str, DuplicateCounts]:
    """Return the duplicates of each benchmark, and store them; stored ones of the same images are kept.

    Raises:
        UserError: The file that holds them is damaged.
    """
    plan, path, distance = stage.plan, stage.directory.duplicates_path, stage.plan.config.near_duplicates
    pools, dataset = {name: benchmark.images for name, benchmark in plan.benchmarks.items()}, plan.dataset
    if plan.config.brings_features:
        distance = None  # features have no gradients
    else:
        backbone = plan_backbone(plan)
        pools, dataset = (
            {name: as_needed(images, backbone) for name, images in pools.items()},
            viewed(dataset, backbone),
        )
    base_pixels = stage.directory.read_identity().get("base_pixels")
    made_from = digest([distance, base_pixels, {name: images.identity for name, images in pools.items()}])
    if path.is_file() and (stored := read_json(path)).get("made_from") == made_from:
        return _counts_in(stored, path)
    learned = np.concatenate([plan.images.train, plan.images.val])
    base = (dataset, learned)
    counts, examples = _count(base, plan.dataset.image_ids, pools, distance, has_base=not plan.config.frozen)
    content = {
        "made_from": made_from,
        "distance": distance,
        "benchmarks": {name: asdict(of_pool) for name, of_pool in counts.items()},
        "examples": examples,
    }
    write_text(path, json.dumps(content, indent=2) + "\n")
    return counts


def read_duplicates(stage: Stage) -> dict[str, DuplicateCounts]:
    """Return the stored duplicates, which are those of the stored features; find them if there are none.

    Raises:
        UserError: The file that holds them is damaged.
    """
    path, config = stage.directory.duplicates_path, stage.plan.config
    stored = read_json(path) if path.is_file() else {}
    is_valid = stored.get("distance", -1) == config.near_duplicates and stored.get("benchmarks", {}).keys() == (
        config.benchmarks.keys()
    )
    return _counts_in(stored, path) if is_valid else find_duplicates(stage)


def tell_duplicates(stage: Stage) -> None:
    """Find the duplicates, and warn on stderr of benchmarks that have many.

    Raises:
        UserError: The file that holds them is damaged.
    """
    said: dict[str, list[str]] = {}
    for name, counts in find_duplicates(stage).items():
        if counts.share >= MANY:
            said.setdefault(duplicate_words(counts), []).append(name)
    for words, names in said.items():
        examples = read_json(stage.directory.duplicates_path)["examples"][names[0]]
        shown = f", e.g. {' and '.join(examples[0])}" if examples else ""
        console.note(
            f"warning: {', '.join(names)}: {words}{shown}; accuracies may be too high. "
            f"{stage.directory.duplicates_path} names more"
        )


def _counts_in(stored: Mapping[str, Any], path: Path) -> dict[str, DuplicateCounts]:
    try:
        return {name: from_mapping(DuplicateCounts, counts) for name, counts in stored["benchmarks"].items()}
    except (KeyError, AttributeError) as error:
        raise damaged(path, str(error)) from error


def _count(
    base: Images, base_ids: Sequence[str], pools: Mapping[str, ImageSet], distance: int | None, *, has_base: bool
) -> tuple[dict[str, DuplicateCounts], dict[str, list[list[str]]]]:
    """Return the counts and examples of each benchmark; pools of the same images are compared once."""
    distinct = {digest(images.identity): images for images in pools.values()}
    rows = base[1] if has_base else np.empty(0, np.int64)
    parts: list[Images] = [(base[0], rows), *((images.dataset, images.rows) for images in distinct.values())]
    keys = pixel_keys(parts)
    ids = [base_ids[row] for row in rows]
    of_base = _prepared(parts[0], ids, base[0].labels[rows], keys[0], distance) if has_base else None
    found = {}
    for (key, images), part, own in zip(distinct.items(), parts[1:], keys[1:], strict=True):
        pool = _prepared(part, images.image_ids, images.labels, own, distance)
        found[key] = _compare(pool, of_base, distance)
    of_name = {name: found[digest(images.identity)] for name, images in pools.items()}
    counts = {name: counted for name, (counted, _) in of_name.items()}
    return counts, {name: examples for name, (_, examples) in of_name.items()}


def _prepared(images: Images, ids: Sequence[str], labels: IntArray, keys: IntArray, distance: int | None) -> _Prepared:
    hashes, is_flat = (np.empty(0, np.uint64), np.ones(0, bool)) if distance is None else difference_hashes(*images)
    rough = np.flatnonzero(~is_flat)
    return _Prepared(ids=ids, labels=labels, keys=keys, hashes=hashes[rough], hashed=rough)


def _compare(pool: _Prepared, base: _Prepared | None, distance: int | None) -> tuple[DuplicateCounts, list[list[str]]]:
    """Return the counts of a pool, and the names of some pairs."""
    others = [pool] if base is None else [base, pool]
    exact = [_equal_places(pool, other) for other in others]
    near = (
        exact
        if distance is None
        else [
            np.where(same >= 0, same, _near_places(pool, other, distance))
            for other, same in zip(others, exact, strict=True)
        ]
    )
    n_exact, n_near = ([int((twins >= 0).sum()) for twins in found] for found in (exact, near))
    known = distance is not None
    examples = [
        [pool.ids[int(place)], other.ids[int(twins[place])]]
        for found in (exact, near)
        for other, twins in zip(others, found, strict=True)
        for place in np.flatnonzero(twins >= 0)[:N_EXAMPLES]
    ]
    counts = DuplicateCounts(
        n_images=len(pool.keys),
        in_base=None if base is None else n_exact[0],
        in_pool=n_exact[-1],
        in_other_class=_n_in_other_class(pool),
        distance=distance,
        near_in_base=n_near[0] if known and base is not None else None,
        near_in_pool=n_near[-1] if known else None,
    )
    return counts, [list(pair) for pair in dict.fromkeys(map(tuple, examples))][:N_EXAMPLES]


def _equal_places(pool: _Prepared, other: _Prepared) -> IntArray:
    """Return for each image the first other place with equal pixels, or -1; an image does not find itself."""
    twins = np.full(len(pool.keys), -1)
    order = np.argsort(other.keys, kind="stable")
    first = np.searchsorted(other.keys, pool.keys, sorter=order)
    last = np.searchsorted(other.keys, pool.keys, side="right", sorter=order)
    has = first < last
    twins[has] = order[first[has]]
    if other is pool:  # the second for the first one, and none for those that are alone
        is_first = twins == np.arange(len(twins))
        twins[is_first] = -1
        has_second = is_first & (last - first > 1)
        twins[has_second] = order[first[has_second] + 1]
    return twins


def _near_places(pool: _Prepared, other: _Prepared, distance: int) -> IntArray:
    twins = np.full(len(pool.keys), -1)
    found = near_twins(pool.hashes, other.hashes, distance)
    places = pool.hashed[found >= 0]
    twins[places] = other.hashed[found[found >= 0]]
    return twins


def _n_in_other_class(pool: _Prepared) -> int:
    """Return the number of images whose pixels an image of another class has."""
    _, inverse = np.unique(pool.keys, return_inverse=True)
    of_classes = np.unique(np.stack([inverse, pool.labels]), axis=1)[0]
    return int((np.bincount(of_classes)[inverse] > 1).sum())
