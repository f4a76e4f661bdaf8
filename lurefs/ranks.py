"""Several processes on one run, started by `torchrun`: each one's share of the work, and how shares are combined.

Features are combined by files in the run directory, so that they need not fit into a message. Everything else goes
over gloo, or over NCCL for tensors on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from episodes.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor, nn

PATIENCE = timedelta(days=7)
"""How long processes wait for the first one, which measures alone; `torchrun` ends all of them when one fails."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The rank of this process, and the number of processes.

    Attributes:
        rank: From 0; rank 0 writes the shared files.
        world_size: Number of processes.
        local_rank: Rank within this machine, from 0: the index of the process's GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes the shared files, and prints for all processes."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """Return this process's part of n items; parts are contiguous, in the order of ranks, and about equal."""
        return range(self.rank * n // self.world_size, (self.rank + 1) * n // self.world_size)

    def part(self, n: int) -> slice:
        """Return `share(n)` as a slice."""
        share = self.share(n)
        return slice(share.start, share.stop)

    def wait(self) -> None:
        """Wait until all processes have called this method; return at once if there is only one."""
        if self.world_size > 1:
            import torch

            self.sum(torch.zeros(1))

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, the same to the bit on each of them; `values` is overwritten."""
        if self.world_size > 1:
            import torch.distributed as distributed

            self._init_group()
            distributed.all_reduce(values)
        return values

    def send(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors of all processes with those of the first one."""
        if self.world_size > 1:
            import torch.distributed as distributed

            self._init_group()
            for tensor in tensors:
                distributed.broadcast(tensor.detach(), src=0)

    def parallel(self, model: nn.Module) -> nn.Module:
        """Wrap a model to average its gradients over all processes; return the model itself if there is only one.

        The wrapper shares the parameters of `model`, whose names do not change.
        """
        if self.world_size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        self._init_group()
        wrapped: nn.Module = DistributedDataParallel(model, static_graph=True)  # some models leave parameters unused
        return wrapped

    def leave(self) -> None:
        """Leave the process group, when there is nothing more to share."""
        if self.world_size > 1:
            import torch.distributed as distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()

    def join(self, batches: Iterable[NDArray[np.float32]], folder: Path) -> Iterator[NDArray[np.float32]] | None:
        """Let every process make its batches, and return those of all processes in the order of ranks.

        Args:
            batches: (n, n_features) each, of this process.
            folder: On a disk that all processes see.

        Returns:
            The batches on the first process, None on the others.
        """
        if self.world_size == 1:
            return iter(batches)
        with atomic_path(self._path(folder, self.rank)) as temporary, temporary.open("wb") as stream:
            for batch in batches:
                np.save(stream, batch)
        self.wait()
        return self._joined(folder) if self.is_first else None

    def _joined(self, folder: Path) -> Iterator[NDArray[np.float32]]:
        for rank in range(self.world_size):
            path = self._path(folder, rank)
            with path.open("rb") as stream:
                while stream.tell() < path.stat().st_size:
                    yield np.load(stream)
            path.unlink()

    @staticmethod
    def _init_group() -> None:
        import torch
        import torch.distributed as distributed

        if not distributed.is_initialized():
            on_gpu = torch.cuda.is_available() and distributed.is_nccl_available()
            backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
            distributed.init_process_group(backend, timeout=PATIENCE)

    @staticmethod
    def _path(folder: Path, rank: int) -> Path:
        return folder / f"part-{rank:03d}.npy"


ONE_PROCESS = Ranks()


def ranks_of(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Return the ranks that `torchrun` set in the environment; one process if it set none."""
    return Ranks(
        rank=int(environment.get("RANK", 0)),
        world_size=int(environment.get("WORLD_SIZE", 1)),
        local_rank=int(environment.get("LOCAL_RANK", 0)),
    )
