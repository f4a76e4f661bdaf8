"""Output to the terminal: progress on stderr, results on stdout."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lurefs.ranks import ranks_of

if TYPE_CHECKING:
    from lurefs.learning.learner import EpochRecord
    from lurefs.runs.outcomes import ChunkOutcome

T = TypeVar("T")
B = TypeVar("B", bound=Sized)
MIN_NAME = 12
"""Least width of a table's first column, in characters."""


def note(text: str) -> None:
    """Print one line to stderr."""
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)


@cache
def note_once(text: str) -> None:
    """Print one line to stderr, the first time in a process that it is to be printed."""
    note(text)


def track(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Yield the items while a progress bar counts them, on stderr if that is a terminal, or in a notebook."""
    with _progress() as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task)


def track_blocks(blocks: Iterable[B], total: int, description: str, *, count: Callable[[B], int] = len) -> Iterator[B]:
    """Yield blocks of episodes while a progress bar on stderr counts the episodes in them."""
    with _progress() as progress:
        task = progress.add_task(description, total=total)
        for block in blocks:
            progress.advance(task, count(block))
            yield block


def track_learning(
    events: Iterable[EpochRecord | ChunkOutcome], n_chunks: int, first: int, description: str
) -> Iterator[ChunkOutcome]:
    """Yield the outcomes of chunks while a progress bar on stderr counts the epochs of each chunk."""
    from lurefs.runs.outcomes import ChunkOutcome

    with _progress() as progress:
        task = progress.add_task(f"{description}: chunk {first + 1}/{n_chunks}", total=None)
        for event in events:
            if isinstance(event, ChunkOutcome):
                progress.stop()
                yield event
                progress.start()
            else:
                progress.update(
                    task,
                    description=f"{description}: chunk {event.chunk_index + 1}/{n_chunks}, "
                    f"loss {event.train_loss:.2f}, validation {event.val_accuracy:.1%}",
                    total=event.n_epochs,
                    completed=event.epoch + 1,
                )


def track_results(results: Iterable[tuple[str, T]], total: int, words: Callable[[T], str]) -> Iterator[tuple[str, T]]:
    """Yield named results; print a line per result to stderr, where a progress bar counts them."""
    with _progress() as progress:
        task = progress.add_task("runs", total=total)
        for n_done, (name, result) in enumerate(results, start=1):
            progress.advance(task)
            progress.console.print(
                f"{n_done}/{total}  {name}: {words(result)}", markup=False, highlight=False, soft_wrap=True
            )
            yield name, result


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, optional: Sequence[int] = ()
) -> None:
    """Print a table to stdout under its title; see `table_lines`."""
    from rich.text import Text

    console = _stdout()
    console.print(Text(title, style="bold"))
    for line in table_lines(columns, rows, optional=optional, width=console.width):
        console.print(Text(line), soft_wrap=True)  # names may look like rich's markup


def table_lines(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, optional: Sequence[int] = (), width: int
) -> list[str]:
    """Return the lines of a table; the first column is text, the others are numbers.

    If it is too wide, headers are folded, then columns are left out, then texts of the first column are folded.

    Args:
        columns: The headers.
        rows: One text per column.
        optional: Indices of the columns that may be left out, in this order.
        width: Characters per line.
    """
    kept, is_folded, waiting = list(range(len(columns))), False, list(optional)
    while _width(columns, rows, kept, is_folded=is_folded) > width and (waiting or not is_folded):
        if is_folded:
            kept.remove(waiting.pop(0))
        is_folded = True
    lines = list(_lines(columns, rows, kept, is_folded=is_folded, width=width))
    left_out = [column for number, column in enumerate(columns) if number not in kept]
    return lines + (textwrap.wrap(f"columns left out to fit: {', '.join(left_out)}", width) if left_out else [])


def width() -> int:
    """Return the width of stdout in characters: that of the terminal or COLUMNS, otherwise 200."""
    return int(_stdout().width)


def print_lines(lines: Sequence[str], *, is_folded: bool = True) -> None:
    """Print sentences to stdout, folded between words, or unfolded for commands."""
    console = _stdout()
    for line in lines:
        console.print(line, markup=False, emoji=False, soft_wrap=not is_folded)


def print_paths(paths: Sequence[tuple[str, Path]]) -> None:
    """Print labels and paths to stdout, one line each; long paths are not folded."""
    for label, path in paths:
        print(f"{label:<10} {path}")


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    has_bars = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not has_bars or not ranks_of().is_first,
    )


def _widths(
    columns: Sequence[str], rows: Sequence[Sequence[str]], kept: Sequence[int], *, is_folded: bool
) -> list[int]:
    from rich.cells import cell_len

    heads = [columns[number].split() if is_folded else [columns[number]] for number in kept]
    return [
        max(map(cell_len, [*head, *(row[number] for row in rows)])) for number, head in zip(kept, heads, strict=True)
    ]


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]], kept: Sequence[int], *, is_folded: bool) -> int:
    gap = 1 if is_folded else 2
    return sum(_widths(columns, rows, kept, is_folded=is_folded)) + gap * (len(kept) - 1)


def _lines(
    columns: Sequence[str], rows: Sequence[Sequence[str]], kept: Sequence[int], *, is_folded: bool, width: int
) -> Iterator[str]:
    """Yield the lines of a table: headers, a rule, rows; names are folded to the width that the numbers leave."""
    first, *others = _widths(columns, rows, kept, is_folded=is_folded)
    gap = " " if is_folded else "  "
    first = min(first, max(MIN_NAME, width - sum(others) - len(gap) * len(others)))

    def line(texts: Sequence[str]) -> str:
        name, *numbers = texts
        cells = [_padded(name, first), *(_padded(text, -n) for text, n in zip(numbers, others, strict=True))]
        return gap.join(cells).rstrip()

    heads = [columns[number].split() if is_folded else [columns[number]] for number in kept]
    for place in range(max(map(len, heads))):
        yield line([head[place] if place < len(head) else "" for head in heads])
    yield "─" * (first + sum(others) + len(gap) * len(others))
    for row in rows:
        for number, part in enumerate(_folded(row[0], first)):
            yield line([part, *("" if number else row[place] for place in kept[1:])])


def _folded(text: str, width: int) -> list[str]:
    """Return a text in lines of at most this width on the terminal, where some characters take two places."""
    from rich.cells import cell_len, chop_cells

    lines = textwrap.wrap(text, width) or [""]
    return [part for line in lines for part in ([line] if cell_len(line) <= width else chop_cells(line, width))]


def _padded(text: str, width: int) -> str:
    """Return a text padded with spaces to a width on the terminal: on the right, or on the left if it is negative."""
    from rich.cells import cell_len

    spaces = " " * (abs(width) - cell_len(text))
    return text + spaces if width > 0 else spaces + text


def _stdout() -> Any:
    """Return the console for stdout: as wide as the terminal or COLUMNS, otherwise 200 characters."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:  # rich exits with 1, as if the command had failed
            raise BrokenPipeError

    console = Output(highlight=False)
    return console if console.is_terminal or "COLUMNS" in os.environ else Output(highlight=False, width=200)
