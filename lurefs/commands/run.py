"""The commands `lurefs run | pretrain | extract | evaluate`: all stages, or one stage, of a recipe's runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lurefs import console, plugins
from lurefs.commands import compare, frozen
from lurefs.config.learning_schema import LearnerConfig
from lurefs.config.load import RunGroup, check_workers, load, recipes_dir
from lurefs.errors import UserError
from lurefs.ranks import ranks_of
from lurefs.runs.directory import RunDirectory

if TYPE_CHECKING:
    from lurefs.comparing.finished_runs import Run
    from lurefs.stages.plan import Plan
    from lurefs.sweeps.workers import Failure

WORDS = "RECIPE key.sub=value"
WORDS_HELP = "{} (as --config), and settings that win over it"
DATA = ("a recipe", "images to measure --backbone on as it is, files of features, or a recipe")
STAGES = {
    "run": "all stages: pretrain, extract, evaluate and report",
    "pretrain": "learn the chunks, and store a checkpoint and an outcome after each",
    "extract": "embed the benchmarks' images with the last chunk's weights",
    "evaluate": "score the probes on the benchmarks' episodes, and write summary.json",
}


def add_parser(commands: Any) -> None:
    """Add the command `run` and those of its stages to an argument parser's commands."""
    for stage, words in STAGES.items():
        parser = commands.add_parser(stage, help=words, description=words.capitalize() + ".")
        parser.add_argument("--config", metavar="NAME_OR_FILE", help="a recipe's name or a YAML file")
        parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where the results go (default: runs/<name>)")
        if stage == "run":
            parser.add_argument(
                "--run-root", type=Path, metavar="DIR", help="folder for a run that is named by its settings"
            )
        if stage == "evaluate":
            frozen.add_options(parser)
        parser.add_argument("--workers", type=int, metavar="N", help="number of processes for variants and seeds")
        parser.add_argument("--allow-code", action="store_true", help=plugins.ALLOW_CODE_HELP)
        parser.add_argument("--dry-run", action="store_true", help="check everything and say what would be done")
        parser.add_argument("overrides", nargs="*", metavar=WORDS, help=WORDS_HELP.format(DATA[stage == "evaluate"]))
        parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do one or all stages of a recipe's runs, then print the results; return the exit code.

    Raises:
        UserError: The config is wrong, a run cannot be run as it is, or its directory cannot be written.
    """
    from lurefs.sweeps import cells

    take_first_word(arguments)
    is_frozen = getattr(arguments, "data", None) is not None
    if not is_frozen:
        frozen.refuse_options(arguments)
    group, root = frozen.frozen_group(arguments) if is_frozen else _load(arguments)
    stage, ranks = "run" if is_frozen else arguments.command, ranks_of()
    n_workers = group.n_workers if arguments.workers is None else check_workers("--workers", arguments.workers)
    planned = cells.plan_group(group, root, stage)
    if arguments.dry_run:
        cells.refuse_early(planned.waiting, planned.directories, stage)
        print_dry_run(planned.plans, planned.waiting, root, n_shown=len(planned.plans))
        return 0
    if stage == "run" and ranks.is_first:
        note_finished(planned.plans, planned.waiting)
    failures = cells.do_runs(planned, stage, n_workers=n_workers)
    ranks.leave()
    return finish(stage, planned.directories, root, failures, is_group=group.has_folders) if ranks.is_first else 0


def take_first_word(arguments: argparse.Namespace) -> None:
    """Take a word without `=` as the recipe, or for `evaluate` words as the data unless the first is a YAML file.

    Raises:
        UserError: There are several such words, or one beside --config.
    """
    words = [text for text in arguments.overrides if "=" not in text]
    if not words:
        return
    is_data = arguments.command == "evaluate" and not words[0].endswith((".yaml", ".yml"))
    if (len(words) > 1 and not is_data) or arguments.config is not None:
        raise UserError(
            f"{words[-1]!r} is no setting", "settings as key.sub=value", "give one recipe only, and settings with '='"
        )
    arguments.overrides = [text for text in arguments.overrides if text not in words]
    if is_data:
        arguments.data, *arguments.others = words
    else:
        arguments.config = words[0]


def note_finished(plans: Mapping[str, Plan], waiting: Mapping[str, Plan]) -> None:
    """Print how many of several runs are finished, and whether there is nothing to do."""
    if len(plans) > 1:
        console.note(f"{len(plans)} runs, {len(plans) - len(waiting)} of them finished")
    if not waiting:
        console.note("finished, nothing to do")


def finish(
    stage: str, directories: Mapping[str, RunDirectory], root: Path, failures: Mapping[str, Failure], *, is_group: bool
) -> int:
    """Print the results of the runs and their paths, write the page and tables of all; return the exit code.

    Raises:
        UserError: A file of a run is damaged, or the page cannot be written; why runs failed is printed before.
    """
    from lurefs.comparing.finished_runs import read_runs
    from lurefs.reporting.page import write_page
    from lurefs.sweeps import cells

    done = [directory for name, directory in directories.items() if name not in failures]
    paths = [("results", root)]
    try:
        if done and stage in ("run", "evaluate"):
            runs = read_runs(done)
            print_transfers(runs)
            if is_group and stage == "run":
                _note_others(root, done)
                paths += compare.write_comparison(runs, root)
            else:
                compare.print_comparison(runs)
                paths += [("report", write_page(runs, root))] if stage == "run" else []
    finally:
        console.print_paths(paths)
        cells.tell_failures(failures)
    return cells.exit_code(failures)


def print_dry_run(plans: Mapping[str, Plan], waiting: Mapping[str, Plan], root: Path, *, n_shown: int) -> None:
    """Print which runs are finished, and what the first `n_shown` with different settings would do."""
    from lurefs.sweeps import cells

    for name in plans if len(plans) > 1 else ():
        print(f"{'to run  ' if name in waiting else 'finished'}  {name}")
    for config in cells.distinct([plan.config for plan in waiting.values()])[:n_shown]:
        _print_plan(plans[config.name])
    for text in cells.padding_notes([plan.config for plan in waiting.values()]):
        console.note(text)
    print(f"nothing was run; results would go to {root}" if waiting else f"finished, nothing to do; see {root}")


def _load(arguments: argparse.Namespace) -> tuple[RunGroup, Path]:
    """Return the runs and their folder, from --config or from the config in a run directory."""
    if getattr(arguments, "run_root", None) is not None:
        from lurefs.sweeps.grid import named_run

        if arguments.run_dir is not None:
            raise UserError("--run-dir and --run-root are both given", "one of the two", "leave one of them out")
        if arguments.config is None:
            raise UserError(
                "--run-root is given without --config",
                "a recipe, whose run is named by its settings",
                "add --config NAME_OR_FILE, or give --run-dir to go on with a run that is there",
            )
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
    stored = RunDirectory(arguments.run_dir)
    stored.read_config()
    group = load(str(stored.config_path), arguments.overrides)
    return group, arguments.run_dir


def _note_others(root: Path, done: Sequence[RunDirectory]) -> None:
    """Print a note if a folder has other finished runs, which the tables and the page leave out."""
    found = {path.parent for path in root.glob("*/summary.json")} - {directory.path for directory in done}
    if found:
        runs = f"{len(found)} other finished run{'s' if len(found) > 1 else ''}"
        console.note(f"{root} holds {runs}, which are not in these tables: 'lurefs compare {root}' takes all")


def _print_plan(plan: Plan) -> None:
    """Print in words what a run would do."""
    from lurefs.comparing.texts import regime
    from lurefs.config.choosing import choosing_probes
    from lurefs.config.fine_tuning import fine_tunings
    from lurefs.data.splits import held_back_sources
    from lurefs.learning.schedule import epoch_sizes
    from lurefs.stages.transfer_plan import plan_transfers
    from lurefs.stages.validation import N_EPISODES

    run, classes, images = plan.config, plan.classes, plan.images
    n_train = [len(chunk.train) for chunk in plan.chunks]
    n_passes = sum(sum(epoch_sizes(n_train, index, run.learner)) for index in range(len(n_train)))
    print(f"run {run.name}")
    of_base = (
        f"; of the base classes {len(images.train)} images to train on, {len(images.val)} for validation, "
        f"{len(images.test)} for test"
    )
    print(
        f"  data      {plan.dataset.name}: {len(classes.base)} base, {len(classes.validation)} validation and "
        f"{len(classes.novel)} novel classes{of_base if len(classes.base) else ''}"
    )
    if run.source_split is not None:
        held_back = plan.dataset.sources[held_back_sources(plan.dataset, run.source_split)]
        n_sources = len(plan.dataset.source_names)
        print(f"  sources   {len(set(held_back.tolist()))} of {n_sources} are held back from base training")
    if run.brings_features:
        print(
            f"  features  {plan.dataset.n_features} per image, of a file: there is no model, and there are no controls"
        )
    elif run.frozen:
        print(f"  frozen    {run.backbone.name} as it is: nothing is learned")
    else:
        sizes = ", ".join(str(len(chunk.train)) for chunk in plan.chunks)
        arrival = f"replay {run.chunks.replay}{regime(run.chunks)}"
        print(f"  chunks    {len(plan.chunks)}, {arrival}: {sizes} images to train on")
        words = f"{run.backbone.name}, {run.unlearn.name}, {_epochs_words(run.learner)}"
        print(f"  learner   {words}: {n_passes} image passes")
        if more := _learner_words(run.learner):
            print(f"            {more}")
    if not run.brings_features:
        _print_weights(plan)
    for name, benchmark in plan.benchmarks.items():
        spec, target, drawn_from = benchmark.spec, benchmark.target_ci95, benchmark.images
        most = "" if target is None else f"until ± {100 * target:g} points, at most "
        corrupt = "" if benchmark.corrupt is None else f", {benchmark.corrupt.words()}"
        print(
            f"  benchmark {name}: {most}{spec.n_episodes} episodes, {spec.words()}{corrupt}, of "
            f"{len(drawn_from.rows)} images in {len(drawn_from.class_names)} classes; probes {', '.join(run.probes)}"
        )
    for name, probe in choosing_probes(run).items():
        grid = ", ".join(f"{key} from {', '.join(map(str, values))}" for key, values in (probe.choose or {}).items())
        print(
            f"  choose    {name}: {grid}, on {N_EPISODES} episodes of {len(classes.validation)} validation classes for "
            "each benchmark"
        )
    for name, settings in fine_tunings(run).items():
        print(f"  fine-tune {name}: {settings.words()} of each benchmark")
    for name, transfer in plan_transfers(plan).items():
        split = transfer.split
        sizes = ", ".join(str(size) for size in transfer.spec.sizes)
        print(
            f"  transfer  {name}: {sizes} of {len(split.train)} training images in {len(transfer.images.class_names)} "
            f"classes, {len(split.validation)} for validation, {len(split.test)} for test; probe "
            f"{transfer.config.probe.name}, {len(transfer.spec.fits)} fits"
        )


def _print_weights(plan: Plan) -> None:
    """Print the chosen features of a run's backbone, its loaded weights, and how images are prepared for them."""
    from lurefs.stages.stage import plan_backbone

    backbone = plan_backbone(plan)
    if backbone.features.words():
        print(f"  features  {backbone.n_features} per image: {backbone.features.words()}")
    if not backbone.weights:
        return
    view, size = backbone.view, f"{backbone.image_size} x {backbone.image_size} pixels"
    crop = f"{view.crop_share:g} of {'the image made square' if view.is_squashed else 'the shorter side'}"
    from_files = f"{size}, {crop}, {view.interpolation}"
    mean, deviation = (", ".join(f"{value:.3g}" for value in values) for values in (backbone.mean, backbone.std))
    print(f"  weights   {backbone.weights}")
    print(f"  images    {from_files if plan.dataset.viewed else size}; mean {mean}, deviation {deviation}")


