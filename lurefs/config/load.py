"""Reading a recipe into checked configurations: defaults <- YAML file <- variant <- `key=value`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

import lurefs
from lurefs import plugins
from lurefs.config.checks import check_config, check_settings
from lurefs.config.documents import parse_overrides, read_yaml
from lurefs.config.identity import digest
from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.names import check_name, check_variant_names
from lurefs.config.paths import absolute
from lurefs.config.schema import RunConfig
from lurefs.config.weight_files import with_digest
from lurefs.errors import UserError, nearest
from lurefs.records import check_plain, from_mapping, to_mapping

MAX_WORKERS = 1024
_LISTS = ("benchmarks", "probes")
_GROUP_KEYS = ("variants", "seeds", "workers")
"""Keys of a recipe for its runs together; all others are settings of each run."""


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """The runs of one config file: one run, or each variant with each seed.

    Attributes:
        name: The file's `name`.
        runs: By name, which is `name`, or the variant's; with `seeds` it is `NAME--seed-N`.
        variants: Names of the variants; empty if the file has none.
        seeds: The seeds that every variant is run with; None if each run has the `seed` of its settings.
        n_workers: Number of processes on this machine that do the runs.
    """

    name: str
    runs: Mapping[str, RunConfig]
    variants: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None
    n_workers: int = 1

    @property
    def has_folders(self) -> bool:
        """Whether each run has its own folder below the group's folder."""
        return bool(self.variants) or self.seeds is not None


def load(source: str | Path, overrides: Sequence[str] = ()) -> RunGroup:
    """Read a recipe, apply the overrides, and check everything that needs neither the data nor timm.

    Relative paths in the file start at its folder, and those of the overrides at the working directory. Plug-in modules
    beside a recipe are found; those beside the stored configuration of a run are not, since it may be anyone's.

    Args:
        source: Path of a YAML file, or name of a recipe that comes with the package.
        overrides: `key.sub=value` texts, which win over the file and over its variants. If there are `seeds`,
            `seed=3` replaces them by this one seed.

    Raises:
        UserError: No such file, not YAML, an unknown key, a wrong value, or parameters that a plug-in does not accept.
    """
    path = find_recipe(source)
    literal = read_yaml(path, resolve=False)
    if {"parameters", "method"} <= literal.keys():
        raise UserError(f"{path} is a grid of runs", "a recipe", f"run lurefs sweep --config {source}")
    folder = path.absolute().parent
    is_stored = (folder / "identity.json").is_file()
    if not literal:
        raise UserError(
            f"{path} holds no settings",
            "at least one, such as 'name: my-run'; all others have defaults",
            "for a run of the default settings write this line into it, or start with a recipe: lurefs list recipes",
        )
    with plugins.modules_in(*([] if is_stored else [folder])):
        plain = literal if is_stored else read_yaml(path)
        return group_of(plain, overrides, name=path.stem, folder=folder)


def group_of(
    plain: Mapping[str, Any], overrides: Sequence[str] = (), *, name: str, folder: Path | None = None
) -> RunGroup:
    """Apply overrides to the content of a recipe, and check everything that needs neither the data nor timm.

    Args:
        plain: The recipe.
        overrides: As for `load`.
        name: The group's name if neither the recipe nor the overrides give one.
        folder: Where the recipe's relative paths start; None is the working directory.

    Raises:
        UserError: See `load`.
    """
    check_plain(plain)
    variants_first = [text for text in overrides if text.startswith(("variants.", "variants="))]
    plain = merge(absolute(plain, folder or Path.cwd()), absolute(parse_overrides(variants_first), Path.cwd()))
    rest = parse_overrides([text for text in overrides if text not in variants_first])
    name = _name_of(rest.get("name", plain.get("name", name)))
    n_workers = check_workers("workers", rest.get("workers", plain.get("workers", 1)))
    seeds = _seeds_of(plain, rest)
    check_name(name)
    _refuse_empty(_with_defaults(plain), rest)
    variants = plain.get("variants")
    if variants is not None:
        _check_variants(variants, seeds)
        variants = {str(variant): changes for variant, changes in variants.items()}
        check_variant_names(variants)
    plain, rest = ({key: value for key, value in part.items() if key not in _GROUP_KEYS} for part in (plain, rest))
    runs = {}
    for variant, changes in ({name: {}} if variants is None else variants).items():
        values = merge(merge(_with_defaults(plain), changes or {}), rest)
        if seeds is None:
            runs[variant] = run_config({**values, "name": variant})
            continue
        for seed in seeds:
            run_name = f"{variant}--seed-{seed}"
            runs[run_name] = run_config({**values, "name": run_name, "seed": seed})
    _refuse_equal(runs)
    if len(seeds or ()) > 1 and all(run.is_as_loaded for run in runs.values()):
        raise UserError(
            f"seeds is {list(seeds or ())}, but the weights are loaded and nothing is learned (frozen: true)",
            "one seed: every seed would give the same accuracies, and an interval over seeds of no width",
            "leave seeds out",
        )
    return RunGroup(name=name, runs=runs, variants=tuple(variants or ()), seeds=seeds, n_workers=n_workers)


