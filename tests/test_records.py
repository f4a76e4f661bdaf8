from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from lurefs.errors import UserError
from lurefs.records import from_mapping, to_mapping


@dataclass(frozen=True, kw_only=True)
class Inner:
    ratio: float = field(default=0.5, metadata={"above": 0, "high": 1})
    mode: Literal["fast", "slow"] = "fast"


@dataclass(frozen=True, kw_only=True)
class Outer:
    n: int
    inner: Inner = field(default_factory=Inner)
    by_name: dict[str, Inner] = field(default_factory=dict)
    groups: float | list[str] = 0.1
    note: str | None = None
    flag: bool = False


def message(values: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        from_mapping(Outer, values)
    return str(caught.value)


def test_nested_records_survive_the_way_to_plain_containers_and_back() -> None:
    record = Outer(n=3, inner=Inner(ratio=1.0), by_name={"a": Inner(mode="slow")}, groups=["x", "y"], note="hi")
    assert from_mapping(Outer, to_mapping(record)) == record


def test_whole_numbers_become_floats_where_floats_are_declared() -> None:
    ratio = from_mapping(Outer, {"n": 1, "inner": {"ratio": 1}}).inner.ratio
    assert ratio == 1.0
    assert isinstance(ratio, float)


def test_unknown_key_is_named_with_its_path_and_the_nearest_one() -> None:
    text = message({"n": 1, "inner": {"ration": 0.2}})
    assert "'inner.ration'" in text
    assert "did you mean 'inner.ratio'?" in text


def test_missing_value_is_named() -> None:
    assert "n is missing" in message({})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n": "three"}, "n is 'three'\n  expected: a whole number"),
        ({"n": True}, "n is True"),
        ({"n": 1.5}, "a whole number"),
        ({"n": 1, "flag": 1}, "true or false"),
        ({"n": 1, "inner": {"ratio": 0}}, "inner.ratio is 0.0\n  expected: a number of more than 0"),
        ({"n": 1, "inner": {"ratio": 1.5}}, "at most 1"),
        ({"n": 1, "by_name": {"a": {"mode": "slwo"}}}, "did you mean 'slow'?"),
        ({"n": 1, "groups": {"a": 1}}, "a number or a list"),
        ({"n": 1, "inner": 3}, "a mapping"),
    ],
)
def test_wrong_values_are_told_with_path_and_expectation(values: dict[str, Any], words: str) -> None:
    assert words in message(values)
