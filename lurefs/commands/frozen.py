"""Recipes that measure backbones as they are, for a user's images: `lurefs evaluate DATA`, and `lurefs init DATA`."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

from lurefs import console, plugins
from lurefs.config.documents import parse_overrides
from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.load import RunGroup, group_of
from lurefs.config.paths import absolute
from lurefs.config.schema import FEATURES
from lurefs.config.weight_files import LOCAL_DIR
from lurefs.data.features_file import difference, holds_features
from lurefs.data.recognise import recognise
from lurefs.errors import UserError

if TYPE_CHECKING:
    from lurefs.data.dataset import ImageDataset

MAX_QUERIES = 15
"""Query images per class, if every class has that many beside its support images."""
EXAMPLE = "test_resnet"
"""The backbone of a recipe that names none: small, and its weights are not downloaded."""
SHOTS, WAY = "1,5", 5
"""Labels per class, and classes per episode, if the command line does not say."""
MODELS = ("hf-hub:", "hf_hub:", LOCAL_DIR)
"""What the names of models start with that timm takes from a hub or a folder."""


def add_parser(commands: Any) -> None:
    """Add the command `init` to an argument parser's commands."""
    words = "write a commented recipe that measures backbones as they are on a user's images"
    parser = commands.add_parser("init", help=words, description=words.capitalize() + ".")
    words = "a folder of images, a file of them, files of features, or a name"
    parser.add_argument("data", metavar="DATA", help=words)
    add_options(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="the recipe (default: <name of DATA>.yaml)")
    words = "more files of features, or settings of the data set, e.g. dataset.params.image_size=64"
    parser.add_argument("overrides", nargs="*", metavar="DATA dataset.KEY=VALUE", help=words)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `lurefs evaluate DATA` and `lurefs init DATA` share."""
    parser.add_argument("--backbone", metavar="NAME[,NAME...]", help="timm models; their pretrained weights are loaded")
    parser.add_argument("--weights", metavar="FILE", help="a file of weights for the backbone, in place of timm's")
    parser.add_argument("--shots", metavar="K[,K...]", help=f"labels per class (default: {SHOTS})")
    parser.add_argument("--way", type=int, metavar="N", help=f"classes per episode (default: {WAY})")


def refuse_options(arguments: argparse.Namespace) -> None:
    """Refuse the options of `add_options` beside a recipe, which would not use them.

    Raises:
        UserError: One of them is given.
    """
    names = ("backbone", "weights", "shots", "way")
    given = [f"--{name}" for name in names if getattr(arguments, name, None) is not None]
    if given:
        raise UserError(
            f"{given[0]} is given, but no images",
            "images to measure a backbone on: lurefs evaluate DATA --backbone NAME",
            "name a folder, an .npz file or a data set, or change a recipe's settings with key.sub=value",
        )


def run(arguments: argparse.Namespace) -> int:
    """Write a recipe for a user's images.

    Raises:
        UserError: There is no such data, an option is wrong, or the file is there or cannot be written.
    """
    arguments.others = [text for text in arguments.overrides if "=" not in text]
    arguments.overrides = [text for text in arguments.overrides if text not in arguments.others]
    other = next((text for text in arguments.overrides if not text.startswith("dataset.")), None)
    if other is not None:
        raise UserError(
            f"{other!r} is given beside {arguments.data}",
            "settings of the data set only, e.g. dataset.params.image_size=64",
            "write other settings into the recipe",
        )
    _check_places(arguments)
    text = recipe(arguments)
    if arguments.backbone is not None:
        from lurefs.learning.timm_models import check_backbone

        for backbone in _backbones_of(arguments.backbone).values():
            check_backbone(BackboneConfig(name=backbone))
    path = arguments.output or Path(f"{_name(arguments)}.yaml")
    if path.exists():
        raise UserError(f"{path} exists", "the name of a new file", "give another --output, or delete the file")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}",
            "a file in a folder that exists",
            "give another --output",
        ) from error
    console.print_paths([("recipe", path)])
    console.note(f"start it with: lurefs run {shlex.quote(str(path))}")
    return 0


def frozen_group(arguments: argparse.Namespace) -> tuple[RunGroup, Path]:
    """Return the runs of `lurefs evaluate DATA`, one per backbone, and their folder.

    Raises:
        UserError: There is no such data, no backbone is named, or an option or an override is wrong.
    """
    _check_places(arguments)
    text = recipe(arguments)
    if arguments.backbone is None and not _has_features(arguments):
        raise UserError(
            f"no backbone is named to evaluate on {arguments.data}",
            "one or several timm models",
            "add e.g. --backbone resnet18; 'lurefs list backbones' shows all, and a recipe goes behind --config",
        )
    group = group_of(yaml.safe_load(text), arguments.overrides, name=_name(arguments))
    return group, arguments.run_dir or Path("runs") / group.name


def _has_features(arguments: argparse.Namespace) -> bool:
    return holds_features(Path(os.path.expanduser(arguments.data)))


def _check_places(arguments: argparse.Namespace) -> None:
    """Refuse several places of data, unless they are files of features of the same images.

    Raises:
        UserError: There are several places, and one is no such file, or they are not of the same images.
    """
    others = getattr(arguments, "others", ())
    if others and not _has_features(arguments):
        raise UserError(
            f"{arguments.data} and {others[0]} are given",
            "images from one place, or several files of features",
            "name one of them; several backbones follow --backbone with commas between",
        )
    first: ImageDataset | None = None
    for file in (arguments.data, *others) if others else ():
        name, params = dataset_of(file)
        if name != FEATURES:
            raise UserError(
                f"{file} holds no features, and {arguments.data} does", "files of features only", "leave it out"
            )
        dataset: ImageDataset = plugins.build("dataset", name, params)
        first = dataset if first is None else first
        if reason := difference(first, dataset):
            raise UserError(
                f"{arguments.data} and {file} are not of the same images: {reason}",
                "files of the same images, with the same labels in the same order, or with the same image_ids",
                "leave out the images that one of them lacks, or evaluate the files one by one",
            )


def recipe(arguments: argparse.Namespace) -> str:
    """Return the YAML text of a recipe with one variant per backbone and one benchmark per number of shots.

    Raises:
        UserError: There is no such data, or an option is wrong.
    """
    overrides = parse_overrides(getattr(arguments, "overrides", ()))
    name, params = dataset_of(arguments.data, overrides)
    if name != FEATURES and arguments.backbone is None and _has_features(arguments):
        raise UserError(
            f"{arguments.data} holds features, and dataset.name is {name!r}",
            f"the data set {FEATURES!r}, which needs no backbone",
            "leave dataset.name out, or point at images and add --backbone",
        )
    shots, n_way = _shots_of(SHOTS if arguments.shots is None else arguments.shots), arguments.way
    n_way = WAY if n_way is None else n_way
    dataset: ImageDataset = plugins.build("dataset", name, params)
    brought = None if "class_split" in overrides else dataset.class_split
    n_query = _n_query(dataset, dataset.class_names if brought is None else brought["novel"], n_way, shots)
    variants = (_variants_of_features if name == FEATURES else _variants_of_backbones)(arguments)
    benchmarks = [f"  {n_way}way-{k}shot: {{n_way: {n_way}, n_shot: {k}, n_query: {n_query}}}" for k in shots]
    return "\n".join(
        [
            f"# {_what(name)}, measured by few-shot episodes. Start it with: lurefs run FILE",
            f"name: {_inline(_name(arguments))}",
            f"frozen: true                       # nothing is learned; {_whose(brought)} are novel",
            f"dataset: {_inline({'name': name, 'params': params})}",
            "benchmarks:                        # 2,000 episodes each; n_episodes changes that",
            *benchmarks,
            "probes:",
            "  logistic_regression: {name: logistic_regression}   # or nearest_centroid, ridge, knn ...",
            f"variants:                          # {_each(name)}",
            *variants,
            "",
        ]
    )


def dataset_of(data: str, overrides: Mapping[str, Any] = MappingProxyType({})) -> tuple[str, dict[str, Any]]:
    """Return the name and the parameters of the data set; an override of the name takes the path as it is.

    Raises:
        UserError: There is no such file, folder or data set.
    """
    dataset = overrides.get("dataset")
    given = dataset if isinstance(dataset, dict) else {}
    params = given.get("params")
    params = params if isinstance(params, dict) else {}
    if "name" in given:
        return str(given["name"]), {"path": os.path.realpath(os.path.expanduser(data)), **params}
    name, found = recognise(data)
    return name, found | params


def _what(dataset: str) -> str:
    return "Features of files" if dataset == FEATURES else f"Backbones as they are on {dataset}"


def _each(dataset: str) -> str:
    of_file = "one run per file, on the same episodes"
    return of_file if dataset == FEATURES else "one run per backbone; pretrained: true loads timm's weights"


def _variants_of_backbones(arguments: argparse.Namespace) -> list[str]:
    """Return the lines of a recipe's variants, one per backbone."""
    backbones = _backbones_of(EXAMPLE if arguments.backbone is None else arguments.backbone)
    if arguments.weights is not None and len(backbones) != 1:
        raise UserError(
            f"--weights is given for {len(backbones)} backbones", "one backbone", "measure the backbones one by one"
        )
    return [
        f"  {variant}: {{backbone: {_inline(_weights(backbone, arguments))}}}"
        for variant, backbone in backbones.items()
    ]


