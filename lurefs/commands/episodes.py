"""The commands `lurefs episodes make | show | verify`: episodes as files that others can use.

Only drawing loads torch; `show` only reads.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lurefs import plugins
from lurefs.config.load import RunGroup, load
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError, unknown_name
from lurefs.runs.directory import RunDirectory

if TYPE_CHECKING:
    from episodes.manifest import Manifest
    from lurefs.stages.plan import Benchmark, ImageSet

N_SHOWN = 3


def add_parser(commands: Any) -> None:
    """Add the command `episodes` and its actions to an argument parser's commands."""
    text = "Make, show or verify files of episodes."
    parser = commands.add_parser("episodes", help="files of episodes: make, show, verify", description=text)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    make = actions.add_parser("make", help="draw the episodes of a config's benchmarks", description="Draw episodes.")
    make.add_argument("--config", required=True, metavar="NAME_OR_FILE", help="a recipe's name or a YAML file")
    make.add_argument("--benchmark", metavar="NAME", help="only this one (default: all of the config)")
    make.add_argument("--output", type=Path, metavar="FILE", help="default: manifests/<benchmark>.parquet")
    make.add_argument("--allow-code", action="store_true", help=plugins.ALLOW_CODE_HELP)
    make.add_argument("overrides", nargs="*", metavar="key.sub=value", help="settings that win over the file")
    show = actions.add_parser("show", help="print what a file holds", description="Show a file of episodes.")
    show.add_argument("file", type=Path, metavar="FILE")
    show.add_argument("--episode", type=int, metavar="N", help=f"only this one, from 0 (default: the first {N_SHOWN})")
    verify = actions.add_parser(
        "verify",
        help="check a file against its hash, its seed, and the data",
        description="Check that a file is complete, that its seed gives the same episodes, and, given a config or a "
        "run, that the data hold its images.",
    )
    verify.add_argument("file", type=Path, metavar="FILE")
    data = verify.add_mutually_exclusive_group()
    data.add_argument("--config", metavar="NAME_OR_FILE", help="a config whose data should hold the images")
    data.add_argument("--run-dir", type=Path, metavar="DIR", help="a run whose data should hold the images")
    verify.add_argument("--benchmark", metavar="NAME", help="which benchmark's images (default: any)")
    verify.add_argument("--allow-code", action="store_true", help=plugins.ALLOW_CODE_HELP)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make, show or verify files of episodes; return the exit code.

    Raises:
        UserError: A file is damaged or does not fit, or the config is wrong.
    """
    if arguments.action == "make":
        make(arguments.config, arguments.overrides, benchmark=arguments.benchmark, output=arguments.output)
    elif arguments.action == "show":
        show(arguments.file, arguments.episode)
    else:
        verify(arguments.file, source=arguments.config, run_dir=arguments.run_dir, benchmark=arguments.benchmark)
    return 0


def make(source: str, overrides: Sequence[str], *, benchmark: str | None, output: Path | None) -> None:
    """Draw the episodes of a config's benchmarks and write each to a file; existing files are not replaced.

    Raises:
        UserError: The config is wrong, a file has other episodes, or several benchmarks have one output.
    """
    from episodes.manifest import draw_manifest

    benchmarks = _benchmarks(_one_run(load(source, overrides)), benchmark)
    if output is not None and len(benchmarks) > 1:
        raise UserError(
            f"--output is one file, but the config has {len(benchmarks)} benchmarks",
            "one benchmark",
            f"add --benchmark: {', '.join(benchmarks)}",
        )
    for name, found in benchmarks.items():
        manifest = found.manifest or draw_manifest(found.images, found.spec, seed=found.seed)
        path = output or Path("manifests") / f"{name}.parquet"
        _write(manifest, path)
        print(f"{path}  {len(manifest)} episodes, {manifest.spec.words()}, hash {manifest.hash[:12]}")


def show(path: Path, index: int | None) -> None:
    """Print the content of a file of episodes.

    Raises:
        UserError: The file is damaged, or has no episode `index`.
    """
    from lurefs.stages.plan import read_manifest

    manifest = read_manifest(path)
    if index is not None and not 0 <= index < len(manifest):
        raise UserError(f"there is no episode {index} in {path}", f"0 to {len(manifest) - 1}", "change --episode")
    block = manifest.block
    print(f"episodes  {len(manifest)}, {manifest.spec.words()}")
    print(f"seed      {manifest.seed}")
    print(f"hash      {manifest.hash}")
    print(f"images    {len(manifest.rows)} in {len(np.unique(block.classes))} classes", end="")
    print("" if manifest.images is None else f", drawn from {len(manifest.images.image_ids)}")
    if not manifest.spec.is_uniform:
        for label, counts in (("ways", block.n_ways), ("shots", block.n_support), ("queries", block.n_query)):
            print(f"{label:<9} {counts.min()} to {counts.max()}, mean {counts.mean():.2f}")
    print("classes   " + ", ".join(_class_name(manifest, label) for label in np.unique(block.classes)))
    for number in range(min(N_SHOWN, len(manifest))) if index is None else [index]:
        _print_episode(manifest, number)


def verify(path: Path, *, source: str | None, run_dir: Path | None, benchmark: str | None) -> None:
    """Check a file of episodes: it is complete, its seed gives the same episodes, and the data hold its images.

    Raises:
        UserError: A check fails.
    """
    from episodes.manifest import draw_manifest
    from lurefs.stages.plan import read_manifest

    manifest = read_manifest(path)
    print(f"whole     {len(manifest)} episodes, {manifest.spec.words()}, hash {manifest.hash[:12]}")
    images: Any = manifest.images
    if source is not None or run_dir is not None:
        name, found = _find_benchmark(manifest, path, _benchmarks(_read_config(source, run_dir), benchmark))
        images = images or found
        print(f"data      all {len(manifest.rows)} images are among the {len(found.rows)} of benchmark {name}")
    if images is None:
        raise UserError(
            f"{path} has no image ids, so its episodes cannot be drawn again",
            "a file with image ids, or the data that it was drawn from",
            "add --config or --run-dir",
        )
    fresh = draw_manifest(images, manifest.spec, seed=manifest.seed)
    if not np.array_equal(fresh.block.classes, manifest.block.classes) or not _same_rows(fresh, manifest):
        first = next((i for i in range(len(fresh)) if not _same_episode(fresh, manifest, i)), 0)
        raise UserError(
            f"the episodes of {path} are not those of seed {manifest.seed}: episode {first} differs",
            "episodes that this version of lurefs draws from the file's own images, form and seed",
            "make the episodes again, or use them without this guarantee: the file is complete",
        )
    print(f"drawn     seed {manifest.seed} gives the same episodes")


def _same_rows(one: Manifest, other: Manifest) -> bool:
    return np.array_equal(one.block.support, other.block.support) and np.array_equal(one.block.query, other.block.query)


def _same_episode(one: Manifest, other: Manifest, index: int) -> bool:
    a, b = one[index], other[index]
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("classes", "support", "query"))


def _one_run(group: RunGroup) -> RunConfig:
    """Return the first run of a config, after a check that all its runs have the same data and benchmarks."""
    runs = list(group.runs.values())
    for run in runs[1:]:
        for part in ("dataset", "class_split", "image_split", "benchmarks"):
            if getattr(run, part) != getattr(runs[0], part):
                raise UserError(
                    f"the variants {runs[0].name!r} and {run.name!r} differ in {part}",
                    "the same data set and benchmarks",
                    "use a config without variants",
                )
    return runs[0]


def _read_config(source: str | None, run_dir: Path | None) -> RunConfig:
    if source is not None:
        return _one_run(load(source))
    assert run_dir is not None
    return RunDirectory(run_dir).read_config()


def _benchmarks(run: RunConfig, chosen: str | None) -> dict[str, Benchmark]:
    from lurefs.stages.plan import make_plan

    if chosen is not None and chosen not in run.benchmarks:
        raise unknown_name("benchmark", chosen, run.benchmarks)
    benchmarks = make_plan(run).benchmarks
    return benchmarks if chosen is None else {chosen: benchmarks[chosen]}


def _find_benchmark(manifest: Manifest, path: Path, benchmarks: Mapping[str, Benchmark]) -> tuple[str, ImageSet]:
    """Return the first benchmark that has the images of the episodes; otherwise raise the first one's error."""
    from lurefs.stages.plan import rebase_manifest

    reasons = []
    for name, benchmark in benchmarks.items():
        try:
            rebase_manifest(manifest, benchmark.images, path, f"benchmarks.{name}")
        except UserError as error:
            reasons.append(error)
        else:
            return name, benchmark.images
    raise reasons[0]


