"""Activity of a model's units on images, and the weights that lead into and out of each unit.

Units are found from the model's operations on tensors, not from its names, so that a use of a unit outside of any
module (a shortcut, a gate) is seen as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lurefs.learning.images import in_parts
from lurefs.ranks import Ranks

LAYERS = {"conv1d", "conv2d", "conv3d", "linear"}
ACTIVATIONS = {
    *("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "prelu", "elu", "elu_", "selu"),
    *("selu_", "celu", "celu_", "gelu", "silu", "silu_", "mish", "mish_", "hardswish", "hardswish_", "softplus"),
}
"""Squashing functions (sigmoid, tanh) are left out: they open and close gates, not units."""
UNIT_BY_UNIT = {
    *("batch_norm", "dropout", "dropout2d", "pad", "contiguous", "to", "clone", "flatten", "mean", "mul", "div"),
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
}
"""Operations that leave the units in place, if all other inputs are parameters with one value per unit."""
FLATTEN = {"flatten", "view", "reshape"}
"""Operations that may lay the positions of channels side by side, see `_is_flattened`."""


@dataclass
class Units:
    """The outputs of one layer: channels of a convolution, rows of a linear map.

    Attributes:
        n_units: Number of units.
        incoming: Names of the parameters and buffers with one entry (in the first dimension) per unit: of the layer,
            and of the norm and the activation after it.
        outgoing: Names of the weights that read the units; incomplete where `is_read_elsewhere`.
        is_read_elsewhere: Whether anything but a layer's weight reads the units, e.g. a shortcut, a gate or a norm
            across units.
        activity: (n_units,) sum over images and positions of the absolute values after the activation function; None
            if there is none, so that the outputs are no units by themselves.
    """

    n_units: int
    incoming: set[str] = field(default_factory=set)
    outgoing: set[str] = field(default_factory=set)
    is_read_elsewhere: bool = False
    activity: Tensor | None = None


def watch_units(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], ranks: Ranks) -> dict[str, Units]:
    """Return the units of a model that have an activation function, observed on images in evaluation mode.

    Args:
        model: The model; unchanged.
        batches: Prepared images (n, channels, height, width) and labels: this process's part of each batch.
        ranks: The processes whose parts together are the batches; each returns the same.

    Returns:
        By the name of the layer's weight, in the order of computation.
    """
    watch = _Watch(model)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for part in (part for images, _ in batches for part in in_parts(images)):
                with watch:
                    model(part)
                watch.forget()
    finally:
        model.train(was_training)
    found = {name: units for name, units in watch.units.items() if units.activity is not None}
    for units in found.values():
        assert units.activity is not None
        units.activity = ranks.sum(units.activity)
    return found


@dataclass(frozen=True)
class _Place:
    """Location of a layer's units in a tensor.

    Attributes:
        tensor: The tensor; held so that no other tensor gets its id.
        layer: The name of the layer's weight.
        dimension: Dimension of the tensor along which the units lie.
        is_active: Whether the units passed an activation function.
        n_positions: Neighbouring entries per unit in that dimension; more than one after a flatten.
    """

    tensor: Tensor
    layer: str
    dimension: int
    is_active: bool
    n_positions: int = 1


class _Watch(TorchFunctionMode):
    """Follows the units of every layer through the operations of a forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.units: dict[str, Units] = {}
        own = [*model.named_parameters(), *model.named_buffers()]
        self._shapes = {name: tensor.shape for name, tensor in own}
        self._own = {id(tensor): (tensor, {name}) for name, tensor in own}
        self._made: dict[int, tuple[Tensor, set[str]]] = {}
        self._places: dict[int, _Place] = {}

    def forget(self) -> None:
        """Drop the tensors of a pass."""
        self._made.clear()
        self._places.clear()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if list(_tensors([output])):
            self._follow(func.__name__, list(_tensors([*args, *(kwargs or {}).values()])), output)
        return output

    def _follow(self, operation: str, inputs: list[Tensor], output: Any) -> None:
        places = [self._places[id(tensor)] for tensor in inputs if id(tensor) in self._places]
        names = [self._names(tensor) for tensor in inputs]
        if inputs and all(names) and isinstance(output, Tensor):
            self._made[id(output)] = (output, set().union(*names))  # e.g. a standardised weight
        elif operation in LAYERS and len(inputs) > 1 and names[1]:
            self._read(operation, places, inputs[1])
            self._enter(operation, inputs, names, output)
        elif not (self._is_unit_by_unit(operation, inputs, places, output) and isinstance(output, Tensor)):
            for place in places:
                self.units[place.layer].is_read_elsewhere = True
            self._places.pop(id(output), None)  # an in-place operation, e.g. the addition of a shortcut
        else:
            self._go_on(operation, places[0], inputs, output)

    def _enter(self, operation: str, inputs: list[Tensor], names: list[set[str]], output: Tensor) -> None:
        """Record the layer whose units the output holds."""
        weight = inputs[1]
        layer = next((name for name in sorted(names[1]) if self._shapes[name] == weight.shape), None)
        if layer is None:
            return
        units = self.units.setdefault(layer, Units(len(weight)))
        units.incoming |= self._with_one_entry_per_unit(set().union(*names[1:]), units.n_units)
        dimension = -1 if operation == "linear" else 1
        self._places[id(output)] = _Place(output, layer, dimension, is_active=False)

    def _read(self, operation: str, places: list[_Place], weight: Tensor) -> None:
        """Record that a layer's weight reads units.

        A weight has no columns to set if it is made from another (standardised), or if it sums over another dimension
        than that of the units, e.g. over the positions of each channel.
        """
        summed = -1 if operation == "linear" else 1
        for place in places:
            units = self.units[place.layer]
            is_by_columns = (place.dimension - summed) % place.tensor.ndim == 0
            if place.is_active and is_by_columns and id(weight) in self._own:
                units.outgoing |= self._names(weight)
            else:
                units.is_read_elsewhere = True

    def _is_unit_by_unit(self, operation: str, inputs: list[Tensor], places: list[_Place], output: Any) -> bool:
        if places and _is_flattened(operation, places[0], output):
            return len(places) == 1
        if not places or operation not in UNIT_BY_UNIT | ACTIVATIONS:
            return False
        place, n_units = places[0], self.units[places[0].layer].n_units
        others = [tensor for tensor in inputs if id(tensor) not in self._places]
        return (
            len(places) == 1
            and all(self._names(tensor) and tensor.shape == (n_units,) for tensor in others)
            and output.ndim > 1
            and output.shape[place.dimension] == n_units * place.n_positions
        )

    def _go_on(self, operation: str, place: _Place, inputs: list[Tensor], output: Tensor) -> None:
        units = self.units[place.layer]
        is_active = place.is_active or operation in ACTIVATIONS
        units.incoming |= self._with_one_entry_per_unit(set().union(*map(self._names, inputs)), units.n_units)
        n_positions = output.shape[place.dimension] // units.n_units
        self._places[id(output)] = _Place(output, place.layer, place.dimension, is_active, n_positions)
        if operation in ACTIVATIONS:
            by_unit = output.abs().movedim(place.dimension, 0).reshape(units.n_units, -1)
            activity = by_unit.sum(1, dtype=torch.float64)
            units.activity = activity if units.activity is None else units.activity + activity

    def _names(self, tensor: Tensor) -> set[str]:
        """Return the names of the parameters and buffers that a tensor is, or is made from alone."""
        found = self._own.get(id(tensor)) or self._made.get(id(tensor))
        return found[1] if found else set()

    def _with_one_entry_per_unit(self, names: set[str], n_units: int) -> set[str]:
        return {name for name in names if self._shapes[name][:1] == (n_units,)}


def _is_flattened(operation: str, place: _Place, output: Any) -> bool:
    """Return whether an operation flattens the positions of each channel: (n, channels, ...) to (n, channels * ...)."""
    source = place.tensor
    return (
        operation in FLATTEN
        and place.dimension == 1
        and isinstance(output, Tensor)
        and output.shape == (len(source), source[0].numel())
    )


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)
