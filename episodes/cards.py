"""Cards: the JSON beside arrays, which says what they are. A card of another form is refused with the wrong entry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Kind = type | tuple[type, ...] | str
"""Type of a JSON value, one of several, or one of these lists."""
TEXTS, NUMBERS, DECIMALS, TRUTHS = "a list of texts", "a list of whole numbers", "a list of numbers", "a list of truths"
_ITEMS: Mapping[str, type] = {TEXTS: str, NUMBERS: int, DECIMALS: float, TRUTHS: bool}
_WORDS: Mapping[type, str] = {
    int: "a whole number",
    str: "a text",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
}
MAX_NUMBER = 2**63
"""All whole numbers of a card are smaller."""


def read_card(text: bytes | str, entries: Mapping[str, Kind], *, what: str) -> dict[str, Any]:
    """Parse a card and check its entries; it may have more.

    Args:
        text: JSON.
        entries: The type of each entry that it must have.
        what: Whose card it is, for the message.

    Raises:
        ValueError: It is no JSON object, or an entry is missing or of another type.
    """
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} cannot be read as JSON: {error}") from error
    return check_card(card, entries, what=what)


def check_card(card: Any, entries: Mapping[str, Kind], *, what: str) -> dict[str, Any]:
    """Return a card that was parsed, after the checks of `read_card`.

    Raises:
        ValueError: It is no mapping, or an entry is missing or of another type.
    """
    if not isinstance(card, dict):
        raise ValueError(f"{what} is {type(card).__name__}, and should be a mapping")
    for name, kind in entries.items():
        if name not in card:
            raise ValueError(f"{what} has no entry {name!r}")
        if not _is_of(card[name], kind):
            raise ValueError(f"{what} has {name} {str(card[name])[:40]!r}, which should be {_described(kind)}")
    return card


def _is_of(value: Any, kind: Kind) -> bool:
    if isinstance(kind, str):
        return isinstance(value, list | tuple) and all(_is_of(entry, _ITEMS[kind]) for entry in value)
    if isinstance(kind, tuple):
        return any(_is_of(value, one) for one in kind)
    if kind in (int, float):
        is_number = isinstance(value, kind | int) and not isinstance(value, bool)
        return is_number and -MAX_NUMBER < value < MAX_NUMBER  # also refuses NaN
    return isinstance(value, kind)


def _described(kind: Kind) -> str:
    if isinstance(kind, str):
        return kind
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join("null" if one is type(None) else _WORDS.get(one, "a number") for one in kinds)
