"""Cost of a backbone: its parameters, its multiply-adds per image, and its speed of embedding.

The speed is measured on one machine. It is part of no identity, and no result depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lurefs.learning.backbones import Backbone


@dataclass
class Speed:
    """Measured speed of embedding, batch by batch.

    Attributes:
        batches: (number of images, seconds) of each batch, in order.
    """

    batches: list[tuple[int, float]] = field(default_factory=list)

    def watch(self, batches: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the batches, and record the time to make each one (not to use it)."""
        start = perf_counter()
        for batch in batches:
            self.batches.append((len(batch), perf_counter() - start))
            yield batch
            start = perf_counter()

    def measured(self) -> tuple[int, float]:
        """Return the number of images and the seconds, without the first batch (warm-up) unless it is the only one.

        Raises:
            ValueError: Nothing was embedded.
        """
        if not self.batches:
            raise ValueError("nothing was embedded, so there is no speed")
        warm = self.batches[1:] or self.batches
        return sum(n for n, _ in warm), sum(seconds for _, seconds in warm)


def cost_card(backbone: Backbone, speed: Speed, device: torch.device) -> dict[str, Any]:
    """Return the content of `cost.json`.

    Args:
        backbone: The backbone, on `device`.
        speed: The speed of embedding, with the reading of the images.
        device: The device that embedded.

    Returns:
        `n_parameters`, head included; `n_macs`, see `count_macs`; `images_per_second` of this process, over `n_images`;
        `image_size` in pixels; `device` and its `n_threads`.
    """
    n_images, seconds = speed.measured()
    return {
        "n_parameters": backbone.n_parameters,
        "n_macs": count_macs(backbone, device),
        "images_per_second": n_images / seconds,
        "n_images": n_images,
        "image_size": backbone.image_size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "n_threads": torch.get_num_threads(),
    }


def count_macs(backbone: Backbone, device: torch.device) -> int:
    """Return the multiply-adds of embedding one image at the backbone's size, without the head.

    Convolutions, matrix products and attention are counted as they run, in layers of any kind. Norms, activations and
    pooling are left out, as is usual.

    Args:
        backbone: The backbone; put into evaluation mode.
        device: The device of its weights.
    """
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(
        1, backbone.n_channels, backbone.image_size, backbone.image_size, dtype=torch.uint8, device=device
    )
    trained = [parameter for parameter in backbone.model.eval().parameters() if parameter.requires_grad]
    try:
        for parameter in trained:  # the counter needs a graph for trainable tensors, and there is none
            parameter.requires_grad_(False)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            backbone.embed(image)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return int(counter.get_total_flops()) // 2
