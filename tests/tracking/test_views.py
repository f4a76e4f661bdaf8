from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lurefs.tracking
from lurefs.cli import main
from lurefs.tracking.comparison_record import INTERVAL_COLUMNS

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")  # in wandb-workspaces itself


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every plain value of a specification with the name of its entry; items have that of their list."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from leaves(entry, name)
    elif isinstance(value, list):
        for entry in value:
            yield from leaves(entry, key)
    else:
        yield key, value


def filter_keys(value: Any) -> Iterator[str]:
    """Yield the config keys that filters name."""
    if isinstance(value, dict):
        if value.get("section") == "config":
            yield value["name"]
        for entry in value.values():
            yield from filter_keys(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from filter_keys(entry)


def named_keys(spec: Any) -> tuple[set[str], set[str]]:
    """Return the config keys and the metrics that a specification names."""
    config, metrics = set(filter_keys(spec)), set[str]()
    for key, value in leaves(spec):
        if not isinstance(value, str):
            continue
        if match := re.fullmatch(r"config:(.+)\.value", value):
            config.add(match[1])
        elif match := re.fullmatch(r"summary:(.+)", value):
            metrics.add(match[1])
        elif key == "groupBy":
            config.add(value.removesuffix(".value"))
        elif key in ("xAxis", "metrics") or value.endswith("_table"):
            metrics.add(value)
    return config, metrics


def test_every_key_that_a_view_names_is_one_that_the_mirror_writes(
    run: Any, server: Any, comparison: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.go()
    main(["push", str(comparison)])
    capsys.readouterr()
    main(["views", "--dry-run", str(run.directory.path)])
    views = json.loads(capsys.readouterr().out)
    assert views.keys() == {"workspace", "report"}
    for spec in views.values():
        config, metrics = named_keys(spec)
        assert {"backbone", "strategy", "benchmark", "backbone_gmacs"} <= config
        assert {"accuracy", "chunk_index", "few_shot/novel-5way-1shot", "paired_differences_table"} <= metrics
        assert config <= {key for served in server.runs.values() for key in served.user_config}
        assert metrics <= {key for served in server.runs.values() for key in served.summary}


def test_charts_of_a_view_are_those_that_are_stored_with_their_fields(
    run: Any, server: Any, comparison: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.with_wandb(mode="disabled").go()
    main(["push", str(comparison)])
    capsys.readouterr()
    main(["views", "--dry-run", str(run.directory.path)])
    found = list(leaves(json.loads(capsys.readouterr().out)))
    assert {value for key, value in found if key == "panelDefId"} == {f"ENTITY/{name}" for name in server.charts}
    assert {key for key, value in found if key == value} >= set(INTERVAL_COLUMNS)


def test_second_call_replaces_the_views(run: Any, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run.go()
    for _ in range(2):
        main(["views", str(run.directory.path)])
        assert re.fullmatch(r"workspace  http\S+nw=lurefs\nreport     http\S+\n", capsys.readouterr().out)
    assert sorted(view["type"] for view in server.views.values()) == ["project-view", "runs"]
    assert {view["project"]["name"] for view in server.views.values()} == {"lurefs"}
    assert server.unknown == []


def test_views_without_a_key_are_refused(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run.go()
    with pytest.raises(SystemExit, match="2"):
        main(["views", str(run.directory.path)])
    assert "no API key" in capsys.readouterr().err


def test_missing_package_is_told(run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.delitem(sys.modules, "lurefs.tracking.views", raising=False)
    monkeypatch.delattr(lurefs.tracking, "views", raising=False)
    with pytest.raises(SystemExit, match="2"):
        main(["views", "--dry-run", str(run.directory.path)])
    error = capsys.readouterr().err
    assert "lurefs views needs a library that cannot be imported" in error and "expected: " in error
    assert 'pip install "lurefs[wandb]"' in error


@pytest.mark.parametrize("benchmark", ["$5 + 1-shot", "bénch−1 ✓", "漢字😀", "שלום ^_` ~"])
def test_names_with_symbols_have_views(benchmark: str) -> None:
    from lurefs.tracking.views import Content, specifications

    content = Content(project="lurefs", entity=None, cells={benchmark: ["centroid"]}, curves=["test_accuracy"])
    found = specifications(content, "someone")
    assert found.keys() == {"workspace", "report"}
    assert benchmark in json.dumps(found["report"], ensure_ascii=False)
