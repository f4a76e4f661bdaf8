"""Damage at random: to bytes, to nested values, to arrays and to Parquet files."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

EXTREMES: tuple[Any, ...] = (
    None, True, [], {}, "", "x", "\u202e", "a\x1b[31m", 0, -1, 1.5, 10**12, 2**63, 10**400, float("nan"), float("inf"),
    1e308, [None], [[]], {"x": {"y": []}}, "1e999", "~nosuchuser", "x" * 300,
)  # fmt: skip


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return bytes cut short, emptied, or with some of them flipped."""
    way = rng.randrange(4)
    if way == 0:
        return content[: rng.randrange(len(content) + 1)]
    if way == 1:
        return content[: len(content) // 2] + bytes(rng.randrange(256) for _ in range(64))
    flipped = bytearray(content)
    for _ in range(1 if way == 2 else 20):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def damaged_values(values: Any, rng: random.Random) -> tuple[Any, str]:
    """Return plain values with one entry dropped, renamed or replaced, and in words how."""
    changed = copy.deepcopy(values)
    found = list(places(changed))
    if not found or rng.random() < 0.05:
        value = rng.choice(EXTREMES)
        return value, f"all is {str(value)[:20]}"
    *above, last = rng.choice(found)
    inner = changed
    for key in above:
        inner = inner[key]
    way = rng.randrange(4)
    where = ".".join(map(str, [*above, last]))
    if way == 0:
        del inner[last]
        return changed, f"{where} dropped"
    if way == 1 and isinstance(inner, dict):
        inner[f"{last}_2"] = inner.pop(last)
        return changed, f"{where} renamed"
    inner[last] = rng.choice(EXTREMES)
    return changed, f"{where} is {str(inner[last])[:20]!r}"


def places(values: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every entry of nested mappings, and of lists with few entries."""
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in list(entries)[:30]:
        yield (*above, key)
        yield from places(value, (*above, key))


def change_metadata(path: Path, key: bytes, change: Callable[[bytes], bytes]) -> None:
    """Change one entry of the metadata of a Parquet file; a missing entry is `null`."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        table, metadata = file.read(), dict(file.metadata.metadata or {})
    metadata.pop(b"ARROW:schema", None)
    metadata[key] = change(metadata.get(key, b"null"))
    table = table.replace_schema_metadata(None)
    with pyarrow.parquet.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)


def damage_parquet(path: Path, rng: random.Random) -> str:
    """Damage a column or the metadata of a Parquet file; return in words how."""
    import pyarrow
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        table, metadata = file.read(), dict(file.metadata.metadata or {})
    metadata.pop(b"ARROW:schema", None)
    keys = [key for key, value in metadata.items() if value[:1] in (b"{", b"[")]
    way = rng.randrange(4)
    words = ""
    if way == 0 and keys:
        key = rng.choice(keys)
        values, words = damaged_values(json.loads(metadata[key]), rng)
        with contextlib.suppress(ValueError):
            metadata[key] = json.dumps(values).encode()
    elif way == 1:
        name = rng.choice(table.column_names)
        table, words = table.drop_columns([name]), f"column {name} dropped"
    elif way == 2:
        name = rng.choice(table.column_names)
        value: Any = rng.choice(("text", None, -1, 10**12, float("nan"), [[]], [None], [1]))
        column = pyarrow.array([value] * len(table))
        table = table.set_column(table.column_names.index(name), name, column)
        words = f"column {name} is {value}"
    else:
        table, words = table.slice(0, rng.randrange(len(table))), "fewer rows"
    table = table.replace_schema_metadata(None)
    with pyarrow.parquet.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)
    return words


def damage_array(path: Path, rng: random.Random) -> str:
    """Replace the content of a NumPy file; return in words how."""
    array = np.load(path)
    ways: dict[str, Callable[[], Any]] = {
        "zeros": lambda: array * 0,
        "complex": lambda: array.astype(complex),
        "whole numbers": lambda: array.astype(np.int64) + 10**9,
        "NaN": lambda: array * float("nan"),
        "fewer rows": lambda: array[:3],
        "flat": lambda: array.ravel(),
        "texts": lambda: array.astype(str),
        "another row": lambda: np.concatenate([array[1:], array[:1]]),
    }
    name = rng.choice(list(ways))
    np.save(path, ways[name]())
    return name
