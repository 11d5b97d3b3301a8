"""L-BFGS for many independent smooth functions at once, each with its own step and memory (Nocedal and Wright,
*Numerical Optimization*, 2006, Algorithm 7.4, with Armijo's condition)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x (P, p), which (P,)) -> (values (P,), gradients (P, p)) of the functions with these indices."""

ARMIJO, SHORTEST, MEMORY = 1e-4, 1e-12, 10


@dataclass
class _Memory:
    """The last steps s and changes of the gradient y of each function, 1/(s y), 0 in places not yet filled."""

    s: Tensor
    y: Tensor
    inverse: Tensor
    scale: Tensor

    @classmethod
    def empty(cls, x: Tensor, length: Tensor) -> _Memory:
        zeros = x.new_zeros(MEMORY, *x.shape)
        return cls(zeros, zeros.clone(), x.new_zeros(MEMORY, len(x)), length)

    def add(self, which: Tensor, s: Tensor, y: Tensor) -> None:
        """Learns a step of some functions; one without positive curvature teaches nothing."""
        product, square = (s * y).sum(1), (y * y).sum(1)
        good = product > 1e-12 * (square * (s * s).sum(1)).sqrt()
        which, s, y, product, square = which[good], s[good], y[good], product[good], square[good]
        for memory, new in ((self.s, s), (self.y, y), (self.inverse, 1 / product)):
            memory[:, which] = torch.cat([memory[1:, which], new[None]])
        self.scale[which] = product / square

    def direction(self, which: Tensor, g: Tensor) -> Tensor:
        """- H g by the two loops. g: (P, p)."""
        whole = len(which) == self.s.shape[1]
        s, y, inverse = (m if whole else m[:, which] for m in (self.s, self.y, self.inverse))
        q, factors = g.clone(), []
        for j in reversed(range(MEMORY)):
            factors.append(inverse[j] * (s[j] * q).sum(1))
            q -= factors[-1][:, None] * y[j]
        q *= self.scale[which][:, None]
        for j in range(MEMORY):
            q += (factors[MEMORY - 1 - j] - inverse[j] * (y[j] * q).sum(1))[:, None] * s[j]
        return -q


def minimise(
    function: Function,
    x: Tensor,
    evaluations: int,
    tolerance: float = 1e-8,
    finished: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Points that nearly minimise, from the rows of x (L, p) on, after at most so many evaluations of each function.

    A function is done when a step gains less than tolerance times its value, when no step descends, or when
    `finished`, (L,) bool, says so.
    """
    everything = torch.arange(len(x))
    x = x.clone()
    f, g = function(x, everything)
    length = 1 / g.norm(dim=1).clamp_min(1.0)
    memory = _Memory.empty(x, length)
    d, step = -length[:, None] * g, torch.ones_like(f)
    slope = (g * d).sum(1)
    done = slope > -1e-300
    for _ in range(evaluations - 1):
        if finished is not None:
            done = done | finished()
        which = everything[~done]
        if not len(which):
            break
        trial = x[which] + step[which, None] * d[which]
        value, gradient = function(trial, which)
        rise = value - f[which]
        ok = rise <= ARMIJO * step[which] * slope[which]
        bad, far = which[~ok], step[which] * slope[which]
        if len(bad):
            shrink = (-0.5 * far / (rise - far))[~ok]
            step[bad] *= torch.where(shrink.isfinite(), shrink, 0.1).clamp(0.1, 0.5)
            done[bad] = step[bad] < SHORTEST
        good = which[ok]
        if len(good):
            new, change = trial[ok], gradient[ok] - g[good]
            memory.add(good, new - x[good], change)
            done[good] = -rise[ok] <= tolerance * value[ok].abs()
            x[good], f[good], g[good] = new, value[ok], gradient[ok]
            d[good], step[good] = memory.direction(good, g[good]), 1.0
            slope[good] = (g[good] * d[good]).sum(1)
            done[good] |= slope[good] > -1e-300
    return x
