"""The command `lurefs`: arguments to one call. Only here a process exits, or prints an error without a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lurefs import __version__, console, plugins
from lurefs.commands import compare, episodes, push, views
from lurefs.config.load import RunGroup, check_workers, load, recipes_dir
from lurefs.config.schema import LearnerConfig
from lurefs.errors import UserError
from lurefs.ranks import ranks_of
from lurefs.runs.find import find_runs

if TYPE_CHECKING:
    from lurefs.comparing.finished_runs import Run
    from lurefs.runs.directory import RunDirectory
    from lurefs.stages.plan import Plan
    from lurefs.sweeps.workers import Failure

EXIT_FAILURE = 1
EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 141
STAGES = {
    "run": "pretrain, extract, evaluate and report: the whole line",
    "pretrain": "learn the chunks, and store a checkpoint and an outcome after each",
    "extract": "embed the benchmarks' images with the last chunk's weights",
    "evaluate": "score the probes on the benchmarks' episodes, and write summary.json",
}
LISTS = {"datasets": "dataset", "unlearn": "unlearn", "probes": "probe", "metrics": "metric"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 not all of it, 2 something that the user can put right, 130 interrupted."""
    try:
        code = _dispatch(_parser().parse_args(arguments))
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:  # who read the output, e.g. `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    if code:
        sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lurefs",
        description="Pre-train image backbones online with Learn, Unlearn, Relearn, and measure how they transfer "
        "from a handful of labels.",
    )
    parser.add_argument("--version", action="version", version=f"lurefs {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stage, words in STAGES.items():
        command = commands.add_parser(stage, help=words, description=words.capitalize() + ".")
        command.add_argument("--config", metavar="NAME_OR_FILE", help="a recipe's name or a YAML file")
        command.add_argument("--run-dir", type=Path, metavar="DIR", help="where the results go (default: runs/<name>)")
        if stage == "run":
            command.add_argument(
                "--run-root", type=Path, metavar="DIR", help="name the run and its directory in DIR by its settings"
            )
        command.add_argument("--workers", type=int, metavar="N", help="processes that do a file's variants and seeds")
        command.add_argument("--dry-run", action="store_true", help="check everything and say what would be done")
        command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="settings that win over the file")
    sweep = commands.add_parser(
        "sweep", help="run a grid: backbones, strategies, seeds", description="Run all cells of a W&B sweep file."
    )
    sweep.add_argument("--config", required=True, metavar="NAME_OR_FILE", help="a sweep file's name or path")
    sweep.add_argument("--run-root", type=Path, metavar="DIR", help="where the runs go (default: what the file says)")
    sweep.add_argument("--workers", type=int, metavar="N", help="processes, or tasks of the Slurm array, at a time")
    sweep.add_argument(
        "--slurm", action="append", metavar="key=value", help="an option of sbatch: one array job, a task a cell"
    )
    sweep.add_argument("--dry-run", action="store_true", help="check everything and say what would be done")
    sweep.add_argument("overrides", nargs="*", metavar="key=value", help="values of the grid, settings of all cells")
    reproduce = commands.add_parser(
        "reproduce", help="run a finished run again and compare every number", description="Run again and compare."
    )
    reproduce.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a finished run")
    reproduce.add_argument("--output", type=Path, metavar="DIR", help="keep the new run here (default: it is deleted)")
    report = commands.add_parser("report", help="write one page from finished runs", description="Write report.html.")
    report.add_argument("runs", nargs="+", metavar="RUN", help="a run, a folder of runs, a pattern, or a run's name")
    report.add_argument("--output", type=Path, metavar="DIR", help="where the page goes (default: the first RUN)")
    compare.add_parser(commands)
    push.add_parser(commands)
    views.add_parser(commands)
    lists = commands.add_parser(
        "list", help="names and settings that a config can use", description="List names or settings."
    )
    lists.add_argument("kind", choices=["backbones", *LISTS, "settings"])
    lists.add_argument("pattern", nargs="?", default="", help="only what holds this text in its name")
    episodes.add_parser(commands)
    return parser


