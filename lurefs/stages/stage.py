"""What the stages of a run share: the plan, the run directory, the tracker, the device, and what follows from them."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import lurefs
from episodes.bank import FeatureBank
from episodes.files import write_text
from episodes.manifest import Manifest, draw_manifest
from episodes.probes import Probe
from episodes.sampler import EpisodeSpec
from episodes.transforms import needs_reference
from lurefs import console, plugins
from lurefs.comparing.texts import constancy
from lurefs.config.schema import ProbeConfig, RunConfig, digest, pretrain_identity
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone, build_backbone, resolve_device
from lurefs.ranks import ONE_PROCESS, Ranks
from lurefs.records import through_json, to_mapping
from lurefs.runs.directory import REFERENCE, RunDirectory
from lurefs.seeding import seed_stream
from lurefs.stages.features import embed_batches
from lurefs.stages.plan import Benchmark, Plan
from lurefs.tracking.tracker import Tracker, start


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the stages of one run have in common.

    Attributes:
        plan: What the run does.
        directory: Where its files are.
        tracker: Where its records are mirrored to.
        device: Where its backbone computes.
        ranks: The processes that do it together.
    """

    plan: Plan
    directory: RunDirectory
    tracker: Tracker
    device: torch.device
    ranks: Ranks = ONE_PROCESS


def open_stage(plan: Plan, directory: RunDirectory, *, is_tracked: bool, ranks: Ranks = ONE_PROCESS) -> Stage:
    """Prepare a locked run directory for its stages.

    Args:
        plan: What the run does.
        directory: Where its files go.
        is_tracked: Whether the stages have records for a tracker.
        ranks: The processes that do them together; the first one writes, and holds the lock.

    Raises:
        UserError: The directory holds a run of another configuration, or the device cannot be used.
    """
    config = plan.config
    torch.set_num_threads(config.num_threads)
    device = resolve_device(config.device)
    if ranks.world_size > 1 and device == torch.device("cuda"):
        device = torch.device("cuda", ranks.local_rank)
        torch.cuda.set_device(device)
    if ranks.is_first:
        _claim(plan, directory, plan_backbone(plan))
    ranks.wait()
    tracker = start(config, directory) if is_tracked and ranks.is_first else Tracker("")
    return Stage(plan=plan, directory=directory, tracker=tracker, device=device, ranks=ranks)


def plan_backbone(plan: Plan) -> Backbone:
    """Build the plan's backbone with the weights that it starts from."""
    return build_backbone(
        plan.config.backbone,
        n_classes=len(plan.classes.base),
        n_channels=plan.dataset.n_channels,
        image_size=plan.dataset.image_size,
        seed=seed_stream(plan.config.seed, "weights"),
        channels_last=plan.config.learner.channels_last,
    )


def backbone_card(backbone: Backbone) -> dict[str, Any]:
    """Return what describes a backbone in identities: name, sizes, pooling, transform."""
    return {
        "name": backbone.name,
        "n_parameters": backbone.n_parameters,
        "n_features": backbone.n_features,
        "n_channels": backbone.n_channels,
        "pooling": str(getattr(backbone.model, "global_pool", "")),
        **backbone.transform,
    }


def read_or_draw_manifest(stage: Stage, benchmark: Benchmark) -> Manifest:
    """Read the benchmark's episodes, or store those of the file that its config names, or draw and store them."""
    path = stage.directory.manifest_path(benchmark.name)
    if path.exists():
        stored = stage.directory.read_manifest(benchmark.name)
        made_from = benchmark.spec, benchmark.seed, benchmark.images_digest
        is_named = benchmark.manifest is None or benchmark.manifest.hash == stored.hash
        if is_named and (stored.spec, stored.seed, stored.images_digest) == made_from:
            return stored
    manifest = benchmark.manifest or draw_manifest(benchmark, benchmark.spec, seed=benchmark.seed)
    manifest.save(path)
    return manifest


