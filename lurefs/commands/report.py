"""The command `lurefs report`: one page from finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lurefs import console
from lurefs.runs.find import find_runs


def _report(names: Sequence[str], output: Path | None) -> None:
    from lurefs.reporting.page import write_report
    from lurefs.runs.directory import RunDirectory

    paths = find_runs(names)
    first = Path(names[0]) if Path(names[0]).is_dir() else paths[0]
    console.print_paths([("report", write_report([RunDirectory(path) for path in paths], output or first))])
