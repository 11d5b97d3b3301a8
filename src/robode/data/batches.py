"""Batches cut from tensors that stay in memory: one gather and one conversion per batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from robode.foreign import apart

if TYPE_CHECKING:
    from robode.data.augment import Augmentation


def in_units(x: Tensor) -> Tensor:
    """Data units, float32: uint8 images (any shape) become x/255, anything else is only converted."""
    if x.dtype != torch.uint8:
        return x.to(torch.float32)
    # a tensor: a GPU would multiply by 1/255 for a number, which is not x/255 in the last bit
    return x.to(torch.float32).div_(torch.full((), 255.0, device=x.device))


def placed(x: Tensor, labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Both on `device`; as they are, where they do not fit into its memory."""
    try:
        return x.to(device), labels.to(device)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return x, labels


def device_of(network: nn.Module) -> torch.device:
    """Where its parameters lie; the CPU where it has none."""
    return next((p.device for p in network.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards each submodule in its mode again; modules of others get copies (`foreign.apart`)."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with apart(network):
            yield
    finally:
        for module, training in modes:
            module.training = training


class EpochOrder:
    """The order of an epoch, a function of (seed, epoch) alone: a resumed run sees the same batches."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def permutation(self, n: int) -> Tensor:
        """(n,) int64. Own generator: the global ones are neither read nor moved."""
        return torch.from_numpy(np.random.default_rng([self.seed, self.epoch]).permutation(n))


class TensorBatches:
    """An iterable of (x, target): x (B, *shape) float32 in data units, target (B, ...).

    x: (n, *shape), uint8 images or float32; target: (n, ...). Without `order` the samples come as they lie. augment:
    changes each batch where there is an order, which is that of training. Batches are gathered where x and target lie;
    the order of an epoch is a CPU's, and goes there once an epoch.
    Under torch.distributed each rank takes every world_size-th sample. A shuffled epoch is filled up from its
    own start to equal shares (ranks must make the same number of steps); a fixed order is never filled up, so
    that no sample is counted twice.
    """

    batch_sampler = None
    """Lightning asks whatever has a `sampler` for this too."""

    def __init__(
        self,
        x: Tensor,
        target: Tensor,
        batch_size: int,
        order: EpochOrder | None = None,
        augment: Augmentation | None = None,
    ) -> None:
        self.x, self.target = x, target
        self.batch_size = batch_size
        self.order = order
        self.augment = augment

    @property
    def sampler(self) -> EpochOrder | None:
        """Where Lightning looks for `set_epoch`."""
        return self.order

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of `epoch`; nothing to choose where the order is fixed."""
        if self.order is not None:
            self.order.set_epoch(epoch)

    def __len__(self) -> int:
        rank, ranks = _rank_and_ranks()
        n = len(self.target)
        share = -(-n // ranks) if self.order is not None else len(range(rank, n, ranks))
        return math.ceil(share / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A generator: the epoch is read at the first batch, after whoever drives the loop has set it.
        chosen = self._indices()
        if chosen is None:
            for start in range(0, len(self.target), self.batch_size):
                rows = slice(start, start + self.batch_size)
                yield in_units(self.x[rows]), self.target[rows]
            return
        for indices in torch.split(chosen.to(self.x.device), self.batch_size):
            x = self.x.index_select(0, indices)
            yield in_units(x if self.augment is None else self.augment(x)), self.target.index_select(0, indices)

    def _indices(self) -> Tensor | None:
        rank, ranks = _rank_and_ranks()
        n = len(self.target)
        if self.order is None:
            return None if ranks == 1 else torch.arange(rank, n, ranks)
        indices = self.order.permutation(n)
        if n % ranks:
            indices = torch.cat([indices, indices[: ranks - n % ranks]])
        return indices[rank::ranks]


class Blocks:
    """Batches in lists of `size`; the last list of an epoch may be shorter."""

    batch_sampler = None

    def __init__(self, batches: TensorBatches, size: int) -> None:
        self.batches, self.size = batches, size

    @property
    def sampler(self) -> EpochOrder | None:
        """Where Lightning looks for `set_epoch`."""
        return self.batches.order

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / self.size)

    def __iter__(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        batches = iter(self.batches)
        while block := list(islice(batches, self.size)):
            yield block


def _rank_and_ranks() -> tuple[int, int]:
    """(rank, world size), asked late because Lightning sets the group up after the loaders are made."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
