"""A short form of `tools/torture.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parent.parent.parent / "tools" / "torture.py"


def test_kills_and_faults_lose_nothing_and_are_answered_clearly(environment: dict[str, str]) -> None:
    batteries = ["pretrain", "episodes make", "damaged_files", "full_disks", "places_that_fail"]
    command = [sys.executable, str(TOOL), "--kills", "4", "--faults", "3", "--only", *batteries]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    *_, kills_of_pretrain, kills_of_make, total = result.stdout.splitlines()
    assert kills_of_pretrain.startswith("| pretrain | 2 | 0 | 0 | 2 | 0 | 0 | 0 |")
    assert kills_of_make.startswith("| episodes make | 2 | 0 | 0 | 2 | 0 | 0 | 0 |")
    assert total.startswith("| all | 13 | 0 | 0 | 4 | 0 | 0 | 0 |")
