"""Linear equations with a sparse solution and noise: rows of a matrix, and what they measure. No classes."""

from __future__ import annotations

import numpy as np
import torch

from robode.data.info import DatasetInfo, Samples, Source
from robode.errors import BadInput
from robode.tasks.regression import Regression

SEED = 0
"""The equations are part of the data set: they do not move with the user's seed."""


class SparseRegression(Source):
    """Rows k_i of K (n, d), entries N(0, 1/n), and y_i = <k_i, w> + noise: w has `nonzero` entries +-1.

    n: equations for training, as many again for testing. d: unknowns. noise: standard deviation of that of y_i, in
    units of y.

    Raises:
        BadInput: more entries that are not zero than unknowns.
    """

    def __init__(self, n: int = 200, d: int = 50, nonzero: int = 8, noise: float = 0.05) -> None:
        if nonzero > d:
            raise BadInput(f"data.source.nonzero: expected at most data.source.d={d}, got {nonzero}")
        self.n, self.d, self.nonzero, self.noise = n, d, nonzero, noise

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo((self.d,), (0.0,) * self.d, (1.0,) * self.d, None, Regression(1))

    def load(self) -> tuple[Samples, Samples]:
        generator = np.random.default_rng(SEED)
        w = np.zeros(self.d)
        w[generator.choice(self.d, self.nonzero, replace=False)] = generator.choice([-1.0, 1.0], self.nonzero)
        K = (generator.normal(size=(2 * self.n, self.d)) / self.n**0.5).astype(np.float32)
        y = K.astype(np.float64) @ w + self.noise * generator.normal(size=2 * self.n)
        x, target = torch.from_numpy(K), torch.from_numpy(y.astype(np.float32))[:, None]
        return Samples(x[: self.n], target[: self.n]), Samples(x[self.n :], target[self.n :])
