"""With an sbatch and an srun of our own: the first starts every task of the array, the second what it is given."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lurefs import plugins
from lurefs.errors import UserError
from lurefs.sweeps import slurm
from lurefs.sweeps.workers import Call, Failure

SBATCH = f"""#!{sys.executable}
import os, pathlib, re, subprocess, sys
text = pathlib.Path(sys.argv[-1]).read_text()
script = pathlib.Path(__file__).parent / "script"
script.write_text(text)
if "--time=13" in text:
    sys.exit("sbatch: error: no partition takes 13 minutes")
n_tasks = int(re.search(r"--array=0-(\\d+)", text)[1]) + 1
for task in range(n_tasks):
    names = {{"SLURM_ARRAY_JOB_ID": "77", "SLURM_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": str(task)}}
    names |= {{"SLURM_NTASKS": "1", "SLURM_NODELIST": "here", "SLURM_JOB_NODELIST": "here"}}
    names |= {{"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NUM_NODES": "1"}}
    streams = {{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}}
    command = f"bash '{{script}}'; touch '{{script}}-{{task}}'"
    subprocess.Popen(["bash", "-c", command], env={{**os.environ, **names}}, **streams)
print("Submitted batch job 77")
"""
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do case "$1" in --output|--error) shift 2;; *) shift;; esac; done
exec "$@"
"""
SACCT = """#!/bin/bash
echo 'JobID|State'
for task in 0 1 2; do
    if [ -e "$(dirname "$0")/script-$task" ]; then state=COMPLETED; else state=RUNNING; fi
    echo "77_$task|$state"
done
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_calls_are_tasks_of_one_array_job_with_the_options_that_were_given(cluster: Path, tmp_path: Path) -> None:
    calls = {
        "seven": Call(int, ("7",)),
        "wrong": Call(int, ("x",)),
        "unknown": Call(plugins.resolve, ("dataset", "icon")),
    }
    options = slurm.read_options(["time=60", "partition=gpu", "mail-type=END"])
    found = dict(slurm.results(calls, tmp_path / "logs", options, n_at_a_time=2))
    assert found["seven"] == 7
    assert found["wrong"].headline.startswith("ValueError: invalid literal")
    assert isinstance(found["unknown"], Failure) and found["unknown"].is_user_error
    script = (cluster / "script").read_text()
    for line in ("--array=0-2%2", "--time=60", "--partition=gpu", "--mail-type=END", "--job-name=lurefs"):
        assert f"#SBATCH {line}\n" in script


def test_what_slurm_refuses_is_told(cluster: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Slurm refuses the job") as caught:
        list(slurm.results({"a": Call(int)}, tmp_path / "logs", {"time": 13}, n_at_a_time=None))
    assert "no partition takes 13 minutes" in str(caught.value)


def test_a_machine_without_slurm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no Slurm on this machine"):
        list(slurm.results({"a": Call(int)}, tmp_path, {"time": 1}, n_at_a_time=None))


@pytest.mark.parametrize(
    ("texts", "words"),
    [(["gpu"], "'gpu' has no 'key='"), (["partition=gpu"], "time is None"), (["time=soon"], "time is 'soon'")],
)
def test_options_that_are_none_are_refused(texts: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        slurm.read_options(texts)
    assert words in str(caught.value)
