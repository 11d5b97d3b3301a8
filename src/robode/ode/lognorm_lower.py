"""Slopes with a large lambda_max(sym(C + B D K)), lo <= D <= hi: lower bounds of the maximum, found by climbing.

The maximum is at a vertex (docs/theory.md, section 20). Alternation between worst slopes for a vector and the top
eigenvector for slopes climbs; where it rests, all changes of one slope are tried by the secular equation of a change of
rank two. Nothing here proves that no slopes are worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robode.linalg.definite import accumulated
from robode.ode.jacobians import JacobianSet

ROUNDS, BISECTIONS, KEPT, SAMPLES, RANDOM = 60, 30, 3, 12, 20


@dataclass(frozen=True)
class Attained:
    """value <= x^T (C + B D K) x for the slopes D (k,) and the unit vector x (n,): the maximum is at least that."""

    value: float
    slopes: Tensor
    vector: Tensor


def lower_bound(J: JacobianSet, starts: Tensor | None = None, seed: int = 0) -> list[Attained]:
    """The worst slopes found in each layer, by alternation from several vectors and changes of one slope.

    starts: (L, P, n), vectors to begin with, besides the top eigenvectors at the centre, the leading singular vectors
    of K and Gaussian ones.
    """
    return [
        climb(J[j : j + 1], beginnings(J[j : j + 1], None if starts is None else starts[j], seed))
        for j in range(len(J))
    ]


def beginnings(J: JacobianSet, starts: Tensor | None, seed: int) -> Tensor:
    """Vectors to begin with in the only layer of J, (P, n)."""
    n = J.C.shape[-1]
    top = torch.linalg.eigh(J.symmetric(J.centre)).eigenvectors[0, :, -5:].mT
    singular = torch.linalg.svd(J.K[0]).Vh[:3]
    noise = torch.randn(RANDOM, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.cat([top, singular, noise] + ([] if starts is None else [starts]))


def climb(J: JacobianSet, x: Tensor) -> Attained:
    """Alternation from every x (P, n), then from the best fixed points changes of one slope, each followed by
    alternation, until none helps. J has one layer."""
    D, values, Q = alternate(J, J.steepest(x))
    D, values, Q = _distinct(D, values, Q)
    for _ in range(ROUNDS):
        changed, better = best_change(J, D, values, Q)
        if not bool(better.any()):
            break
        D[better], values[better], Q[better] = alternate(J, changed[better])
    best = int(values[:, -1].argmax())
    return attained(J, D[best], Q[best, :, -1])


def alternate(J: JacobianSet, D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes that are worst for their own top eigenvector, from D (P, k) on; with the eigenvalues (P, n) and
    eigenvectors (P, n, n) there. lambda_max never falls on the way."""
    D = D.clone()
    values, Q = torch.linalg.eigh(J.symmetric(D))
    active = torch.arange(len(D))
    for _ in range(ROUNDS):
        new = J.steepest(Q[active, :, -1])
        moved = (new != D[active]).any(1)
        active, new = active[moved], new[moved]
        if not len(active):
            break
        new_values, new_Q = torch.linalg.eigh(J.symmetric(new))
        higher = new_values[:, -1] > values[active, -1]  # rounding may make it circle
        active = active[higher]
        D[active], values[active], Q[active] = new[higher], new_values[higher], new_Q[higher]
    return D, values, Q


def _distinct(D: Tensor, values: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best few different fixed points."""
    places: list[int] = []
    for i in values[:, -1].argsort(descending=True).tolist():
        if not any(bool((D[i] == D[j]).all()) for j in places):
            places.append(i)
        if len(places) == KEPT:
            break
    return D[places], values[places], Q[places]


def best_change(J: JacobianSet, D: Tensor, values: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """The D (P, k) with the one slope moved to its other end that raises lambda_max most; and where it does, (P,) bool.

    Slope i, moved by Delta, adds Delta (b k^T + k b^T)/2, b column i of B, k row i of K. At t above all eigenvalues w
    the largest of the changed matrix is above t exactly if (1 - Delta p/2)^2 < Delta^2 q s/4 with p, q, s the sums of
    b_j k_j, b_j^2, k_j^2 over t - w_j, in the basis of eigenvectors. Bisection in t, all slopes at once.
    """
    Delta = J.lo + J.hi - 2 * D
    b, k = Q.mT @ J.B, Q.mT @ J.K.mT
    bk, bb, kk = b * k, b.square(), k.square()
    largest = values[:, -1]

    def above(t: Tensor) -> Tensor:
        weight = (1 / (t[:, None] - values))[:, None, :]
        p, q, s = ((weight @ each)[:, 0] for each in (bk, bb, kk))
        return (1 - 0.5 * Delta * p).square() < 0.25 * Delta.square() * q * s

    width = (Delta.abs() * J.B.norm(dim=1) * J.K.norm(dim=2)).amax(1)
    low = largest + 1e-9 * width + 1e-300
    better = above(low).any(1)
    high = largest + 1.001 * width
    place = above(low).double().argmax(1)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        found = above(middle)
        some = found.any(1)
        low, high = torch.where(some, middle, low), torch.where(some, high, middle)
        place = torch.where(some, found.double().argmax(1), place)
    changed = D.clone()
    rows = torch.arange(len(D))
    changed[rows, place] += Delta[rows, place]
    ends = torch.where((changed - J.lo).abs() < (changed - J.hi).abs(), J.lo, J.hi)
    changed[rows, place] = ends[rows, place]
    return changed, better


def attained(J: JacobianSet, D: Tensor, x: Tensor) -> Attained:
    """Rayleigh's quotient of x (n,) at D (k,), rounded down."""
    C, B, K = J.C[0], J.B[0], J.K[0]

    def form(C: Tensor, B: Tensor, K: Tensor, D: Tensor, x: Tensor) -> float:
        return float((x @ C @ x + (x @ B * D) @ (K @ x)) / (x @ x))

    quotient = form(C, B, K, D, x)
    hidden = accumulated(3 * len(x) + len(D) + 10) * form(C.abs(), B.abs(), K.abs(), D.abs(), x.abs())
    return Attained(quotient - hidden, D, x)
