from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lurefs.cli import main
from lurefs.ranks import Ranks, ranks_of
from lurefs.runs.directory import RunDirectory
from processes import Lurefs


def test_two_processes_extract_the_features_of_one(
    config_file: Path, tmp_path: Path, start_all: Callable[..., list[Lurefs]]
) -> None:
    settings = ["learner.eval_batch_size=10"]
    one, two = RunDirectory(tmp_path / "one"), RunDirectory(tmp_path / "two")
    for directory in (one, two):
        main(["pretrain", "--config", str(config_file), "--run-dir", str(directory.path), *settings])
    main(["extract", "--config", str(config_file), "--run-dir", str(one.path), *settings])
    command = ["extract", "--config", config_file, "--run-dir", two.path, *settings]
    said = "".join(process.finish() for process in start_all(2, *command, LUREFS_CACHE=str(tmp_path / "cache")))
    assert said.count("results") == 1 and "come from the store" not in said
    expected, found = one.read_bank("novel-3way-1shot"), two.read_bank("novel-3way-1shot")
    assert np.array_equal(found.features, expected.features)
    assert not list(two.path.glob("features/*/part-*"))


def test_shares_are_contiguous_and_hold_everything_once() -> None:
    for n, world_size in ((10, 3), (2, 4), (0, 2)):
        shares = [Ranks(rank=rank, world_size=world_size).share(n) for rank in range(world_size)]
        assert [item for share in shares for item in share] == list(range(n))


def test_ranks_are_read_from_what_torchrun_sets() -> None:
    found = ranks_of({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"})
    assert found == Ranks(rank=5, world_size=8, local_rank=1)
    assert ranks_of({}) == Ranks()


def test_evaluation_refuses_several_processes(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        main(["evaluate", "--config", str(config_file), "--run-dir", str(tmp_path / "run")])
    assert "without torchrun" in capsys.readouterr().err
