"""Checks of a plan that need the libraries, made before anything is written."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch

from episodes.bank import FeatureBank
from episodes.executors import check_cluster
from episodes.manifest import Manifest
from episodes.probes import Probe, check_classifier
from episodes.scoring import score
from episodes.specs import EpisodeSpec
from episodes.transfer.fits import transfer
from episodes.transfer.split import RowSplit
from episodes.transforms import needs_reference
from lurefs import plugins
from lurefs.config.bounds import OPTIMIZER_BOUNDS
from lurefs.config.choosing import grid_of, points, with_settings
from lurefs.config.fine_tuning import fine_tunings, fixed_probes
from lurefs.data.corruptions import MIN_IMAGE_SIZE, check_corruptible
from lurefs.errors import UserError, first_line, not_installed
from lurefs.learning.backbones import Backbone, build_twin
from lurefs.learning.boundary import apply_strategy
from lurefs.learning.fine_tuning import trained_names
from lurefs.learning.freezing import freeze_parameters, frozen_names
from lurefs.learning.optimizers import build_optimizer, try_out
from lurefs.learning.schedule import epoch_sizes, n_batches
from lurefs.learning.timm_models import check_backbone
from lurefs.learning.unlearn.contract import ProbeImages
from lurefs.seeding import seed_stream
from lurefs.stages import attacks
from lurefs.stages.controls import n_image_statistics
from lurefs.stages.features import as_needed
from lurefs.stages.needed import image_sets
from lurefs.stages.plan import Plan
from lurefs.stages.stage import make_probe, plan_backbone
from lurefs.stages.transfer import unfit
from lurefs.stages.transfer_plan import plan_transfers
from lurefs.stages.validation import check_validation

MAX_CHECKED = 32
"""Most made-up images per class in the check of a transfer's probe."""
N_MADE_UP = 4
"""Made-up images in the check of an unlearn strategy."""


def check(plan: Plan) -> None:
    """Check the settings that only the libraries can judge, before anything is written.

    Raises:
        UserError: An unknown model or optimizer, parameters that one of them does not take, a model that cannot learn
            from a batch as small as the plan's smallest, an unlearn strategy that does not suit the model, a probe that
            cannot be fitted on a benchmark's form of episode or on a control's features, a transform without base
            classes to be fitted on, images that cannot be changed as `robustness` asks, or a library that is missing.
    """
    check_executor(plan)
    check_validation(plan)
    check_transforms(plan)
    if plan.config.brings_features:
        check_widths(plan)
        check_measurements(plan, plan.dataset.n_features)
        return
    check_backbone(plan.config.backbone)
    check_robustness(plan)
    backbone = plan_backbone(plan)
    if not plan.config.frozen:
        freeze_parameters(backbone.model, frozen_names(backbone.model, plan.config.learner.freeze))
        optimizer = plan.config.learner.optimizer
        build_optimizer(backbone.model, optimizer)
        if optimizer.params.keys() - OPTIMIZER_BOUNDS.keys():  # a step may compile for a minute, so not always
            try_out(optimizer)
        check_batches(plan, backbone)
        check_unlearn(plan, backbone)
    for settings in fine_tunings(plan.config).values():
        trained_names(backbone.model, settings.train)
    check_corrupted_views(plan, backbone)
    check_measurements(plan, backbone.n_features)


def check_measurements(plan: Plan, n_features: int) -> None:
    """Check all probes, and those of transfers, on made-up features.

    Raises:
        UserError: A probe is no classifier, or cannot be fitted.
    """
    check_classifiers(plan)
    check_transfers(plan)
    check_probes(plan, n_features)


def check_widths(plan: Plan) -> None:
    """Check that all files of a run have as many features per image, as those of one backbone have.

    Raises:
        UserError: They differ.
    """
    for images in image_sets(plan):
        if images.dataset.n_features != plan.dataset.n_features:
            raise UserError(
                f"the file of {images.name} has {images.dataset.n_features} features per image, and that of dataset "
                f"{plan.dataset.n_features}",
                "features of one backbone in all files of a run",
                f"correct the dataset of {images.name}, or make it a run of its own",
            )


def check_classifiers(plan: Plan) -> None:
    """Check that the probes of benchmarks and transfers are classifiers.

    Raises:
        UserError: A probe is none, or does not take its parameters.
    """
    probes = {f"probes.{name}": probe for name, probe in fixed_probes(plan.config).items()}
    probes |= {f"transfer.{name}.probe": transfer.probe for name, transfer in plan.config.transfer.items()}
    for where, probe in [(where, point) for where, config in probes.items() for point in points(config)]:
        try:
            check_classifier(plugins.build("probe", probe.name, probe.params))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{where} is {probe.name!r} with {probe.params}: {error}",
                "a scikit-learn classifier, and parameters that it takes",
                f"change {where}; 'lurefs list probes' shows the named ones",
            ) from error


