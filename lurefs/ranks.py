"""Several processes at one extraction, as `torchrun` starts them: who does which share, and how shares become one.

Shares meet as files in the run directory, so that nothing has to fit into a message; the processes only wait for each
other over gloo.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from episodes.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Which process this is, and of how many.

    Attributes:
        rank: From 0; the first one writes what is shared.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    def share(self, n: int) -> range:
        """Return this process's part of n items: the parts are contiguous, in the order of ranks, and about equal."""
        return range(self.rank * n // self.world_size, (self.rank + 1) * n // self.world_size)

    def wait(self) -> None:
        """Return when all processes have called it; at once if there is one."""
        if self.world_size > 1:
            import torch.distributed as distributed

            self._meet()
            distributed.barrier()

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, the same tensor to the bit on each of them; `values` is overwritten."""
        if self.world_size > 1:
            import torch.distributed as distributed

            self._meet()
            distributed.all_reduce(values)
        return values

    def join(self, part: NDArray[np.float32], folder: Path) -> NDArray[np.float32] | None:
        """Put the parts of all processes together, in the order of ranks.

        Args:
            part: (n, n_features) of this process.
            folder: On a disk that all processes see.

        Returns:
            The whole on the first process, None on the others.
        """
        if self.world_size == 1:
            return part
        with atomic_path(self._path(folder, self.rank)) as temporary:
            np.save(temporary, part)
        self.wait()
        whole = None
        if self.rank == 0:
            paths = [self._path(folder, rank) for rank in range(self.world_size)]
            whole = np.concatenate([np.load(path) for path in paths])
            for path in paths:
                path.unlink()
        return whole

    @staticmethod
    def _meet() -> None:
        import torch.distributed as distributed

        if not distributed.is_initialized():
            distributed.init_process_group("gloo")

    @staticmethod
    def _path(folder: Path, rank: int) -> Path:
        return folder / f"part-{rank:03d}.npy"


ONE_PROCESS = Ranks()


def ranks_of(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Return what `torchrun` says in the environment; one process if it says nothing."""
    return Ranks(rank=int(environment.get("RANK", 0)), world_size=int(environment.get("WORLD_SIZE", 1)))
