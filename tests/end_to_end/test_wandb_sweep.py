"""A grid's file through the real `wandb sweep` and `wandb agent`, against a server on this machine."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lurefs.cli import main
from lurefs.runs.directory import RunDirectory

WANDB = [sys.executable, "-m", "wandb"]


def make_server() -> Any:
    """Return a W&B server that keeps sweeps, hands out the first cell of the newest, then asks the agent to end."""
    path = Path(__file__).parents[1] / "tracking" / "wandb_server.py"
    spec = importlib.util.spec_from_file_location("sweep_wandb_server", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)

    class SweepServer(module.WandbServer):  # type: ignore[misc, name-defined]
        config = ""
        n_heartbeats = 0

        def _on_UpsertSweep(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
            self.config = variables["config"]
            project = {"id": "1", "name": "grids", "entity": {"id": "1", "name": module.ENTITY}}
            return {"upsertSweep": {"sweep": {"name": "swp1", "project": project}, "configValidationWarnings": []}}

        def _on_SweepWithRuns(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
            absent = ("description", "heartbeatAt", "updatedAt", "bestLoss", "controller", "scheduler")
            sweep = {"id": "1", "name": "swp1", "method": "grid", "state": "RUNNING", "config": self.config}
            sweep |= {"createdAt": "2026-01-01T00:00:00", "earlyStopJobRunning": False, "runs": {"edges": []}}
            return {"project": {"sweep": {**sweep, **dict.fromkeys(absent)}}}

        def _on_CreateAgent(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
            return {"createAgent": {"agent": {"id": "agent1"}}}

        def _on_Heartbeat(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
            self.n_heartbeats += 1
            plain = yaml.safe_load(self.config)
            chosen = {key: {"value": entry["values"][0]} for key, entry in plain["parameters"].items()}
            run = {"type": "run", "run_id": "cell1", "args": chosen, "program": plain["program"]}
            is_running = any(json.loads(variables["runState"]).values())
            commands = [run] if self.n_heartbeats == 1 else [] if is_running else [{"type": "exit"}]
            return {"agentHeartbeat": {"agent": {"id": "agent1"}, "commands": json.dumps(commands)}}

    return SweepServer()


def test_an_agent_of_wandb_and_a_sweep_of_ours_do_the_same_cell_once(
    config_file: Path, tmp_path: Path, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs"
    command = [sys.executable, "-m", "lurefs", "run", "--config", str(config_file), "--run-root", str(root)]
    plain = {
        "program": "lurefs",
        "method": "grid",
        "command": [*command, "learner.epochs=1", "trackers.wandb.mode=auto", "${args_no_hyphens}"],
        "parameters": {"chunks.n_chunks": {"values": [1]}, "unlearn": {"values": ["{name: nothing}"]}},
    }
    grid = tmp_path / "grid.yaml"
    grid.write_text(yaml.safe_dump(plain))
    with make_server() as server:
        settings = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "NO_PROXY": "127.0.0.1"}
        options: Any = {
            "env": {**environment, **settings, "HOME": str(tmp_path)},
            "cwd": tmp_path,
            "text": True,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "timeout": 120,
        }
        made = subprocess.run([*WANDB, "sweep", "--project", "grids", str(grid)], check=False, **options)
        assert re.search(r"wandb agent \S+/grids/swp1", made.stdout), made.stdout
        ended = subprocess.run([*WANDB, "agent", "loopback/grids/swp1"], check=False, **options)
    assert {request for request in server.unknown if "/otel/" not in request} == set()  # that is its own telemetry
    of_sweep = {key for key, run in server.runs.items() if run.attributes.get("sweep")}
    assert of_sweep == {"cell1"}
    name = "chunks.n_chunks-1--learner.epochs-1--nothing"
    assert (root / name / "report.html").exists(), ended.stdout
    assert [path.name for path in root.iterdir()] == [name], ended.stdout
    benchmark = next(iter(RunDirectory(root / name).read_summary().benchmarks.values()))
    accuracy = next(iter(benchmark.probes.values())).accuracy
    assert server.runs["cell1"].summary["accuracy"] == pytest.approx(accuracy.mean)
    main(["sweep", "--config", str(grid)])
    assert "finished, nothing to do" in capsys.readouterr().err
