"""Weights of other trainings: read from a file as timm reads them, or refused with the true reason."""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lurefs.errors import UserError, first_line

COPIES = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "student")
"""Keys that training codes store weights under; the first one that is there is taken (timm's order, then DINO's)."""
WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "teacher.", "student.", "net.", "network.")
"""Prefixes that wrappers put before the names of a model's tensors."""

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """The tensors of one file.

    Attributes:
        path: The file.
        state: Its tensors by the names that they have there.
        copy: The key that they lay under, empty if the file holds nothing else.
        others: The keys of further copies, which were not taken.
    """

    path: Path
    state: State
    copy: str = ""
    others: tuple[str, ...] = ()


def read_weights(path: Path | str, copy: str | None = None, sha256: str | None = None) -> StoredWeights:
    """Read a safetensors or torch file; nothing in it is executed.

    Args:
        path: The file.
        copy: The key to take the weights from, with dots for keys below keys; the first of `COPIES` if None.
        sha256: The digest that the file must have; None for any.

    Raises:
        UserError: The file cannot be read, is not the one of the digest, or holds no such weights.
    """
    path = Path(path)
    content = _read(path)
    if sha256 is not None:
        with path.open("rb") as file:
            found_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if found_sha256 != sha256:
            raise UserError(
                f"{path} has the SHA-256 {found_sha256}",
                f"the file of backbone.checkpoint_sha256, {sha256}",
                "put that file back, or leave backbone.checkpoint_sha256 out to take this one",
            )
    found = dict(_copies(content))
    if copy is not None and copy not in found:
        raise UserError(
            f"{path} holds no weights under backbone.checkpoint_copy {copy!r}",
            f"one of {', '.join(map(repr, filter(None, found))) or 'none: the file holds its tensors directly'}",
            "change or leave out backbone.checkpoint_copy",
        )
    if not found:
        raise _unreadable(path, "it holds no state dict")
    ordered = [key for key in ("", *COPIES) if key in found] + [key for key in found if key not in ("", *COPIES)]
    taken = ordered[0] if copy is None else copy
    if copy is None and taken not in ("", *COPIES) and len(found) > 1:
        raise UserError(
            f"{path} holds weights under several keys: {', '.join(found)}",
            "one of them in backbone.checkpoint_copy",
            f"set backbone.checkpoint_copy={taken}",
        )
    if complex_names := [name for name, tensor in found[taken].items() if tensor.is_complex()]:
        raise _unreadable(path, f"{complex_names[0]} holds complex numbers")
    return StoredWeights(
        path=path, state=found[taken], copy=taken, others=tuple(key for key in ordered if key not in ("", taken))
    )


