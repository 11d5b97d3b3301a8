"""The smallest change of A with max over alpha <= D <= 1 of mu_2(D A) <= target, by cutting planes, for small d.

The admissible W are the intersection of the half-spaces <D x x^T, W> <= target, one for each vertex D and unit vector x
(docs/theory.md, section 21). Violated ones are added until branch and bound finds none. The projection onto those found
so far is a least-distance problem, solved as non-negative least squares (Lawson and Hanson, *Solving Least Squares
Problems*, 1974, chapter 23); its norm is a lower bound of the smallest change.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from robode.ode.jacobians import scaled_rows
from robode.ode.lognorm_exact import maximum
from robode.ode.lognorm_lower import Attained, alternate, beginnings, lower_bound

LARGEST, NEW, VECTORS = 32, 12, 4  # width; violated D a round; eigenvectors of each
TOLERANCE = 1e-5  # of ||A||: by how much the last W may violate the target


@dataclass(frozen=True)
class Cut:
    """W: (d, d); least: a lower bound of the norm of every admissible change; closed: whether W violates nothing by
    more than `TOLERANCE`, proven by branch and bound."""

    W: Tensor
    least: float
    closed: bool
    rounds: int


class _Planes:
    """The half-spaces <D x x^T, W> <= target found so far, and the slopes D they come from."""

    def __init__(self, A: Tensor, target: float) -> None:
        self.A, self.target = A, target
        self.normals = A.new_zeros(0, A.numel())
        self.slopes = A.new_zeros(0, len(A))
        self.vectors = A.new_zeros(0, len(A))

    def add(self, D: Tensor, x: Tensor) -> None:
        """D, x: (P, d)."""
        self.normals = torch.cat([self.normals, ((D * x)[:, :, None] * x[:, None, :]).flatten(1)])
        self.slopes, self.vectors = torch.cat([self.slopes, D]), torch.cat([self.vectors, x])

    def project(self) -> tuple[Tensor, float]:
        """The nearest W in all of them, and the norm of its change from below; those without a multiplier are let go,
        as they do not carry the projection."""
        b = self.normals @ self.A.flatten() - self.target
        size = max(float(b.max()), 1e-300)
        E = torch.cat([self.normals.T, b[None] / size]).numpy()
        f = np.zeros(len(E))
        f[-1] = 1.0
        found, _ = nnls(E, f, maxiter=50 * E.shape[1])
        rest = E @ found - f
        weights = torch.from_numpy(found / max(-rest[-1], 1e-300)) * size
        change = self.normals.T @ weights
        norm = float(change.norm())
        least = float(b @ weights) / norm if norm > 0 else 0.0
        keep = weights > 0
        self.normals, self.slopes, self.vectors = self.normals[keep], self.slopes[keep], self.vectors[keep]
        return self.A - change.view_as(self.A), least


def nearest(A: Tensor, target: float, alpha: float, seconds: float = 60.0) -> Cut:
    """A: (d, d) float64. Out of time it gives the last W, which is not admissible, and `least`."""
    planes, W, least = _Planes(A, target), A, 0.0
    level = target + TOLERANCE * float(torch.linalg.matrix_norm(A, 2))
    end, rounds = time.monotonic() + seconds, 0
    while True:
        closed = not _separate(planes, W, level, alpha, end - time.monotonic(), rounds)
        if closed or time.monotonic() > end:
            return Cut(W, least, closed, rounds)
        W, bound = planes.project()
        least, rounds = max(least, bound), rounds + 1


def _separate(planes: _Planes, W: Tensor, level: float, alpha: float, seconds: float, seed: int) -> bool:
    """Adds half-spaces that W violates; whether there are some, or time is up before that is known."""
    J = scaled_rows(W, alpha)
    D, values, Q = alternate(J, J.steepest(beginnings(J, planes.vectors, seed)))
    if _add(planes, level, D, values, Q):
        return True
    worst = lower_bound(J, seed=seed)[0]
    if worst.value <= level:
        exact = maximum(J, seconds, threshold=level)
        if exact.upper <= level:
            return False
        worst = Attained(exact.lower, exact.slopes, exact.vector)
    planes.add(worst.slopes[None], worst.vector[None])
    _add(planes, level, *alternate(J, worst.slopes[None]))
    return True


def _add(planes: _Planes, level: float, D: Tensor, values: Tensor, Q: Tensor) -> bool:
    """The half-spaces of the worst different D; whether one is violated."""
    seen: set[tuple[float, ...]] = set()
    for i in values[:, -1].argsort(descending=True).tolist():
        key = tuple(D[i].tolist())
        if float(values[i, -1]) <= level or len(seen) == NEW:
            break
        if key not in seen:
            seen.add(key)
            count = min(VECTORS, int((values[i] > level).sum()))
            planes.add(D[i].expand(count, -1), Q[i, :, -count:].mT)
    return bool(seen)
