"""The command `lurefs`: arguments to one call. Only here a process exits, or prints an error without a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lurefs import __version__, compare, config_file, console, episode_commands, plugins, push, views
from lurefs.config import LearnerConfig, RunConfig
from lurefs.config_file import RunGroup
from lurefs.errors import UserError
from lurefs.find_runs import find_runs
from lurefs.ranks import ranks_of

if TYPE_CHECKING:
    from lurefs.plan import Plan
    from lurefs.results import RunDirectory

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
    episode_commands.add_parser(commands)
    return parser


def _dispatch(arguments: argparse.Namespace) -> int:
    if arguments.command == "list":
        _list(arguments.kind, arguments.pattern)
    elif arguments.command == "episodes":
        episode_commands.run_action(arguments)
    elif arguments.command == "report":
        _report(arguments.runs, arguments.output)
    elif arguments.command == "compare":
        compare.run_command(arguments)
    elif arguments.command == "sweep":
        return _sweep(arguments)
    elif arguments.command == "reproduce":
        from lurefs.reproduce import reproduce

        return 0 if reproduce(arguments.run_dir, arguments.output) else 1
    elif arguments.command == "push":
        return EXIT_FAILURE if push.run_command(arguments) else 0
    elif arguments.command == "views":
        views.run_command(arguments)
    else:
        group, root = _load(arguments)
        _run_group(group, root, arguments.command, dry_run=arguments.dry_run)
    return 0


def _list(kind: str, pattern: str) -> None:
    if kind == "settings":
        from lurefs.settings_page import settings_page

        found = [part for part in settings_page().split("\n## ")[1:] if pattern in part.splitlines()[0]]
    elif kind == "backbones":
        from lurefs.backbones import list_backbones

        found = list_backbones(pattern)
    else:
        found = [name for name in plugins.names(LISTS[kind]) if pattern in name]
    print("\n".join(found) if found else f"no {kind} hold {pattern!r}")


def _load(arguments: argparse.Namespace) -> tuple[RunGroup, Path]:
    """Return what to run, and where: from --config, or from the config that a run directory holds."""
    if arguments.config is not None and getattr(arguments, "run_root", None) is not None:
        from lurefs.grid import named_run

        if arguments.run_dir is not None:
            raise UserError("--run-dir and --run-root are both given", "one of the two", "leave --run-dir out")
        config = named_run(arguments.config, arguments.overrides)
        group = RunGroup(name=config.name, runs={config.name: config}, has_variants=False)
        return group, arguments.run_root / config.name
    if arguments.config is not None:
        group = config_file.load(arguments.config, arguments.overrides)
        return group, arguments.run_dir or Path("runs") / group.name
    if arguments.run_dir is None:
        recipes = ", ".join(sorted(path.stem for path in config_file.recipes_dir().glob("*.yaml")))
        raise UserError(
            "neither --config nor --run-dir is given", "at least one of the two", f"try --config: {recipes}"
        )
    from lurefs.results import RunDirectory

    stored = RunDirectory(arguments.run_dir)
    stored.read_config()
    group = config_file.load(str(stored.config_path), arguments.overrides)
    return group, arguments.run_dir


def _run_group(group: RunGroup, root: Path, stage: str, *, dry_run: bool) -> None:
    from lurefs.plan import make_plan
    from lurefs.results import RunDirectory

    plans = [make_plan(run) for run in group.runs.values()]
    directories = [RunDirectory(root / name if group.has_variants else root) for name in group.runs]
    if dry_run:
        from lurefs.backbones import check_backbone

        for plan in plans:
            check_backbone(plan.config.backbone)
            _print_plan(plan)
        print(f"nothing was run; results would go to {root}")
        return
    for directory in directories:
        directory.check_writable()
    from lurefs import run

    for plan in plans:
        run.check(plan)
    for plan, directory in zip(plans, directories, strict=True):
        run.run_stage(plan, directory, stage)
    ranks_of().leave()
    if not ranks_of().is_first:
        return
    if stage in ("run", "evaluate"):
        _print_results([plan.config for plan in plans], directories)
        _print_transfers([plan.config for plan in plans], directories)
    paths = [("results", root)]
    if stage == "run":
        paths.append(("report", run.write_group_report(directories, root)))
    console.print_paths(paths)


def _sweep(arguments: argparse.Namespace) -> int:
    """Run a grid's cells, then print and write what all of them came to; return the exit code."""
    from lurefs import grid, sweep

    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(f"--workers is {arguments.workers}", "a number of at least 1", "leave it out for one process")
    asked = grid.read_grid(arguments.config, arguments.overrides, arguments.run_root)
    root, elsewhere = asked.run_root, None
    plans = sweep.plan_cells(grid.cells_of(asked))
    if arguments.slurm is not None:
        from lurefs import slurm

        options = slurm.read_options(arguments.slurm)
        elsewhere = partial(slurm.results, folder=root / ".slurm", options=options, n_at_a_time=arguments.workers)
    if arguments.dry_run:
        _print_cells(plans, root)
        return 0
    failures = sweep.run_cells(plans, root, n_workers=arguments.workers or 1, elsewhere=elsewhere)
    done = {name: sweep.directory_of(name, root) for name in plans if name not in failures}
    paths = [("results", root)]
    if done:
        from lurefs.reporting.runs import read_runs

        directories = list(done.values())
        _print_transfers([plans[name].config for name in done], directories)
        paths += compare.write_comparison(read_runs(directories), root)
    console.print_paths(paths)
    sweep.tell_failures(failures)
    return sweep.exit_code(failures)


