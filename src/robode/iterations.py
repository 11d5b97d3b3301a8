"""Fixed-point iterations x_{k+1} = T(x_k): what T is proven to be, which theorem that is enough for, and the iterates.

docs/theory.md, section 27. Every constant is a proven upper bound, in the 2-norm of a whole sample, and multiplies or
composes as such; none is estimated here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from robode.errors import BadInput

Theorem = Literal["contraction", "averaged", "none"]


@dataclass(frozen=True)
class Map:
    """A map T of R^d, batched: (B, *shape) -> the same, and what is proven of it.

    name: for messages. lipschitz: a Lipschitz constant, inf where none is proven. averaged: theta such that
    T = (1 - theta) id + theta R with a 1-Lipschitz R; 1 = nonexpansive and no more, inf where nothing is proven.
    bounded: T is continuous and its values lie in one compact convex set.

    Raises:
        BadInput: constants below 0, a theta in (1, inf), or one of at most 1 with a Lipschitz constant above 1.
    """

    name: str
    apply: Callable[[Tensor], Tensor]
    lipschitz: float = math.inf
    averaged: float = math.inf
    bounded: bool = False

    def __post_init__(self) -> None:
        if not self.lipschitz >= 0 or not (0 <= self.averaged <= 1 or self.averaged == math.inf):
            raise BadInput(
                f"{self.name}: expected a Lipschitz constant >= 0 and an averagedness constant in [0, 1] or inf, got "
                f"{self.lipschitz} and {self.averaged}"
            )
        # an averaged map is nonexpansive, and a q-contraction (1 + q)/2-averaged
        L = min(self.lipschitz, 1.0) if self.averaged <= 1 else self.lipschitz
        object.__setattr__(self, "lipschitz", L)
        object.__setattr__(self, "averaged", min(self.averaged, (1 + L) / 2 if L <= 1 else math.inf))

    def __call__(self, x: Tensor) -> Tensor:
        return self.apply(x)


def gradient_step(gradient: Callable[[Tensor], Tensor], tau: float, L: float, mu: float = 0.0) -> Map:
    """x - tau grad f(x) of a mu-strongly convex f (0: convex) with an L-Lipschitz gradient.

    Lipschitz constant max(|1 - tau mu|, |1 - tau L|); tau L/2-averaged for tau <= 2/L.

    Raises:
        BadInput: a tau or L that is no number > 0, or a mu outside [0, L].
    """
    if not (0 < tau < math.inf and 0 < L < math.inf and 0 <= mu <= L):
        raise BadInput(f"gradient step: expected tau > 0, L > 0 and 0 <= mu <= L, got tau={tau}, L={L}, mu={mu}")
    averaged = tau * L / 2 if tau * L <= 2 else math.inf
    return Map("gradient step", lambda x: x - tau * gradient(x), max(abs(1 - tau * mu), abs(1 - tau * L)), averaged)


def prox(name: str, apply: Callable[[Tensor], Tensor], bounded: bool = False) -> Map:
    """The proximal operator of a convex function, of which projections onto convex sets are some: firmly nonexpansive,
    that is 1/2-averaged. bounded: the set is."""
    return Map(name, apply, 1.0, 0.5, bounded)


def soft_threshold(size: float) -> Map:
    """Entry by entry towards 0 by `size`, and 0 where it would pass it: the proximal operator of size ||x||_1."""
    return prox("soft threshold", lambda x: x.sign() * (x.abs() - size).clamp_min(0))


def clip(low: float, high: float) -> Map:
    """The projection onto the box [low, high]^d. Raises `BadInput` for an empty one."""
    if not low <= high:
        raise BadInput(f"clip: expected low <= high, got {low} and {high}")
    return prox("clip", lambda x: x.clamp(low, high), math.isfinite(low) and math.isfinite(high))


def relaxed(of: Map, alpha: float) -> Map:
    """(1 - alpha) x + alpha T(x), the map of Krasnosel'skii and Mann: alpha theta-averaged. Raises `BadInput` for an
    alpha outside (0, 1]."""
    if not 0 < alpha <= 1:
        raise BadInput(f"relaxed {of.name}: expected alpha in (0, 1], got {alpha}")
    return Map(
        f"relaxed {of.name}",
        lambda x: (1 - alpha) * x + alpha * of(x),
        1 - alpha + alpha * of.lipschitz,
        alpha * of.averaged,
    )


def composed(*maps: Map) -> Map:
    """The maps one after the other, the first one first.

    Lipschitz constants multiply; theta = 1/(1 + 1/sum(theta_i/(1 - theta_i))) (Combettes and Yamada, J. Math. Anal.
    Appl. 425, 2015), which no smaller number can replace. Bounded, where one of continuous maps is.
    """
    name = maps[0].name if len(maps) == 1 else " → ".join(each.name for each in maps)
    worst = max(each.averaged for each in maps)
    total = sum(each.averaged / (1 - each.averaged) for each in maps) if worst < 1 else math.inf
    averaged = worst if worst > 1 else 1.0 if total == math.inf else total / (1 + total)

    def apply(x: Tensor) -> Tensor:
        for each in maps:
            x = each(x)
        return x

    continuous = all(each.lipschitz < math.inf for each in maps)
    lipschitz = math.prod(each.lipschitz for each in maps) if continuous else math.inf
    return Map(name, apply, lipschitz, averaged, continuous and any(each.bounded for each in maps))


@dataclass(frozen=True)
class Iterates:
    """x: (B, *shape), the last iterate. steps: (K, B) float64, ||x_{k+1} - x_k|| of each sample."""

    x: Tensor
    steps: Tensor


class Iteration:
    """x_{k+1} = T(x_k), with T the maps one after the other, the first one first. T: the composition, as a `Map`.

    theorem: "contraction", a Lipschitz constant q < 1: one fixed point, to which every start leads, and
    ||x_{k+1} - x_k|| <= q^k ||x_1 - x_0|| (Banach). "averaged", theta < 1: converges if and only if T has a fixed
    point, ||x_{k+1} - x_k|| = o(1/sqrt k) then and else ||x_k|| -> inf (Krasnosel'skii, Mann, Opial; Baillon, Bruck,
    Reich 1978). "none": nothing is proven, and such an iteration may turn round for ever.
    has_fixed_point: whether T is known to have one: as a contraction, because it is bounded and so maps a compact
    convex set into itself (Brouwer), or because the caller says so (`fixed_point`: minimisers that exist).

    Raises:
        BadInput: no map at all.
    """

    def __init__(self, *maps: Map, fixed_point: bool = False) -> None:
        if not maps:
            raise BadInput("iteration: expected at least one map")
        self.maps, self.T = maps, composed(*maps)
        self.theorem: Theorem = "contraction" if self.T.lipschitz < 1 else "averaged" if self.T.averaged < 1 else "none"
        self.has_fixed_point = fixed_point or self.T.bounded or self.theorem == "contraction"

    def proven(self) -> Iteration:
        """The same, where it is proven that it converges from every start.

        Raises:
            BadInput: neither a contraction nor an averaged map with a fixed point; names what is in the way.
        """
        if self.theorem == "none":
            # of several maps that are in the way, one that is not even nonexpansive
            first = max(self.maps, key=lambda each: each.averaged)
            known = "is nonexpansive and no more" if first.averaged == 1 else "is not proven nonexpansive"
            raise BadInput(
                f"{self.T.name}: expected a proof of convergence, but '{first.name}' {known}; choose a certified "
                "network, steps strictly below 2/L, or relax the map"
            )
        if not self.has_fixed_point:
            raise BadInput(
                f"{self.T.name}: averaged, which converges only where there is a fixed point; clip to a bounded box, "
                "which proves that there is one"
            )
        return self

    def bound(self, k: Tensor, first: float, distance: float = math.inf) -> Tensor:
        """What the theorem says that ||x_{k+1} - x_k|| cannot exceed. k: (K,) counts from 0; returns (K,) float64.

        first: ||x_1 - x_0||; distance: an upper bound of ||x_0 - x*|| for some fixed point x*. first q^k of a
        contraction; of an averaged map distance sqrt(theta/((1 - theta)(k + 1))), never above first; inf without a
        theorem.
        """
        k = k.double()
        if self.theorem == "none":
            return torch.full_like(k, math.inf)
        theta = self.T.averaged
        sublinear = distance * (theta / ((1 - theta) * (k + 1))).sqrt() if distance < math.inf else k * 0 + math.inf
        return sublinear.clamp_max(first).minimum(first * self.T.lipschitz**k)

    def iterates(self, x: Tensor) -> Iterator[Tensor]:
        """x_0, x_1, …, without end. x: (B, *shape), any floating-point type, which is kept."""
        while True:
            yield x
            x = self.T(x)

    @torch.no_grad()
    def run(self, x: Tensor, count: int, watch: Callable[[int, Tensor], None] | None = None) -> Iterates:
        """`count` steps from x (B, *shape). watch: called with every k and x_k, from 0 to count.

        Raises:
            BadInput: a count below 1.
        """
        if count < 1:
            raise BadInput(f"iteration: expected at least 1 step, got {count}")
        steps, before = [], x
        for k, after in enumerate(islice(self.iterates(x), count + 1)):
            if watch is not None:
                watch(k, after)
            if k > 0:
                steps.append((after - before).double().flatten(1).norm(dim=1))
            before = after
        return Iterates(before, torch.stack(steps))
