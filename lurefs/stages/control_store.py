"""Results of controls that all runs of a machine share, in its cache: what no weights of a run change is scored once.

An entry holds the files of one probe on one benchmark, and a card with their checksums, which is written last. They are
copied into a run's folder and checked there like results of the run itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from functools import cache as computed_once
from importlib.metadata import version
from pathlib import Path
from typing import Any

import episodes
from episodes.files import atomic_path, write_text
from lurefs import cache, console
from lurefs.stages import feature_store
from lurefs.stages.plan import ImageSet
from lurefs.stages.stage import Stage

KIND = "controls"
"""Kind of these entries of the cache."""
_CARD = "card.json"


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
    return cache.key_of({"made_from": dict(made_from), "features": keys, "versions": versions})


def take(key: str, files: Sequence[Path]) -> bool:
    """Copy stored files to their places in a run's folder; return whether they were stored.

    Args:
        key: See `key_of`.
        files: The places of all files of the entry; their order tells them apart.
    """
    try:
        with cache.found(KIND, key) as folder:
            if folder is None or not (folder / _CARD).is_file():
                return False
            contents = [(folder / str(number)).read_bytes() for number in range(len(files))]
            card = json.loads((folder / _CARD).read_bytes())
        if card["crc32"] != [zlib.crc32(content) for content in contents]:
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    for path, content in zip(files, contents, strict=True):
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return True


def give(key: str, files: Sequence[Path], about: str) -> None:
    """Store files of a run for all runs of this machine, unless the cache cannot hold them.

    Args:
        key: See `key_of`.
        files: The files.
        about: What they hold, in words.
    """
    if cache.bound() == 0:
        return
    contents = [path.read_bytes() for path in files]
    try:
        with cache.opened(KIND, key, about=about, n_bytes=sum(map(len, contents))) as (folder, in_use):
            pass
        try:
            for number, content in enumerate(contents):
                with atomic_path(folder / str(number)) as temporary:
                    temporary.write_bytes(content)
            write_text(folder / _CARD, json.dumps({"crc32": [zlib.crc32(content) for content in contents]}))
        finally:
            os.close(in_use)
    except (cache.NoCacheError, OSError) as error:
        reason = str(error) if isinstance(error, cache.NoCacheError) else cache.unusable(error)
        console.note_once(f"{reason}; {cache.WITHOUT}")


@computed_once
def _source_digest() -> str:
    """Return a digest of the code that scores."""
    digest, folder = hashlib.sha256(), Path(episodes.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
