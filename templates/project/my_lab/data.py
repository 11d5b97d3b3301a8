"""A data set: points of two rings, one inside the other."""

from __future__ import annotations

import torch
from torch import Tensor

from robode.data.info import DatasetInfo, Samples, Source
from robode.tasks.classification import Classification


class Rings(Source):
    """Radius 1 is the first class, radius 2 the second, both with normal noise of standard deviation `spread`.

    n: points for training, and as many for testing.
    """

    def __init__(self, n: int = 1000, spread: float = 0.1):
        self.n, self.spread = n, spread

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("inner", "outer")))

    def load(self) -> tuple[Samples, Samples]:
        """(train, test), the same ones every time."""
        random = torch.Generator().manual_seed(0)
        target = torch.arange(2 * self.n) % 2
        angle = 2 * torch.pi * torch.rand(2 * self.n, generator=random)
        noise = self.spread * torch.randn(2 * self.n, 2, generator=random)
        x: Tensor = (1 + target)[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1) + noise
        return Samples(x[: self.n], target[: self.n]), Samples(x[self.n :], target[self.n :])
