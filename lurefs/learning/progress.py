"""Progress within a chunk: the state needed to resume it, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lurefs.errors import UserError, first_line
from lurefs.learning.checkpoints import save_tensors
from lurefs.records import from_mapping, to_mapping
from lurefs.runs.outcomes import UnlearnReport


@dataclass(frozen=True, kw_only=True)
class Progress:
    """State of a chunk after some of its epochs.

    Attributes:
        chunk_index: From 0.
        unlearn: Report of the unlearning before it; None for the first chunk and for a warm start.
        was_right: (n_test,) bool, which test images the weights before the chunk classified correctly; None for the
            first chunk.
        n_epochs: Number of finished epochs.
        weights: The state dict to keep so far (see `learner.select`); empty if there is none yet.
        average: The average of the weights after the last epoch (see `learner.ema_decay`); empty without one.
        best_epoch: Epoch of these weights, from 0.
        train_loss: Its mean cross-entropy.
        train_accuracy: Its accuracy on training batches, fraction.
        val_accuracy: Its accuracy on validation images, fraction.
        val_nll: Its mean negative log-likelihood on them, nats.
        n_epochs_to_recover: As in `ChunkOutcome`.
        train_seconds: Seconds of training in the finished epochs.
        seconds: Seconds of all work on the chunk.
    """

    chunk_index: int
    unlearn: UnlearnReport | None = None
    was_right: Tensor | None = None
    n_epochs: int = 0
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    average: Mapping[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    train_loss: float = 0.0
    train_accuracy: float = 0.0
    val_accuracy: float = -1.0
    val_nll: float = 0.0
    n_epochs_to_recover: int | None = None
    train_seconds: float = 0.0
    seconds: float = 0.0


def save_progress(
    path: Path | str, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer, run_digest: str
) -> None:
    """Write the state that the rest of the chunk needs as one file, atomically.

    Args:
        path: The file to write.
        progress: The progress of the chunk.
        model: The model after the last finished epoch.
        optimizer: Its optimizer.
        run_digest: Digest of the run's identity.
    """
    values = {each.name: getattr(progress, each.name) for each in fields(progress)}
    values |= {"unlearn": to_mapping(progress.unlearn), "weights": dict(progress.weights)}
    values["average"] = dict(progress.average)
    content = {
        "run": run_digest,
        "progress": values,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    save_tensors(Path(path), content)


def load_progress(
    path: Path | str, chunk_index: int, model: nn.Module, optimizer: torch.optim.Optimizer, run_digest: str
) -> Progress | None:
    """Restore the weights and moments of an unfinished chunk, and return its progress.

    Args:
        path: The file of `save_progress`.
        chunk_index: The next chunk to learn.
        model: Changed in place.
        optimizer: Changed in place.
        run_digest: Digest of the run's identity.

    Returns:
        The progress; None, with nothing changed, if there is no file or it is of another chunk.

    Raises:
        UserError: The file is damaged, or of another run.
    """
    path = Path(path)
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


def stored_seconds(path: Path | str) -> float:
    """Return the seconds of work that stored progress holds; 0 if there is none, or it is damaged."""
    try:
        return float(torch.load(path, map_location="cpu", weights_only=True)["progress"]["seconds"])
    except Exception:  # torch raises errors of many kinds for a damaged file
        return 0.0


def _unusable(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} {reason}",
        "the progress of a chunk of this run, as lurefs wrote it",
        f"delete {path}: the chunk is then learned from its beginning",
    )
