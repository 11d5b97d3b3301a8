"""Two-dimensional sets with closed formulas; vectors, so no bounds and no normalisation.

Double circles, swiss roll and double moons: Galimberti, Furieri, Xu, Ferrari-Trecate, "Hamiltonian deep
neural networks guaranteeing nonvanishing gradients by design" (2023): even indices train, odd ones test. Six
points: Zakwan, Xu, Ferrari-Trecate (2023), Fig. 1. Circles: Jimenez Rodriguez, Ames, Yue (2022), Fig. 4, which gives no
numbers.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from robode.data.info import DatasetInfo, Samples, Source
from robode.errors import BadInput
from robode.tasks.classification import Classification

NOISE_SEED = 0
"""The points are part of the data set: they do not move with the user's seed."""

Points = NDArray[np.float64]


class _Planar(Source):
    """Two classes in the plane. `points` (n, 2) and `labels` (n,) give the whole set."""

    by_class = True

    def __init__(self, n: int = 8000) -> None:
        if n < 8 or n % 8:
            raise BadInput(f"data.source.n={n}: expected a multiple of 8")
        self.n = n

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("0", "1")))

    def load(self) -> tuple[Samples, Samples]:
        points, labels = self.points()
        x = torch.from_numpy(points.astype(np.float32))
        y = torch.from_numpy(labels.astype(np.int64))
        return Samples(x[0::2].clone(), y[0::2].clone()), Samples(x[1::2].clone(), y[1::2].clone())

    @abstractmethod
    def points(self) -> tuple[Points, NDArray[np.int64]]:
        """All points (n, 2) and their labels (n,)."""


def _stack(parts: list[Points], labels: list[int]) -> tuple[Points, NDArray[np.int64]]:
    return np.concatenate(parts), np.repeat(np.array(labels), [len(part) for part in parts])


def _arc(n: int, start: float, stop: float) -> Points:
    """n points (n, 2) of the unit circle between two angles, both ends included."""
    angle = np.linspace(start, stop, n)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


class DoubleCircles(_Planar):
    """Circles of radius 1, 2, 3, 4 labelled 0, 1, 0, 1, each coordinate + U(-0.3, 0.3); inside [-5, 5]²."""

    def points(self) -> tuple[Points, NDArray[np.int64]]:
        points, labels = _stack([r * _arc(self.n // 4, 0, 2 * np.pi) for r in (1, 2, 3, 4)], [0, 1, 0, 1])
        return points + np.random.default_rng(NOISE_SEED).uniform(-0.3, 0.3, points.shape), labels


class Circles(_Planar):
    """Two circles with as many points each, labelled 0 and 1, each coordinate + N(0, noise^2). radii: of both."""

    def __init__(self, n: int = 2000, radii: Sequence[float] = (1.0, 2.0), noise: float = 0.1) -> None:
        super().__init__(n)
        if len(radii) != 2 or not all(0 < each < math.inf for each in radii):
            raise BadInput(f"data.source.radii={list(radii)}: expected two numbers > 0")
        if not 0 <= noise < math.inf:
            raise BadInput(f"data.source.noise={noise}: expected a number >= 0")
        self.radii, self.noise = tuple(radii), noise

    def points(self) -> tuple[Points, NDArray[np.int64]]:
        points, labels = _stack([r * _arc(self.n // 2, 0, 2 * np.pi) for r in self.radii], [0, 1])
        return points + np.random.default_rng(NOISE_SEED).normal(0, self.noise, points.shape), labels


class SwissRoll(_Planar):
    """Two spirals of two turns, radius 0 to 1 (class 1) and 0.2 to 1.2 (class 0); in [-1.2, 1.2]²."""

    def points(self) -> tuple[Points, NDArray[np.int64]]:
        turns = _arc(self.n // 2, 0, 4 * np.pi)
        radius = np.linspace(0, 1, self.n // 2)[:, None]
        return _stack([turns * radius, turns * (radius + 0.2)], [1, 0])


class DoubleMoons(_Planar):
    """Four half circles, upper and lower in turn, centres (0,0), (1,.5), (2,0), (3,.5), labelled 0, 1, 0, 1,
    each coordinate + U(-0.15, 0.15); inside [-2, 5] x [-1, 2]."""

    def points(self) -> tuple[Points, NDArray[np.int64]]:
        upper = _arc(self.n // 4, 0, np.pi)
        centres = [(0.0, 0.0), (1.0, 0.5), (2.0, 0.0), (3.0, 0.5)]
        moons = [upper * [1, 1 - 2 * (i % 2)] + centre for i, centre in enumerate(centres)]
        points, labels = _stack(moons, [0, 1, 0, 1])
        return points + np.random.default_rng(NOISE_SEED).uniform(-0.15, 0.15, points.shape), labels


class SixPoints(Source):
    """Three points a class: radius 2 (class 0) and 4 (class 1) at the angles 0, π/3, 2π/3.

    The figure asks how far the training points can be moved, so train and test are the same six points: an
    accuracy here says nothing about generalisation.
    """

    train_is_test = by_class = True

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("radius 2", "radius 4")))

    def load(self) -> tuple[Samples, Samples]:
        points, labels = _stack([r * _arc(3, 0, 2 * np.pi / 3) for r in (2, 4)], [0, 1])
        six = Samples(torch.from_numpy(points.astype(np.float32)), torch.from_numpy(labels.astype(np.int64)))
        return six, six


class TwoSamples(_Planar):
    """Two samples of the same size, for the distance between them: class 0 on a ring of radius 1, class 1 around the
    corners of the square [-2, 2]², each coordinate + U(-0.3, 0.3)."""

    def points(self) -> tuple[Points, NDArray[np.int64]]:
        corners = [np.tile(np.array([[a, b]], dtype=np.float64), (self.n // 8, 1)) for a in (-2, 2) for b in (-2, 2)]
        points, labels = _stack([_arc(self.n // 2, 0, 2 * np.pi), *corners], [0, 1, 1, 1, 1])
        return points + np.random.default_rng(NOISE_SEED).uniform(-0.3, 0.3, points.shape), labels
