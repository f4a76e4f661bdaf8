"""Weights on disk: safetensors that plain timm loads, their JSON identity, and what a rerun needs."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from episodes.files import atomic_path, write_text
from lurefs.errors import UserError, first_line


def save_checkpoint(
    path: Path | str, model: nn.Module, optimizer: torch.optim.Optimizer, card: Mapping[str, Any]
) -> str:
    """Write a chunk's weights, then the optimizer's state, then the identity, each file atomically.

    Args:
        path: Of the safetensors file; `.json` and `.resume.pt` stand beside it.
        model: Whose weights.
        optimizer: Whose state.
        card: What the weights are.

    Returns:
        The SHA-256 of the safetensors file, which is also in the identity.
    """
    from safetensors.torch import save

    path = Path(path)
    state: dict[str, Tensor] = {}
    written: set[int] = set()
    for name, tensor in model.state_dict().items():
        weight = tensor.detach().cpu().contiguous()
        storage = weight.untyped_storage().data_ptr()
        state[name] = weight.clone() if storage in written else weight  # safetensors refuses one tensor of two names
        written.add(storage)
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(state))  # save_file would leave a file that only its owner may read
    save_tensors(_resume_path(path), optimizer.state_dict())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    identity = {**card, "sha256": sha256, "n_bytes": path.stat().st_size}
    write_text(path.with_suffix(".json"), json.dumps(identity, indent=2) + "\n")
    return sha256


def save_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write what `torch.load` reads, atomically; torch itself would not say why a file cannot be written."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def remove_older_optimizers(path: Path | str) -> None:
    """Remove the optimizer states of other chunks, when the outcome of this one is stored: no restart needs them."""
    path = Path(path)
    for older in path.parent.glob("chunk-*.resume.pt"):
        if older != _resume_path(path):
            older.unlink()


def remove_checkpoint(path: Path | str) -> None:
    """Remove a chunk's weights, then their identity; missing files are ignored."""
    path = Path(path)
    path.unlink(missing_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)


def read_identity(path: Path | str) -> dict[str, Any]:
    """Read the identity of a checkpoint, and check that its file has the recorded size.

    Raises:
        UserError: The checkpoint is missing, cut short or changed.
    """
    path = Path(path)
    try:
        identity: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        n_bytes = path.stat().st_size
    except (OSError, ValueError) as error:
        raise _unusable(path, str(error)) from error
    if n_bytes != identity.get("n_bytes"):
        raise _unusable(path, f"it has {n_bytes} bytes in place of {identity.get('n_bytes')}")
    return identity


def load_checkpoint(path: Path | str, model: nn.Module) -> dict[str, Any]:
    """Load a checkpoint into a model and return its identity.

    Raises:
        UserError: The checkpoint is missing or damaged, or does not fit the model.
    """
    from safetensors.torch import load_file

    path = Path(path)
    identity = read_identity(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != identity["sha256"]:
        raise _unusable(path, "its content is not what was written")
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise _unusable(path, f"it does not fit the model: {first_line(error)}") from error
    return identity


def load_optimizer(path: Path | str, optimizer: torch.optim.Optimizer) -> None:
    """Load the optimizer's state that was saved with a checkpoint.

    Raises:
        UserError: It is missing or damaged.
    """
    path = Path(path)
    try:
        optimizer.load_state_dict(torch.load(_resume_path(path), map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises errors of many kinds for a damaged file
        raise _unusable(_resume_path(path), f"{type(error).__name__}: {error}") from error


def _resume_path(path: Path) -> Path:
    return path.with_suffix(".resume.pt")


def _unusable(path: Path, reason: str) -> UserError:
    return UserError(
        f"the checkpoint {path} is damaged: {reason}",
        "the file as lurefs wrote it",
        f"delete {path.parent.parent} to start the run again, or put the file back",
    )