def _refuse_equal(runs: Mapping[str, RunConfig]) -> None:
    """Refuse runs that differ in nothing but their names: the same would be computed twice, and nothing compared.

    Raises:
        UserError: There are two.
    """
    found: dict[str, str] = {}
    for name, run in runs.items():
        other = found.setdefault(digest(replace(run, name="")), name)
        if other != name:
            one, two = (equal.removesuffix(f"--seed-{run.seed}") for equal in (other, name))
            raise UserError(
                f"the variants {one!r} and {two!r} are equal in all settings",
                "variants that differ",
                "leave one of them out; if a setting on the command line made them equal, give it to one of them, as "
                f"variants.{two}.KEY=VALUE"
                + ("; for several seeds write e.g. seeds: [0, 1, 2]" if two == name else ""),
            )


def run_config(values: Mapping[str, Any]) -> RunConfig:
    """Build and check one run's configuration from plain containers.

    Raises:
        UserError: See `load`.
    """
    check_plain(values)
    config = from_mapping(RunConfig, _with_defaults(absolute(values, Path.cwd())))
    config = replace(config, backbone=with_digest(config.backbone))
    if config.chunks.n_chunks is None and config.chunks.chunk_size is None:
        config = replace(config, chunks=replace(config.chunks, n_chunks=5))
    if config.brings_features:
        config = _of_features(config)
    check_config(config)
    return config


def stored_config(values: Mapping[str, Any]) -> RunConfig:
    """Build and check the configuration of a run directory, which may be anyone's: no code that it names is run.

    Raises:
        UserError: A key is unknown, a value is wrong, settings contradict each other, or the end is missing.
    """
    check_plain(values)
    config = from_mapping(RunConfig, _with_defaults(values))
    check_settings(config)
    last = _last_setting(to_mapping(config))
    if not _states(values, last):  # a file without its end may hold settings all the same
        raise UserError(
            f"it was cut off: it has no {'.'.join(last)}",
            "all settings of the run",
            "start 'lurefs run' with the same --config and --run-dir, which writes it again",
        )
    return config


def _last_setting(values: Any) -> list[str]:
    """Return the path of the last setting in the order of the file."""
    if not isinstance(values, Mapping) or not values:
        return []
    name = list(values)[-1]
    return [name, *_last_setting(values[name])]


def _states(values: Any, path: Sequence[str]) -> bool:
    return not path or (isinstance(values, Mapping) and path[0] in values and _states(values[path[0]], path[1:]))


def _of_features(config: RunConfig) -> RunConfig:
    """Return the configuration of a run on features: its backbone is named after the file, and it has no controls."""
    backbone = config.backbone
    if backbone == BackboneConfig():
        backbone = BackboneConfig(name=Path(str(config.dataset.params.get("path"))).stem)
    return replace(config, backbone=backbone, controls=False)


def to_yaml(config: RunConfig) -> str:
    """Return the resolved configuration as a YAML document that `load` reads back."""
    return yaml.safe_dump(to_mapping(config), sort_keys=False, allow_unicode=True, width=120)


def _with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Merge values into the defaults, so that a part of a default can be changed (`unlearn.params.keep_ratio=0.5`).

    If `benchmarks` or `probes` are given, they replace the default ones. All classes are novel by default if nothing is
    learned.
    """
    defaults: dict[str, Any] = to_mapping(RunConfig(name=""))
    if values.get("frozen") is True:
        defaults["class_split"] |= {"base": 0.0, "validation": 0.0, "novel": 1.0}
    return merge({key: value for key, value in defaults.items() if key not in _LISTS or key not in values}, values)


def recipes_dir() -> Path:
    """Return the folder of the package's recipes: `lurefs/recipes` in a wheel, `configs` in a checkout."""
    package = Path(lurefs.__file__).resolve().parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "configs"


