"""The context that the stages of a run share, and functions that start from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from episodes.bank import FeatureBank
from episodes.manifest import Manifest, draw_manifest
from episodes.probes import SEED, Probe, unseeded
from episodes.transforms import needs_reference
from lurefs import console, plugins
from lurefs.comparing.texts import constancy
from lurefs.config.choosing import points
from lurefs.config.fine_tuning import fixed_probes
from lurefs.config.identity import probe_card
from lurefs.config.schema import ProbeConfig
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone, build_backbone, resolve_device
from lurefs.ranks import ONE_PROCESS, Ranks
from lurefs.runs.directory import REFERENCE, RunDirectory
from lurefs.seeding import seed_stream
from lurefs.stages.features import embed_batches
from lurefs.stages.identity import claim
from lurefs.stages.places import files_stamp
from lurefs.stages.plan import Benchmark, ImageSet, Plan
from lurefs.tracking.tracker import Tracker, start


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The context that the stages of one run share.

    Attributes:
        plan: The run's plan.
        directory: The run directory.
        tracker: Receives the run's records.
        device: Device of the backbone.
        ranks: The processes of the run.
        uses_store: Whether features, and scores of controls, of other runs of this machine are taken.
        files: The state of the data's files when the stages began, see `files_stamp`; empty if it does not matter.
    """

    plan: Plan
    directory: RunDirectory
    tracker: Tracker
    device: torch.device
    ranks: Ranks = ONE_PROCESS
    uses_store: bool = True
    files: str = ""


def open_stage(
    plan: Plan, directory: RunDirectory, *, is_tracked: bool, ranks: Ranks = ONE_PROCESS, uses_store: bool = True
) -> Stage:
    """Prepare a locked run directory, and return the context of its stages.

    Args:
        plan: The run's plan.
        directory: The run directory.
        is_tracked: Whether the stages send records to a tracker.
        ranks: The processes of the run; the first one writes, and holds the lock.
        uses_store: Whether features, and scores of controls, of other runs of this machine are taken.

    Raises:
        UserError: The directory holds a run of another configuration, or the device cannot be used.
    """
    config, files = plan.config, files_stamp(plan) if ranks.is_first else ""
    torch.set_num_threads(config.num_threads)
    device = resolve_device(config.device)
    if ranks.world_size > 1 and device == torch.device("cuda"):
        device = torch.device("cuda", ranks.local_rank)
        torch.cuda.set_device(device)
    if ranks.is_first:
        backbone = None if config.brings_features else plan_backbone(plan)
        if backbone is not None and backbone.weights:
            console.note(f"{config.name}: the weights are {backbone.weights}")
        claim(plan, directory, backbone)
    ranks.wait()
    tracker = start(config, directory) if is_tracked and ranks.is_first else Tracker("")
    return Stage(
        plan=plan,
        directory=directory,
        tracker=tracker,
        device=device,
        ranks=ranks,
        uses_store=uses_store,
        files=files,
    )


def plan_backbone(plan: Plan) -> Backbone:
    """Build the plan's backbone with its initial weights."""
    return build_backbone(
        plan.config.backbone,
        n_classes=0 if plan.config.frozen else len(plan.classes.base),
        n_channels=plan.dataset.n_channels,
        image_size=plan.dataset.image_size,
        seed=seed_stream(plan.config.seed, "weights"),
        channels_last=plan.config.learner.channels_last,
    )


def read_or_draw_manifest(stage: Stage, benchmark: Benchmark) -> Manifest:
    """Return the benchmark's stored episodes; if none fit, store those of the configured file, or draw some."""
    path = stage.directory.manifest_path(benchmark.name)
    if path.exists():
        stored = stage.directory.read_manifest(benchmark.name)
        made_from = benchmark.spec, benchmark.seed, benchmark.images.images_digest
        is_named = benchmark.manifest is None or benchmark.manifest.hash == stored.hash
        if is_named and (stored.spec, stored.seed, stored.images_digest) == made_from:
            return stored
    manifest = benchmark.manifest or draw_manifest(benchmark.images, benchmark.spec, seed=benchmark.seed)
    manifest.save(path)
    return manifest


def embed(
    stage: Stage, backbone: Backbone, images: ImageSet, description: str, *, is_shared: bool = False
) -> Iterator[NDArray[np.float32]]:
    """Yield the features of images batch by batch, with a progress bar.

    Args:
        stage: The context, with the batch size.
        backbone: The backbone.
        images: The images to embed.
        description: Text of the progress bar.
        is_shared: Whether each process of the stage embeds its share; otherwise this one embeds all images.

    Raises:
        UserError: A feature is not finite.
    """
    learner = stage.plan.config.learner
    batch_size = learner.eval_batch_size
    n_batches = -(-len(images.rows) // batch_size)
    batches = stage.ranks.share(n_batches) if is_shared else range(n_batches)
    embedded = embed_batches(backbone, images, batch_size, batches, n_workers=learner.n_workers)
    return console.track(_finite(embedded, backbone, images), len(batches), description)


def _finite(
    batches: Iterable[NDArray[np.float32]], backbone: Backbone, images: ImageSet
) -> Iterator[NDArray[np.float32]]:
    for features in batches:
        if not np.isfinite(features).all():
            raise UserError(
                f"features of {backbone.name} on the images of {images.name} are NaN or infinite",
                "finite features",
                "lower learner.optimizer.params.lr if the training diverged, or load other weights",
            )
        yield features


def tell_if_constant(bank: FeatureBank, images: ImageSet, whose: str) -> None:
    """Print a note on stderr if the features are constant or nearly so."""
    words = constancy(bank.spread)
    if words:
        console.note(f"the features of {whose} on the images of {images.name} are {words}")


def reference_images(plan: Plan) -> ImageSet:
    """Return the training images of the base classes, on which feature transforms are fitted."""
    rows = plan.images.train
    return ImageSet(
        name=REFERENCE,
        dataset=plan.dataset,
        rows=rows,
        labels=np.searchsorted(plan.classes.base, plan.dataset.labels[rows]).astype(np.int64),
        class_names=tuple(plan.dataset.class_names[label] for label in plan.classes.base),
    )


def probes_need_reference(plan: Plan) -> bool:
    """Return whether a probe of the run has a transform that is fitted on base classes."""
    probes = fixed_probes(plan.config).values()
    return any(needs_reference(point.transform) for probe in probes for point in points(probe))


def make_probe(name: str, config: ProbeConfig, reference: NDArray[np.float32] | None = None) -> Probe:
    """Build a probe from its configuration; `reference` holds the features that its transform is fitted on.

    Its settings name the seed of a classifier that is given by its path and has none. Those of the named probes do not:
    by default they do not draw at random, and their stored results stay valid.
    """
    classifier = plugins.build("probe", config.name, config.params)
    is_seeded = ":" in config.name and bool(unseeded(classifier))
    return Probe(
        name=name,
        classifier=classifier,
        transform=config.transform,
        reference=reference if needs_reference(config.transform) else None,
        solver=config.solver,
        settings={**probe_card(config), **({"random_state": SEED} if is_seeded else {})},
    )
