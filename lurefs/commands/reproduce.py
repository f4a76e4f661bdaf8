"""The command `lurefs reproduce`: run a finished run again, and list all differences.

It compares the figures of `summary.json` and `chunks.jsonl`, every column of every table of results, the hashes of
manifests and the checksums of weights. It does not compare times, nor the versions that wrote the files.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lurefs import console, plugins
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.records import differences, to_mapping
from lurefs.runs.directory import RunDirectory, damaged, read_json

_NOT_COMPARED = ("seconds", "ms_per_episode", "images_per_second", "version")
N_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Part:
    """Comparison of one file of two runs.

    Attributes:
        name: The file.
        n_values: Number of compared values.
        different: Each difference in words, by the name of the value.
        largest: The largest difference of two numbers; 0 if there is none.
    """

    name: str
    n_values: int
    different: Mapping[str, str]
    largest: float


def add_parser(commands: Any) -> None:
    """Add the command `reproduce` to an argument parser's commands."""
    text = "run a finished run again and compare every number"
    parser = commands.add_parser("reproduce", help=text, description="Run again and compare.")
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a finished run")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep the new run here (default: it is deleted)")
    parser.add_argument("--allow-code", action="store_true", help=plugins.ALLOW_CODE_HELP)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run again, print the comparison, and return the exit code: 0 if everything is the same, otherwise 1.

    Raises:
        UserError: The run is not finished, is damaged, cannot be run here, or `--output` is a file or not empty.
    """
    output = arguments.output
    old = RunDirectory(arguments.run_dir)
    config = old.read_config()
    old.read_summary()
    old.read_outcomes()
    old.read_identity()
    if output is not None and output.exists() and not _can_hold_run(output, old):
        problem = "not empty" if output.is_dir() else "a file"
        raise UserError(f"{output} is {problem}", "a new folder", "give another --output")
    with tempfile.TemporaryDirectory(prefix="lurefs-") if output is None else nullcontext(str(output)) as folder:
        new = RunDirectory(Path(folder))
        _run_again(config, new, with_page=output is not None)
        parts = list(compare_runs(old, new))
        reasons = likely_reasons(old, new)
    _print_parts(parts)
    is_same = not any(part.different for part in parts)
    if is_same:
        print(f"all {sum(part.n_values for part in parts)} values are the same")
    else:
        print("\n".join(["likely reasons:", *(f"  {reason}" for reason in reasons)]))
    return 0 if is_same else 1


def compare_runs(old: RunDirectory, new: RunDirectory) -> Iterator[Part]:
    """Compare two finished runs file by file."""
    yield _part("summary.json", *(_leaves(to_mapping(run.read_summary())) for run in (old, new)))
    chunks = [[to_mapping(outcome) for outcome in run.read_outcomes()] for run in (old, new)]
    yield _part("chunks.jsonl", _leaves(chunks[0]), _leaves(chunks[1]))
    for pattern, read in (
        ("checkpoints/*.json", _read_checksum),
        ("manifests/*.parquet", _read_manifest_hash),
        ("episodes/*.parquet", _read_columns),
        ("controls/*/*.parquet", _read_columns),
        ("transfer/*.parquet", _read_columns),
    ):
        names = sorted({str(path.relative_to(run.path)) for run in (old, new) for path in run.path.glob(pattern)})
        for name in names:
            missing = [run for run in (old, new) if not (run.path / name).is_file()]
            if missing:
                whose = "the run" if missing[0] is old else "the new run"
                yield Part(name=name, n_values=1, different={"file": f"{whose} has none"}, largest=0.0)
            else:
                yield _part(name, read(old.path / name), read(new.path / name))


def likely_reasons(old: RunDirectory, new: RunDirectory) -> list[str]:
    """Return in words how the two runs' data, versions, devices, threads and processors differ."""
    was, now = (run.read_identity() for run in (old, new))
    found = [
        reason
        for part in ("dataset", "pretrain", "backbone", "split", "versions", "machine")
        for reason in differences(was.get(part), now.get(part), part)
        if part in was
    ]
    if "machine" not in was:
        here = ", ".join(f"{name} {value}" for name, value in now["machine"].items())
        found.append(f"the run does not say on which machine it was made; this one has {here}")
    return found or ["none is known: data, versions and machine are the same, so the computation itself differs"]


