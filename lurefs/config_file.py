"""From a recipe to configurations: defaults <- YAML file <- variant <- `key=value`, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from lurefs.config import RunConfig
from lurefs.config_checks import check_config
from lurefs.errors import UserError, nearest
from lurefs.records import from_mapping, to_mapping

_LISTS = ("benchmarks", "probes")


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """What one config file asks for: one run, or one run a variant (`runs` is keyed by the variant's name).

    Attributes:
        name: The file's `name`.
        runs: The runs; the single run of a file without variants has the group's own name.
        has_variants: Whether the runs stand in folders of their own below the group's.
    """

    name: str
    runs: Mapping[str, RunConfig]
    has_variants: bool


def load(source: str, overrides: Sequence[str] = ()) -> RunGroup:
    """Read a recipe, apply the overrides, and check all that needs neither data nor timm.

    Args:
        source: A path of a YAML file, or the name of a recipe that comes with the package.
        overrides: `key.sub=value` texts; they win over the file and over its variants.

    Raises:
        UserError: No such file, not YAML, an unknown key, a wrong value, or parameters that a plug-in does not take.
    """
    path = find_recipe(source)
    if {"parameters", "method"} <= read_yaml(path, resolve=False).keys():
        raise UserError(f"{path} is a grid of runs", "a recipe of one", f"lurefs sweep --config {source}")
    plain = read_yaml(path)
    variants_first = [text for text in overrides if text.startswith("variants.")]
    plain = merge(plain, parse_overrides(variants_first))
    rest = parse_overrides([text for text in overrides if text not in variants_first])
    variants = plain.pop("variants", None)
    name = str(rest.get("name", plain.get("name", path.stem)))
    plain = {**plain, "name": name}
    if variants is None:
        config = run_config(merge(with_defaults(plain), rest))
        return RunGroup(name=name, runs={config.name: config}, has_variants=False)
    _check_variants(variants)
    runs = {
        variant: run_config({**merge(merge(with_defaults(plain), changes or {}), rest), "name": variant})
        for variant, changes in variants.items()
    }
    return RunGroup(name=name, runs=runs, has_variants=True)


def run_config(values: Mapping[str, Any]) -> RunConfig:
    """Build and check one run's configuration from plain containers.

    Raises:
        UserError: See `load`.
    """
    config = from_mapping(RunConfig, with_defaults(values))
    config = _absolute_paths(config)
    if config.chunks.n_chunks is None and config.chunks.chunk_size is None:
        config = replace(config, chunks=replace(config.chunks, n_chunks=5))
    check_config(config)
    return config


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Lay values over the defaults, so that a part of a default can be changed (`unlearn.params.keep_ratio=0.5`).

    `benchmarks` and `probes` are lists by name: where they are given, the default ones are not added to them.
    """
    defaults: dict[str, Any] = to_mapping(RunConfig(name=""))
    return merge({key: value for key, value in defaults.items() if key not in _LISTS or key not in values}, values)


def recipes_dir() -> Path:
    """Return the folder of the package's recipes: `lurefs/recipes` of a wheel, `configs` of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "configs"


def find_recipe(source: str) -> Path:
    """Return the file that `source` means: a path, or a recipe's name with or without `.yaml`.

    Raises:
        UserError: There is no such file.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    recipes = {recipe.stem: recipe for recipe in sorted(recipes_dir().glob("*.yaml"))}
    if path.stem in recipes and path.parent in (Path(), Path("configs")):
        return recipes[path.stem]
    guess = nearest(path.stem, recipes)
    raise UserError(
        f"there is no config {source!r}",
        f"the path of a YAML file, or a recipe: {', '.join(recipes)}",
        f"did you mean {guess!r}?" if guess else "check the path",
    )


def read_yaml(path: Path, *, resolve: bool = True) -> dict[str, Any]:
    """Read a file of settings; `resolve` says whether `${name}` in it stands for another of its settings.

    Raises:
        UserError: It is no YAML mapping.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=resolve)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as YAML: {error}", "a YAML mapping of settings", "correct the file"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no settings", "a YAML mapping such as 'name: my-run'", "write one")
    return {str(key): value for key, value in values.items()}


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Return the settings that `key.sub=value` texts give, as nested mappings.

    Raises:
        UserError: A text has no key, or its value is not YAML.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for text in texts:
        if "=" not in text or text.startswith("="):
            raise UserError(f"override {text!r} has no 'key='", "key.sub=value", "write e.g. learner.epochs=5")
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist(list(texts)), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"an override cannot be read: {error}", "key.sub=value with a YAML value", "quote the value"
        ) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, mapping by mapping.

    Where a change gives a mapping another `name`, the old `params` go with the old name.
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


def _check_variants(variants: Any) -> None:
    if not isinstance(variants, Mapping) or not variants:
        raise UserError(
            f"variants is {variants!r}", "a mapping from a run's name to its changes", "see configs/quickstart.yaml"
        )
    for variant, changes in variants.items():
        if changes is not None and not isinstance(changes, Mapping):
            raise UserError(
                f"variants.{variant} is {changes!r}", "a mapping of settings", "indent the changes below it"
            )


def _absolute_paths(config: RunConfig) -> RunConfig:
    """Anchor the paths of a config to the working directory it was read in, so that a rerun elsewhere finds them."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(Path(path).expanduser().resolve())

    params = dict(config.dataset.params)
    if "path" in params:
        params["path"] = absolute(str(params["path"]))
    if isinstance(params.get("font_dirs"), list):
        params["font_dirs"] = [absolute(str(font_dir)) for font_dir in params["font_dirs"]]
    benchmarks = {
        name: replace(benchmark, manifest=absolute(benchmark.manifest)) for name, benchmark in config.benchmarks.items()
    }
    return replace(
        config,
        benchmarks=benchmarks,
        dataset=replace(config.dataset, params=params),
        backbone=replace(config.backbone, checkpoint_path=absolute(config.backbone.checkpoint_path)),
        class_split=replace(config.class_split, file=absolute(config.class_split.file)),
    )