def _dispatch(arguments: argparse.Namespace) -> int:
    if arguments.command == "list":
        _list(arguments.kind, arguments.pattern)
    elif arguments.command == "episodes":
        episodes.run_action(arguments)
    elif arguments.command == "report":
        _report(arguments.runs, arguments.output)
    elif arguments.command == "compare":
        compare.run_command(arguments)
    elif arguments.command == "sweep":
        return _sweep(arguments)
    elif arguments.command == "reproduce":
        from lurefs.commands.reproduce import reproduce

        return 0 if reproduce(arguments.run_dir, arguments.output) else 1
    elif arguments.command == "push":
        return EXIT_FAILURE if push.run_command(arguments) else 0
    elif arguments.command == "views":
        views.run_command(arguments)
    else:
        return _run(arguments)
    return 0


def _list(kind: str, pattern: str) -> None:
    if kind == "settings":
        from lurefs.config.settings_page import settings_page

        found = [part for part in settings_page().split("\n## ")[1:] if pattern in part.splitlines()[0]]
    elif kind == "backbones":
        from lurefs.learning.backbones import list_backbones

        found = list_backbones(pattern)
    else:
        found = [name for name in plugins.names(LISTS[kind]) if pattern in name]
    print("\n".join(found) if found else f"no {kind} hold {pattern!r}")


def _load(arguments: argparse.Namespace) -> tuple[RunGroup, Path]:
    """Return what to run, and where: from --config, or from the config that a run directory holds."""
    if arguments.config is not None and getattr(arguments, "run_root", None) is not None:
        from lurefs.sweeps.grid import named_run

        if arguments.run_dir is not None:
            raise UserError("--run-dir and --run-root are both given", "one of the two", "leave --run-dir out")
        config = named_run(arguments.config, arguments.overrides)
        group = RunGroup(name=config.name, runs={config.name: config})
        return group, arguments.run_root / config.name
    if arguments.config is not None:
        group = load(arguments.config, arguments.overrides)
        return group, arguments.run_dir or Path("runs") / group.name
    if arguments.run_dir is None:
        recipes = ", ".join(sorted(path.stem for path in recipes_dir().glob("*.yaml")))
        raise UserError(
            "neither --config nor --run-dir is given", "at least one of the two", f"try --config: {recipes}"
        )
    from lurefs.runs.directory import RunDirectory

    stored = RunDirectory(arguments.run_dir)
    stored.read_config()
    group = load(str(stored.config_path), arguments.overrides)
    return group, arguments.run_dir


def _run(arguments: argparse.Namespace) -> int:
    """Do a stage of all runs of a recipe, then print what they came to; return the exit code."""
    from lurefs.runs.directory import RunDirectory
    from lurefs.sweeps import cells
    from lurefs.tracking.agent import is_of_agent

    group, root = _load(arguments)
    stage, ranks = arguments.command, ranks_of()
    n_workers = group.n_workers if arguments.workers is None else check_workers("--workers", arguments.workers)
    plans = cells.plan_runs(list(group.runs.values()))
    directories = {name: RunDirectory(root / name if group.has_folders else root) for name in plans}
    if group.has_folders and RunDirectory(root).config_path.is_file():
        raise UserError(
            f"{root} holds a run", "a folder for the runs of a group", "give another --run-dir, or move the run"
        )
    is_free = ranks.world_size == 1 and not is_of_agent(os.environ)  # else others wait for this very process
    waiting = cells.unfinished(plans, directories) if stage == "run" and is_free else plans
    if arguments.dry_run:
        _print_dry_run(plans, waiting, root, n_shown=len(plans))
        return 0
    if stage == "run" and ranks.is_first:
        _note_finished(plans, waiting)
    failures: dict[str, Failure] = {}
    if len(waiting) > 1 and n_workers > 1 and is_free:
        failures = cells.run_in_workers(waiting, directories, stage, n_workers=n_workers)
    elif waiting:
        cells.run_here(waiting, directories, stage, with_page=not group.has_folders)
    ranks.leave()
    return _finish(stage, directories, root, failures, is_group=group.has_folders) if ranks.is_first else 0


