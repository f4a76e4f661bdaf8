"""What identifies a run: the settings that its numbers depend on, and short digests of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lurefs.config.schema import ProbeConfig, RunConfig
from lurefs.config.weight_files import identity_name
from lurefs.records import to_mapping

LATER = {
    "backbone": ("checkpoint_copy", "checkpoint_match", "checkpoint_sha256", "features"),
    "learner": ("freeze", "ema_decay"),
}
"""Settings that came after the first runs: they count where they are not the default."""


def digest(values: Any) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 of a JSON-serialisable value."""
    text = json.dumps(to_mapping(values), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_identity(config: RunConfig) -> dict[str, Any]:
    """Return the settings that a run's numbers depend on: without name, machine, checkpoints, controls and trackers."""
    values: dict[str, Any] = to_mapping(config)
    left_out = ["name", "device", "num_threads", "checkpoints", "controls", "on_bad_image", "executor", "trackers"]
    left_out += ["chunks", "learner", "unlearn", "after_chunk", "robustness"] if config.frozen else ["frozen"]
    left_out += ["backbone"] if config.brings_features else []
    values["learner"] = {key: value for key, value in values["learner"].items() if key not in ("images", "n_workers")}
    values["backbone"]["checkpoint_path"] = None  # the digest of its bytes stands for it, as for a local folder
    values["backbone"]["name"] = identity_name(config.backbone)
    for part, keys in LATER.items():  # so that runs older than these settings are found again
        plain = to_mapping(getattr(RunConfig(name=""), part))
        values[part] = {key: value for key, value in values[part].items() if key not in keys or value != plain[key]}
    for name in ("source_split", "near_duplicates", "calibrate"):
        if values[name] is None:
            del values[name]
    values["probes"] = {name: probe_card(probe) for name, probe in config.probes.items()}
    for name, transfer in config.transfer.items():
        values["transfer"][name]["probe"] = probe_card(transfer.probe)
    for benchmark in values["benchmarks"].values():
        if benchmark["sources"] == "all":
            del benchmark["sources"]
    augment = values["learner"]["augment"]
    values["learner"]["augment"] = {
        key: value for key, value in augment.items() if key not in ("mixup", "cutmix") or value is not None
    }
    return {key: value for key, value in values.items() if key not in left_out}


def probe_card(probe: ProbeConfig) -> dict[str, Any]:
    """Return the settings of a probe for identities: those of a choice only if it has one."""
    card: dict[str, Any] = to_mapping(probe)
    return {key: value for key, value in card.items() if probe.choose is not None or not key.startswith("choose")}


def pretrain_identity(config: RunConfig) -> dict[str, Any]:
    """Return the settings that a run's weights depend on, beside its base images.

    It is the run's identity without the measurements, the data set, and the splits that choose the base images.
    """
    left_out = ["dataset", "class_split", "source_split", "image_split"]
    left_out += ["benchmarks", "probes", "transfer", "after_chunk", "robustness", "near_duplicates", "calibrate"]
    return {key: value for key, value in run_identity(config).items() if key not in left_out}