def check_executor(plan: Plan) -> None:
    """Check that the executor can be built, and that dask is installed and answers if the executor needs it.

    Raises:
        UserError: The executor refuses a parameter, dask is missing, or no cluster answers at its address.
    """
    executor = plan.config.executor
    try:
        plugins.build("executor", executor.name, executor.params)
    except ValueError as error:
        raise UserError(
            f"executor {executor.name!r} with {executor.params}: {error}",
            "parameters that the executor takes",
            "change executor.params",
        ) from error
    if plan.config.executor.name == "dask":
        try:
            import distributed  # noqa: F401
        except ImportError as error:
            raise not_installed("executor.name=dask", "dask", error) from error
        try:
            if (address := executor.params.get("address")) is not None:
                check_cluster(address)
        except OSError as error:
            raise UserError(
                f"the executor cannot be used: {first_line(error)}",
                "the address of a cluster that answers, e.g. tcp://10.0.0.1:8786",
                "check executor.params.address, or set executor.name=serial",
            ) from error


def check_transforms(plan: Plan) -> None:
    """Check that there are images of base classes if a probe's transform is fitted on them.

    Raises:
        UserError: There are none.
    """
    configs = fixed_probes(plan.config).items()
    for name, probe in [(name, point) for name, config in configs for point in points(config)]:
        if needs_reference(probe.transform) and not len(plan.images.train):
            raise UserError(
                f"the transform of probes.{name} is {probe.transform!r}, which is fitted on images of base "
                "classes, and there are no base classes",
                "a transform that is not fitted, or base classes",
                f"set probes.{name}.transform to l2 or none, or class_split.base and class_split.novel to 0.5 each",
            )


def check_corrupted_views(plan: Plan, backbone: Backbone) -> None:
    """Check that files decoded at the backbone's size are large enough to be corrupted.

    Raises:
        UserError: They are too small.
    """
    for name, benchmark in plan.benchmarks.items():
        size = as_needed(benchmark.images, backbone).dataset.image_size
        if benchmark.corrupt is not None and size < MIN_IMAGE_SIZE:
            raise UserError(
                f"benchmarks.{name}.corrupt is set, and the files are decoded at {size} pixels, the backbone's size",
                f"{MIN_IMAGE_SIZE} pixels or more, as corruptions need",
                f"set backbone.image_size to {MIN_IMAGE_SIZE} or more, or benchmarks.{name}.corrupt to null",
            )


def check_batches(plan: Plan, backbone: Backbone) -> None:
    """Check that the model can learn from the smallest training batch: batch norm needs two values.

    Args:
        plan: The plan with the chunks.
        backbone: The model; its batch statistics may change.

    Raises:
        UserError: The smallest batch has one image, and the model refuses it.
    """
    if smallest_batch(plan) > 1:
        return
    image = torch.zeros(1, backbone.n_channels, backbone.image_size, backbone.image_size, dtype=torch.uint8)
    try:
        with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
            backbone.model.train()(backbone.prepare(image))
    except ValueError as error:
        raise UserError(
            f"a chunk leaves one image for a training batch, and {backbone.name!r} cannot learn from one: "
            f"{first_line(error)}",
            "at least 2 images in every training batch of a model with batch norm",
            "change chunks.chunk_size so that it leaves no single image over, or lower chunks.n_chunks",
        ) from error