def _sweep(arguments: argparse.Namespace) -> int:
    """Run a grid's cells, then print and write what all of them came to; return the exit code."""
    from lurefs.runs.directory import RunDirectory
    from lurefs.sweeps import cells, grid

    n_workers = None if arguments.workers is None else check_workers("--workers", arguments.workers)
    asked = grid.read_grid(arguments.config, arguments.overrides, arguments.run_root)
    root, elsewhere = asked.run_root, None
    plans = cells.plan_runs([cell.config for cell in grid.cells_of(asked)])
    directories = {name: RunDirectory(root / name) for name in plans}
    if arguments.slurm is not None:
        from lurefs.sweeps import slurm

        options = slurm.read_options(arguments.slurm)
        elsewhere = partial(slurm.results, folder=root / ".slurm", options=options, n_at_a_time=n_workers)
    waiting = cells.unfinished(plans, directories)
    if arguments.dry_run:
        _print_dry_run(plans, waiting, root, n_shown=1)
        return 0
    _note_finished(plans, waiting)
    failures: dict[str, Failure] = {}
    if waiting:
        failures = cells.run_in_workers(waiting, directories, "run", n_workers=n_workers or 1, elsewhere=elsewhere)
    return _finish("run", directories, root, failures, is_group=True)


def _note_finished(plans: Mapping[str, Plan], waiting: Mapping[str, Plan]) -> None:
    if len(plans) > 1:
        console.note(f"{len(plans)} runs, {len(plans) - len(waiting)} of them finished")
    if not waiting:
        console.note("finished, nothing to do")


def _finish(
    stage: str, directories: Mapping[str, RunDirectory], root: Path, failures: Mapping[str, Failure], *, is_group: bool
) -> int:
    """Print what the runs came to and where it is, write what is of all of them; return the exit code."""
    from lurefs.comparing.finished_runs import read_runs
    from lurefs.reporting.page import write_page
    from lurefs.sweeps import cells

    done = [directory for name, directory in directories.items() if name not in failures]
    paths = [("results", root)]
    if done and stage in ("run", "evaluate"):
        runs = read_runs(done)
        _print_transfers(runs)
        if is_group and stage == "run":
            _note_others(root, done)
            paths += compare.write_comparison(runs, root)
        else:
            compare.print_comparison(runs)
            paths += [("report", write_page(runs, root))] if stage == "run" else []
    console.print_paths(paths)
    cells.tell_failures(failures)
    return cells.exit_code(failures)


def _note_others(root: Path, done: Sequence[RunDirectory]) -> None:
    """Say that a folder holds finished runs that the tables and the page leave out, and how to see all together."""
    found = {path.parent for path in root.glob("*/summary.json")} - {directory.path for directory in done}
    if found:
        runs = f"{len(found)} other finished run{'s' if len(found) > 1 else ''}"
        console.note(f"{root} holds {runs}, which are not in these tables: 'lurefs compare {root}' takes all")


def _print_dry_run(plans: Mapping[str, Plan], waiting: Mapping[str, Plan], root: Path, *, n_shown: int) -> None:
    """Check all, say of several runs which are finished, and what the first ones of different settings would do."""
    from lurefs.sweeps import cells

    cells.refuse(cells.check_runs([plan.config for plan in waiting.values()]), len(plans))
    for name in plans if len(plans) > 1 else ():
        print(f"{'to run  ' if name in waiting else 'finished'}  {name}")
    for config in cells.distinct([plan.config for plan in waiting.values()])[:n_shown]:
        _print_plan(plans[config.name])
    for text in cells.padding_notes([plan.config for plan in waiting.values()]):
        console.note(text)
    print(f"nothing was run; results would go to {root}" if waiting else f"finished, nothing to do; see {root}")


def _report(names: Sequence[str], output: Path | None) -> None:
    from lurefs.reporting.page import write_report
    from lurefs.runs.directory import RunDirectory

    paths = find_runs(names)
    first = Path(names[0]) if Path(names[0]).is_dir() else paths[0]
    console.print_paths([("report", write_report([RunDirectory(path) for path in paths], output or first))])


