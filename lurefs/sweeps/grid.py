"""Grids of runs: a W&B sweep file, or a recipe with lists of values; their cells, and the names of their directories.

`wandb sweep` reads the same file. For each cell, `wandb agent` would start the file's `command` with one `key=value`
per parameter. Both name the same run directory.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lurefs.config.documents import parse_overrides, read_yaml
from lurefs.config.identity import digest, run_identity
from lurefs.config.load import find_recipe, load
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError

MACRO = "${args_no_hyphens}"
MAX_NAME = 120
_EXAMPLE = f"command: [lurefs, run, --config, one_backbone, --run-root, runs/my_grid, '{MACRO}']"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Runs of one recipe, one for each combination of values.

    Attributes:
        recipe: Name or path of the recipe that all cells share.
        run_root: Folder for the run directories of the cells.
        overrides: Settings of all cells.
        parameters: The values of each setting in the grid.
    """

    recipe: str
    run_root: Path
    overrides: tuple[str, ...]
    parameters: Mapping[str, tuple[Any, ...]]


def read_grid(source: str, overrides: Sequence[str] = (), run_root: Path | None = None) -> Grid:
    """Read a sweep file, or a recipe of one run, and apply the overrides.

    Args:
        source: A path, or the name of a file that comes with the package.
        overrides: `key=value` texts. A setting in the grid takes a value or a list; any other is set in all cells.
            `parameters.KEY.values=[...]` adds a setting to the grid. Of a recipe, each list is a list of values.
        run_root: Replaces the file's run root.

    Raises:
        UserError: No such file, not a grid, or a command that does not start `lurefs run`.
    """
    path = find_recipe(source)
    plain = read_yaml(path, resolve=False)
    if "parameters" not in plain:
        return _grid_of_recipe(source, path, overrides, run_root)
    if plain.get("method") != "grid":
        raise UserError(
            f"{path}: method is {plain.get('method')!r}",
            "grid, which goes through all values",
            "set method: grid, or let 'wandb sweep' and 'wandb agent' choose the values",
        )
    parameters = _read_parameters(path, plain["parameters"])
    recipe, file_root, of_command = _read_command(path, plain.get("command"))
    rest = []
    for text in overrides:
        key, value = _split(text)
        if named := re.fullmatch(r"parameters\.(.+)\.values?", key):
            key = named[1]
        elif key not in parameters:
            rest.append(text)
            continue
        parameters[key] = tuple(value) if isinstance(value, list) else (value,)
    for key, values in parameters.items():
        _check_values(f"{path}: parameters.{key}", values)
    return Grid(
        recipe=recipe,
        run_root=run_root or file_root or Path("runs") / path.stem,
        overrides=(*of_command, *rest),
        parameters=parameters,
    )


def _grid_of_recipe(source: str, path: Path, overrides: Sequence[str], run_root: Path | None) -> Grid:
    """Return the grid of a recipe whose overrides hold lists of values."""
    lists = {key: tuple(value) for key, value in map(_split, overrides) if isinstance(value, list)}
    if not lists:
        raise UserError(
            f"{path} has no parameters, and no setting has several values",
            "a W&B sweep file, or a recipe and lists of values",
            f"write e.g. 'backbone.name=[resnet18, resnet34]', or start a single run: lurefs run --config {source}",
        )
    for key, values in lists.items():
        _check_values(key, values)
    return Grid(
        recipe=source,
        run_root=run_root or Path("runs") / path.stem,
        overrides=tuple(text for text in overrides if _split(text)[0] not in lists),
        parameters=lists,
    )


def cells_of(grid: Grid) -> list[RunConfig]:
    """Return the configurations of the cells in the order of the file; the last parameter changes fastest.

    Raises:
        UserError: The recipe does not accept a setting or value of a cell, which is named; or two cells are equal.
    """
    cells: dict[str, RunConfig] = {}
    for values in itertools.product(*grid.parameters.values()):
        of_grid = [f"{key}={value}" for key, value in zip(grid.parameters, values, strict=True)]
        try:
            config = named_run(grid.recipe, (*grid.overrides, *of_grid))
        except UserError as error:
            raise of_run(" ".join(of_grid), error) from error
        if config.name in cells:
            raise UserError(
                f"two cells of the grid are the same: {' '.join(of_grid)}", "each value once", "leave one out"
            )
        cells[config.name] = config
    return list(cells.values())