def check_unlearn(plan: Plan, backbone: Backbone) -> None:
    """Check that the unlearn strategy suits the model, by a first reset of a copy with images of noise.

    Args:
        plan: The plan with the chunks; a single one is never unlearned.
        backbone: The model, which stays as it is.

    Raises:
        UserError: The strategy refuses the model, or changes no weight of it.
    """
    config, generator = plan.config, torch.Generator().manual_seed(0)
    strategy = plugins.build("unlearn", config.unlearn.name, config.unlearn.params)
    if strategy is None or len(plan.chunks) < 2:
        return
    shape = (N_MADE_UP, backbone.n_channels, backbone.image_size, backbone.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    batch = backbone.prepare(images), torch.arange(N_MADE_UP) % backbone.n_classes
    probe = ProbeImages(draw=lambda source, n_images: iter([batch]))
    twin = build_twin(backbone, config.backbone, seed=seed_stream(config.seed, "twin", 1))
    model, frozen = copy.deepcopy(backbone.model), frozen_names(backbone.model, config.learner.freeze)
    freeze_parameters(model, frozen)
    apply_strategy(strategy, config.unlearn.name, model, twin, probe, seed=0, frozen=frozen)


def smallest_batch(plan: Plan) -> int:
    """Return the number of images of the smallest training batch of a run."""
    settings, n_train = plan.config.learner, [len(chunk.train) for chunk in plan.chunks]
    sizes = {size for index in range(len(n_train)) for size in epoch_sizes(n_train, index, settings)}
    return min(size // n_batches(size, settings.batch_size) for size in sizes)


def check_probes(plan: Plan, n_features: int) -> None:
    """Check every probe by fitting it on a made-up episode of every benchmark's form.

    With controls it is also fitted on as many features as the image statistics have.

    Args:
        plan: The plan with probes and benchmarks.
        n_features: Number of features of the backbone.

    Raises:
        UserError: scikit-learn refuses the probe.
    """
    n_of_reference = n_image_statistics(plan.dataset.n_channels)
    for name, benchmark in plan.benchmarks.items():
        spec = benchmark.spec.smallest_uniform()
        n_of_control = n_image_statistics(benchmark.images.dataset.n_channels)
        widths = [("", n_features, n_features)]
        if plan.config.controls:
            widths.append((" with the control 'image_statistics'", n_of_control, n_of_reference))
        probes = fixed_probes(plan.config).items()
        for probe_name, settings, config in [
            (name, settings, with_settings(probe, settings)) for name, probe in probes for settings in grid_of(probe)
        ]:
            of_grid = f" with {settings}" if settings else ""
            for whose, n, n_reference in widths:
                try:
                    probe = replace(make_probe(probe_name, config), solver="sklearn")  # checks all its parameters
                    _fit_made_up(plan, probe, spec, n, n_reference)
                except (ValueError, TypeError) as error:
                    raise UserError(
                        f"probe {probe_name!r}{of_grid} cannot be fitted on benchmark {name!r} "
                        f"({spec.n_way}-way {spec.n_shot}-shot){whose}: {error}",
                        "a scikit-learn classifier, parameters and a transform that suit the benchmark's form",
                        f"change probes.{probe_name}, "
                        + ("or set controls=false" if whose else "or the n_way and n_shot of the benchmark"),
                    ) from error


def _fit_made_up(plan: Plan, probe: Probe, spec: EpisodeSpec, n_features: int, n_of_reference: int) -> None:
    """Fit a probe on one episode of noise, and its transform on no more images than the run has."""
    rng = np.random.default_rng(0)
    if needs_reference(probe.transform):
        n_images = min(len(plan.images.train), n_of_reference + 1)
        probe = replace(probe, reference=rng.normal(size=(n_images, n_of_reference)).astype(np.float32))
    n_images = spec.n_way * (spec.n_shot + 1)
    bank = FeatureBank.from_arrays(rng.normal(size=(n_images, n_features)), np.arange(n_images) % spec.n_way)
    rows = np.argsort(bank.labels, kind="stable").reshape(spec.n_way, -1)
    manifest = Manifest(
        spec=replace(spec, n_query=1),
        seed=0,
        images_digest=bank.images_digest,
        classes=np.arange(spec.n_way)[None],
        support=rows[:, :-1].reshape(1, -1),
        query=rows[:, -1:].reshape(1, -1),
    )
    list(score(bank, manifest, probe))


def check_transfers(plan: Plan) -> None:
    """Check every transfer's probe by fitting it on made-up features of the transfer's smallest size.

    Raises:
        UserError: A transfer does not suit its images, or scikit-learn refuses its probe.
    """
    for name, planned in plan_transfers(plan).items():
        n_classes = len(planned.images.class_names)
        n_mean = len(planned.split.train) // n_classes
        size = min(MAX_CHECKED, *(n_mean if size == "all" else size for size in planned.spec.sizes))
        labels = np.repeat(np.arange(n_classes), size + 2)
        bank = FeatureBank.from_arrays(np.random.default_rng(0).normal(size=(len(labels), 4)), labels)
        rows = np.arange(len(labels)).reshape(n_classes, size + 2)
        split = RowSplit(train=rows[:, 2:].reshape(-1), validation=rows[:, 0], test=rows[:, 1])
        try:
            probe = replace(make_probe(name, planned.config.probe), transform="none")
            list(transfer(bank, split, probe, replace(planned.spec, sizes=("all",))))
        except (ValueError, TypeError) as error:
            raise unfit(name, error) from error


def check_robustness(plan: Plan) -> None:
    """Check that the images can be changed as `robustness` asks.

    Raises:
        UserError: A library is missing, or the images are too small to be corrupted.
    """
    config = plan.config.robustness
    if config is not None and config.corruptions:
        check_corruptible(plan.dataset.image_size)
    if config is not None and config.attacks:
        attacks.check_installed()
