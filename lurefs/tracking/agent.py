"""The one W&B run of an agent's command in a sweep, which is one of ours.

`wandb agent` starts a command with the id of a run and of the sweep in its environment, where every `wandb.init` would
attach to that run. A command of ours opens several W&B runs. The agent's is the first cell, since its accuracy is what
a sweep compares. The run directory keeps the pair, so that a rerun and `lurefs push` find the run in its sweep again.
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
    """A run that a sweep waits for.

    Attributes:
        run_id: Its id at W&B.
        sweep_id: The sweep's.
        card_id: The id that the W&B run would have without a sweep.
        parameters: What the sweep chose, by the names in its file.
        project: Of the sweep, and so of all runs of the command; None for that of the config.
        entity: Likewise.
    """

    run_id: str
    sweep_id: str
    card_id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    project: str | None = None
    entity: str | None = None


def is_of_agent(environment: Mapping[str, str]) -> bool:
    """Say whether an agent started this command, and its sweep waits for a run of it, even of one that is finished."""
    run, sweep, _ = _VARIABLES
    return bool(environment.get(run) and environment.get(sweep))


def take_agent_run(config: RunConfig, environment: MutableMapping[str, str]) -> AgentRun | None:
    """Take an agent's run out of the environment; None if there is none.

    Of several runs in one command, as of variants, the first has it and the others find nothing. Nor does wandb, which
    would attach all that it opens to it.
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
    """Keep which W&B run belongs to the sweep."""
    write_text(path, json.dumps(asdict(agent), indent=1) + "\n")


def read_agent_run(path: Path) -> AgentRun | None:
    """Return what `write_agent_run` kept; None if that is nothing."""
    try:
        return AgentRun(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _read_parameters(path: Path) -> dict[str, Any]:
    """Return the values in the file that the agent wrote, `{name: {value: ...}}`; empty if it cannot be read."""
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    entries = stored.items() if isinstance(stored, dict) else ()
    return {str(name): entry["value"] for name, entry in entries if isinstance(entry, dict) and "value" in entry}