def named_run(recipe: str, overrides: Sequence[str]) -> RunConfig:
    """Return the configuration of a recipe's only run, named by the settings that the overrides change.

    Raises:
        UserError: The recipe has several runs or the overrides give a name, seeds or variants; or see
            `lurefs.config.load.load`.
    """
    refused = {"name": "is named by its settings", "seeds": "has only one seed", "variants": "has no variants"}
    for text in overrides:
        key = _split(text)[0].partition(".")[0]
        if (why := refused.get(key)) is not None:
            raise UserError(f"a run below a run root {why}", f"no setting {key!r}", f"leave {key}=... out")
    group = load(recipe, overrides)
    if len(group.runs) > 1:
        key = "variants" if len(group.variants) > 1 else "seeds"
        raise UserError(
            f"{recipe} has {key if len(group.variants) > 1 else f'the seeds {list(group.seeds or ())}'}",
            "a recipe of one run",
            f"delete {key} from it, and make the settings that they change parameters of the grid",
        )
    (config,) = group.runs.values()
    return replace(config, name=name_of(overrides, config))


def name_of(overrides: Sequence[str], config: RunConfig) -> str:
    """Return a name for a run from the changed settings; it does not depend on their order.

    It lists the settings that the numbers depend on, the seed last; of `backbone.name` and similar keys only the value.
    If a value had to be changed to fit into a file name, a digest keeps different runs apart.
    """
    leaves = _leaves(parse_overrides(overrides), run_identity(config))
    parts, is_changed = [], False
    for key in sorted(leaves, key=lambda key: (key == "seed", key)):
        value = leaves[key]
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        clean = re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9_.+-]+", "_", text)).strip("-._")
        is_changed |= clean != text
        parts.append(clean if key.endswith(".name") else f"{key}-{clean}")
    name = "--".join(parts) or config.name
    if is_changed or len(name) > MAX_NAME:
        name = f"{name[:MAX_NAME]}--{digest(leaves)[:6]}"
    return name


def of_run(run: str, error: UserError) -> UserError:
    """Return an error with the name of its run added."""
    return UserError(f"run {run}: {error.problem}", error.expected, error.fix)


def _leaves(changes: Mapping[str, Any], identity: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return the changed settings by dotted key, if they are part of a run's identity."""
    found: dict[str, Any] = {}
    for key, value in changes.items():
        if not path and key not in identity:
            continue
        inner = identity.get(key)
        dotted = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and value:
            found |= _leaves(value, inner if isinstance(inner, Mapping) else {}, dotted)
        else:
            found[dotted] = value
    return found


def _read_parameters(path: Path, parameters: Any) -> dict[str, tuple[Any, ...]]:
    if not isinstance(parameters, Mapping) or not parameters:
        raise UserError(f"{path}: parameters is {parameters!r}", "settings with their values", "e.g. seed: {value: 0}")
    found = {}
    for key, entry in parameters.items():
        given = {"value", "values"} & set(entry) if isinstance(entry, Mapping) else set()
        if len(given) != 1 or not isinstance(entry.get("values", []), list):
            raise UserError(
                f"{path}: parameters.{key} is {entry!r}",
                "a list of values, or one value",
                f"write e.g. '{key}: {{values: [1, 2]}}', nested settings with dots as in 'backbone.name'",
            )
        found[str(key)] = tuple(entry["values"]) if "values" in entry else (entry["value"],)
    return found


def _check_values(where: str, values: Sequence[Any]) -> None:
    if not values:
        raise UserError(f"{where} has no values", "at least one", "give one, or leave the parameter out")
    if None in values:  # W&B passes it on as the text None
        raise UserError(f"{where} has a null", "values that a command line can hold", "write it as text: 'null'")


def _read_command(path: Path, command: Any) -> tuple[str, Path | None, tuple[str, ...]]:
    """Return the recipe, the run root and the settings in a sweep file's command."""
    words = [str(word) for word in command] if isinstance(command, list) else []
    arguments = words[words.index("run") + 1 :] if "run" in words else []
    options: dict[str, str] = {}
    texts = []
    rest = iter(word for word in arguments if word != MACRO)
    for word in rest:
        option, _, value = word.partition("=")
        if option in ("--config", "--run-root"):
            options[option] = value or next(rest, "")
        else:
            texts.append(word)
    if MACRO not in arguments or not options.get("--config"):
        raise UserError(
            f"{path}: command is {command!r}", f"'lurefs run --config RECIPE' with {MACRO}", f"write e.g. {_EXAMPLE}"
        )
    for text in texts:
        _split(text)
    root = options.get("--run-root")
    return options["--config"], Path(root) if root else None, tuple(texts)


def _split(text: str) -> tuple[str, Any]:
    """Return the key and value of a `key=value` text."""
    import yaml

    parse_overrides([text])  # refuses other texts
    key, _, value = text.partition("=")
    return key, yaml.safe_load(value)
