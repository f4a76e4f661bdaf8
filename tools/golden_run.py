"""Make the run directory in tests/golden, which stands for those that people have.

    OMP_NUM_THREADS=1 uv run python tools/golden_run.py

A run of an earlier version must be read for ever, so its folder stays. When files of a run change their form, or
`lurefs.runs.summary.VERSION` rises, call this once more: the new run is written beside the earlier ones, in a folder
named after the version of `summary.json`, and tests/test_golden_runs.py reads all of them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from lurefs.cli import main as lurefs
from lurefs.runs.summary import VERSION

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
LEFT_OUT = ("report.html", "figures", ".lock", "*.resume.pt", "chunk-000.*")
"""Files that can be made again from the others, or that no command needs once a run is finished."""
MOST_BYTES = 150_000


def main() -> None:
    """Make the run, keep what commands need, and store what `lurefs compare` finds in it."""
    folder = GOLDEN / f"version-{VERSION}"
    if folder.exists():
        sys.exit(f"{folder} exists; delete it if no version with these files was ever released")
    with tempfile.TemporaryDirectory() as place:
        os.environ["LUREFS_CACHE"] = str(Path(place) / "cache")
        lurefs(["run", "--config", str(GOLDEN / "recipe.yaml"), "--run-dir", str(Path(place) / "golden")])
        lurefs(["compare", str(Path(place) / "golden"), "--output", str(Path(place) / "comparison")])
        shutil.copytree(Path(place) / "golden", folder / "golden", ignore=shutil.ignore_patterns(*LEFT_OUT))
        found = json.loads((Path(place) / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    rows = [{name: value for name, value in row.items() if value not in (None, "")} for row in found["rows"]]
    (folder / "rows.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {n_bytes:,} bytes")
    if n_bytes > MOST_BYTES:
        sys.exit(f"at most {MOST_BYTES:,} bytes are kept; make the recipe smaller")


if __name__ == "__main__":
    main()
