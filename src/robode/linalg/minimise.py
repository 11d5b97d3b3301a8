"""L-BFGS for many independent smooth functions at once, each with its own step and memory (Nocedal and Wright,
*Numerical Optimization*, 2006, Algorithm 7.4, with Armijo's condition)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x (P, p), which (P,)) -> (values (P,), gradients (P, p)) of the functions with these indices."""

ARMIJO, SHORTEST, MEMORY = 1e-4, 1e-12, 10


class _Memory:
    """The last steps s and changes of the gradient y of each function and 1/(s y), oldest first along `order`; 0 in
    places not yet filled, which are all but the last `filled`."""

    def __init__(self, x: Tensor, length: Tensor) -> None:
        self.s, self.y = x.new_zeros(MEMORY, *x.shape), x.new_zeros(MEMORY, *x.shape)
        self.inverse, self.scale = x.new_zeros(MEMORY, len(x), 1), length
        self.order, self.filled = list(range(MEMORY)), 0

    def add(self, which: Tensor | None, s: Tensor, y: Tensor) -> None:
        """Learns a step of some functions, None: of all; one without positive curvature teaches nothing."""
        product, square = (s * y).sum(1), (y * y).sum(1)
        good = product > 1e-12 * (square * (s * s).sum(1)).sqrt()
        self.filled = min(self.filled + 1, MEMORY)
        if which is None and bool(good.all()):
            oldest = self.order.pop(0)
            self.order.append(oldest)
            self.s[oldest], self.y[oldest], self.inverse[oldest, :, 0] = s, y, 1 / product
            self.scale = product / square
            return
        which = torch.arange(len(good))[good] if which is None else which[good]
        s, y, product, square = s[good], y[good], product[good], square[good]
        for memory, new in ((self.s, s), (self.y, y), (self.inverse, (1 / product)[:, None])):
            moved = torch.cat([memory[self.order[1:]][:, which], new[None]])
            for place, value in zip(self.order, moved, strict=True):
                memory[place, which] = value
        self.scale = self.scale.index_put((which,), product / square)

    def direction(self, which: Tensor | None, g: Tensor) -> Tensor:
        """- H g by the two loops. g: (P, p)."""
        known = self.order[MEMORY - self.filled :]
        s, y, inverse = (
            [m[j] if which is None else m[j, which] for j in known] for m in (self.s, self.y, self.inverse)
        )
        q, factors = g.clone(), list[Tensor]()
        for j in reversed(range(len(known))):
            factors.append(inverse[j] * (s[j] * q).sum(1, keepdim=True))
            q -= factors[-1] * y[j]
        q *= (self.scale if which is None else self.scale[which])[:, None]
        for j in range(len(known)):
            q += (factors[-1 - j] - inverse[j] * (y[j] * q).sum(1, keepdim=True)) * s[j]
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
    memory = _Memory(x, length)
    d, step = -length[:, None] * g, torch.ones_like(f)
    slope = (g * d).sum(1)
    done = slope > -1e-300
    for _ in range(evaluations - 1):
        if finished is not None:
            done = done | finished()
        whole = not bool(done.any())
        which = everything if whole else everything[~done]
        if not len(which):
            break
        at, way, pace, fall, was = (each if whole else each[which] for each in (x, d, step, slope, f))
        trial = at + pace[:, None] * way
        value, gradient = function(trial, which)
        rise = value - was
        ok = rise <= ARMIJO * pace * fall
        if whole and bool(ok.all()):  # as below, without copies
            memory.add(None, trial - x, gradient - g)
            x, f, g = trial, value, gradient
            d, step = memory.direction(None, g), torch.ones_like(f)
            slope = (g * d).sum(1)
            done = (-rise <= tolerance * value.abs()) | (slope > -1e-300)
            continue
        bad, far = which[~ok], pace * fall
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
