"""Files of a probe's calibration: its figures, and what they depend on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from episodes.files import write_text
from episodes.metrics import Reliability
from lurefs.errors import UserError
from lurefs.records import from_mapping, to_mapping
from lurefs.runs.directory import RunDirectory, damaged, not_yet, read_json
from lurefs.runs.summary import CalibrationSummary


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The calibration of one probe on one benchmark.

    Attributes:
        identity: Everything that it depends on.
        summary: The figures.
        n: Scaled answers per bin of confidence, see `episodes.metrics.Reliability`; empty without probabilities.
        confidence: Sum of their top probabilities; empty likewise.
        correct: How many of them are correct; empty likewise.
    """

    identity: dict[str, Any]
    summary: CalibrationSummary
    n: list[int]
    confidence: list[float]
    correct: list[int]

    @property
    def reliability(self) -> Reliability | None:
        """Counts of scaled answers by confidence; None without probabilities."""
        if not self.n:
            return None
        return Reliability(n=np.array(self.n), confidence=np.array(self.confidence), correct=np.array(self.correct))


def calibration_path(directory: RunDirectory, benchmark: str, probe: str) -> Path:
    """Return the file of the calibration of one probe on one benchmark."""
    return directory.path / "calibration" / f"{benchmark}--{probe}.json"


def read_calibration(directory: RunDirectory, benchmark: str, probe: str) -> Calibration:
    """Return the calibration of one probe on one benchmark.

    Raises:
        UserError: It was not computed yet, or the file is damaged.
    """
    path = calibration_path(directory, benchmark, probe)
    if not path.exists():
        raise not_yet(path, "evaluate")
    if not path.is_file():  # opening a named pipe would wait for ever
        raise damaged(path, "it is not a file")
    values = read_json(path)
    try:
        found = from_mapping(Calibration, values)
    except UserError as error:
        raise damaged(path, error.problem) from error
    if len({len(found.n), len(found.confidence), len(found.correct)}) > 1:
        raise damaged(path, "its counts are not of the same bins")
    return found


def write_calibration(directory: RunDirectory, benchmark: str, probe: str, calibration: Calibration) -> None:
    """Store the calibration of one probe on one benchmark."""
    text = json.dumps(to_mapping(calibration), indent=2) + "\n"
    write_text(calibration_path(directory, benchmark, probe), text)
