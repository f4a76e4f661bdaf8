from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory
from lurefs.runs.find import find_runs, runs_below

READERS: dict[str, Callable[[RunDirectory], object]] = {
    "config.yaml": RunDirectory.read_config,
    "identity.json": RunDirectory.read_identity,
    "chunks.jsonl": RunDirectory.read_outcomes,
    "summary.json": RunDirectory.read_summary,
    "cost.json": RunDirectory.read_cost,
}


@pytest.mark.parametrize(
    "content",
    [b'{"a": ', b"\xff\xfe\x00a", b"7\n", b'{"a":' * 5000, b'{"a": ' + b"9" * 5000 + b"}"],
    ids=["cut", "no UTF-8", "no mapping", "deep", "long number"],
)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_told_by_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        READERS[name](RunDirectory(tmp_path))
    assert caught.value.problem.startswith(f"{tmp_path / name} is damaged: ")
    assert "\n" not in caught.value.problem


@pytest.mark.parametrize("name", ["backbone", "split", "versions"])
def test_an_identity_whose_parts_are_no_mappings_is_damaged(tmp_path: Path, name: str) -> None:
    (tmp_path / "identity.json").write_text(f'{{"{name}": -1}}')
    with pytest.raises(UserError, match=rf"identity\.json is damaged: {name} is not a mapping"):
        RunDirectory(tmp_path).read_identity()


@pytest.mark.parametrize("value", ['"x"', "[]"])
def test_a_cost_that_is_no_number_is_damaged(tmp_path: Path, value: str) -> None:
    (tmp_path / "cost.json").write_text(f'{{"device": "cpu", "n_macs": {value}}}')
    with pytest.raises(UserError, match=r"cost\.json is damaged: n_macs is"):
        RunDirectory(tmp_path).read_cost()


def test_a_named_pipe_in_place_of_a_table_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "episodes").mkdir()
    os.mkfifo(tmp_path / "episodes" / "b--p.parquet")
    with pytest.raises(UserError, match=r"b--p\.parquet is damaged: it is not a file"):
        RunDirectory(tmp_path).read_accuracies("b", "p")


def test_a_link_to_itself_hides_no_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    (tmp_path / "itself").symlink_to("itself")
    assert list(runs_below(tmp_path)) == [tmp_path / "run"]


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"config.yaml"}))
def test_a_number_that_no_array_holds_is_damage(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(f'{{"n": [{2**63}]}}')
    with pytest.raises(UserError, match=rf"{name} is damaged: .*it holds a number of 64 bits"):
        READERS[name](RunDirectory(tmp_path))


def test_a_file_of_chunks_without_any_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "chunks.jsonl").touch()
    with pytest.raises(UserError, match=r"chunks\.jsonl is damaged: it is empty"):
        RunDirectory(tmp_path).read_outcomes()


def test_a_stored_configuration_that_is_refused_is_told_by_its_file(
    make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    directory = RunDirectory(tmp_path)
    directory.write_config(make_config())
    path = directory.config_path
    whole = path.read_text()
    for text, problem in (
        (whole[: whole.index("flip:") + 5], "learner.augment.flip is None"),
        (whole.replace("name: small", "name: ''", 1), "the name '' cannot be the name of a file"),
    ):
        path.write_text(text)
        with pytest.raises(UserError) as caught:
            directory.read_config()
        assert caught.value.problem == f"{path}: {problem}"


def test_a_stored_configuration_that_was_cut_off_is_refused(
    make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    directory = RunDirectory(tmp_path)
    directory.write_config(make_config())
    whole = directory.config_path.read_bytes()
    for n_bytes in range(0, len(whole.rstrip()), 7):
        directory.config_path.write_bytes(whole[:n_bytes])
        with pytest.raises(UserError) as caught:
            directory.read_config()
        assert caught.value.problem.startswith(str(directory.config_path))
    directory.config_path.write_bytes(whole[: whole.index(b"learner:")])  # the settings before it are whole
    with pytest.raises(UserError, match=r"it was cut off: it has no trackers\.wandb\.strict"):
        directory.read_config()


def test_a_path_may_be_text(make_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    directory = RunDirectory(str(tmp_path / "run"))
    directory.write_config(make_config())
    assert directory == RunDirectory(tmp_path / "run")
    assert find_runs([tmp_path], root=str(tmp_path)) == [directory.path] == list(runs_below(str(tmp_path)))


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"config.yaml"}))
@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_damage(tmp_path: Path, name: str, word: str) -> None:
    (tmp_path / name).write_text(f'{{"n": [{word}]}}')
    with pytest.raises(UserError, match=rf"{name} is damaged: .*it holds {word}"):
        READERS[name](RunDirectory(tmp_path))
