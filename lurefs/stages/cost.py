"""What a backbone costs to use: its parameters, the arithmetic of one image, and how fast images were embedded.

The last is a measurement of one machine. It is part of no identity, and no result depends on it.
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
    """How fast images were embedded, batch by batch.

    Attributes:
        batches: (images, seconds) of each batch, in the order of time.
    """

    batches: list[tuple[int, float]] = field(default_factory=list)

    def watch(self, batches: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the batches, and keep how long each took to be made, not what is done with it afterwards."""
        start = perf_counter()
        for batch in batches:
            self.batches.append((len(batch), perf_counter() - start))
            yield batch
            start = perf_counter()

    def measured(self) -> tuple[int, float]:
        """Return images and seconds of all batches but the first, which warms up; of the first if it is the only one.

        Raises:
            ValueError: Nothing was embedded.
        """
        if not self.batches:
            raise ValueError("nothing was embedded, so there is no speed")
        warm = self.batches[1:] or self.batches
        return sum(n for n, _ in warm), sum(seconds for _, seconds in warm)


def cost_card(backbone: Backbone, speed: Speed, device: torch.device) -> dict[str, Any]:
    """Return what `cost.json` holds.

    Args:
        backbone: On the device where it was measured.
        speed: Of the embedding, reading of the images included.
        device: Where the backbone computed.

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

    Counted are convolutions, matrix products and attention, as they are carried out, so that a layer of any kind counts
    by what it does. Norms, activations and pooling are left out, as is usual.

    Args:
        backbone: Put into evaluation mode.
        device: Where its weights are.
    """
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(
        1, backbone.n_channels, backbone.image_size, backbone.image_size, dtype=torch.uint8, device=device
    )
    trained = [parameter for parameter in backbone.model.eval().parameters() if parameter.requires_grad]
    try:
        for parameter in trained:  # the counter asks for the graph of all that has gradients, and there is none
            parameter.requires_grad_(False)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            backbone.embed(image)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return int(counter.get_total_flops()) // 2
