"""Map from the run id given by `wandb agent` to one of our W&B runs.

`wandb agent` starts a command with the ids of a run and a sweep in its environment, and every `wandb.init` would attach
to that run. Our command opens several W&B runs. The agent's run becomes the first cell, since a sweep compares its
accuracy. The run directory keeps both ids, so that a rerun and `lurefs push` find the run in its sweep.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from episodes.files import write_text
from lurefs.config.schema import RunConfig
from lurefs.tracking.labels import cell_id

_VARIABLES = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")


@dataclass(frozen=True, kw_only=True)
class AgentRun:
    """The W&B run that a sweep's agent expects from this command.

    Attributes:
        run_id: Its id at W&B.
        sweep_id: The sweep's id.
        card_id: The id that the W&B run would have without a sweep.
        parameters: Values chosen by the sweep, by the names in its file.
        project: The sweep's project, for all runs of the command; None for that of the config.
        entity: The sweep's entity; None likewise.
    """

    run_id: str
    sweep_id: str
    card_id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    project: str | None = None
    entity: str | None = None


def is_of_agent(environment: Mapping[str, str]) -> bool:
    """Return whether an agent started this command, so that its sweep waits for a run, even a finished one."""
    run, sweep, _ = _VARIABLES
    return bool(environment.get(run) and environment.get(sweep))


def take_agent_run(config: RunConfig, environment: MutableMapping[str, str]) -> AgentRun | None:
    """Remove an agent's run from the environment and return it; None if there is none.

    If one command has several runs, e.g. of variants, only the first gets it. Its removal also keeps wandb from
    attaching every W&B run to it.
    """
    is_ours = is_of_agent(environment)
    run, sweep, path = (environment.pop(name, "") for name in _VARIABLES)
    if not is_ours:
        return None
    return AgentRun(
        run_id=run,
        sweep_id=sweep,
        card_id=cell_id(config, next(iter(config.benchmarks)), next(iter(config.probes))),
        parameters=_read_parameters(Path(path)) if path else {},
        project=environment.get("WANDB_PROJECT") or None,
        entity=environment.get("WANDB_ENTITY") or None,
    )


def write_agent_run(path: Path, agent: AgentRun) -> None:
    """Store the agent's run."""
    write_text(path, json.dumps(asdict(agent), indent=1) + "\n")


def read_agent_run(path: Path) -> AgentRun | None:
    """Return the stored agent's run; None if there is none."""
    try:
        return AgentRun(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _read_parameters(path: Path) -> dict[str, Any]:
    """Return the values in the agent's file, `{name: {value: ...}}`; empty if it cannot be read."""
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    entries = stored.items() if isinstance(stored, dict) else ()
    return {str(name): entry["value"] for name, entry in entries if isinstance(entry, dict) and "value" in entry}
