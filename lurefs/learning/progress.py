"""How far a chunk is: what goes on from there needs, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from episodes.files import atomic_path
from lurefs.errors import UserError, first_line
from lurefs.records import from_mapping, to_mapping
from lurefs.runs.outcomes import UnlearnReport


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What is known of a chunk after some of its epochs.

    Attributes:
        chunk_index: From 0.
        unlearn: What was unlearned before; None for the first chunk and for a warm start.
        was_right: (n_test,) bool, which test images the weights before the chunk classified rightly; None for the
            first chunk.
        n_epochs: Epochs that are done.
        weights: The state dict of the epoch that is kept so far; empty before the first.
        best_epoch: Which epoch that was, from 0.
        train_loss: Its mean cross-entropy.
        train_accuracy: Its accuracy on training batches, fraction.
        val_accuracy: Its accuracy on validation images, fraction.
        val_nll: Its mean negative log-likelihood on them, nats.
        n_epochs_to_recover: As in `ChunkOutcome`.
        train_seconds: Of the epochs that are done.
        seconds: Of all that was done for the chunk.
    """

    chunk_index: int
    unlearn: UnlearnReport | None = None
    was_right: Tensor | None = None
    n_epochs: int = 0
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    train_loss: float = 0.0
    train_accuracy: float = 0.0
    val_accuracy: float = -1.0
    val_nll: float = 0.0
    n_epochs_to_recover: int | None = None
    train_seconds: float = 0.0
    seconds: float = 0.0


def save_progress(
    path: Path, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer, run_digest: str
) -> None:
    """Write all that the rest of the chunk needs as one file, whole or not at all.

    Args:
        path: Where to.
        progress: What is known of the chunk.
        model: With the weights of the last epoch that is done.
        optimizer: With its moments.
        run_digest: What the run is made from.
    """
    values = {each.name: getattr(progress, each.name) for each in fields(progress)}
    values |= {"unlearn": to_mapping(progress.unlearn), "weights": dict(progress.weights)}
    content = {
        "run": run_digest,
        "progress": values,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load_progress(
    path: Path, chunk_index: int, model: nn.Module, optimizer: torch.optim.Optimizer, run_digest: str
) -> Progress | None:
    """Go back to where a chunk was left: load weights and moments, and return what is known.

    Args:
        path: The file of `save_progress`.
        chunk_index: The chunk that is to be learned next.
        model: Changed in place.
        optimizer: Changed in place.
        run_digest: What the run is made from.

    Returns:
        None if there is no file, or one of another chunk; nothing is changed then.

    Raises:
        UserError: The file is damaged, or of another run.
    """
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        values: dict[str, Any] = content["progress"]
        unlearn = values["unlearn"] and from_mapping(UnlearnReport, values["unlearn"])
        progress = Progress(**{**values, "unlearn": unlearn})
    except Exception as error:  # torch raises errors of many kinds for a damaged file
        raise _unusable(path, f"is damaged: {type(error).__name__}: {first_line(error)}") from error
    if content["run"] != run_digest:
        raise _unusable(path, f"is of another run: {content['run']} in place of {run_digest}")
    if progress.chunk_index != chunk_index:
        return None
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return progress


def _unusable(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} {reason}",
        "how far a chunk of this run was learned, as lurefs wrote it",
        f"delete {path}: the chunk is then learned from its beginning",
    )
