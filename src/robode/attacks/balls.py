"""Balls of radius eps around samples, in the max, the Euclidean and the sum norm. Everything is per sample.

A change `delta` is (B, *shape), `eps` is (B,), both in data units.
"""

from __future__ import annotations

import copy
from typing import Literal, get_args

import torch
from torch import Tensor

from robode.corruptions.noise import PerSampleRNG
from robode.corruptions.perturbation import Bounds, clip
from robode.errors import BadInput

Norm = Literal["linf", "l2", "l1"]
NORMS: tuple[str, ...] = get_args(Norm)
SMOOTH = ("linf", "l2")  # norms that every attack knows
INSIDE = ("l2", "l1")  # norms whose ball of radius r lies in the l2 ball, which certificates are about

SHARE = 0.01
"""Of the entries, those that an L1 step moves: one at a time, which is steepest, needs too many steps."""

SMALL = 1e-15
"""Length below which a gradient is scaled before its length is taken."""

ALMOST = 1 - 1e-7
"""Times a uniform number of [0, 1], so that its logarithm's argument stays positive in float32."""


def check_norm(norm: str, allowed: tuple[str, ...] = NORMS) -> None:
    """Raises BadInput for a norm that is not among `allowed`."""
    if norm not in allowed:
        raise BadInput(f"norm={norm}: expected one of {', '.join(allowed)}")


def beside(values: Tensor, x: Tensor) -> Tensor:
    """One number a sample, (B,), shaped to be multiplied with x (B, *shape)."""
    return values.view(-1, *[1] * (x.ndim - 1))


def length(delta: Tensor, norm: str) -> Tensor:
    """The norm of each sample's change: (B,)."""
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm(delta.flatten(1), order, dim=1)


def project(delta: Tensor, eps: Tensor, norm: str) -> Tensor:
    """The nearest change (in the Euclidean sense) of norm at most eps. Detach it: not for a differentiated path."""
    if norm == "linf":
        limit = beside(eps, delta)
        return torch.clamp(delta, -limit, limit)
    if norm == "l2":
        return delta * beside(_shrink(length(delta, "l2"), eps), delta)
    return _project_l1(delta, eps)


def step_direction(grad: Tensor, norm: str) -> Tensor:
    """The change of norm 1 that a loss with this gradient rewards (nearly) most; 0 where the gradient is 0.

    For l1 the largest entries of the gradient share the step, because one entry alone would be at a bound at once.
    """
    if norm == "linf":
        return grad.sign()
    if norm == "l1":
        size = grad.flatten(1).abs()
        least = size.topk(max(1, round(SHARE * size.shape[1])), dim=1).values[:, -1]
        grad = grad.masked_fill(grad.abs() < beside(least, grad), 0.0)
    size = length(grad, norm)
    if bool((size < SMALL).any()):  # the squares of a tiny gradient underflow, and it would look like none
        grad = grad / beside(length(grad, "linf").clamp_min(torch.finfo(grad.dtype).tiny), grad)
        size = length(grad, norm).clamp_min(1)
    return grad / beside(size, grad)


def possible(grad: Tensor, x: Tensor, bounds: Bounds | None) -> Tensor:
    """The gradient without what leads out of the bounds, where a step would be lost (Croce and Hein, ICML 2021)."""
    if bounds is None:
        return grad
    return grad.masked_fill((grad < 0) & (x <= bounds[0]) | (grad > 0) & (x >= bounds[1]), 0.0)


def random_start(rng: PerSampleRNG, x: Tensor, eps: Tensor, norm: str) -> Tensor:
    """A change like x, uniformly distributed over the ball."""
    shape = x.shape[1:]
    if norm == "linf":
        return rng.uniform(*shape).mul_(2).sub_(1).to(x.dtype) * beside(eps, x)
    if norm == "l2":
        z, size = rng.normal(*shape).to(x.dtype), x[0].numel()
        return z * beside(eps * rng.uniform().to(x.dtype) ** (1 / size) / length(z, "l2"), z)
    # signed exponentials and one more, over their sum: uniform in the ball (Barthe et al. 2005)
    z, more = rng.uniform(*shape).to(x.dtype).mul_(2).sub_(1), rng.uniform().to(x.dtype)
    z = -torch.log1p(-ALMOST * z.abs()) * z.sign()
    return z * beside(eps / (length(z, "l1") - torch.log1p(-more)), z)


class Region:
    """Where x' may be: the balls around x (B, *shape) of radius eps (B,), cut by the bounds."""

    def __init__(self, x: Tensor, eps: Tensor, norm: str, bounds: Bounds | None):
        self.x, self.eps, self.norm, self.bounds = x, eps, norm, bounds
        if norm == "linf":  # a box, whose faces are worth keeping
            self.lower, self.upper = clip(x - beside(eps, x), bounds), clip(x + beside(eps, x), bounds)

    def of(self, rows: Tensor) -> Region:
        """For some of the samples. rows: (k,) int64, or (B,) bool."""
        some = copy.copy(self)
        some.x, some.eps = self.x[rows], self.eps[rows]
        if self.norm == "linf":
            some.lower, some.upper = self.lower[rows], self.upper[rows]
        return some

    def back(self, moved: Tensor) -> Tensor:
        """x' like x, brought into the ball and then into the bounds, in place. Not for a differentiated path."""
        if self.norm == "linf":
            return torch.clamp(moved, self.lower, self.upper, out=moved)
        return clip(torch.add(self.x, project(moved.sub_(self.x), self.eps, self.norm), out=moved), self.bounds)


def _shrink(size: Tensor, eps: Tensor) -> Tensor:
    """min(1, eps / size), without 0/0: (B,)."""
    return torch.where(size > eps, eps / size.clamp_min(torch.finfo(size.dtype).tiny), 1.0)


def _project_l1(delta: Tensor, eps: Tensor) -> Tensor:
    """By soft thresholding at the level that leaves sum eps (Duchi et al. 2008)."""
    flat = delta.flatten(1)
    size = flat.abs()
    above = size.sort(dim=1, descending=True).values
    level = (above.cumsum(dim=1) - eps[:, None]) / torch.arange(1, flat.shape[1] + 1, device=flat.device)
    count = (above > level).sum(dim=1).clamp_min(1)
    threshold = level.gather(1, count[:, None] - 1).clamp_min(0)
    return ((size - threshold).clamp_min(0) * flat.sign()).view_as(delta)
