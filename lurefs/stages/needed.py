"""The images that a stage of a run uses: decoded before it begins, and the same until it ends."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from episodes.arrays import IntArray
from lurefs.data.dataset import ImageDataset
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone
from lurefs.stages.decode import decode
from lurefs.stages.features import as_needed, viewed
from lurefs.stages.places import files_stamp
from lurefs.stages.plan import ImageSet, Plan
from lurefs.stages.stage import Stage, plan_backbone, probes_need_reference, reference_images
from lurefs.stages.transfer_plan import plan_transfers
from lurefs.stages.validation import validation_images, wants_validation


def decode_needed(plan: Plan, stage_name: str) -> None:
    """Decode all images that a stage of a run will use, each once in each size; see `lurefs.stages.decode.decode`.

    Raises:
        UserError: Images are damaged.
    """
    datasets = [plan.dataset, *(images.dataset for images in image_sets(plan))]
    if any(dataset.decoded is not None for dataset in datasets):
        decode(_needed(plan, plan_backbone(plan), stage_name), plan.config.learner.n_workers)


def refuse_changed_files(stage: Stage, backbone: Backbone, stage_name: str) -> None:
    """Refuse images that a stage read from files which changed since the run was started or resumed.

    Files do not matter whose images the stage does not use, or took from the cache.

    Args:
        stage: The context. What is unfinished in its directory is removed, since it may come from other images.
        backbone: The backbone, which says in which view images are read.
        stage_name: `pretrain` or `extract`.

    Raises:
        UserError: Files were changed or removed, and not all images that the stage uses are in the cache.
    """
    is_read = any(
        dataset.decoded is not None and len(dataset.decoded.missing(rows))
        for dataset, rows in _needed(stage.plan, backbone, stage_name)
    )
    if stage.files and is_read and stage.files != files_stamp(stage.plan):
        stage.directory.progress_path.unlink(missing_ok=True)
        raise UserError(
            "files of images were changed while the run read them",
            "images that stay as they are until a run ends",
            "put them back, then the same command learns the unfinished chunk again; or give another --run-dir",
        )


def image_sets(plan: Plan) -> list[ImageSet]:
    """Return the image sets that later stages need features of, each name once."""
    transfers = [transfer.images for transfer in plan_transfers(plan).values()]
    return list({images.name: images for images in (*_probed(plan), *transfers)}.values())


def _probed(plan: Plan) -> list[ImageSet]:
    """Return the image sets of benchmarks, of validation classes, and the one that transforms are fitted on."""
    benchmarks = [images for benchmark in plan.benchmarks.values() for images in (benchmark.images, *benchmark.sides)]
    validation = [validation_images(plan)] if wants_validation(plan.config) else []
    return [*benchmarks, *validation, *([reference_images(plan)] if probes_need_reference(plan) else [])]


def _needed(plan: Plan, backbone: Backbone, stage_name: str) -> Iterator[tuple[ImageDataset, IntArray]]:
    """Yield data sets and rows: those to learn, those to embed, and those that the controls read as they are."""
    images, has_controls = plan.images, plan.config.controls and stage_name in ("run", "evaluate")
    if stage_name in ("run", "pretrain") and not plan.config.frozen:
        yield viewed(plan.dataset, backbone), np.concatenate([images.train, images.val, images.test])
    if stage_name != "evaluate":
        yield from ((as_needed(image_set, backbone).dataset, image_set.rows) for image_set in image_sets(plan))
    for image_set in _probed(plan) if has_controls else ():
        yield as_needed(image_set, backbone).dataset, image_set.rows
        yield image_set.dataset, image_set.rows