def _print_cells(plans: Mapping[str, Plan], root: Path) -> None:
    """Say which cells there are, which are finished, and what the first one that is not would do."""
    from lurefs import grid, sweep

    waiting = sweep.unfinished(plans, root)
    wrong = sweep.check_cells([plan.config for plan in waiting.values()])
    if wrong is not None:
        raise grid.of_cell(*wrong)
    for name in plans:
        print(f"{'to run  ' if name in waiting else 'finished'}  {name}")
    for plan in list(waiting.values())[:1]:
        _print_plan(plan)
    print(f"nothing was run; results would go to {root}")


def _report(names: Sequence[str], output: Path | None) -> None:
    from lurefs.report import write_report
    from lurefs.results import RunDirectory

    paths = find_runs(names)
    first = Path(names[0]) if Path(names[0]).is_dir() else paths[0]
    console.print_paths([("report", write_report([RunDirectory(path) for path in paths], output or first))])


def _print_plan(plan: Plan) -> None:
    """Say in words what a run would do."""
    from lurefs.reporting.wording import regime
    from lurefs.schedule import epoch_sizes
    from lurefs.transfer_plan import plan_transfers

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


def _print_transfers(runs: Sequence[RunConfig], directories: Sequence[RunDirectory]) -> None:
    """Print one row a run, transfer and size."""
    rows = []
    for run, directory in zip(runs, directories, strict=True):
        for name, transfer in directory.read_summary().get("transfer", {}).items():
            for size, figures in transfer["sizes"].items():
                accuracy = figures["accuracy"]
                over_images = accuracy["ci95_images"]
                rows.append(
                    (
                        run.name,
                        name,
                        size,
                        f"{accuracy['mean'] * 100:.2f}",
                        "-" if accuracy["ci95_repeats"] is None else f"± {accuracy['ci95_repeats'] * 100:.2f}",
                        "-" if over_images is None else " to ".join(f"{bound * 100:.2f}" for bound in over_images),
                        f"{figures['macro_accuracy']['mean'] * 100:.2f}",
                        "-" if figures["ece"] is None else f"{figures['ece']['mean'] * 100:.1f}",
                        "-"
                        if figures["chosen"] is None
                        else ", ".join(f"{value:g}" for value in sorted(set(figures["chosen"])))
                        + (" (edge)" if figures["n_at_edge"] else ""),
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


def _print_results(runs: Sequence[RunConfig], directories: Sequence[RunDirectory]) -> None:
    """Print one row a run, benchmark and probe."""
    rows = []
    for run, directory in zip(runs, directories, strict=True):
        summary = directory.read_summary()
        for name, benchmark in summary["benchmarks"].items():
            for probe, figures in benchmark["probes"].items():
                accuracy = figures["accuracy"]
                over_classes = accuracy["ci95_classes"]
                rows.append(
                    (
                        run.name,
                        name,
                        probe,
                        f"{accuracy['mean'] * 100:.2f}",
                        f"± {accuracy['ci95_episodes'] * 100:.2f}",
                        "-" if over_classes is None else f"± {over_classes * 100:.2f}",
                        "-" if figures["ece"] is None else f"{figures['ece'] * 100:.1f}",
                        f"{summary['pretrain']['test_accuracy'][-1] * 100:.1f}",
                    )
                )
    columns = ("run", "benchmark", "probe", "accuracy %", "this pool", "new classes", "ECE %", "base test %")
    console.print_table(
        "Few-shot accuracy, with 95 % intervals for this pool of classes and for new classes", columns, rows
    )