def load_into(
    model: nn.Module,
    weights: StoredWeights,
    rebuild: Callable[[State], nn.Module],
    match: Literal["names", "order"] = "names",
) -> tuple[nn.Module, str]:
    """Return a model with the weights of a file, and in words what was loaded.

    Names and shapes that fit are loaded as they are. Otherwise timm loads them: it renames what older codes called
    differently, resizes position embeddings, and sums a stem of three channels for grey images. Every parameter and
    every batch-norm statistic must come from the file, but for the classifier.

    Args:
        model: Of the wanted build, with any weights.
        weights: What the file holds.
        rebuild: Builds the same model anew and lets timm load a state into it.
        match: `order` ignores names: the file's tensors must have the model's shapes, one after the other.

    Raises:
        UserError: The weights do not fit the model.
    """
    own = model.state_dict()
    heads = tuple(f"{name}." for name in classifier_names(model))
    if match == "order":
        state, prefix = _by_order(weights, own, heads), ""
    else:
        state, prefix = _without_prefix(weights.state, own)
    n_left = len(weights.state) - len(state)
    state = {name: t for name, t in state.items() if not (name.startswith(heads) and _shape(own, name) != t.shape)}
    needed = {name for name in _learned(model) if not name.startswith(heads)}
    if all(name in state and state[name].shape == own[name].shape for name in needed):
        model.load_state_dict({name: t for name, t in state.items() if _shape(own, name) == t.shape}, strict=False)
        loaded = needed
        n_left += sum(name not in own for name in state)
    else:
        model, missing = _let_timm_load(weights, state, own, heads, rebuild)
        loaded = needed - missing
    if loaded != needed:
        raise _misfit(weights, state, own, heads, needed - loaded)
    found = {name: tensor for name, tensor in model.state_dict().items() if name in needed}
    broken = [name for name, tensor in found.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(
            f"{weights.path} holds NaN or infinite numbers, in {len(broken)} tensors of the model ({broken[0]} ...)",
            "finite weights",
            "take the weights of an earlier epoch: this training diverged",
        )
    if not any(tensor.any() for tensor in found.values() if tensor.ndim > 1):
        raise UserError(
            f"all weights of the model in {weights.path} are zero",
            "weights that were learned: with these, all images have the same features",
            "take another file",
        )
    return model, _words(weights, prefix, len(loaded), n_left)


@contextmanager
def watched_loading() -> Iterator[list[set[str]]]:
    """Yield a list that gains, for each state that torch loads into a model, the names that had no tensor there.

    timm says in a log alone which tensors it found no weights for.
    """
    original = nn.Module.load_state_dict
    missing: list[set[str]] = []

    def load(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        missing.append(set(result.missing_keys))
        return result

    nn.Module.load_state_dict = load  # type: ignore[method-assign]
    try:
        yield missing
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]


def classifier_names(model: nn.Module) -> list[str]:
    """Return the names of a timm model's classifiers, of which distilled models have two; none if it has none."""
    get_classifier: Any = getattr(model, "get_classifier", tuple)
    found = get_classifier()
    classifiers = found if isinstance(found, tuple | list) else (found,)
    return [name for name, module in model.named_modules() if any(module is classifier for classifier in classifiers)]


def state_sha256(model: nn.Module, without: Sequence[str] = ()) -> str:
    """Return the SHA-256 of a model's parameters and buffers, by their names, types, shapes and bytes.

    Args:
        model: The model.
        without: Names of modules that are left out.
    """
    digest = hashlib.sha256()
    left_out = tuple(f"{name}." for name in without)
    for name, tensor in model.state_dict().items():
        if name.startswith(left_out):
            continue
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_loaded(model: nn.Module, missing: set[str], name: str) -> None:
    """Refuse a model that timm loaded pretrained weights into without filling all of its parameters.

    Args:
        model: The model.
        missing: The names that had no tensor.
        name: What the model is called in the config.

    Raises:
        UserError: A parameter outside the classifier, or a statistic of batch norm, kept its initial value.
    """
    heads = tuple(f"{classifier}." for classifier in classifier_names(model))
    needed = {key for key in _learned(model) if not key.startswith(heads)}
    if needed & missing:
        raise UserError(
            f"the pretrained weights of {name!r} leave {len(needed & missing)} of {len(needed)} tensors at random "
            f"values: {', '.join(sorted(needed & missing)[:3])}",
            "weights for every tensor but the classifier's",
            "change backbone.params (pretrained_cfg_overlay, global_pool ...), or set backbone.checkpoint_path",
        )


def _learned(model: nn.Module) -> Iterator[str]:
    """Yield the names of what training changes: parameters, and the statistics of batch norm."""
    yield from (name for name, _ in model.named_parameters())
    yield from (name for name, _ in model.named_buffers() if name.endswith(("running_mean", "running_var")))


def _shape(state: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return state[name].shape if name in state else None


def _let_timm_load(
    weights: StoredWeights, state: State, own: State, heads: tuple[str, ...], rebuild: Callable[[State], nn.Module]
) -> tuple[nn.Module, set[str]]:
    """Return the model that timm loaded a state into, and the names that got no tensor."""
    fresh_head = {name: tensor for name, tensor in own.items() if name.startswith(heads) and name not in state}
    chatter = logging.getLogger("timm.models")
    level = chatter.level
    chatter.setLevel(logging.ERROR)  # it lists every name without a place, which the words and the refusal count
    try:
        with watched_loading() as loads:
            model = rebuild({**state, **fresh_head})
    except (RuntimeError, KeyError, ValueError, AssertionError, AttributeError, IndexError, TypeError) as error:
        raise _misfit(weights, state, own, heads, set(own) - set(state), first_line(error)) from error
    finally:
        chatter.setLevel(level)
    return model, loads[-1] if loads else set(own)


def _by_order(weights: StoredWeights, own: State, heads: tuple[str, ...]) -> State:
    """Return the tensors of a file under the names of those that stand at the same place in the model.

    A file may end before the classifier, or have one of another size.
    """
    names = [name for name in own if not name.startswith(heads)]
    place = _first_unlike(weights.state, [own[name] for name in names])
    if place is not None:
        found = [tuple(tensor.shape) for tensor in weights.state.values()][place : place + 1]
        raise UserError(
            f"tensor {place} of {weights.path} {f'has shape {found[0]}' if found else 'is missing'}, but "
            f"{names[place]} of the model has {tuple(own[names[place]].shape)}",
            "the model's tensors in the model's order (backbone.checkpoint_match: order)",
            "change backbone.name or backbone.params, or set backbone.checkpoint_match=names",
        )
    return dict(zip(names, weights.state.values(), strict=False))


def _first_unlike(state: State, wanted: Sequence[Tensor]) -> int | None:
    """Return the first place at which a file has no tensor of the wanted shape; None if all are there, in order.

    A stem for colours has the shape of one for grey images but for the channels; timm sums over them.
    """
    found = [tensor.shape for tensor in state.values()]
    for place, tensor in enumerate(wanted):
        shape, own = found[place : place + 1], tensor.shape
        grey = [torch.Size([own[0], 3, *own[2:]])] if len(own) == 4 and own[1] == 1 else []
        if shape != [own] and (not shape or shape != grey):
            return place
    return None


def _without_prefix(state: State, own: State) -> tuple[State, str]:
    """Return the tensors below the prefix under which most of the model's names are found, without it; and the prefix.

    Where no name fits under any prefix, only the prefixes of known wrappers go, which all names share; timm may know
    the names that are left.
    """
    votes: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for start in range(min(len(parts), 5)):
            if ".".join(parts[start:]) in own:
                votes["".join(f"{part}." for part in parts[:start])] += 1
    most = max(votes.values(), default=0)
    if 2 * most >= len(own) or (most and len(votes) == 1):
        fullest = [prefix for prefix, count in votes.items() if count == most]
        prefix = min(fullest, key=lambda text: (_rank(text), len(text)))
    else:
        prefix = _shared_wrappers(state)
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}, prefix


def _rank(prefix: str) -> int:
    """Return the place of a prefix among copies of equal size: a teacher before its student."""
    parts = prefix.split(".")
    return next((place for place, copy in enumerate(COPIES) if copy in parts), 0)


def _shared_wrappers(state: State) -> str:
    prefix = ""
    while True:
        names = [name.removeprefix(prefix) for name in state]
        wrapper = next((w for w in WRAPPERS if names and all(name.startswith(w) for name in names)), None)
        if wrapper is None:
            return prefix
        prefix += wrapper


def _words(weights: StoredWeights, prefix: str, n_loaded: int, n_left: int) -> str:
    copy = f"{weights.copy} of " if weights.copy else ""
    others = f"; not taken: {', '.join(weights.others)}" if weights.others else ""
    below = f" below {prefix!r}" if prefix else ""
    return f"{copy}{weights.path.name}{below}: all {n_loaded} tensors but the classifier's" + (
        f"; {n_left} of the file have no place{others}" if n_left else others
    )


def _misfit(
    weights: StoredWeights, state: State, own: State, heads: tuple[str, ...], missing: set[str], reason: str = ""
) -> UserError:
    foreign = [name for name in state if name not in own]
    reshaped = [name for name in state if name in own and state[name].shape != own[name].shape]
    counts = [
        f"{len(names)} {what} ({', '.join(names[:3])})"
        for names, what in (
            (sorted(missing), "tensors of the model are not in it"),
            (foreign, "of its tensors have no place"),
            (reshaped, "of its tensors with another shape"),
        )
        if names
    ]
    only_names_differ = _first_unlike(weights.state, [own[name] for name in own if not name.startswith(heads)]) is None
    return UserError(
        f"{weights.path} does not fit the model: {'; '.join(counts) or reason}",
        "weights of the same timm model with the same backbone.params",
        "set backbone.checkpoint_match=order: only the names differ"
        if only_names_differ
        else "change backbone.name or backbone.params, or choose another checkpoint",
    )


def _copies(content: Any) -> Iterator[tuple[str, State]]:
    """Yield every state dict in what a file holds, by the dotted key that it lies under; the empty key is the top."""
    if not isinstance(content, Mapping):
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors and not any(isinstance(value, Mapping) for value in content.values()):
        yield "", tensors
        return
    for key, value in content.items():
        for below, state in _copies(value):
            yield f"{key}.{below}" if below else str(key), state


def _read(path: Path) -> Any:
    from safetensors.torch import load_file

    if path.exists() and not path.is_file():  # opening a named pipe would wait for ever
        raise _unreadable(path, "it is not a file")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    reason = _no_weights(start, path)
    if reason:
        raise _unreadable(path, reason)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are refused with the reason
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        types = re.findall(r"GLOBAL (\S+)", str(error))
        reason = f"it holds objects that may run code when they are loaded: {', '.join(types[:3])}" if types else ""
        raise _unreadable(path, reason or "it is no file of torch.save") from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise _unreadable(path, "it is a TorchScript archive, which holds code; save its state_dict()") from error
        raise _unreadable(path, f"it is cut off, or no such file: {first_line(error)}") from error
    except Exception as error:  # torch and safetensors raise errors of many kinds for a damaged file
        raise _unreadable(path, f"it is cut off, or no such file: {first_line(error)}") from error


def _no_weights(start: bytes, path: Path) -> str:
    """Say what a file is by its first bytes, if these are known to be no weights."""
    if not start:
        return "it is empty"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a page of HTML, as a download without a login gives"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file itself; fetch it with 'git lfs pull'"
    if path.suffix == ".npz":
        return "NumPy archives of JAX weights are not read"
    if path.suffix != ".safetensors" and not start.startswith((b"PK", b"\x80")):
        return "it is no file of torch"
    return ""


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(
        f"the checkpoint {path} cannot be read: {reason}",
        "a whole .safetensors file, or a torch file of a state dict",
        "check the path, or copy the file again",
    )
