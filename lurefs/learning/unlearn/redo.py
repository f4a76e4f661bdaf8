"""A strategy that re-initialises dormant units (ReDo)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lurefs.errors import UserError
from lurefs.learning.unlearn.contract import (
    PROBE_SOURCES,
    Changes,
    ProbeImages,
    ProbeSource,
    UnlearnStrategy,
    check_choice,
    check_count,
    parameters_of,
    reset,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lurefs.learning.unlearn.units import Units


def redo(tau: float = 0.1, activation_images: int = 512, probe: ProbeSource = "seen") -> UnlearnStrategy:
    """Re-initialise dormant units (ReDo): fresh incoming weights, and zero for the outgoing ones.

    Sokar, Agarwal, Castro and Evci (2023, ICML, arXiv 2302.12902, definition 3.1 and algorithm 1). Unit i of a
    layer with H units is dormant if its score s_i = E|h_i| / (1/H sum_k E|h_k|) is at most tau. Here h is the output of
    the activation function, and E the mean over images and positions. Moments of reset weights are cleared if
    `learner.optimizer_state` says so, as by default. If no unit is dormant, nothing changes.

    Units are the channels of convolutions and the rows of linear maps that are followed by an activation function, with
    at most a norm in between. Others write into a shortcut or an attention, and are left out, as in the authors'
    residual network.

    Departures: a unit's bias, norm scale, shift and running statistics count as incoming; otherwise a unit that a norm
    switches off would stay off (the authors' networks have no norms). Fresh values are a twin's. If anything but a
    layer reads the units (a shortcut, a gate, a norm across units, a standardised weight), only the incoming weights
    are reset, since the outgoing ones are not all known. Channels are followed through a flatten into the columns of
    the linear map that reads them; units of a linear map on several tokens are not. A weight from one dormant unit to
    another is set to zero.

    Args:
        tau: Units with a score up to this are dormant, at least 0.
        activation_images: Number of images for the activity.
        probe: Source of these images: `seen` (all data so far), or a chunk's: `new`, `oldest` or `previous`.

    Raises:
        UserError: A setting is out of range, or no layer of the model is followed by an activation function.
    """
    if tau < 0:
        raise UserError(f"tau is {tau}", "a share of the mean activity, at least 0", "raise unlearn.params.tau")
    check_count("activation_images", activation_images)
    check_choice("probe", probe, PROBE_SOURCES)

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        import torch

        from lurefs.learning.unlearn.units import watch_units

        layers = watch_units(model, images.draw(probe, activation_images), images.ranks)
        if not layers:
            raise UserError(
                f"no layer of {type(model).__name__} is followed by an activation function that lurefs knows",
                "convolutions or linear maps followed by an activation function such as ReLU or GELU",
                "choose another unlearn.name",
            )
        fresh = {name: weight.clone() for name, weight in parameters_of(twin).items()}
        masks: dict[str, Tensor] = {}
        dormant = {layer: _dormant(units, tau) for layer, units in layers.items()}
        with torch.no_grad():
            for layer, units in layers.items():
                _reset_incoming(model, twin, units, dormant[layer], masks)
            for layer, units in layers.items():
                if not units.is_read_elsewhere:
                    _silence_outgoing(fresh, units, dormant[layer], masks)
        changed = {name: mask for name, mask in masks.items() if mask.any()}
        return Changes(masks=reset(model, fresh, changed).masks, may_be_empty=True)

    return unlearn


def _dormant(units: Units, tau: float) -> Tensor:
    """Return which units are dormant, (n_units,) bool."""
    assert units.activity is not None
    return units.activity <= tau * units.activity.mean()


def _reset_incoming(model: nn.Module, twin: nn.Module, units: Units, dormant: Tensor, masks: dict[str, Tensor]) -> None:
    """Mark the dormant units' entries of parameters, and copy those of buffers from the twin."""
    parameters, buffers, fresh = parameters_of(model), dict(model.named_buffers()), dict(twin.named_buffers())
    for name in sorted(units.incoming):
        if name in parameters:
            shape = parameters[name].shape
            _mark(masks, name, dormant.view(-1, *[1] * (len(shape) - 1)).expand(shape))
        else:
            buffers[name][dormant] = fresh[name][dormant]


def _silence_outgoing(fresh: dict[str, Tensor], units: Units, dormant: Tensor, masks: dict[str, Tensor]) -> None:
    """Mark the weights that read dormant units, and set their fresh values to zero."""
    for name in sorted(units.outgoing):
        mask = _columns(dormant, fresh[name])
        fresh[name].masked_fill_(mask, 0)
        _mark(masks, name, mask)


def _mark(masks: dict[str, Tensor], name: str, mask: Tensor) -> None:
    masks[name] = masks[name] | mask if name in masks else mask


def _columns(dormant: Tensor, weight: Tensor) -> Tensor:
    """Return the mask of a weight (n_out, n_in / groups, ...) that reads dormant units among its n_in inputs.

    A linear map behind a flatten reads each channel by as many neighbouring columns as the channel has positions.
    """
    n_out, n_in_group = weight.shape[:2]
    if weight.ndim == 2:
        return dormant.repeat_interleave(n_in_group // len(dormant)).expand(weight.shape)
    groups = dormant.view(-1, 1, n_in_group).expand(-1, n_out * n_in_group // len(dormant), -1)
    return groups.reshape(n_out, n_in_group, *[1] * (weight.ndim - 2)).expand(weight.shape)