def _epochs_words(learner: LearnerConfig) -> str:
    first, later = learner.epochs, learner.relearn_epochs
    words = f"{first} epochs per chunk" if later is None else f"{first} epochs, then {later} per chunk"
    return f"{words}, each on as many images as all chunks so far" if learner.match_images_seen else words


def _learner_words(learner: LearnerConfig) -> str:
    """Return in words which parts learn less than others, and how batches and weights are mixed; empty if none."""
    freeze, layer_decay = learner.freeze, learner.optimizer.params.get("layer_decay")
    first = "timm's first stage" if freeze == 1 else f"timm's first {freeze} stages"
    frozen = first if isinstance(freeze, int) else ", ".join(freeze or ())
    said = {
        f"frozen: {frozen}": freeze is not None,
        f"layer decay {layer_decay}": layer_decay is not None,
        f"mixup {learner.augment.mixup}": learner.augment.mixup is not None,
        f"CutMix {learner.augment.cutmix}": learner.augment.cutmix is not None,
        f"the weights' moving average (decay {learner.ema_decay}) is kept": learner.ema_decay is not None,
    }
    return "; ".join(words for words, is_set in said.items() if is_set)


def print_transfers(runs: Sequence[Run]) -> None:
    """Print a table of transfers, with one row per run, transfer and size."""
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
    heads = ("run", "transfer", "images per class", "accuracy %", "draws", "test images", "macro %", "ECE %", "chosen")
    if rows:
        console.print_table(
            "Transfer by training images per class, with 95 % intervals over draws of these and over test images",
            heads,
            rows,
            optional=[heads.index(name) for name in ("macro %", "ECE %", "chosen")],
        )
