"""Files of finished and of stopped runs that are damaged at random."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bad_input_kinds.damage import damage_array, damage_parquet, damaged_bytes, damaged_values
from bad_input_kinds.running import say
from bad_input_kinds.worlds import Case, World

EVERYTHING: dict[str, Any] = {
    "class_split": {"base": 0.5, "validation": 0.25, "novel": 0.25},
    "probes": {"lr": {"choose": {"C": [0.1, 1]}}},
    "calibrate": {},
    "controls": True,
    "benchmarks": {"novel": {"n_way": 2, "n_shot": 1, "n_query": 3, "n_episodes": 10}},
}
"""Settings of a run that has every file of a run directory."""


def bad_records(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield finished runs, one file of which is damaged, and runs that were stopped before their last chunk."""
    whole = world.folder.parent / "everything"
    recipe = world.folder.parent / "everything.yaml"
    recipe.write_text(yaml.safe_dump(world.recipe | EVERYTHING))
    code, said = say(["run", str(recipe), "--run-dir", str(whole)], limit=600)
    assert code == 0, said
    records = [path.relative_to(whole) for path in sorted(whole.rglob("*.*")) if path.name not in (".lock", "log.txt")]
    records = [name for name in records if name.parts[0] not in ("figures", "report.html")]
    progress = Path("checkpoints/progress.pt")
    while True:
        name = rng.choice([*records, progress])
        run = world.fresh("run")
        shutil.copytree(whole, run)
        if name == progress:
            (run / "chunks.jsonl").unlink()
            shutil.copy(run / "checkpoints/chunk-001.resume.pt", run / name)
        words = _damage_record(run / name, rng)
        reads = [
            ["compare", str(run), "--over", "images", "--output", str(run / "numbers")],
            *(["report", str(run), "--output", str(run / "page")], ["plan", str(run)]),
            ["episodes", "show", str(run / "manifests/novel.parquet")],
            ["run", str(recipe), "--run-dir", str(run)],
        ]
        yield Case(name=f"{name}: {words}", commands=reads, folders=(run,))


def _damage_record(path: Path, rng: random.Random) -> str:
    """Damage a file of a run by its form, or its bytes; return in words how."""
    content = path.read_bytes()
    if rng.random() < 0.8:
        if path.suffix == ".parquet":
            return damage_parquet(path, rng)
        if path.suffix == ".npy":
            return damage_array(path, rng)
        with contextlib.suppress(ValueError, yaml.YAMLError):
            if path.suffix == ".yaml":
                values, words = damaged_values(yaml.safe_load(content), rng)
                path.write_text(yaml.safe_dump(values), errors="surrogatepass")
                return words
            if path.suffix in (".json", ".jsonl"):
                first, *rest = content.splitlines() if path.suffix == ".jsonl" else [content]
                values, words = damaged_values(json.loads(first), rng)
                path.write_bytes(b"\n".join([json.dumps(values).encode(), *rest, b""]))
                return words
    path.write_bytes(damaged_bytes(content, rng))
    return "bytes"
