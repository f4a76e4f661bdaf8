"""An exponential moving average of the weights of one chunk."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class Average:
    """The average of a model's parameters and buffers over the steps of one chunk.

    After step n of the chunk it keeps min(decay, 1 - n^(-2/3)) of itself, as timm's ModelEmaV3 with warm-up: it starts
    as the weights after the first step, and forgets where the chunk started.

    Attributes:
        model: A copy of the model that holds the average, in evaluation mode.
    """

    def __init__(self, model: nn.Module, decay: float, state: Mapping[str, Tensor]) -> None:
        from timm.utils import ModelEmaV3

        self._average = ModelEmaV3(model, decay=decay, use_warmup=True)
        self.model: nn.Module = self._average.module
        if state:
            self.model.load_state_dict(state)

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after a step of the chunk, from 1."""
        self._average.update(model, step)

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the average by name."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
