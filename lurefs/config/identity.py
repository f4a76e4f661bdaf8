"""What identifies a run: the settings that its numbers depend on, and short digests of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lurefs.config.schema import BackboneConfig, RunConfig
from lurefs.records import to_mapping


def digest(values: Any) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 of a JSON-serialisable value."""
    text = json.dumps(to_mapping(values), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_identity(config: RunConfig) -> dict[str, Any]:
    """Return the settings that a run's numbers depend on: without name, machine, checkpoints, controls and trackers."""
    values: dict[str, Any] = to_mapping(config)
    left_out = ["name", "device", "num_threads", "checkpoints", "controls", "on_bad_image", "executor", "trackers"]
    left_out += ["chunks", "learner", "unlearn", "after_chunk", "robustness"] if config.frozen else ["frozen"]
    values["learner"] = {key: value for key, value in values["learner"].items() if key not in ("images", "n_workers")}
    values["backbone"]["checkpoint_path"] = None  # the digest of its bytes stands for it
    plain = BackboneConfig(name=config.backbone.name)
    for key in ("checkpoint_copy", "checkpoint_match", "checkpoint_sha256"):
        if values["backbone"][key] == getattr(plain, key):  # so that runs older than these settings are found again
            del values["backbone"][key]
    return {key: value for key, value in values.items() if key not in left_out}


def pretrain_identity(config: RunConfig) -> dict[str, Any]:
    """Return the settings that a run's weights depend on: its identity without the data set and the measurements."""
    left_out = ("dataset", "benchmarks", "probes", "transfer", "after_chunk", "robustness")
    return {key: value for key, value in run_identity(config).items() if key not in left_out}
