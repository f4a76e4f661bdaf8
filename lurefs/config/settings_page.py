"""The page of every setting, made from the dataclasses and plug-ins that define the settings.

`lurefs list settings` prints it, and `docs/settings.md` holds it.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from lurefs import plugins
from lurefs.config.schema import RunConfig
from lurefs.records import describe

PLUGIN_SETTINGS = {
    "dataset": "dataset",
    "unlearn": "unlearn",
    "probe": "probes.NAME",
    "executor": "executor",
}
"""Part of a config that names a plug-in, by the plug-in's kind."""
BOUNDS = {"low": "at least", "high": "at most", "above": "more than", "below": "less than"}
INTRODUCTION = """# Every setting

A config is a YAML file of these settings; a setting that it leaves out has the default. On the command line,
`learner.epochs=5` sets one. `null` means off, unless the text says otherwise.

Three keys choose the runs of a config; they are not settings of a run:

- `variants` maps the name of each run to its changes.
- `seeds: [0, 1, 2]` runs each variant (or the only run of a config) with each of these seeds, in a folder named
  `NAME--seed-N` below the config's folder. The page shows these runs as one, with the mean over seeds. On the command
  line, `seeds=[0, 1]` replaces the file's list, `seed=3` runs this seed alone, with the same folder names, and
  `seeds=null` turns the list off.
- `workers: 2` does two runs at a time, each in its own process; `lurefs run --workers N` wins over it. A run that fails
  or is killed does not stop the others; each writes its messages to its `log.txt`. With one worker, the default, the
  runs follow each other in the command's own process, and the first failure ends the command.
"""


def settings_page() -> str:
    """Return the page as Markdown."""
    sections = [_section(path, record_type) for path, record_type in _records("", RunConfig)]
    kinds = [_kind(kind, setting) for kind, setting in PLUGIN_SETTINGS.items()]
    return "\n".join([INTRODUCTION, *sections, *kinds])


def _records(path: str, record_type: type[Any]) -> Iterator[tuple[str, type[Any]]]:
    """Yield every dataclass of a config with its dotted path, without plug-ins, which have their own sections."""
    yield path, record_type
    for name, hint in typing.get_type_hints(record_type).items():
        inner = _record_in(hint)
        if inner is not None and inner.__name__ != "PluginConfig":
            in_mapping = get_origin(hint) is dict
            yield from _records(f"{path}.{name}".lstrip(".") + (".NAME" if in_mapping else ""), inner)


def _record_in(hint: Any) -> type[Any] | None:
    for candidate in (hint, *get_args(hint)):
        if dataclasses.is_dataclass(candidate):
            return typing.cast(type[Any], candidate)
    return None


def _section(path: str, record_type: type[Any]) -> str:
    hints = typing.get_type_hints(record_type)
    rows = [
        f"| `{field.name}` | {_kind_of(hints[field.name], field.metadata)} | {_default_of(field)} |"
        for field in dataclasses.fields(record_type)
    ]
    text = inspect.cleandoc(record_type.__doc__ or "")
    return "\n".join(
        [f"## {path or 'A run'}", "", text, "", "| setting | value | default |", "|---|---|---|", *rows, ""]
    )


def _kind_of(hint: Any, bounds: Mapping[str, Any]) -> str:
    limits = [f"{words} {bounds[key]}" for key, words in BOUNDS.items() if key in bounds]
    return ", ".join([describe(hint), *limits])


def _default_of(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{_yaml(field.default)}`"
    if field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default_factory()
    if dataclasses.is_dataclass(value):
        if type(value).__name__ != "PluginConfig":
            return "see below"
        value = {key: entry for key, entry in dataclasses.asdict(value).items() if entry}  # type: ignore[arg-type]
    if isinstance(value, dict) and any(dataclasses.is_dataclass(entry) for entry in value.values()):
        return ", ".join(f"`{name}`" for name in value)
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).removesuffix("...\n").strip()


def _kind(kind: str, setting: str) -> str:
    parts = [f"## {setting}.name, {setting}.params", "", "One of these, or your own `package.module:factory`.", ""]
    for name in plugins.names(kind):
        factory = plugins.resolve(kind, name)
        parameters = inspect.signature(factory).parameters.values()
        defaults = [f"{each.name}: {_argument_default(each)}" for each in parameters]
        parts += [f"### {name}", "", "```", inspect.cleandoc(factory.__doc__ or ""), "```", ""]
        parts += [f"Defaults: `{{{', '.join(defaults)}}}`" if defaults else "Without parameters.", ""]
    return "\n".join(parts)


def _argument_default(parameter: inspect.Parameter) -> str:
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return "any"
    return "required" if parameter.default is inspect.Parameter.empty else _yaml(parameter.default)
