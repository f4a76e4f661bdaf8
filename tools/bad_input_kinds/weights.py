"""Files of weights that are damaged, or hold something else."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bad_input_kinds.damage import damaged_bytes
from bad_input_kinds.worlds import Case, World


def bad_weights(world: World, rng: random.Random) -> Iterator[Case]:
    """Yield files of weights that are damaged, or hold something else."""
    import torch

    state = torch.load(world.weights, weights_only=True)
    first = next(name for name, tensor in state.items() if tensor.ndim == 4)
    contents: dict[str, Any] = {
        "integers": {**state, first: state[first].to(torch.int64)},
        "complex numbers": {**state, first: state[first].to(torch.complex64)},
        "a sparse tensor": {**state, first: state[first].to_sparse()},
        "a meta tensor": {**state, first: state[first].to("meta")},
        "NaN": {**state, first: state[first] * float("nan")},
        "zeros": {name: tensor * 0 for name, tensor in state.items()},
        "filters of zeros": {name: tensor * (tensor.ndim < 2) for name, tensor in state.items()},
        "a list": [1, 2],
        "a number": 7,
        "no tensors": {"epoch": 3},
        "nothing": {},
        "null": None,
        "one tensor": state[first],
        "names that are numbers": dict(enumerate(state.values())),
        "texts as weights": dict.fromkeys(state, "x"),
        "nested deeply": {"a": {"b": {"c": state}}},
        "other shapes": {name: tensor[..., None] for name, tensor in state.items()},
        "numbers of eight bits": {**state, first: state[first].to(torch.float8_e4m3fn)},
    }
    for name, content in contents.items():
        path = world.fresh("weights.pth")
        torch.save(content, path)
        yield _weights_case(world, name, path)
    for name, text in {
        "a text": b"hello\n",
        "a page": b"<html>",
        "nothing": b"",
        "LFS": b"version https://git",
    }.items():
        for ending in (".pth", ".safetensors", ".bin"):
            path = world.fresh(f"weights{ending}")
            path.write_bytes(text)
            yield _weights_case(world, f"{name} as {ending}", path)
    odd: dict[str, Callable[[Path], Any]] = {
        "a pipe": os.mkfifo, "a folder": Path.mkdir, "a device": lambda path: path.symlink_to("/dev/zero"),
        "a loop": lambda path: path.symlink_to(path),
    }  # fmt: skip
    for name, write in odd.items():
        path = world.fresh("weights.pth")
        write(path)
        yield _weights_case(world, name, path)
    valid = world.weights.read_bytes()
    while True:
        path = world.fresh("weights.pth")
        path.write_bytes(damaged_bytes(valid, rng))
        yield replace(_weights_case(world, "bytes", path), is_meaningless=False)


def _weights_case(world: World, name: str, path: Path) -> Case:
    backbone = world.recipe["backbone"] | {"checkpoint_path": str(path)}
    is_wrong = name not in ("integers", "numbers of eight bits", "nested deeply")
    return Case(name=name, commands=[world.dry_run({"backbone": backbone})], is_meaningless=is_wrong)
