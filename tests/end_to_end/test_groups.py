"""A recipe of several runs as a person uses it: variants and seeds, in this process and in several."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

import processes
from lurefs.cli import main
from lurefs.config.names import GROUP_FILES
from lurefs.runs.directory import RunDirectory

NAMES = ["lure--seed-0", "lure--seed-1", "warm--seed-0", "warm--seed-1"]


@pytest.fixture
def group_file(config_file: Path) -> Path:
    """Two variants and two seeds of a run of a second."""
    plain = yaml.safe_load(config_file.read_text())
    plain |= {"name": "pair", "learner": {"epochs": 1, "batch_size": 16}, "chunks": {"n_chunks": 2}}
    del plain["seed"]
    plain |= {"variants": {"lure": {}, "warm": {"unlearn": {"name": "nothing"}}}, "seeds": [0, 1]}
    config_file.write_text(yaml.safe_dump(plain, sort_keys=False))
    return config_file


@pytest.fixture
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes of `--workers` have the libraries already; one test starts them as they are."""
    monkeypatch.setattr("lurefs.sweeps.workers.get_context", lambda method: processes.context())


def times(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith("comparison.")
    }


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "expected:" in error and "to fix:" in error
    return error


def test_runs_in_two_processes_lead_to_one_page_and_a_second_time_to_the_same_words_at_once(
    group_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    root = tmp_path / "pair"
    arguments = ["run", "--config", str(group_file), "--run-dir", str(root)]
    main([*arguments, "--workers", "2"])
    said = capsys.readouterr()
    assert "4 runs, 0 of them finished\n" in said.err and "4/4  " in said.err
    assert "lure (2 seeds)" in said.out and "warm (2 seeds)" in (root / "report.html").read_text()
    assert sorted(path.parent.name for path in root.glob("*/log.txt")) == NAMES
    assert {path.name for path in root.iterdir()} == {*NAMES, *GROUP_FILES}
    assert not list(root.glob("*/report.html"))
    assert [RunDirectory(root / name).read_config().seed for name in NAMES] == [0, 1, 0, 1]

    before = times(root)
    program = (
        f"import sys\nfrom lurefs.cli import main\nmain({arguments!r})\n"
        "assert not {'torch', 'timm', 'learn2learn', 'wandb', 'matplotlib'} & set(sys.modules)\n"
    )
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (0, said.out), again.stderr
    assert again.stderr == "4 runs, 4 of them finished\nfinished, nothing to do\n"
    assert times(root) == before

    request.getfixturevalue("quick_workers")
    more = "benchmarks.more={n_way: 2, n_shot: 1, n_query: 5, n_episodes: 20}"
    main([*arguments, "--workers", "2", more])
    assert "4 runs, 0 of them finished\n" in capsys.readouterr().err
    assert all(RunDirectory(root / name).episodes_path("more", "logistic_regression").exists() for name in NAMES)
    after = times(root)
    weights = [name for name in before if "/checkpoints/" in name]
    assert weights and all(after[name] == before[name] for name in weights)
    assert after["report.html"] > before["report.html"]


def test_one_seed_more_is_run_alone_in_this_process_beside_the_others(
    group_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "pair"
    arguments = ["run", "--config", str(group_file), "--run-dir", str(root)]
    main([*arguments, "seed=1"])
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["figures", "lure--seed-1", "warm--seed-1"]
    before = times(root)
    capsys.readouterr()
    main(arguments)
    assert "4 runs, 2 of them finished\n" in capsys.readouterr().err
    after = times(root)
    assert all(after[name] == time for name, time in before.items() if "--seed-1/" in name)
    assert not list(root.glob("*/report.html")) and not list(root.glob("*/log.txt"))


def test_a_run_that_fails_costs_no_other_and_stages_go_one_by_one(
    group_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], quick_workers: None
) -> None:
    root = tmp_path / "pair"
    arguments = ["--config", str(group_file), "--run-dir", str(root), "seed=0", "workers=2"]
    main(["pretrain", *arguments])
    capsys.readouterr()
    with RunDirectory(root / "lure--seed-0").locked(), pytest.raises(SystemExit) as caught:
        main(["run", *arguments])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert f"failed: lure--seed-0\nanother process is working in {root / 'lure--seed-0'}" in err
    assert "warm--seed-0" in out and "lure--seed-0" not in out
    for stage in ("extract", "evaluate"):
        main([stage, *arguments])
    out = capsys.readouterr().out
    assert "lure--seed-0" in out and "warm--seed-0" in out
    main(["run", *arguments, "--dry-run"])
    assert "finished, nothing to do" in capsys.readouterr().out


def test_a_page_that_cannot_be_written_is_told_after_the_runs_that_failed(
    group_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "pair"
    (root / "report.html").mkdir(parents=True)  # no page can take its place
    arguments = ["run", "--config", str(group_file), "--run-dir", str(root), "seed=0"]
    with RunDirectory(root / "lure--seed-0").locked(), pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    told = err.index("failed: lure--seed-0\nanother process is working")
    assert err.index(f"error: {root} cannot be written") > told
    assert "warm--seed-0" in out and f"results    {root}" in out
    (root / "report.html").rmdir()
    main(arguments)
    assert "lure--seed-0" in (root / "report.html").read_text()


def test_a_dry_run_names_the_runs_and_says_what_each_variant_would_do(
    group_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", "--config", str(group_file), "--run-dir", str(tmp_path / "pair"), "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [f"to run    {name}" for name in NAMES]
    assert [line for line in lines if line.startswith("run ")] == ["run lure--seed-0", "run warm--seed-0"]
    assert lines[-1] == f"nothing was run; results would go to {tmp_path / 'pair'}"
    assert not (tmp_path / "pair").exists()


def test_places_and_numbers_that_a_group_cannot_have_are_refused(
    group_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    arguments = ["run", "--config", str(group_file), "--workers", "2", "--run-dir"]
    assert "cannot be written" in refused([*arguments, str(tmp_path / "file" / "pair")], capsys)
    lone = RunDirectory(tmp_path / "lone")
    lone.path.mkdir()
    lone.config_path.write_text("name: lone\n")
    assert "lone holds a run" in refused([*arguments, str(lone.path)], capsys)
    assert "--workers is 0" in refused(["run", "--config", str(group_file), "--workers", "0"], capsys)
    arguments = ["run", "--config", str(group_file), "--run-dir", str(tmp_path / "pair"), "backbone.name=resnet81"]
    assert "run lure--seed-0: unknown timm model 'resnet81'" in refused([*arguments, "workers=2"], capsys)
    assert not (tmp_path / "pair").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_a_group_of_runs_ends_all_their_processes(
    number: signal.Signals, group_file: Path, tmp_path: Path, start: Callable[..., processes.Lurefs]
) -> None:
    root = tmp_path / "pair"
    words = ["run", "--config", str(group_file), "--run-dir", str(root), "--workers", "2", "learner.epochs=100000"]
    command = start(*words)
    until = time.monotonic() + 400
    while len(list(root.glob("*/identity.json"))) < 2:
        assert command.is_alive and time.monotonic() < until, command.output
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(command.pid, number)  # as a terminal does
    else:
        os.kill(command.pid, number)
    try:
        assert command.wait() == (130 if number == signal.SIGINT else -number)
        said = command.output
        assert "Traceback" not in said
        if number == signal.SIGINT:
            assert "interrupted: all that was finished is kept" in said
            assert said.endswith(f"  lurefs {shlex.join(words)}\n")
        while _has_processes(command.pid):
            assert time.monotonic() < until, "a process of the group is still at work"
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)  # nothing may go on learning for ever


def _has_processes(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_finished_runs_that_a_page_leaves_out_are_named(
    group_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "pair"
    arguments = ["run", "--config", str(group_file), "--run-dir", str(root)]
    main([*arguments, "seed=0"])
    assert "other finished" not in capsys.readouterr().err
    main([*arguments, "seed=1"])
    assert f"{root} holds 2 other finished runs, which are not in these tables" in capsys.readouterr().err
