"""lurefs from Python: `lurefs.run`, `lurefs.evaluate`, `lurefs.embed` and `lurefs.compare`.

They do what the commands of the same names do, and return results in place of printing them. Progress and notes go to
stderr. What a user can fix is raised as `lurefs.UserError`, whose text has three parts. After Ctrl-C the same call
resumes: every finished chunk, feature and probe is on disk. Calls from several threads of a process take turns.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lurefs import plugins
from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.load import RunGroup, check_workers, group_of, load
from lurefs.config.schema import RunConfig
from lurefs.data.dataset import ImageDataset
from lurefs.errors import UserError
from lurefs.ranks import ranks_of
from lurefs.results import Results
from lurefs.seeding import seed_stream

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import nn

    from episodes.bank import FeatureBank
    from lurefs.learning.backbones import Backbone

Settings = Mapping[str, Any] | Sequence[str]
"""Settings by name, nested or dotted (`{"learner.epochs": 2}`), or texts (`learner.epochs=2`) as a command
line has."""

_TURN = threading.RLock()
"""Held during a call: torch's number of threads and matplotlib's settings are those of the whole process."""


def run(
    recipe: str | Path | Mapping[str, Any] | RunConfig,
    settings: Settings = (),
    *,
    run_dir: Path | str | None = None,
    n_workers: int | None = None,
    allow_code: bool = False,
) -> Results:
    """Do what is not done yet of a recipe's runs, as `lurefs run` does, and return the results of all.

    Args:
        recipe: The name of a recipe that comes with lurefs, the path of a YAML file, a recipe as a mapping, or one
            run's configuration. Relative paths in a file start at its folder, those in a mapping at the working
            directory.
        settings: Settings that win over the recipe.
        run_dir: Where the results go; None is `runs/<name>`.
        n_workers: Number of processes for variants and seeds; None is what the recipe says, by default this process.
        allow_code: Whether the recipe may name code of any installed module, and not only plug-ins of lurefs, classes
            of scikit-learn and modules beside the recipe.

    Raises:
        UserError: A setting is unknown or wrong, the folder holds another run or is in use, or a run fails. In several
            processes a failed run does not stop the others; it is in `failures` unless all failed.
    """
    with _turn(), plugins.code_allowed(allow_code):
        group = _group(recipe, settings)
        return _run(group, _folder(run_dir, Path("runs") / group.name), n_workers)


def evaluate(
    data: Any,
    backbone: str | Sequence[str] | None = None,
    settings: Settings = (),
    *,
    labels: ArrayLike | None = None,
    weights: str | Path | None = None,
    shots: int | Sequence[int] = (1, 5),
    way: int = 5,
    run_dir: Path | str | None = None,
    n_workers: int | None = None,
) -> Results:
    """Measure backbones on few-shot episodes, as `lurefs evaluate DATA --backbone NAMES` does, or features of any.

    Args:
        data: A folder with one sub-folder per class, an `.npz` file, or the name of a data set. Or features: a file of
            them or a list of files, a `FeatureBank`, banks by name in a mapping, or an array (n_images, n_features)
            with `labels`. Those in memory are stored in the folder of the results, in `given`.
        backbone: One or several timm names, which may be one text with commas between; none for features. timm's
            pretrained weights are loaded unless `settings` has `backbone.pretrained: False`.
        settings: Settings that win over those of `lurefs init DATA`.
        labels: (n_images,) labels of an array of features, whole numbers or texts.
        weights: A file of weights for the only backbone, in place of timm's.
        shots: Labelled images per class, one benchmark each.
        way: Classes per episode.
        run_dir: Where the results go; None is `runs/<name of the data>`.
        n_workers: Number of processes; None for this one.

    Raises:
        UserError: There are no such data or weights, there are too few classes or images, or see `run`.
    """
    from lurefs.commands import frozen

    if not isinstance(data, str | Path) and not _are_paths(data):
        return _evaluate_in_memory(
            data, labels, backbone, settings, shots=shots, way=way, run_dir=run_dir, n_workers=n_workers
        )
    if labels is not None:
        raise UserError(
            "labels are given beside data that have their own", "labels only for an array", "leave labels out"
        )
    files = [str(data)] if isinstance(data, str | Path) else [str(path) for path in data]
    asked = argparse.Namespace(
        data=files[0],
        others=files[1:],
        backbone=backbone if backbone is None or isinstance(backbone, str) else ",".join(backbone),
        weights=weights,
        shots=str(shots) if isinstance(shots, int) else ",".join(map(str, shots)),
        way=way,
        overrides=_texts(settings),
        run_dir=None,
    )
    with _turn():
        group, root = frozen.frozen_group(asked)
        return _run(group, _folder(run_dir, root), n_workers)


def _evaluate_in_memory(
    data: Any,
    labels: ArrayLike | None,
    backbone: Any,
    settings: Settings,
    *,
    run_dir: Path | str | None,
    **options: Any,
) -> Results:
    """Evaluate features in memory, from files in the folder of the results; these go if the run is refused."""
    from lurefs.data.features_memory import banks_of, write_features

    folder = _folder(run_dir, Path("runs") / "features") / "given"
    files = {folder / f"{name}.npz": bank for name, bank in banks_of(data, labels).items()}
    new = [path for path in files if not path.exists()]
    for path, bank in files.items():
        write_features(path, bank)
    try:
        return evaluate(list(files), backbone, settings, run_dir=folder.parent, **options)
    except UserError:
        if not (folder.parent / "report.html").exists() and not list(folder.parent.glob("*/config.yaml")):
            for path in new:
                path.unlink()
            with suppress(OSError):
                folder.rmdir()
                folder.parent.rmdir()
        raise


def _are_paths(data: Any) -> bool:
    return isinstance(data, list | tuple) and len(data) > 0 and all(isinstance(path, str | Path) for path in data)


def embed(
    model: str | Mapping[str, Any] | nn.Module | Backbone,
    images: str | Path | ImageDataset | np.ndarray[Any, Any],
    labels: ArrayLike | None = None,
    *,
    image_size: int | None = None,
    batch_size: int = 256,
    device: str = "auto",
) -> FeatureBank:
    """Return the features of all images by a frozen model: what its classifier would get, one row per image.

    Args:
        model: A timm name, whose pretrained weights are loaded; a mapping of the settings `backbone` of a recipe, which
            loads no weights unless it says so, and then has those of a run with seed 0; a model of timm with any
            weights, which is not changed; or a `Backbone`.
        images: An `ImageDataset`, a folder with one sub-folder per class, an `.npz` file, the name of a data set, or an
            array (n_images, height, width, 1 or 3) or (n_images, height, width) uint8 in [0, 255].
        labels: (n_images,) labels of an array; None puts all of its images into one class. Other images have their own.
        image_size: Height and width of the model's input in pixels; None is the size of its weights or of its card, and
            for a named model without weights that of the images.
        batch_size: Images that are read at one time.
        device: Where a named model computes: `auto`, `cpu` or `cuda`; other models stay where they are.

    Returns:
        The features, (n_images, n_features) float32, with labels, image ids and class names, for `episodes.evaluate`.

    Raises:
        UserError: There is no such model, its weights cannot be had, or it cannot read these images.
    """
    from lurefs import console
    from lurefs.learning.weights import state_sha256
    from lurefs.stages.features import as_needed, embed_batches, feature_identity, make_bank
    from lurefs.stages.identity import backbone_card
    from lurefs.stages.plan import ImageSet

    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size!r}", "a whole number of at least 1", "leave it out")
    with _turn():
        dataset = _dataset(images, labels)
        backbone = _backbone(model, dataset, image_size, device)
        rows = np.arange(len(dataset), dtype=np.int64)
        given = ImageSet(
            name=dataset.name, dataset=dataset, rows=rows, labels=dataset.labels, class_names=dataset.class_names
        )
        needed = as_needed(given, backbone)
        n_batches = -(-len(rows) // batch_size)
        with _modes_kept(backbone.model):
            batches = embed_batches(backbone, needed, batch_size, range(n_batches))
            shown = console.track(batches, n_batches, f"features of {dataset.name} by {backbone.name}")
            identity = feature_identity(needed, backbone_card(backbone), state_sha256(backbone.model))
            return make_bank(needed, shown, identity)


def compare(
    runs: str | Path | Results | Sequence[str | Path | Results],
    *,
    reference: str | None = None,
    benchmark: str | None = None,
    probe: str | None = None,
    common_episodes: bool = False,
    skip_unfinished: bool = False,
    over: Literal["images"] | None = None,
) -> Results:
    """Compare finished runs on the same episodes, as `lurefs compare` does; nothing is written.

    Args:
        runs: Run directories, folders of runs, patterns such as `runs/*-seed?`, names of runs below `runs`, or results.
        reference: The run that the others are compared with; None for a warm start, otherwise the first.
        benchmark: Only this one; None for all.
        probe: Only this one; None for all.
        common_episodes: Whether runs of different lengths are compared on the first episodes that all of them met.
        skip_unfinished: Whether runs that are not evaluated yet are left out.
        over: `images` adds intervals on other images of the same classes, from stored answers.

    Raises:
        UserError: A run cannot be found or is not finished, or the runs were scored on different episodes.
    """
    from lurefs.commands.compare import comparable_runs
    from lurefs.runs.find import find_runs

    named = [runs] if isinstance(runs, str | Path | Results) else list(runs)
    names = [
        path
        for each in named
        for path in ([run.directory.path for run in each.runs] if isinstance(each, Results) else [Path(each)])
    ]
    if not names:
        raise UserError("there is no run to compare", "at least one run", "name a run or a folder of runs")
    with _turn():
        found = comparable_runs(
            find_runs([path.expanduser() for path in names]),
            reference=reference,
            benchmark=benchmark,
            probe=probe,
            common_episodes=common_episodes,
            skip_unfinished=skip_unfinished,
        )
    if over not in (None, "images"):
        raise UserError(f"over is {over!r}", "'images' or None", "choose one of them")
    return Results(runs=tuple(found), benchmark=benchmark, probe=probe, is_over_images=over == "images")


@contextmanager
def _turn() -> Iterator[None]:
    """Wait until no other thread of this process is within a call.

    Raises:
        UserError: This is one of several processes of `torchrun`.
    """
    if ranks_of().world_size > 1:
        raise UserError(
            f"this is one of {ranks_of().world_size} processes that torchrun started",
            "one process; in Python only one has the results",
            "start 'torchrun -m lurefs run', then read the results with lurefs.compare",
        )
    with _TURN:
        yield


def _run(group: RunGroup, root: Path, n_workers: int | None) -> Results:
    from lurefs.commands.run import note_finished
    from lurefs.comparing.finished_runs import read_runs
    from lurefs.reporting.page import write_page
    from lurefs.sweeps import cells

    n_processes = group.n_workers if n_workers is None else check_workers("n_workers", n_workers)
    planned = cells.plan_group(group, root, "run")
    note_finished(planned.plans, planned.waiting)
    failures = cells.do_runs(planned, "run", n_workers=n_processes)
    cells.tell_failures(failures)
    done = [directory for name, directory in planned.directories.items() if name not in failures]
    reasons = {name: failure.reason for name, failure in failures.items()}
    if not done:
        raise UserError(
            f"none of the {len(reasons)} runs was finished", "runs without an error", next(iter(reasons.values()))
        )
    results = Results(runs=tuple(read_runs(done)), folder=root, failures=reasons)
    if planned.has_folders:
        results.save(root)
    else:
        write_page(results.runs, root)
    return results


def _group(recipe: str | Path | Mapping[str, Any] | RunConfig, settings: Settings) -> RunGroup:
    """Return the runs of a recipe in any form."""
    from lurefs.records import to_mapping

    if isinstance(recipe, str | Path):
        return load(recipe, _texts(settings))
    if not isinstance(recipe, Mapping | RunConfig):
        raise UserError(
            f"the recipe is a {type(recipe).__name__}",
            "a recipe's name, the path of a YAML file, a mapping, or a RunConfig",
            "write e.g. lurefs.run('quickstart')",
        )
    plain = to_mapping(recipe) if isinstance(recipe, RunConfig) else json.loads(_text("the recipe", recipe))
    return group_of(plain, _texts(settings), name="run")


def _texts(settings: Settings) -> list[str]:
    """Return settings as the texts of the command line, `key.sub=value`."""
    if isinstance(settings, Mapping):
        return [f"{key}={_text(str(key), value)}" for key, value in settings.items()]
    if isinstance(settings, str) or not all(isinstance(text, str) for text in settings):
        raise UserError(
            f"settings is {settings!r}",
            "a mapping, or a list of texts",
            "write {'learner.epochs': 2} or ['learner.epochs=2']",
        )
    return list(settings)


def _text(name: str, value: Any) -> str:
    """Return a value of Python as JSON, which is YAML, too."""

    def plain(part: Any) -> Any:
        if isinstance(part, np.generic | np.ndarray):
            return part.tolist()
        if isinstance(part, Path):
            return str(part)
        if isinstance(part, Mapping):
            return dict(part)
        raise UserError(
            f"{name} holds a {type(part).__name__}: {part!r}",
            "numbers, texts, True, False, None, and lists and mappings of them",
            "name a plug-in by its path, 'package.module:factory'",
        )

    return json.dumps(value, default=plain, ensure_ascii=False)


def _folder(named: Path | str | None, otherwise: Path) -> Path:
    return otherwise if named is None else Path(named).expanduser()


def _dataset(images: Any, labels: ArrayLike | None) -> ImageDataset:
    """Return images in any form as a data set."""
    from lurefs.commands.frozen import dataset_of
    from lurefs.data.arrays import array

    if not isinstance(images, str | Path | ImageDataset):
        return array(images, labels)
    if labels is not None:
        raise UserError(
            "labels are given beside images that have their own", "labels only for an array", "leave labels out"
        )
    if isinstance(images, ImageDataset):
        return images
    name, params = dataset_of(str(images))
    dataset: ImageDataset = plugins.build("dataset", name, params)
    if dataset.read_features is not None:
        raise UserError(f"{images} holds features", "images", "measure them with lurefs.evaluate")
    return dataset


def _backbone(model: Any, dataset: ImageDataset, image_size: int | None, device: str) -> Backbone:
    """Return a model in any form as a backbone."""
    from torch import nn

    from lurefs.config.load import run_config
    from lurefs.learning.backbones import Backbone, build_backbone, resolve_device
    from lurefs.learning.given import given_backbone

    if isinstance(model, Backbone):
        return model
    if isinstance(model, nn.Module):
        return given_backbone(model, image_size=image_size)
    if not isinstance(model, str | Mapping):
        raise UserError(
            f"the model is a {type(model).__name__}",
            "a timm name, the settings of a backbone as a mapping, a model of timm, or a Backbone",
            "write e.g. lurefs.embed('resnet18', images)",
        )
    named: dict[str, Any] = {"name": model, "pretrained": True} if isinstance(model, str) else dict(model)
    if image_size is not None:
        named["image_size"] = image_size
    config: BackboneConfig = run_config({"name": "embed", "frozen": True, "backbone": named}).backbone
    backbone = build_backbone(
        config,
        n_classes=0,
        n_channels=dataset.n_channels,
        image_size=dataset.image_size,
        seed=seed_stream(0, "weights"),
    )
    backbone.model.to(resolve_device(device))
    return backbone


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    """Put each module back into training or evaluation mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training
