"""What a person at a terminal sees: progress on stderr, results on stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lurefs.ranks import ranks_of

if TYPE_CHECKING:
    from lurefs.learner import EpochRecord
    from lurefs.outcomes import ChunkOutcome

T = TypeVar("T")
B = TypeVar("B", bound=Sized)


def note(text: str) -> None:
    """Print one line to stderr."""
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)


def track(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Yield the items while a progress bar on stderr counts them; nothing is drawn where stderr is no terminal."""
    with _progress() as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task)


def track_blocks(blocks: Iterable[B], total: int, description: str) -> Iterator[B]:
    """Yield blocks of episodes while a progress bar on stderr counts the episodes in them."""
    with _progress() as progress:
        task = progress.add_task(description, total=total)
        for block in blocks:
            progress.advance(task, len(block))
            yield block


def track_learning(
    events: Iterable[EpochRecord | ChunkOutcome], n_chunks: int, first: int, description: str
) -> Iterator[ChunkOutcome]:
    """Yield the outcomes while a progress bar on stderr counts epochs, chunk by chunk."""
    from lurefs.outcomes import ChunkOutcome

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
    """Yield named results while stderr says a line about each, and shows how many there are still to come."""
    with _progress() as progress:
        task = progress.add_task("runs", total=total)
        for n_done, (name, result) in enumerate(results, start=1):
            progress.advance(task)
            progress.console.print(
                f"{n_done}/{total}  {name}: {words(result)}", markup=False, highlight=False, soft_wrap=True
            )
            yield name, result


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, is_wide: bool = False) -> None:
    """Print a table to stdout; the first column is text, the others are numbers.

    A wide one has no lines between its columns, and where it is too wide, the texts of the first are folded.
    """
    from rich.box import HEAVY_HEAD, SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    box = SIMPLE_HEAD if is_wide else HEAVY_HEAD
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box, collapse_padding=is_wide)
    overflow: Any = "fold" if is_wide else "ellipsis"
    for number, column in enumerate(columns):
        justify: Any = "right" if number else "left"
        table.add_column(column, justify=justify, no_wrap=(number == 0) != is_wide, overflow=overflow)
    for row in rows:
        table.add_row(*map(Text, row))  # names may hold what rich reads as markup
    _stdout().print(table)


def print_paths(paths: Sequence[tuple[str, Path]]) -> None:
    """Print what is where, one line each, to stdout; paths are not folded."""
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

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not Console(stderr=True).is_terminal or not ranks_of().is_first,
    )


def _stdout() -> Any:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)