def find_recipe(source: str | Path) -> Path:
    """Return the file named by `source`: a path, or a recipe's name with or without `.yaml`.

    Raises:
        UserError: There is no such file.
    """
    path = Path(os.path.expanduser(source))
    if path.is_file():
        return path
    recipes = {recipe.stem: recipe for recipe in sorted(recipes_dir().glob("*.yaml"))}
    if path.stem in recipes and path.parent in (Path(), Path("configs")):
        return recipes[path.stem]
    guess = nearest(path.stem, recipes)
    raise UserError(
        f"there is no config {str(source)!r}",
        f"the path of a YAML file, or a recipe: {', '.join(recipes)}",
        "measure a folder of images with 'lurefs evaluate FOLDER --backbone NAME'"
        if path.is_dir()
        else f"did you mean {guess!r}?"
        if guess
        else "check the path",
    )


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` merged into it, mapping by mapping.

    If a change gives a mapping another `name`, the old `params` are dropped with the old name.
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            renamed = "name" in value and value["name"] != old.get("name")
            kept = {name: entry for name, entry in old.items() if not (renamed and name == "params")}
            merged[key] = merge(kept, value)
        else:
            merged[key] = value
    return merged


def _refuse_empty(base: Mapping[str, Any], changes: Mapping[str, Any], where: str = "") -> None:
    """Refuse changes of a mapping to `{}`: merged, they change nothing, while they look as if they cleared it.

    Raises:
        UserError: There is one.
    """
    for key, value in changes.items():
        old, path = base.get(key), f"{where}.{key}".lstrip(".")
        if isinstance(old, Mapping) and old and isinstance(value, Mapping):
            if value.get("name", old.get("name")) != old.get("name"):
                continue  # another plug-in, without the parameters of the old one
            if not value:
                raise UserError(
                    f"{path}={{}} would change nothing: {path} keeps {', '.join(map(str, old))}",
                    f"settings below {path}",
                    f"leave {path}={{}} out; to remove entries, delete them from a copy of the recipe",
                )
            _refuse_empty(old, value, path)


def _name_of(name: Any) -> str:
    """Return a name as text; a number is one, too.

    Raises:
        UserError: It is null, or no name at all.
    """
    if not isinstance(name, str | int | float) or isinstance(name, bool):
        raise UserError(f"name is {name!r}", "a text", "write a name, or leave it out for that of the file")
    return str(name)


def check_workers(name: str, value: Any) -> int:
    """Check that `value` is a positive number of processes, and return it; error messages call it `name`.

    Raises:
        UserError: It is not a whole number, or below 1.
    """
    if not _is_count(value) or not 1 <= value <= MAX_WORKERS:
        raise UserError(
            f"{name} is {value!r}", f"a whole number from 1 to {MAX_WORKERS}", "leave it out for one process"
        )
    return int(value)


def _seeds_of(plain: Mapping[str, Any], rest: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the seeds from the command line (`rest`), otherwise from the file (`plain`), otherwise None."""
    for part in (plain, rest):
        if part.get("seeds") is not None and "seed" in part:
            raise UserError(
                f"seed is {part['seed']!r} and seeds is {part['seeds']!r}", "one of the two", "leave one of them out"
            )
    if isinstance(rest.get("seed"), list):
        raise UserError(f"seed is {rest['seed']!r}", "one whole number", f"for several write 'seeds={rest['seed']}'")
    seeds = rest.get("seeds", plain.get("seeds"))
    if seeds is None:
        return None
    if "seed" in rest:
        return (rest["seed"],)
    if not isinstance(seeds, list) or not seeds or not all(map(_is_count, seeds)) or len(set(seeds)) < len(seeds):
        raise UserError(
            f"seeds is {seeds!r}", "a list of different whole numbers from 0", "write e.g. seeds: [0, 1, 2]"
        )
    return tuple(seeds)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_variants(variants: Any, seeds: tuple[int, ...] | None) -> None:
    if not isinstance(variants, Mapping) or not variants:
        raise UserError(
            f"variants is {variants!r}", "a mapping from a run's name to its changes", "see configs/quickstart.yaml"
        )
    for variant, changes in variants.items():
        if changes is not None and not isinstance(changes, Mapping):
            raise UserError(
                f"variants.{variant} is {changes!r}", "a mapping of settings", "indent the changes below it"
            )
        if changes is not None and "name" in changes:
            raise UserError(
                f"variants.{variant}.name is {changes['name']!r}",
                f"no name of its own: the run is called {variant!r}",
                f"leave variants.{variant}.name out, or rename variants.{variant}",
            )
        if seeds is not None and changes is not None and "seed" in changes:
            raise UserError(
                f"variants.{variant}.seed is {changes['seed']!r} and seeds is {list(seeds)}",
                "the same seeds for all variants",
                f"leave variants.{variant}.seed out, or seeds",
            )