def result_identity(
    benchmark: Benchmark, manifest: Manifest, probe: Probe, bank_digests: tuple[str, str]
) -> dict[str, Any]:
    """Return what the results of a probe are made from: equal identities mean that nothing has to be scored anew.

    Args:
        benchmark: Whose episodes.
        manifest: The episodes.
        probe: What is fitted.
        bank_digests: Of the identities of the banks that support and queries are taken from.
    """
    support, query = bank_digests
    identity: dict[str, Any] = {"manifest": manifest.hash, "probe": probe.settings, "bank": support}
    if query != support:
        identity["query_bank"] = query
    if benchmark.target_ci95 is not None:
        identity["target_ci95"] = benchmark.target_ci95
    return identity


def embed(
    stage: Stage, backbone: Backbone, benchmark: Benchmark, description: str, ranks: Ranks | None = None
) -> Iterator[NDArray[np.float32]]:
    """Yield a benchmark's features batch by batch, with a progress bar; with `ranks`, this process's share of them."""
    batch_size = stage.plan.config.learner.eval_batch_size
    batches = (ranks or Ranks()).share(-(-len(benchmark.rows) // batch_size))
    return console.track(embed_batches(backbone, benchmark, batch_size, batches), len(batches), description)


def tell_if_constant(bank: FeatureBank, images: Benchmark, whose: str) -> None:
    """Note on stderr that the features of a benchmark's images are constant or nearly so, if they are."""
    words = constancy(bank.spread)
    if words:
        console.note(f"the features of {whose} on the images of {images.name} are {words}")


def reference_images(plan: Plan) -> Benchmark:
    """Return the training images of the base classes, on which feature transforms are fitted."""
    rows = plan.images.train
    return Benchmark(
        name=REFERENCE,
        dataset=plan.dataset,
        rows=rows,
        labels=np.searchsorted(plan.classes.base, plan.dataset.labels[rows]).astype(np.int64),
        class_names=tuple(plan.dataset.class_names[label] for label in plan.classes.base),
        spec=EpisodeSpec(),
        seed=0,
    )


def probes_need_reference(plan: Plan) -> bool:
    """Say whether a probe of the run has a transform that is fitted on base classes."""
    return any(needs_reference(probe.transform) for probe in plan.config.probes.values())


def make_probe(name: str, config: ProbeConfig, reference: NDArray[np.float32] | None = None) -> Probe:
    """Build a probe from its configuration; `reference` holds the features that its transform is fitted on."""
    return Probe(
        name=name,
        classifier=plugins.build("probe", config.name, config.params),
        transform=config.transform,
        reference=reference if needs_reference(config.transform) else None,
        solver=config.solver,
        settings=to_mapping(config),
    )


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return in words what is not the same in two nested mappings."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = dict.fromkeys([*old, *new])
        return [
            text
            for key in keys
            for text in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if old == new else [f"{path.removeprefix('pretrain.')} was {old!r} and is now {new!r}"]


def machine_card(config: RunConfig) -> dict[str, Any]:
    """Return what numbers may depend on beside settings and versions: processor, device, threads."""
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


def _claim(plan: Plan, directory: RunDirectory, backbone: Backbone) -> None:
    """Store what the run is made from, or refuse a directory whose weights were made from something else."""
    import timm

    card = {
        "pretrain": pretrain_identity(plan.config),
        "dataset": dict(plan.dataset.identity),
    }
    card = through_json(card)
    if directory.identity_path.exists():
        stored = directory.read_identity()
        changes = differences({key: stored.get(key) for key in card}, card)
        if changes:
            raise UserError(
                f"{directory.path} holds a run of another configuration: {'; '.join(changes[:3])}",
                "the configuration that the run was started with",
                "give another --run-dir, or delete the directory",
            )
    else:
        split = {
            "n_base_classes": len(plan.classes.base),
            "n_validation_classes": len(plan.classes.validation),
            "n_novel_classes": len(plan.classes.novel),
            "n_train_images": len(plan.images.train),
            "n_val_images": len(plan.images.val),
            "n_test_images": len(plan.images.test),
        }
        versions = {
            "lurefs": lurefs.__version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "numpy": np.__version__,
        }
        identity = {
            "digest": digest(card),
            **card,
            "backbone": backbone_card(backbone),
            "split": split,
            "versions": versions,
            "machine": machine_card(plan.config),
        }
        write_text(directory.identity_path, json.dumps(identity, indent=2) + "\n")
    directory.write_config(plan.config)