def _variants_of_features(arguments: argparse.Namespace) -> list[str]:
    """Return the lines of a recipe's variants, one per file of features."""
    for option in ("backbone", "weights"):
        if getattr(arguments, option) is not None:
            raise UserError(
                f"--{option} is given for features, which a backbone has made already",
                "no backbone: nothing is embedded",
                f"leave --{option} out; the name of the file is that of its backbone",
            )
    files = [arguments.data, *getattr(arguments, "others", ())]
    found = {_name_of(file): dataset_of(file)[1] for file in files}
    if len(found) < len(files):
        raise UserError(
            f"the files {', '.join(files)} do not differ in their names", "one name per file", "rename one of them"
        )
    return [
        f"  {variant}: {{backbone: {_inline({'name': variant})}, dataset: {_inline({'params': params})}}}"
        for variant, params in found.items()
    ]


def _whose(brought: Mapping[str, Sequence[str]] | None) -> str:
    return "all classes" if brought is None else f"the {len(brought['novel'])} test classes of the data"


def _backbones_of(text: str) -> dict[str, str]:
    """Return the backbones of a list by the names of their runs."""
    names = [part.strip() for part in text.split(",")]
    found = {_variant(name): name for name in names}
    if not all(found) or len(found) < len(names):
        raise UserError(
            f"--backbone is {text!r}", "different timm models with commas between", "write e.g. resnet18,convnext_tiny"
        )
    return found


