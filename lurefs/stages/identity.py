"""Identities of a run and of its results, and a card of the machine."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lurefs
from episodes.files import write_text
from episodes.manifest import Manifest
from episodes.probes import Probe
from lurefs import console
from lurefs.comparing.texts import duration
from lurefs.config.identity import digest
from lurefs.config.learning_schema import FeaturesConfig
from lurefs.config.schema import RunConfig
from lurefs.data.content import content_of
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone, resolve_device
from lurefs.learning.progress import stored_seconds
from lurefs.learning.weights import classifier_names, state_sha256
from lurefs.records import through_json, to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.stages.features import viewed
from lurefs.stages.places import BASE_PIXELS, another_run, files_stamp, has_results, refuse_another, weights_card
from lurefs.stages.plan import Benchmark, Plan

LONG_SECONDS = 600.0
"""A start of another configuration is not replaced if so much work on its first chunk is stored."""


def claim(plan: Plan, directory: RunDirectory, backbone: Backbone | None) -> None:
    """Store the run's identity in its directory, or refuse a directory that holds results of another run.

    What a start of another configuration has left without results, such as one that diverged, is removed, but for
    progress of more than `LONG_SECONDS`.

    Args:
        plan: The plan.
        directory: The run directory.
        backbone: The backbone; None if the data bring features.
    """
    card = weights_card(plan)
    if backbone is not None and not plan.config.frozen:
        images = plan.images
        rows = np.concatenate([images.train, images.val, images.test])
        card[BASE_PIXELS] = content_of(viewed(plan.dataset, backbone), rows)
    loaded = None
    if backbone is not None and plan.config.backbone.pretrained:
        loaded = state_sha256(backbone.model, classifier_names(backbone.model))
    if directory.identity_path.exists():
        try:
            refuse_another(directory, card)
            stored = directory.read_identity().get("loaded_sha256", loaded)
            if loaded is not None and stored != loaded:
                raise another_run(directory, [f"the SHA-256 of the loaded weights was {stored} and is now {loaded}"])
        except UserError as error:
            if has_results(directory):
                raise
            if (seconds := stored_seconds(directory.progress_path)) > LONG_SECONDS:
                raise UserError(
                    f"{error.problem}; {duration(seconds)} of work on its first chunk are stored",
                    error.expected,
                    "resume it with its own configuration, give another --run-dir, or delete the directory",
                ) from error
            console.note(f"{directory.path} holds a start of another configuration without results; it is replaced")
            directory.progress_path.unlink(missing_ok=True)
            directory.identity_path.unlink()
    if loaded is not None:
        card["loaded_sha256"] = loaded
    if not directory.identity_path.exists():
        identity = {
            "digest": digest(card),
            **card,
            "dataset": through_json(plan.dataset.identity),
            "backbone": {"name": plan.config.backbone.name, "n_features": plan.dataset.n_features}
            if backbone is None
            else backbone_card(backbone),
            **({"weights": backbone.weights} if backbone is not None and backbone.weights else {}),
            "split": _split_card(plan),
            "versions": library_versions(),
            "machine": machine_card(plan.config),
        }
        write_text(directory.identity_path, json.dumps(identity, indent=2) + "\n")
    directory.write_config(plan.config)


def note_files(plan: Plan, directory: RunDirectory) -> None:
    """Note data set, split and state of the files in the identity, once all results are those of these files."""
    identity = directory.read_identity()
    now = {"dataset": through_json(plan.dataset.identity), "split": _split_card(plan), "files": files_stamp(plan)}
    noted = identity | now
    if noted != identity:
        write_text(directory.identity_path, json.dumps(noted, indent=2) + "\n")


def _split_card(plan: Plan) -> dict[str, int]:
    return {
        "n_base_classes": len(plan.classes.base),
        "n_validation_classes": len(plan.classes.validation),
        "n_novel_classes": len(plan.classes.novel),
        "n_train_images": len(plan.images.train),
        "n_val_images": len(plan.images.val),
        "n_test_images": len(plan.images.test),
    }


def result_identity(
    benchmark: Benchmark,
    manifest: Manifest,
    probe: Probe,
    bank_digests: tuple[str, str],
    chosen_from: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the identity of a probe's results; stored results of an equal identity stay valid.

    Args:
        benchmark: The benchmark of the episodes.
        manifest: The episodes.
        probe: The fitted probe.
        bank_digests: Identity digests of the banks for support and for query.
        chosen_from: What the probe's settings were chosen from; None if they are fixed.
    """
    support, query = bank_digests
    identity: dict[str, Any] = {"manifest": manifest.hash, "probe": probe.settings, "bank": support}
    if query != support:
        identity["query_bank"] = query
    if benchmark.target_ci95 is not None:
        identity["target_ci95"] = benchmark.target_ci95
    if chosen_from is not None:
        identity["chosen_from"] = dict(chosen_from)
    return identity


def backbone_card(backbone: Backbone) -> dict[str, Any]:
    """Return the description of a backbone for identities: name, sizes, pooling, features, transform."""
    return {
        "name": backbone.identity_name,
        "n_parameters": backbone.n_parameters,
        "n_features": backbone.n_features,
        "n_channels": backbone.n_channels,
        "pooling": str(getattr(backbone.model, "global_pool", "")),
        **({"features": to_mapping(backbone.features)} if backbone.features != FeaturesConfig() else {}),
        **backbone.transform,
    }


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that compute features."""
    import timm

    return {library.__name__: library.__version__ for library in (lurefs, torch, timm, np)}


def machine_card(config: RunConfig) -> dict[str, Any]:
    """Return processor, device and threads, on which numbers may depend."""
    device = resolve_device(config.device)
    return {
        "processor": processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "num_threads": config.num_threads,
    }


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
