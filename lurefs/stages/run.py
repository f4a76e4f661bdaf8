"""All stages of one run in order: pretrain, extract, evaluate, report. Every stage resumes from the files on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from lurefs.console import note_once
from lurefs.errors import UserError, first_line, is_out_of_memory
from lurefs.learning.padding import padding_note
from lurefs.ranks import ranks_of
from lurefs.reporting.page import write_report
from lurefs.runs.directory import RunDirectory
from lurefs.stages.duplicates import tell_duplicates
from lurefs.stages.evaluate import evaluate
from lurefs.stages.extract import extract
from lurefs.stages.needed import decode_needed
from lurefs.stages.places import check_place
from lurefs.stages.plan import Plan
from lurefs.stages.pretrain import pretrain
from lurefs.stages.stage import open_stage, plan_backbone


def padding_notes(plans: Sequence[Plan]) -> list[str]:
    """Return one note for each backbone that has kernel taps which only ever meet padding.

    Raises:
        UserError: timm cannot build a backbone, or a backbone cannot read the images.
    """
    backbones = {}
    for plan in plans:
        build = replace(plan.config.backbone, pretrained=False, checkpoint_path=None)  # weights do not matter here
        key = str((build, plan.dataset.n_channels, plan.dataset.image_size))
        if key not in backbones:
            backbones[key] = plan_backbone(replace(plan, config=replace(plan.config, backbone=build)))
    notes = [padding_note(backbone) for backbone in backbones.values()]
    return [note for note in notes if note is not None]


def run_stage(
    plan: Plan, directory: RunDirectory, stage_name: str, *, with_page: bool = True, uses_store: bool = True
) -> None:
    """Do one stage of a run (`pretrain`, `extract`, `evaluate`) or all of them (`run`).

    Args:
        plan: The run's plan.
        directory: The run directory.
        stage_name: One of these four.
        with_page: Whether `run` writes the run's own page; several runs share one page instead.
        uses_store: Whether features, and scores of controls, of other runs of this machine are taken.

    Raises:
        UserError: The directory is in use or holds another run, an earlier stage is missing, or a file is damaged.
    """
    ranks = ranks_of()
    check_place(plan, directory, stage_name)
    if ranks.is_first:
        decode_needed(plan, stage_name)
    with directory.locked() if ranks.is_first else nullcontext(), _memory_told():
        stage = open_stage(plan, directory, is_tracked=stage_name != "extract", ranks=ranks, uses_store=uses_store)
        try:
            if stage.tracker.note:
                note_once(stage.tracker.note)
            if ranks.is_first and stage_name != "evaluate":
                tell_duplicates(stage)
            if stage_name in ("run", "pretrain") and not plan.config.frozen:
                pretrain(stage)
            if stage_name in ("run", "extract"):
                extract(stage)
            if stage_name in ("run", "evaluate") and ranks.is_first:
                evaluate(stage)
            if stage_name == "run" and with_page and ranks.is_first:
                stage.tracker.log_report(write_report([directory], directory.path))
        finally:
            stage.tracker.close()


@contextmanager
def _memory_told() -> Iterator[None]:
    """Raise the error for the user if memory does not suffice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"there is too little memory: {first_line(error)}",
            "memory for a batch of images and what the backbone computes of it",
            "start fewer --workers, free memory or choose another device, then the same command resumes; or lower "
            "learner.batch_size, which makes another run with a --run-dir of its own",
        ) from error