def _can_hold_run(output: Path, old: RunDirectory) -> bool:
    """Return whether a folder is empty, or holds another run, interrupted before its page, which is resumed."""
    if not output.is_dir():
        return False
    is_begun = (output / ".lock").exists() and not RunDirectory(output).report_path.exists()
    return not any(output.iterdir()) or (is_begun and output.resolve() != old.path.resolve())


def _run_again(config: RunConfig, directory: RunDirectory, *, with_page: bool) -> None:
    from lurefs.stages.checks import check
    from lurefs.stages.plan import make_plan
    from lurefs.stages.run import run_stage

    trackers = replace(config.trackers, wandb=replace(config.trackers.wandb, mode="disabled"))
    plan = make_plan(replace(config, trackers=trackers))
    check(plan)
    directory.check_writable()
    console.note(f"running {config.name} again")
    run_stage(plan, directory, "run", with_page=with_page, uses_store=False)


def _part(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Part:
    different, largest, n_values = {}, 0.0, 0
    for key in dict.fromkeys([*old, *new]):
        was, now = old.get(key), new.get(key)
        if isinstance(was, np.ndarray) and isinstance(now, np.ndarray) and was.shape == now.shape:
            n_values += was.size
            unlike = ~((was == now) | ((was != was) & (now != now)))
            if not unlike.any():
                continue
            words = f"{int(unlike.sum())} of {was.size}"
            if was.dtype.kind in "fiu":
                gap = float(np.abs(was[unlike].astype(float) - now[unlike].astype(float)).max())
                largest, words = max(largest, gap), f"{words}, by at most {gap:.3g}"
            different[key] = words
        elif isinstance(was, np.ndarray) or isinstance(now, np.ndarray):
            n_values += 1
            sizes = ["not there" if values is None else f"{np.size(values)} values" for values in (was, now)]
            different[key] = f"it was {sizes[0]} and is {sizes[1]}"
        else:
            n_values += 1
            if was == now or (_is_nan(was) and _is_nan(now)):
                continue
            different[key] = f"it was {was} and is {now}"
            if isinstance(was, int | float) and isinstance(now, int | float):
                largest = max(largest, abs(was - now))
    return Part(name=name, n_values=n_values, different=different, largest=largest)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Return the plain values in nested mappings and lists by dotted key, without times and versions."""
    if isinstance(value, list):
        value = {str(number): entry for number, entry in enumerate(value)}
    if not isinstance(value, Mapping):
        return {path: value}
    found: dict[str, Any] = {}
    for key, entry in value.items():
        if not key.endswith(_NOT_COMPARED):
            found |= _leaves(entry, f"{path}.{key}" if path else key)
    return found


def _read_checksum(path: Path) -> dict[str, Any]:
    try:
        return {"sha256": read_json(path)["sha256"]}
    except KeyError as error:
        raise damaged(path, str(error)) from error


def _read_manifest_hash(path: Path) -> dict[str, Any]:
    from lurefs.stages.plan import read_manifest

    return {"hash": read_manifest(path).hash}


def _read_columns(path: Path) -> dict[str, Any]:
    """Return the columns of a table of results; a column of lists becomes one long column."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    import pyarrow.types as types

    try:
        table = pq.read_table(path)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises errors of many kinds
        raise damaged(path, str(error)) from error
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        while types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type):
            column = pc.list_flatten(column)
        if not name.endswith(_NOT_COMPARED):
            columns[name] = column.to_numpy(zero_copy_only=False)
    return columns


def _print_parts(parts: list[Part]) -> None:
    rows = [
        (part.name, str(part.n_values), str(len(part.different)), f"{part.largest:.3g}" if part.largest else "-")
        for part in parts
    ]
    console.print_table("The run and the new one", ("file", "values", "different", "largest difference"), rows)
    lines = [f"{part.name}: {key}: {words}" for part in parts for key, words in part.different.items()]
    print(
        "\n".join(lines[:N_SHOWN] + [f"and {len(lines) - N_SHOWN} more"] * (len(lines) > N_SHOWN)),
        end="\n" * bool(lines),
    )
