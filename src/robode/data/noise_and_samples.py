"""Noise, and samples of the plane that a generator is to make of it."""

from __future__ import annotations

import math

import numpy as np
import torch

from robode.data.info import DatasetInfo, Samples, Source
from robode.errors import BadInput
from robode.tasks.classification import Classification

SEED = 0
"""The points are part of the data set: they do not move with the user's seed."""


class NoiseAndSamples(Source):
    """(x1, x2, noise): class 0 is noise from N(0, I) with noise = 1, class 1 samples with noise = 0: of `modes`
    Gaussians with standard deviation 0.1 around the corners of a regular polygon with the radius 2.

    train, test: how many of each class, other ones of both. Raises `BadInput` for counts below 1.
    """

    def __init__(self, train: int = 1024, test: int = 512, modes: int = 8) -> None:
        for key, count in (("train", train), ("test", test), ("modes", modes)):
            if type(count) is not int or count < 1:
                raise BadInput(f"data.source.{key}: expected a whole number >= 1, got {count}")
        self.train, self.test, self.modes = train, test, modes

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo((3,), (0.0,) * 3, (1.0,) * 3, None, Classification(("noise", "samples")))

    def load(self) -> tuple[Samples, Samples]:
        random = np.random.default_rng(SEED)
        return self._draw(random, self.train), self._draw(random, self.test)

    def _draw(self, random: np.random.Generator, count: int) -> Samples:
        noise = random.standard_normal((count, 2))
        angle = 2 * math.pi * random.integers(self.modes, size=count) / self.modes
        corners = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        points = np.concatenate([noise, corners + 0.1 * random.standard_normal((count, 2))])
        labels = torch.arange(2).repeat_interleave(count)
        x = torch.from_numpy(points.astype(np.float32))
        return Samples(torch.cat([x, (1 - labels)[:, None].float()], dim=1), labels)
