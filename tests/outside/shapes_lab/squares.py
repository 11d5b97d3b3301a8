"""A data set: points in a square, by the quadrant that they lie in."""

from __future__ import annotations

import torch
from torch import Tensor

from robode.data.info import DatasetInfo, Samples, Source
from robode.tasks.classification import Classification


class Squares(Source):
    def __init__(self, n: int = 200):
        self.n = n

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("++", "+-", "-+", "--")))

    def load(self) -> tuple[Samples, Samples]:
        x = 2 * torch.rand(2 * self.n, 2, generator=torch.Generator().manual_seed(0)) - 1
        label = self.labels(x)
        return Samples(x[: self.n], label[: self.n]), Samples(x[self.n :], label[self.n :])

    def labels(self, x: Tensor) -> Tensor:
        return 2 * (x[:, 0] < 0).long() + (x[:, 1] < 0).long()