def _print_plan(plan: Plan) -> None:
    """Say in words what a run would do."""
    from lurefs.comparing.texts import regime
    from lurefs.learning.schedule import epoch_sizes
    from lurefs.stages.transfer_plan import plan_transfers

    run, classes, images = plan.config, plan.classes, plan.images
    n_train = [len(chunk.train) for chunk in plan.chunks]
    n_passes = sum(sum(epoch_sizes(n_train, index, run.learner)) for index in range(len(n_train)))
    print(f"run {run.name}")
    print(
        f"  data      {plan.dataset.name}: {len(classes.base)} base, {len(classes.validation)} validation and "
        f"{len(classes.novel)} novel classes; of the base classes {len(images.train)} images to train on, "
        f"{len(images.val)} for validation, {len(images.test)} for test"
    )
    sizes = ", ".join(str(len(chunk.train)) for chunk in plan.chunks)
    print(f"  chunks    {len(plan.chunks)}, replay {run.chunks.replay}{regime(run.chunks)}: {sizes} images to train on")
    print(f"  learner   {run.backbone.name}, {run.unlearn.name}, {_epochs_words(run.learner)}: {n_passes} image passes")
    for name, benchmark in plan.benchmarks.items():
        spec, target = benchmark.spec, benchmark.target_ci95
        most = "" if target is None else f"until ± {100 * target:g} points, at most "
        corrupt = "" if benchmark.corrupt is None else f", {benchmark.corrupt.words()}"
        print(
            f"  benchmark {name}: {most}{spec.n_episodes} episodes, {spec.words()}{corrupt}, of "
            f"{len(benchmark.rows)} images in {len(benchmark.class_names)} classes; probes {', '.join(run.probes)}"
        )
    for name, transfer in plan_transfers(plan).items():
        split = transfer.split
        sizes = ", ".join(str(size) for size in transfer.spec.sizes)
        print(
            f"  transfer  {name}: {sizes} of {len(split.train)} training images in {len(transfer.images.class_names)} "
            f"classes, {len(split.validation)} for validation, {len(split.test)} for test; probe "
            f"{transfer.config.probe.name}, {len(transfer.spec.fits)} fits"
        )


def _epochs_words(learner: LearnerConfig) -> str:
    first, later = learner.epochs, learner.relearn_epochs
    words = f"{first} epochs a chunk" if later is None else f"{first} epochs, then {later} a chunk"
    return f"{words}, as many images as were seen without a new start" if learner.match_images_seen else words


def _print_transfers(runs: Sequence[Run]) -> None:
    """Print one row a run, transfer and size."""
    rows = []
    for run in runs:
        for name, transfer in run.summary.transfer.items():
            for size, figures in transfer.sizes.items():
                accuracy = figures.accuracy
                over_images = accuracy.ci95_images
                rows.append(
                    (
                        run.label,
                        name,
                        size,
                        f"{accuracy.mean * 100:.2f}",
                        "-" if accuracy.ci95_repeats is None else f"± {accuracy.ci95_repeats * 100:.2f}",
                        "-" if over_images is None else " to ".join(f"{bound * 100:.2f}" for bound in over_images),
                        f"{figures.macro_accuracy.mean * 100:.2f}",
                        "-" if figures.ece is None else f"{figures.ece.mean * 100:.1f}",
                        "-"
                        if figures.chosen is None
                        else ", ".join(f"{value:g}" for value in sorted(set(figures.chosen)))
                        + (" (edge)" if figures.n_at_edge else ""),
                    )
                )
    columns = ("run", "transfer", "images a class", "accuracy %", "draws", "test images", "macro %", "ECE %", "chosen")
    if rows:
        console.print_table(
            "Transfer by training images a class, with 95 % intervals over draws of these and over test images",
            columns,
            rows,
            optional=[columns.index(name) for name in ("macro %", "ECE %", "chosen")],
        )
