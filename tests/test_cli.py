"""What can be typed. A knob is a setting of a config, never an option: a new option has to be entered here."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lurefs import cli
from lurefs.cli import make_parser, parse

OF_A_STAGE = ["--config", "--run-dir", "--workers", "--allow-code", "--dry-run", "[overrides ...]"]
OF_FROZEN = ["--backbone", "--weights", "--shots", "--way"]
TYPED = {
    "": ["--version"],
    "run": ["--config", "--run-dir", "--run-root", "--workers", "--allow-code", "--dry-run", "[overrides ...]"],
    "pretrain": OF_A_STAGE,
    "extract": OF_A_STAGE,
    "evaluate": ["--config", "--run-dir", *OF_FROZEN, "--workers", "--allow-code", "--dry-run", "[overrides ...]"],
    "init": ["data", *OF_FROZEN, "--output", "[overrides ...]"],
    "sweep": ["--config", "--run-dir", "--workers", "--slurm", "--allow-code", "--dry-run", "[overrides ...]"],
    "reproduce": ["run_dir", "--output", "--allow-code"],
    "report": ["runs ...", "--output"],
    "compare": [
        "runs ...",
        "--reference",
        "--benchmark",
        "--probe",
        "--common-episodes",
        "--skip-unfinished",
        "--over",
        "--output",
    ],
    "plan": [
        "[runs ...]",
        "--assume",
        "--difference",
        "--power",
        "--classes",
        "--episodes",
        "--seeds",
        "--images",
        "--reference",
        "--benchmark",
        "--probe",
        "--json",
    ],
    "push": ["runs ...", "--dry-run"],
    "views": ["runs ...", "--dry-run"],
    "list": ["kind", "[pattern]"],
    "cache": ["--clear"],
    "episodes": [],
    "episodes make": ["--config", "--benchmark", "--output", "--allow-code", "[overrides ...]"],
    "episodes show": ["file", "--episode"],
    "episodes verify": ["file", "--config", "--run-dir", "--benchmark", "--allow-code"],
}


def commands_of(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, list[argparse.Action]]]:
    """Yield every command's name, the parser's own first, with what it takes."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    yield name, [action for action in parser._actions if action not in inner and action.dest != "help"]
    for action in inner:
        for choice, command in action.choices.items():
            yield from commands_of(command, f"{name} {choice}".strip())


def written(action: argparse.Action) -> str:
    if action.option_strings:
        return ", ".join(action.option_strings)
    return {"?": f"[{action.dest}]", "*": f"[{action.dest} ...]", "+": f"{action.dest} ..."}.get(
        str(action.nargs), action.dest
    )


def test_commands_and_their_options_are_these_and_no_others() -> None:
    assert {name: [written(action) for action in actions] for name, actions in commands_of(make_parser())} == TYPED


@pytest.mark.parametrize("command", ["run", "pretrain", "extract", "evaluate", "sweep", "episodes make"])
def test_overrides_stand_before_between_and_after_options(command: str) -> None:
    options = ["a.b=1", "--config", "smoke", "c=2", *(["--dry-run", "d=3"] if command != "episodes make" else ["d=3"])]
    parsed = parse([*command.split(), *options])
    assert (parsed.config, parsed.overrides) == ("smoke", ["a.b=1", "c=2", "d=3"])
    assert parse([*command.split(), "--config", "smoke"]).overrides == []


@pytest.mark.parametrize(("command", "option"), [("compare", "--skip-unfinished"), ("push", "--dry-run")])
def test_runs_stand_before_and_after_options(command: str, option: str) -> None:
    assert parse([command, "one", option, "two", "three"]).runs == ["one", "two", "three"]


@pytest.mark.parametrize(
    "typed", ["run a=1 --config smoke --wrokers 2", "list probes ridge more", "reproduce one two", "episodes show a b"]
)
def test_what_no_command_takes_is_refused(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(typed.split())
    assert caught.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "last"),
    [
        ({}, "  lurefs run 'name=a b'"),
        ({"UV_RUN_RECURSION_DEPTH": "1"}, "  uv run lurefs run 'name=a b'"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "the same command resumes"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, ""),
    ],
)
def test_an_interrupted_command_is_printed_as_it_was_started(
    environment: dict[str, str], last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("UV_RUN_RECURSION_DEPTH", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    words = cli._interrupted(["run", "name=a b"])
    assert words.endswith(last) and len(words.splitlines()) == (2 if last.startswith("  ") else bool(last))


def test_a_minus_stays_one_without_utf_8() -> None:
    assert "−5.35 ± 2.13 × 3".encode("ascii", cli.PLAIN_ERRORS) == b"-5.35 ? 2.13 x 3"


def test_a_reader_that_closes_the_output_is_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    spreads = ["--assume", "class=3,pair=5,episode=5", "--classes", "20", "--episodes", "2000"]
    ended = subprocess.run([sys.executable, "-m", "lurefs", "plan", *spreads], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert ended.returncode == cli.EXIT_BROKEN_PIPE
    assert ended.stderr == b""
