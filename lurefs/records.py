"""Conversion of plain mappings to frozen dataclasses and back, with checks, for configs and result files."""

from __future__ import annotations

import dataclasses
import json
import math
import operator
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from lurefs.errors import UserError, nearest

T = TypeVar("T")
MAX_BITS = 63
Row = dict[str, Any]
"""Plain values by name: a row of a table, or flat figures."""


def from_mapping(record_type: type[T], values: Mapping[str, Any], *, where: str = "") -> T:
    """Build a dataclass from a mapping, recursively, and check every field.

    Args:
        record_type: A frozen dataclass; field metadata may hold `low` and `high` (inclusive bounds) or `above` and
            `below` (exclusive ones).
        values: Field values by name; missing fields get their defaults.
        where: The dotted path of `values` in its file, for error messages.

    Raises:
        UserError: A key is unknown or missing, or a value has the wrong type or is out of bounds.
    """
    known = {field.name: field for field in dataclasses.fields(record_type)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise _unknown_key(str(key), list(known), where)
    hints = _hints(typing.cast(Any, record_type))
    arguments: dict[str, Any] = {}
    for name, field in known.items():
        path = f"{where}.{name}" if where else name
        if name in values:
            arguments[name] = convert(hints[name], values[name], path)
            check_bounds(arguments[name], field.metadata, path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{path} is missing", f"a value of type {describe(hints[name])}", f"set {path}")
    return record_type(**arguments)


@cache
def _hints(record_type: Any) -> dict[str, Any]:
    return typing.get_type_hints(record_type)


def to_mapping(record: Any) -> Any:
    """Convert a dataclass to plain dicts, lists and scalars, from which `from_mapping` rebuilds an equal one."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: to_mapping(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(key): to_mapping(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_mapping(value) for value in record]
    return record


def through_json(record: Any) -> Any:
    """Return a record or plain values as they would be after writing them to JSON and reading them back."""
    return json.loads(json.dumps(to_mapping(record)))


def check_plain(value: Any, path: str = "") -> None:
    """Refuse numbers that are infinite, NaN or too large, and texts with a NUL character, anywhere in the settings.

    Raises:
        UserError: There is one.
    """
    if isinstance(value, Mapping):
        for key, entry in value.items():
            check_plain(entry, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            check_plain(entry, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path} is {value}", "a finite number", f"change {path}, or set it to null if that means off")
    elif isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise UserError(
            f"{path} is a number of {value.bit_length()} bits", f"at most {MAX_BITS} bits", f"change {path}"
        )
    elif isinstance(value, str) and "\0" in value:
        raise UserError(f"{path} is {value!r}", "a text without the character NUL", f"change {path}")


def whole_number(digits: str) -> int:
    """Return the number that a JSON text holds; for `parse_int` of `json.loads`.

    Raises:
        ValueError: It is too large for arrays and floats.
    """
    if (number := int(digits)).bit_length() > MAX_BITS:
        raise ValueError(f"it holds a number of {number.bit_length()} bits; at most {MAX_BITS} are possible")
    return number


def no_number(word: str) -> float:
    """Refuse NaN and infinity, which no record holds; for `parse_constant` of `json.loads`.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"it holds {word}, which is no number")


def is_plain(hint: Any) -> bool:
    """Return whether `convert` knows a type hint: scalars, choices, and lists, mappings and unions of these."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType, list, tuple, Sequence, dict, Mapping):
        return all(arm is Ellipsis or is_plain(arm) for arm in inner)
    return origin is Literal or hint in (Any, int, float, str, bool, types.NoneType)


def convert(hint: Any, value: Any, path: str) -> Any:
    """Return a plain value as the type that a hint asks for; `path` is the user's name for it.

    Raises:
        UserError: The value is of another type.
    """
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(hint), value, path)
    if origin is Literal:
        if value not in get_args(hint):
            raise _wrong_choice(value, [str(choice) for choice in get_args(hint)], path)
        return value
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_mapping(typing.cast(type[Any], hint), value, where=path)
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if isinstance(value, Mapping):
            item = get_args(hint)[1]
            return {str(key): convert(item, entry, f"{path}.{key}") for key, entry in value.items()}
    elif origin in (list, tuple, Sequence):
        if isinstance(value, Sequence) and not isinstance(value, str):
            entries = [convert(get_args(hint)[0], entry, f"{path}[{i}]") for i, entry in enumerate(value)]
            return tuple(entries) if origin is tuple else entries
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, int):
            check_plain(value, path)  # refuses what no float can hold
        return float(value)
    elif hint is types.NoneType and value is None:
        return None
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise UserError(f"{path} is {value!r}", describe(hint), f"give {path} a value of that type")


def _convert_union(arms: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and types.NoneType in arms:
        return None
    arms = tuple(arm for arm in arms if arm is not types.NoneType)
    if len(arms) == 1:
        return convert(arms[0], value, path)
    for arm in arms:
        try:
            return convert(arm, value, path)
        except UserError:
            continue
    expected = " or ".join(describe(arm) for arm in arms)
    raise UserError(f"{path} is {value!r}", expected, f"give {path} a value of one of these types")


def check_bounds(value: Any, bounds: Mapping[str, Any], path: str) -> None:
    """Refuse a number outside its bounds, which are named as in `from_mapping`.

    Raises:
        UserError: It is outside; `path` is the user's name for it.
    """
    if value is None or not isinstance(value, int | float):
        return
    tests = {
        "low": (operator.ge, "at least"),
        "high": (operator.le, "at most"),
        "above": (operator.gt, "more than"),
        "below": (operator.lt, "less than"),
    }
    for key, (holds, words) in tests.items():
        if key in bounds and not holds(value, bounds[key]):
            raise UserError(f"{path} is {value}", f"a number of {words} {bounds[key]}", f"change {path}")


def _unknown_key(key: str, known: list[str], where: str) -> UserError:
    path = f"{where}.{key}" if where else key
    guess = nearest(key, known)
    keys = ", ".join(known)
    return UserError(
        f"unknown key {path!r}",
        f"one of {keys}" + (f" under {where!r}" if where else ""),
        f"did you mean {(f'{where}.{guess}' if where else guess)!r}?" if guess else f"remove {path!r}",
    )


def _wrong_choice(value: Any, choices: list[str], path: str) -> UserError:
    guess = nearest(str(value), choices)
    return UserError(
        f"{path} is {value!r}",
        f"one of {', '.join(choices)}",
        f"did you mean {guess!r}?" if guess else f"set {path} to one of these",
    )


def describe(hint: Any) -> str:
    """Describe in words the values that a type hint accepts."""
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", types.NoneType: "null"}
    if hint in words:
        return words[hint]
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arm) for arm in get_args(hint))
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(hint))
    if origin in (list, tuple, Sequence):
        if get_args(hint)[0] is Any:
            return "a list"
        return f"a list, each entry {describe(get_args(hint)[0])}"
    if dataclasses.is_dataclass(hint) or origin is not None:
        return "a mapping"
    return str(hint)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return in words what is not the same in two nested mappings."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = dict.fromkeys([*old, *new])
        return [
            text
            for key in keys
            for text in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if old == new else [f"{path.removeprefix('pretrain.')} was {old!r} and is now {new!r}"]
