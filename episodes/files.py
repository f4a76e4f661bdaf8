"""Files: written as a whole, so that they are complete or absent even if the process is killed, and read in parts."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

FULL = 2**16
"""A disk with less free space, in bytes, is full: a write that failed has filled all but the rest of a block."""


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` when the block ends without an exception.

    The temporary file lies beside `path` and keeps its suffix, since some writers choose their format by it.

    Raises:
        OSError: The block failed because the disk is full, of which torch and NumPy do not say the reason.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except Exception as error:
        has_reason = isinstance(error, OSError) and error.errno is not None
        if not has_reason and shutil.disk_usage(path.parent).free < FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def release_pages(array: NDArray[Any]) -> None:
    """Let the system drop what was read of a file that is mapped into memory; it reads it again when it is needed.

    Such pages count as memory of this process. Other arrays, and maps that can be written, stay as they are.
    """
    mapped: Any = array
    while isinstance(mapped, np.ndarray) and getattr(mapped, "_mmap", None) is None:
        mapped = mapped.base
    if getattr(mapped, "mode", None) == "r" and hasattr(mmap, "MADV_DONTNEED"):
        mapped._mmap.madvise(mmap.MADV_DONTNEED)


def check_columns(table: pa.Table, path: Path | str, *, lists: Collection[str], integers: bool = False) -> None:
    """Refuse a Parquet table that has other columns than complete ones of numbers and, by name, of lists of numbers.

    Args:
        table: The table.
        path: Its file, for the message.
        lists: Names of the columns of lists.
        integers: Whether all numbers must be whole.

    Raises:
        ValueError: A column has another type, or empty values.
    """
    import pyarrow.types as of

    for name in table.column_names:
        column = table[name].combine_chunks()
        is_list = of.is_list(column.type) or of.is_large_list(column.type) or of.is_fixed_size_list(column.type)
        values = column.flatten() if is_list else column
        kinds = (of.is_integer,) if integers else (of.is_integer, of.is_floating, of.is_boolean)
        is_number = any(test(values.type) for test in kinds)
        if is_list != (name in lists) or not is_number:
            wanted = "lists of numbers" if name in lists else "numbers"
            raise ValueError(f"{path} has the type {column.type} in the column {name}, where it should have {wanted}")
        if column.null_count or values.null_count:
            raise ValueError(f"{path} has empty values in the column {name}")