def _shots_of(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    shots = [int(part) if part.isdecimal() else 0 for part in parts]
    if min(shots) < 1 or len(set(shots)) < len(shots):
        raise UserError(f"--shots is {text!r}", "different whole numbers from 1 with commas between", "write e.g. 1,5")
    return shots


def _n_query(dataset: ImageDataset, novel: Sequence[str], n_way: int, shots: Sequence[int]) -> int:
    """Return how many queries per class the smallest of the novel classes allows beside the most shots."""
    from lurefs.comparing.texts import counted

    n_of_class: dict[str, int] = dict(zip(dataset.class_names, dataset.n_per_class.tolist(), strict=True))
    n_classes, smallest = len(novel), min(novel, key=n_of_class.__getitem__)
    n_images, most = n_of_class[smallest], max(shots)
    if n_classes < 2:
        raise UserError(
            f"the images are all of one class, {smallest!r}",
            "at least 2 classes to tell apart",
            "add images of other classes; of folders, point at the one above the classes",
        )
    if n_way < 2 or n_way > n_classes:
        raise UserError(
            f"{n_way}-way episodes are wanted, and there are {n_classes} novel classes",
            f"--way from 2 to {n_classes}; without it, {WAY}",
            f"add --way {n_classes}, or images of more classes",
        )
    if n_images <= most:
        raise UserError(
            f"class {smallest!r} has {counted(n_images, 'image')}, too few for {counted(most, 'shot')} and a query",
            f"at least {most + 1} images per class",
            "lower --shots, add images to the class, or leave it out",
        )
    return min(MAX_QUERIES, n_images - most)


def _weights(backbone: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a backbone and its weights, with paths that mean the same in any folder.

    Raises:
        UserError: The weights are a whole model, or a file of a package that is not installed.
    """
    weights = arguments.weights
    if weights is not None and str(weights).startswith(MODELS):
        raise UserError(
            f"--weights is {str(weights)!r}, which names a model with its weights",
            "a file of weights, or package:NAME/PATH for one of an installed package",
            f"write --backbone {weights}, and leave --weights out",
        )
    loaded = {"pretrained": arguments.backbone is not None} if weights is None else {"checkpoint_path": str(weights)}
    settings = absolute({"backbone": {"name": backbone, **loaded}}, Path.cwd())
    chosen: dict[str, Any] = settings["backbone"]
    return chosen


def _variant(backbone: str) -> str:
    """Return a backbone's name as that of a folder."""
    return re.sub(r"[^\w.-]+", "-", backbone).strip("-.")


def _name(arguments: argparse.Namespace) -> str:
    """Return the name of the group of runs."""
    return "features" if getattr(arguments, "others", ()) else _name_of(arguments.data)


def _name_of(data: str) -> str:
    path = Path(os.path.realpath(os.path.expanduser(data)))
    return _variant(path.stem if path.is_file() else path.name) or "evaluation"


def _inline(value: Any) -> str:
    """Return a value as YAML on one line."""
    return json.dumps(value, ensure_ascii=False)
