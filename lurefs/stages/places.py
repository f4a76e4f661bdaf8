"""Checks of a run's stage and directory that need none of the learning libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lurefs.config.identity import digest, pretrain_identity
from lurefs.data.content import settings_of
from lurefs.errors import UserError
from lurefs.ranks import ranks_of
from lurefs.records import differences, through_json
from lurefs.runs.directory import RunDirectory, not_yet
from lurefs.stages.plan import Plan
from lurefs.stages.transfer_plan import plan_transfers
from lurefs.stages.validation import VALIDATION, wants_validation
from lurefs.tracking.tracker import usable_mode

BASE_IMAGES, BASE_PIXELS = "base_images", "base_pixels"
"""Keys of the identity: names, classes and parts of the images that a run learned from, and their content."""
_OTHER_FILES = "files of the data set were added, deleted or replaced"
_OTHER_IMAGES = {
    BASE_IMAGES: "the images of the base classes have other names, classes or parts",
    BASE_PIXELS: "images of the base classes have other pixels",
}


def check_place(plan: Plan, directory: RunDirectory, stage: str) -> None:
    """Check that a stage of a run can be done in a directory, without changing it.

    Raises:
        UserError: The directory cannot be written or holds another run, an earlier stage is missing, the run or these
            processes have no such stage, or a strict tracker cannot start.
    """
    config = plan.config
    if ranks_of().world_size > 1 and stage == "evaluate":
        raise UserError(
            f"'evaluate' was started as {ranks_of().world_size} processes",
            "one process; only training and extraction divide their work, in 'run', 'pretrain' and 'extract'",
            "start 'lurefs evaluate' without torchrun, and spread episodes with the setting executor",
        )
    if config.frozen and stage == "pretrain":
        raise UserError(
            f"{config.name} is frozen, so there is nothing to pre-train",
            "a configuration with frozen: false",
            "start 'lurefs run', or 'extract' and 'evaluate'",
        )
    directory.check_writable()
    check_claim(plan, directory)
    if stage == "extract" and not config.frozen:
        last_checkpoint(plan, directory)
    validation = [VALIDATION] if wants_validation(config) else []
    for name in (*config.benchmarks, *config.transfer, *validation) if stage == "evaluate" else ():
        missing = next((path for path in _banks_of(plan, directory, name) if not path.is_dir()), None)
        if missing is not None:
            raise not_yet(missing, "extract")
    if stage != "extract":
        usable_mode(config.trackers.wandb)


def check_claim(plan: Plan, directory: RunDirectory) -> None:
    """Refuse a directory that holds results of a run with other weights.

    Raises:
        UserError: It does.
    """
    if directory.identity_path.exists() and has_results(directory):
        refuse_another(directory, weights_card(plan))


def has_results(directory: RunDirectory) -> bool:
    """Return whether a chunk was learned in a directory, or features were extracted."""
    return directory.chunks_path.exists() or any(directory.path.glob("features/*/bank.json"))


def refuse_another(directory: RunDirectory, card: Mapping[str, Any]) -> None:
    """Refuse a directory whose identity differs from a card.

    Raises:
        UserError: It does.
    """
    stored = {key: value for key, value in directory.read_identity().items() if key in card}
    if BASE_IMAGES in card:
        stored["dataset"] = settings_of(stored.get("dataset", {}))
    words = {key: said for key, said in _OTHER_IMAGES.items() if key in card and stored.get(key) != card[key]}
    told = [key for key in card if key not in words]
    changes = differences({key: stored.get(key) for key in told}, {key: card[key] for key in told})
    changes = [_OTHER_FILES if change.startswith("dataset.files_sha256 ") else change for change in changes]
    if changes or words:
        raise another_run(directory, [*changes, *words.values()])


def another_run(directory: RunDirectory, changes: Sequence[str]) -> UserError:
    """Build the error for a directory that holds another run; `changes` say in words what differs."""
    return UserError(
        f"{directory.path} holds a run of another configuration: {'; '.join(changes[:3])}",
        "the configuration that the run was started with",
        "give another --run-dir, or delete the directory",
    )


def weights_card(plan: Plan) -> dict[str, Any]:
    """Return what a run's weights are made from, as JSON gives it back; `lurefs.stages.identity` adds the pixels.

    Weights depend on the images of base classes alone: other images may be replaced or added. Weights that are not
    trained depend on none, and the run is that of the whole data set.
    """
    card: dict[str, Any] = {"pretrain": pretrain_identity(plan.config), "dataset": plan.dataset.identity}
    if not plan.config.frozen:
        card |= {"dataset": settings_of(plan.dataset.identity), BASE_IMAGES: _base_digest(plan)}
    return dict(through_json(card))


def files_stamp(plan: Plan) -> str:
    """Return a digest of what the file system says about the files of all data sets of a run; fast, opens none."""
    datasets = [benchmark.images.dataset for benchmark in plan.benchmarks.values()]
    datasets += [transfer.images.dataset for transfer in plan_transfers(plan).values()] if plan.config.transfer else []
    own = {id(dataset): dataset for dataset in (plan.dataset, *datasets)}
    return digest([dataset.stamp() if dataset.stamp is not None else dataset.identity for dataset in own.values()])


def _base_digest(plan: Plan) -> str:
    """Return a digest of names, classes and parts of the base images, in their order."""
    dataset, images = plan.dataset, plan.images
    parts = [
        [[dataset.image_ids[row], dataset.class_names[dataset.labels[row]]] for row in part]
        for part in (images.train, images.val, images.test)
    ]
    return digest([[dataset.class_names[label] for label in plan.classes.base], parts])


def last_checkpoint(plan: Plan, directory: RunDirectory) -> Path:
    """Return the path of the last chunk's weights.

    Raises:
        UserError: There are none.
    """
    path = directory.checkpoint_path(len(plan.chunks) - 1)
    if not path.exists():
        raise UserError(
            f"there is no checkpoint of the last chunk, {path}",
            f"a run whose {len(plan.chunks)} chunks are learned",
            "run 'lurefs pretrain' first, with the same --config and --run-dir",
        )
    return path


def _banks_of(plan: Plan, directory: RunDirectory, name: str) -> list[Path]:
    corrupt = plan.config.benchmarks[name].corrupt if name in plan.config.benchmarks else None
    return [directory.features_dir(bank) for bank in ((name,) if corrupt is None else corrupt.bank_names(name))]
