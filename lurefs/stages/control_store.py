"""Results of controls that all runs of a machine share, in its cache: what no weights of a run change is scored once.

An entry holds the files of one probe on one benchmark. They are copied into a run's folder and checked there like
results of the run itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache as computed_once
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import episodes
from episodes.files import atomic_path
from lurefs import cache
from lurefs.stages import feature_store, store
from lurefs.stages.plan import ImageSet
from lurefs.stages.stage import Stage

KIND = "controls"
"""Kind of these entries of the cache."""


def key_of(stage: Stage, made_from: Mapping[str, Any], features: Mapping[str, tuple[ImageSet, Any]]) -> str | None:
    """Return the key of results, of all that they depend on to the last bit; None if they are not shared.

    Args:
        stage: The context.
        made_from: The episodes, the probe and its settings.
        features: By their role, the images whose features are used, and the identity of these features.
    """
    if not stage.uses_store:
        return None
    keys = {role: feature_store.key_of(stage, *described) for role, described in features.items()}
    if None in keys.values():
        return None
    versions = {name: version(name) for name in ("scikit-learn", "scipy")} | {"episodes": _source_digest()}
    machine = feature_store.machine_of(stage)  # features may not depend on the device, but scores do
    return cache.key_of({"made_from": dict(made_from), "features": keys, "versions": versions, "machine": machine})


def take(key: str, files: Sequence[Path]) -> bool:
    """Copy stored files to their places in a run's folder; return whether they were stored.

    Args:
        key: See `key_of`.
        files: The places of all files of the entry; their order tells them apart.
    """
    taken = store.take(KIND, key, [str(number) for number in range(len(files))])
    if taken is None:
        return False
    for path, content in zip(files, taken[0], strict=True):
        with atomic_path(path) as temporary:
            temporary.write_bytes(content.data)
    return True


def give(key: str, files: Sequence[Path], about: str) -> None:
    """Store files of a run for all runs of this machine, unless the cache cannot hold them.

    Args:
        key: See `key_of`.
        files: The files.
        about: What they hold, in words.
    """
    contents = {str(number): path.read_bytes() for number, path in enumerate(files)}
    writers = {name: partial(_write, content) for name, content in contents.items()}
    store.give(KIND, key, writers, about=about, n_bytes=sum(map(len, contents.values())), notes={})


def _write(content: bytes, output: store.Output) -> None:
    output.write(content)


@computed_once
def _source_digest() -> str:
    """Return a digest of the code that scores."""
    digest, folder = hashlib.sha256(), Path(episodes.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
