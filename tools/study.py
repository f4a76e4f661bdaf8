"""Run a study, every strategy in every regime with every seed, and write its page, tables and figures.

    OMP_NUM_THREADS=1 uv run python tools/study.py docs/studies/strategies [--workers 2] [--report-only]

The folder holds `study.yaml`, which says what is compared. The command adds `cells.jsonl`, one row of results a cell (a
strategy in a regime with a seed), and makes from these rows `README.md` (between its markers: what is written by hand
stays), `differences.csv` and `figures/`. Cells that are done are kept, so a study that was killed goes on where it was;
a cell whose settings changed is measured anew. `study_cells.py` says what a cell is and measures one,
`study_workers.py` measures many at a time, `study_results.py` compares them, and `study_report.py` writes the page.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from study_cells import Key, Study, cell_digest, check_names, read_rows, read_study, write_rows
from study_workers import measured

from lurefs.console import note
from lurefs.errors import UserError
from lurefs.records import Row
from lurefs.sweeps.workers import Failure


def main() -> int:
    """Measure what is missing, then write the page; return 1 if a cell failed."""
    arguments = parse()
    folder: Path = arguments.folder
    try:
        study = read_study(folder)
        for name in ("regimes", "strategies"):
            check_names(f"--{name}", getattr(arguments, name) or [], getattr(study, name))
        rows = read_rows(folder)
        failures = {} if arguments.report_only else run_cells(folder, study, rows, arguments)
        fitting = rows_of_study(study, rows)
        if strange := len(rows) - len(fitting):
            note(f"{strange} rows of cells.jsonl are of other settings than study.yaml's, and left out of the page")
        if fitting:
            from study_report import write_report

            note(f"page       {write_report(folder, study, fitting)}")
    except UserError as error:
        sys.exit(f"error: {error}")
    for reason in dict.fromkeys(failures.values()):
        keys = [", ".join(map(str, key)) for key, other in failures.items() if other == reason]
        note(f"failed: {'; '.join(keys)}\n{reason}")
    return 1 if failures else 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where study.yaml is, and where the results go")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--report-only", action="store_true", help="measure nothing, write the page of what is there")
    parser.add_argument("--regimes", nargs="*", help="measure these only")
    parser.add_argument("--strategies", nargs="*", help="measure these only")
    parser.add_argument("--seeds", nargs="*", type=int, help="measure these only")
    parser.add_argument("--run-root", type=Path, help="where run directories are while a cell is measured")
    return parser.parse_args()


def run_cells(folder: Path, study: Study, rows: dict[Key, Row], arguments: argparse.Namespace) -> dict[Key, str]:
    """Measure the cells that are asked for and not there; store each row as it comes, and return why others failed."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    wanted = {
        key: study.config(key)
        for key in study.keys
        if key[0] in (arguments.regimes or study.regimes)
        and key[1] in (arguments.strategies or study.strategies)
        and key[2] in (arguments.seeds or study.seeds)
    }
    missing = {key: config for key, config in wanted.items() if rows.get(key, {}).get("digest") != cell_digest(config)}
    note(f"{len(wanted)} cells, {len(wanted) - len(missing)} of them done, {arguments.workers} workers")
    failures: dict[Key, str] = {}
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("cells", total=len(missing))
        for key, result in measured(missing, arguments.workers, arguments.run_root):
            if isinstance(result, Failure):
                failures[key] = result.reason
                text = "failed"
            else:
                rows[key] = result
                write_rows(folder, study, rows)
                text = f"accuracy {result['accuracy']:.1%}, {result['cell_seconds']:.0f} s"
            progress.advance(task)
            if not console.is_terminal:
                note(f"{progress.tasks[0].completed:.0f}/{len(missing)} {', '.join(map(str, key))}: {text}")
            progress.update(task, description=f"cells, {len(failures)} failed" if failures else "cells")
    return failures


def rows_of_study(study: Study, rows: Mapping[Key, Row]) -> dict[Key, Row]:
    """Return the rows that were made by the settings of the study file, in its order.

    A strategy that this version does not know has none.
    """
    fitting = {}
    for key in study.keys:
        if key not in rows:
            continue
        try:
            config = study.config(key)
        except UserError:
            continue
        if rows[key]["digest"] == cell_digest(config):
            fitting[key] = rows[key]
    return fitting


if __name__ == "__main__":
    sys.exit(main())
