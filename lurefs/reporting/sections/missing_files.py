"""Files that a finished run has, and that a page cannot show since they are gone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lurefs.comparing.finished_runs import Run
from lurefs.comparing.texts import joined

MAX_NAMED = 3


def sentences(runs: Sequence[Run]) -> list[str]:
    """Return a sentence for all runs that lack the same files; none for those that lack nothing."""
    lacking: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        names = tuple(str(path.relative_to(run.directory.path)) for path in _missing(run))
        lacking.setdefault(names, []).append(run.label)
    return [
        f"Not all of {_which(labels, len(runs))} is shown: there is {joined([f'no {name}' for name in names])}."
        for names, labels in lacking.items()
        if names
    ]


def _which(labels: Sequence[str], n_runs: int) -> str:
    return joined(labels) if len(labels) <= MAX_NAMED else f"{len(labels)} of {n_runs} runs"


def _missing(run: Run) -> list[Path]:
    """Return the files of a run that are gone, but for that of its chunks: the section on learning says so."""
    directory = run.directory
    paths = [directory.identity_path, *([] if run.config.brings_features else [directory.cost_path])]
    paths += [directory.transfer_path(name) for name in run.summary.transfer]
    for name, found in run.summary.benchmarks.items():
        paths += [directory.manifest_path(name), *(directory.episodes_path(name, probe) for probe in found.probes)]
    folders = [directory.features_dir(name) for name in run.summary.benchmarks]
    banks = [path for folder in folders for path in _missing_in_bank(folder)]
    return [path for path in paths if not path.is_file()] + banks


def _missing_in_bank(folder: Path) -> list[Path]:
    gone = [path for name in ("bank.json", "features.npy", "labels.npy") if not (path := folder / name).is_file()]
    return gone if folder.is_dir() else [folder]
