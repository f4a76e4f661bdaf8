"""YAML documents of settings and `key=value` texts: the values that they hold, or in words what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lurefs.errors import UserError
from lurefs.records import check_plain

MAX_DEPTH = 2000
"""Bound of a document's depth below which libyaml may read it."""
_NOT_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)
"""What PyYAML raises at a document; the middle three at values that do not suit their tags, such as `!!bool maybe`."""
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""Texts that YAML 1.1 reads as numbers of base 8 or 60."""


def yaml_values(content: bytes) -> Any:
    """Return the value of a YAML document.

    libyaml is eight times as fast as Python, but crashes on deep nesting and has other messages.

    Raises:
        ValueError: It is no valid document.
    """
    depth = content.count(b"[") + content.count(b"{") + 2 * max(map(len, content.splitlines()), default=0)
    try:
        if depth < MAX_DEPTH and hasattr(yaml, "CSafeLoader"):
            try:
                return yaml.load(content, yaml.CSafeLoader)
            except _NOT_YAML:
                pass  # Python's words say what is wrong
        return yaml.safe_load(content)
    except _NOT_YAML as error:
        raise ValueError(_in_words(error)) from error


def read_yaml(path: Path, *, resolve: bool = True) -> dict[str, Any]:
    """Read a YAML file of settings; with `resolve`, replace each `${name}` in it by the setting of that name.

    Raises:
        UserError: The file is not a YAML mapping.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        loaded = OmegaConf.load(path)
        _refuse_environment(OmegaConf.to_container(loaded, resolve=False), str(path))
        values = OmegaConf.to_container(loaded, resolve=resolve)
        _refuse_other_bases(path.read_bytes(), f"{path}, line ")
    except (*_NOT_YAML, OmegaConfBaseException, OSError) as error:
        raise UserError(
            f"{path} cannot be read as YAML: {_in_words(error)}", "a YAML mapping of settings", _yaml_fix(error)
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no settings", "a YAML mapping such as 'name: my-run'", "write one")
    return {str(key): value for key, value in values.items()}


def _in_words(error: BaseException) -> str:
    """Return what is wrong with a document."""
    if "node expansion exceeds" in str(error):
        return "it holds more than 10,000 values"
    if isinstance(error, KeyError | AttributeError | TypeError):
        return f"a value does not suit its tag: {error}"
    return str(error)


def _yaml_fix(error: BaseException) -> str:
    """Return what helps with a file that is no YAML document."""
    if isinstance(error, UnicodeError) or "#x0000" in str(error):
        return "save the file in UTF-8"
    if "cannot start any token" in str(error):
        return "indent by spaces instead of tabs, and quote texts that start with @ or `"
    if "node expansion exceeds" in str(error):
        return "write fewer; long lists of classes can be a file of their own: class_split.file"
    if "expected a single document" in str(error):
        return "leave one document in the file, without lines of '---' inside"
    return "correct the file"


def _refuse_environment(value: Any, source: str) -> None:
    """Raise if settings ask for an environment variable: its value would be stored with the run and shown on the page.

    Raises:
        UserError: They do.
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            _refuse_environment(entry, source)
    elif isinstance(value, str) and "${" in value and "oc.env" in value:
        raise UserError(
            f"{source} reads an environment variable: {value!r}",
            "settings without secrets, since a run stores them and its page shows them",
            'write the value, or give it on the command line, e.g. dataset.params.path="$DATA"',
        )


def _refuse_other_bases(document: bytes | str, where: str) -> None:
    """Raise if a valid document has a number such as 010 or 1:30, which YAML reads as 8 and 90.

    Raises:
        UserError: It does.
    """
    for event in yaml.parse(document, Loader=yaml.SafeLoader):
        if not isinstance(event, yaml.ScalarEvent) or not event.implicit[0]:
            continue
        text = event.value
        if not _OTHER_BASE.fullmatch(text) or isinstance(number := yaml.safe_load(text), str):
            continue
        line = event.start_mark.line + 1 if event.start_mark else 1
        raise UserError(
            f"{where}{line}: {text} is {number} in YAML, a number of base {60 if ':' in text else 8}",
            "numbers without a leading zero or a colon; texts in quotes",
            f"write '{text}' with the quotes if it is a name, otherwise the number that you mean",
        )


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Parse `key.sub=value` texts into nested mappings.

    Raises:
        UserError: A text has no key, or its value is not YAML.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for text in texts:
        if "=" not in text or text.startswith("="):
            raise UserError(f"override {text!r} has no 'key='", "key.sub=value", "write e.g. learner.epochs=5")
    try:
        parsed = OmegaConf.from_dotlist(list(texts))
        _refuse_environment(OmegaConf.to_container(parsed, resolve=False), "an override")
        values = OmegaConf.to_container(parsed, resolve=True)
        for text in texts:
            _refuse_other_bases(text.partition("=")[2], f"override {text!r}, line ")
    except (*_NOT_YAML, OmegaConfBaseException) as error:
        raise UserError(
            f"an override cannot be read: {_in_words(error)}", "key.sub=value with a YAML value", "quote the value"
        ) from error
    assert isinstance(values, dict)
    check_plain(values)
    return {str(key): value for key, value in values.items()}
