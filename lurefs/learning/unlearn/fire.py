"""A strategy that moves each weight matrix to the nearest orthogonal one (FIRE)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lurefs.errors import UserError
from lurefs.learning.unlearn.contract import Changes, ProbeImages, UnlearnStrategy, changes_since, check_count

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_PROJECTIONS = {
    "qkv": (2, 3),
    "qkv_proj": (0, 1),
    "to_qkv": (2, 3),
    "qk": (2, 2),
    "kv": (1, 2),
    **dict.fromkeys(("q", "k", "q_proj", "k_proj", "to_q", "to_k", "query", "key"), (1, 1)),
}
"""Projections in timm's attention modules: (number of query and key parts, number of equal parts); query and key come
first. (In `qkv_proj`, of MobileViT v2, the parts are unequal, and none is taken.)"""


@dataclass(frozen=True)
class Matrix:
    """One matrix to make orthogonal.

    Attributes:
        name: Name of its parameter.
        weight: That parameter, (n_out, n_in) or (n_out, n_in, height, width), detached from the graph.
        rows: (n_rows,) int64, its rows of the parameter; None is all.
    """

    name: str
    weight: Tensor
    rows: Tensor | None = None


def fire(steps: int = 10) -> UnlearnStrategy:
    """Move each weight matrix to the nearest orthogonal one, W (W^T W)^(-1/2), times a scale that depends on its shape.

    FIRE (Han, Park, Oh, Kim, Lee and Kim 2026, ICLR, arXiv 2602.08040). X = W / ||W||_F, then `steps` Newton-Schulz
    iterations X = 1.5 X - 0.5 X X^T X, then W = X * sqrt(n_out / n_in) / n_taps. Each tap of a convolution is a matrix
    (n_out, n_in / groups) by itself; n_taps is height times width. The scale, the taps and the grouped convolutions are
    those of the authors' code. Singular values below about 1.5^-steps of the Frobenius norm do not reach 1.

    In a model with attention only query and key are moved, as in the authors' code for vision transformers. They are
    found by timm's names and layouts; fused projections of an unknown layout stay. Biases, norm layers and running
    statistics stay in any model.

    Departures: in models that mix attention and convolutions, which the source does not treat, convolutions outside of
    attention blocks are moved too, except those that cut an image into patches without overlap. Matrices of zeros stay.

    Args:
        steps: Number of Newton-Schulz iterations.

    Raises:
        UserError: A setting is out of range, or the model has no such matrix.
    """
    check_count("steps", steps)

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        matrices = list(_matrices(model))
        if not matrices:
            raise UserError(
                f"{type(model).__name__} has neither convolutions nor linear maps that could be made orthogonal",
                "a model with convolutions, linear maps, or attention with a query and a key",
                "choose another unlearn.name",
            )
        old = {matrix.name: matrix.weight.clone() for matrix in matrices}
        for matrix in matrices:
            rows = slice(None) if matrix.rows is None else matrix.rows
            matrix.weight[rows] = _orthogonal(matrix.weight[rows], steps)
        return changes_since(old, model)

    return unlearn


def _orthogonal(weight: Tensor, steps: int) -> Tensor:
    """Return the nearest orthogonal matrix of each tap, scaled; (n_out, n_in, ...) like the weight."""
    n_out, n_in = weight.shape[:2]
    taps = weight.reshape(n_out, n_in, -1).permute(2, 0, 1)
    x = taps.mT if n_in > n_out else taps
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    for _ in range(steps):
        x = 1.5 * x - 0.5 * x @ (x.mT @ x)
    x = (x.mT if n_in > n_out else x) * (n_out / n_in) ** 0.5 / len(taps)
    orthogonal: Tensor = x.permute(1, 2, 0).reshape(weight.shape)
    return orthogonal


def _matrices(model: nn.Module) -> Iterator[Matrix]:
    from torch import nn

    attention = {name: module for name, module in model.named_modules() if _is_attention(module)}
    blocks = tuple(f"{name.rpartition('.')[0] or name}." for name in attention)
    for name, module in model.named_modules():
        parent, _, child = name.rpartition(".")
        if not isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            continue
        weight = module.get_parameter("weight").detach()
        parameter = f"{name}.weight" if name else "weight"
        if parent in attention and child in _PROJECTIONS:
            for rows in _query_and_key(attention[parent], child, len(weight)):
                yield Matrix(parameter, weight, rows.to(weight.device))
        elif not attention or not (_is_linear_or_patches(module) or name.startswith(blocks)):
            yield Matrix(parameter, weight)


def _is_linear_or_patches(module: nn.Module) -> bool:
    from torch import nn

    if not isinstance(module, nn.modules.conv._ConvNd):
        return True
    return module.kernel_size == module.stride and max(module.kernel_size) > 1


def _is_attention(module: nn.Module) -> bool:
    return any(name in _PROJECTIONS for name, _ in module.named_children())


def _query_and_key(attention: nn.Module, projection: str, n_rows: int) -> list[Tensor]:
    """Return the rows of query and key in a projection; none if the layout of its rows is not known.

    Some of timm's modules order rows by head first (`head_first`), others by part first.
    """
    import torch

    n_taken, n_parts = _PROJECTIONS[projection]
    n_heads = int(getattr(attention, "num_heads", 1)) if getattr(attention, "head_first", False) else 1
    if n_parts > 1 and (hasattr(attention, "key_dim") or n_rows % (n_heads * n_parts) > 0):
        return []  # unequal parts
    rows = torch.arange(n_rows).view(n_heads, n_parts, -1)
    return [rows[:, part].reshape(-1) for part in range(n_taken)]
