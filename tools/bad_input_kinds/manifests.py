"""Files of episodes that no draw gives, or that are damaged."""

from __future__ import annotations

import base64
import json
import random
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bad_input_kinds.damage import change_metadata, damage_parquet, damaged_bytes
from bad_input_kinds.worlds import Case, World


def bad_manifests(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield episodes with a right hash that no draw gives: each must be refused."""
    from episodes.manifest import Manifest

    manifest = Manifest.load(world.manifest)

    def changed(**arrays: Any) -> Callable[[Path], None]:
        return lambda path: replace(manifest, **arrays).save(path)

    def at(array: Any, value: int) -> Any:
        copied = array.copy()
        copied[rng.randrange(len(copied)), 0] = value
        return copied

    other_class = manifest.support.copy()
    other_class[0] = np.roll(other_class[0], 1)
    twice = manifest.classes.copy()
    twice[0, 1] = twice[0, 0]
    changes = {
        "support among the queries": changed(query=np.hstack([manifest.support[:, :1], manifest.query[:, 1:]])),
        "a negative row": changed(support=at(manifest.support, -1)),
        "a row that is too large": changed(query=at(manifest.query, 10**6)),
        "one class twice": changed(classes=twice),
        "a class that does not exist": changed(classes=at(manifest.classes, 99)),
        "a negative class": changed(classes=at(manifest.classes, -2)),
        "support of other classes": changed(support=other_class),
        "one query twice": changed(query=np.hstack([manifest.query[:, 1:2], manifest.query[:, 1:]])),
    }
    cards: dict[str, Callable[[dict[str, Any]], Any]] = {
        "a card that is a list": lambda card: [card],
        "a card that is null": lambda card: None,
        "a key of a newer version": lambda card: card | {"spec": card["spec"] | {"weather": "fine"}},
        "a spec that is a list": lambda card: card | {"spec": []},
        "a seed in words": lambda card: card | {"seed": "one"},
        "a hash that is a number": lambda card: card | {"hash": 7},
        "10^12 episodes": lambda card: card | {"spec": card["spec"] | {"n_episodes": 10**12}},
        "half an episode": lambda card: card | {"spec": card["spec"] | {"n_episodes": 9.5}},
        "shots in words": lambda card: card | {"spec": card["spec"] | {"n_shot": "one"}},
        "a seed of 5,000 digits": lambda card: card | {"seed": 10**4000},
        "no images digest": lambda card: {key: value for key, value in card.items() if key != "images_digest"},
    }
    for name, write in changes.items():
        path = world.fresh("episodes.parquet")
        try:
            write(path)
        except IndexError:
            continue
        yield _manifest_case(world, name, path)
    for name, change in cards.items():
        path = world.fresh("episodes.parquet")
        shutil.copy(world.manifest, path)
        change_metadata(path, b"manifest", partial(_changed_card, change))
        yield _manifest_case(world, name, path)
    for name, text in {
        "names that are no base64": b"!!!", "names that are no zlib": b"AAAA", "names that expand": _bomb(),
        "names of another form": _packed([1, 2]), "labels in words": _packed([["a"], ["b"], ["c"]]),
        "labels out of range": _packed([[5], ["b"], ["c"]]), "no names": b"",
    }.items():  # fmt: skip
        path = world.fresh("episodes.parquet")
        shutil.copy(world.manifest, path)
        change_metadata(path, b"images", partial(_replaced, text))
        yield _manifest_case(world, name, path)
    while True:
        path = world.fresh("episodes.parquet")
        shutil.copy(world.manifest, path)
        if rng.random() < 0.6:
            words = damage_parquet(path, rng)
        else:
            path.write_bytes(damaged_bytes(path.read_bytes(), rng))
            words = "bytes"
        case = _manifest_case(world, words, path)
        yield replace(case, is_meaningless=False)


def _manifest_case(world: World, name: str, path: Path) -> Case:
    shape = {"n_way": 3, "n_shot": 1, "n_query": 3, "n_episodes": 10, "manifest": str(path)}
    return Case(name=name, commands=[world.dry_run({"benchmarks": {"novel": shape}})], is_meaningless=True)


def _changed_card(change: Callable[[dict[str, Any]], Any], text: bytes) -> bytes:
    return json.dumps(change(json.loads(text))).encode()


def _replaced(text: bytes, _: bytes) -> bytes:
    return text


def _packed(values: Any) -> bytes:
    return base64.b64encode(zlib.compress(json.dumps(values).encode()))


def _bomb() -> bytes:
    packer = zlib.compressobj(9)
    parts = [packer.compress(b'"' + b"a" * 2**20) for _ in range(1500)]
    return base64.b64encode(b"".join(parts) + packer.flush())