def _write(manifest: Manifest, path: Path) -> None:
    from lurefs.stages.plan import read_manifest

    if path.exists() and (found := read_manifest(path).hash) != manifest.hash:
        raise UserError(
            f"{path} holds other episodes, with hash {found[:12]} instead of {manifest.hash[:12]}",
            "a new file, since results on the old episodes may need the old file",
            "give another --output, or delete the file",
        )
    if not path.exists():
        try:
            manifest.save(path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error.strerror}", "a place that can be written", "give another --output"
            ) from error


def _print_episode(manifest: Manifest, index: int) -> None:
    episode = manifest[index]
    print(f"\nepisode {index}")
    for label, number in enumerate(episode.classes):
        print(f"  {_class_name(manifest, number)}")
        for part, rows, labels in (
            ("support", episode.support, episode.support_labels),
            ("query", episode.query, episode.query_labels),
        ):
            chosen = rows[labels == label]
            names = [_image_name(manifest, row) for row in chosen[:5]]
            more = f" and {len(chosen) - 5} more" if len(chosen) > 5 else ""
            print(f"    {part:<8} {len(chosen):>3}: {', '.join(names)}{more}")


def _class_name(manifest: Manifest, label: int) -> str:
    return f"class {label}" if manifest.images is None else manifest.images.class_names[label]


def _image_name(manifest: Manifest, row: int) -> str:
    return f"row {row}" if manifest.images is None else manifest.images.image_ids[row]
