"""The command `lurefs compare`: finished runs side by side, as tables on the terminal, as files, and as a page."""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lurefs import console
from lurefs.errors import UserError, unknown_name
from lurefs.runs.directory import RunDirectory
from lurefs.runs.find import find_runs

if TYPE_CHECKING:
    from lurefs.comparing.finished_runs import Run
    from lurefs.comparing.standings import Standings

N_NAMED = 3


def add_parser(commands: Any) -> None:
    """Add the command `compare` to an argument parser's commands."""
    text = "Compare finished runs on the same episodes: differences with intervals, ties, and what each run costs."
    parser = commands.add_parser("compare", help="finished runs side by side, and what each costs", description=text)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run, a folder of runs, a pattern, or a run's name")
    parser.add_argument("--reference", metavar="NAME", help="the run that the others are compared with")
    parser.add_argument("--benchmark", metavar="NAME", help="only this one (default: all)")
    parser.add_argument("--probe", metavar="NAME", help="only this one (default: all)")
    parser.add_argument(
        "--common-episodes", action="store_true", help="compare on the first episodes that all runs share"
    )
    parser.add_argument("--skip-unfinished", action="store_true", help="leave out runs that are not evaluated yet")
    parser.add_argument(
        "--over", choices=("images",), help="also intervals on other images of the same classes, from stored answers"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: comparisons/<names of the runs>")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare runs: print the tables, write the files and the page; return the exit code.

    Raises:
        UserError: A run cannot be found or is unfinished, the runs were scored on different episodes, or the output is
            the folder of a run.
    """
    runs = comparable_runs(
        find_runs(arguments.runs),
        reference=arguments.reference,
        benchmark=arguments.benchmark,
        probe=arguments.probe,
        common_episodes=arguments.common_episodes,
        skip_unfinished=arguments.skip_unfinished,
    )
    output = arguments.output or Path("comparisons") / _folder_name(runs)
    if RunDirectory(output).config_path.is_file():
        raise UserError(
            f"--output is {output}, the folder of a run, whose page would be replaced",
            "a folder of its own for the comparison",
            "give another --output, or leave it out",
        )
    chosen = {"benchmark": arguments.benchmark, "probe": arguments.probe}
    paths = write_comparison(runs, output, **chosen, is_over_images=arguments.over == "images")
    _print_what_can_be_shown(runs, arguments.benchmark, arguments.probe)
    console.print_paths(paths)
    return 0


def write_comparison(
    runs: Sequence[Run],
    output: Path,
    *,
    benchmark: str | None = None,
    probe: str | None = None,
    is_over_images: bool = False,
) -> list[tuple[str, Path]]:
    """Print the tables of one or several runs, and write them as files and as a page.

    Args:
        runs: The runs to compare.
        output: Folder for the files.
        benchmark: The only benchmark in the tables; None for all.
        probe: The only probe in the tables; None for all.
        is_over_images: Whether the tables also have intervals on other images of the same classes.

    Returns:
        Label and path of each file.

    Raises:
        UserError: The folder cannot be written.
    """
    from lurefs.comparing.exports import write_exports
    from lurefs.comparing.over_images import with_intervals_over_images
    from lurefs.comparing.standings import standings
    from lurefs.reporting.page import write_page

    found = standings(runs, benchmark=benchmark, probe=probe)
    if is_over_images:
        found = with_intervals_over_images(found, runs)
    paths = write_exports(found, output)
    _print(found)
    return [*paths.items(), ("report", write_page(runs, output, judged=found.verdicts))]


def _print_what_can_be_shown(runs: Sequence[Run], benchmark: str | None, probe: str | None) -> None:
    """Print one line per benchmark and probe: the smallest differences from the reference that it can show."""
    from lurefs.comparing.plan_tables import smallest_words
    from lurefs.comparing.planning import smallest_of
    from lurefs.comparing.standings import chosen_cells

    cells = [(name, by) for name, probes in chosen_cells(runs, benchmark, probe).items() for by in probes]
    for (name, by), found in smallest_of(runs, cells).items():
        if words := smallest_words(found):
            console.print_lines([f"{name}, {by}: {words}"])


def print_comparison(runs: Sequence[Run]) -> None:
    """Print the tables of one or several runs, without writing files."""
    from lurefs.comparing.standings import standings

    _print(standings(runs))


def comparable_runs(
    paths: Sequence[Path],
    *,
    reference: str | None,
    benchmark: str | None,
    probe: str | None,
    common_episodes: bool,
    skip_unfinished: bool,
) -> list[Run]:
    """Read runs that met the same episodes.

    Args:
        paths: Their directories.
        reference: The run that the others are compared with; None for a warm start, otherwise the first.
        benchmark: The only benchmark that must have the same episodes; None for all.
        probe: The only probe; None for all.
        common_episodes: Whether runs of different lengths are cut to the first episodes that all of them met.
        skip_unfinished: Whether runs that are not evaluated yet are left out.

    Raises:
        UserError: A run is unfinished or damaged, there is no such reference, benchmark or probe, or the runs were
            scored on different episodes.
    """
    from lurefs.comparing.same_episodes import check_same_episodes, on_common_episodes
    from lurefs.comparing.standings import chosen_cells

    runs = _read(paths, reference, skip_unfinished=skip_unfinished)
    benchmarks = list(chosen_cells(runs, benchmark, probe))
    if common_episodes:
        runs = on_common_episodes(runs, benchmarks)
    check_same_episodes(runs, benchmarks)
    return runs


def _read(paths: Sequence[Path], reference: str | None, *, skip_unfinished: bool) -> list[Run]:
    """Read the runs, and mark the chosen reference."""
    from lurefs.comparing.finished_runs import read_runs

    directories = [RunDirectory(path) for path in paths]
    finished = [directory for directory in directories if directory.summary_path.is_file()]
    unfinished = [str(directory.path) for directory in directories if directory not in finished]
    if unfinished and not (skip_unfinished and finished):
        named, is_one = ", ".join(unfinished), len(unfinished) == 1
        share = "the run" if len(directories) == 1 else f"{len(unfinished)} of {len(directories)} runs"
        words = "is not finished, it has" if is_one else "are not finished, they have"
        finish = "; ".join(f"lurefs run --run-dir {path}" for path in unfinished[:N_NAMED])
        raise UserError(
            f"{share} {words} no summary.json: {named}",
            "runs that were evaluated",
            f"finish them: {finish}" + ("; or add --skip-unfinished to compare the others" if finished else ""),
        )
    for path in unfinished:
        console.note(f"left out, not finished: {path}")
    runs = read_runs(finished)
    if reference is None:
        return runs
    if reference not in [run.label for run in runs]:
        raise unknown_name("reference", reference, [run.label for run in runs])
    return [replace(run, is_reference=run.label == reference) for run in runs]


def _folder_name(runs: Sequence[Run]) -> str:
    """Return a folder name for these runs: the labels if they are few, and a digest of all paths."""
    labels = [re.sub(r"[^\w.-]+", "-", run.label).strip("-.") or "run" for run in runs]
    words = "--".join(labels)[:60] if len(labels) <= N_NAMED else f"{labels[0][:40]}-and-{len(labels) - 1}-more"
    paths = "\n".join(str(run.directory.path.resolve()) for run in runs)
    return f"{words}-{hashlib.sha256(paths.encode()).hexdigest()[:8]}"


def _print(standings: Standings) -> None:
    from lurefs.comparing.more_seeds import COMMAND
    from lurefs.comparing.text_tables import legend, short_tables

    for table in short_tables(standings):
        console.print_table(table.title, table.columns, table.rows, optional=table.optional)
        console.print_lines([*table.notes, ""])
    for line in legend(standings):
        console.print_lines([line], is_folded=not line.startswith(COMMAND))
