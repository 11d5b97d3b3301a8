"""Shears of phase space: states y = (q, p), of which one half moves along a gradient at the other half.

q+ = q + grad U(p) or p+ = p - grad V(q), U and V any functions, are symplectic: their Jacobian is I plus a symmetric
block M off the diagonal. They are undone by the opposite move, exactly. The norm of the Jacobian is
(m + sqrt(m^2 + 4))/2, m = ||M||, so Lipschitz constants are as sharp as the largest ||M|| is (docs/theory.md,
section 24). (Jin et al., SympNets, Neural Networks 132, 2020)
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from robode.linalg.activations import Activation
from robode.linalg.norms import ROUNDING
from robode.ode.enclosure import Enclosure
from robode.ode.layer import affine, weighted_products
from robode.ode.step import Step, identity_like


@dataclass(frozen=True)
class Shear(Step):
    """upper: q moves, by the gradient at p; else p moves, by minus the gradient at q. States: (2 d, M)."""

    upper: bool

    @abstractmethod
    def gradient(self, z: Tensor) -> Tensor:
        """By how much the half moves that does, (d, M), where the other half is z (d, M)."""

    @abstractmethod
    def hessian(self, z: Tensor) -> Tensor:
        """Its Jacobian M, symmetric: (d, M) -> (M, d, d)."""

    @abstractmethod
    def steepest(self) -> float:
        """Certified bound of ||M|| over all states."""

    @abstractmethod
    def push(self, z: Enclosure) -> Enclosure:
        """By how much the whole state moves, on every box."""

    def __call__(self, y: Tensor) -> Tensor:
        return self._moved(y, 1.0)

    def inverse(self, y: Tensor) -> Tensor:
        return self._moved(y, -1.0)

    def _moved(self, y: Tensor, sign: float) -> Tensor:
        q, p = y.chunk(2)
        if self.upper:
            return torch.cat([q + sign * self.gradient(p), p])
        return torch.cat([q, p - sign * self.gradient(q)])

    def jacobian(self, y: Tensor) -> Tensor:
        q, p = y.chunk(2)
        d = len(q)
        found = identity_like(y).repeat(y.shape[1], 1, 1)
        if self.upper:
            found[:, :d, d:] = self.hessian(p)
        else:
            found[:, d:, :d] = -self.hessian(q)
        return found

    def looking(self, K: Tensor) -> Tensor:
        """K z of the half z that stays, as a matrix of the whole state: (k, d) -> (k, 2 d)."""
        return torch.cat([torch.zeros_like(K), K] if self.upper else [K, torch.zeros_like(K)], dim=1)

    def moving(self, W: Tensor) -> Tensor:
        """By how much the whole state moves where its half does by W: (d, k) -> (2 d, k)."""
        return torch.cat([W, torch.zeros_like(W)] if self.upper else [torch.zeros_like(W), -W])

    def lipschitz(self) -> float:
        m = self.steepest()
        return 0.5 * (m + math.sqrt(m * m + 4)) * ROUNDING

    def enclose(self, z: Enclosure) -> Enclosure:
        return (z + self.push(z)).absorbed()


@dataclass(frozen=True)
class LinearShear(Shear):
    """The gradient S z + b, S (d, d) symmetric, b (d, 1)."""

    S: Tensor
    b: Tensor

    def gradient(self, z: Tensor) -> Tensor:
        return affine(self.b, self.S, z)

    def hessian(self, z: Tensor) -> Tensor:
        return self.S.expand(z.shape[1], *self.S.shape)

    def steepest(self) -> float:
        """||S||, exact."""
        return float(torch.linalg.eigvalsh(self.S.detach().double()).abs().max())

    def push(self, z: Enclosure) -> Enclosure:
        S, b = self.S.double(), self.b.double()
        return z.linear(self.moving(self.looking(S)), self.moving(b))


@dataclass(frozen=True)
class RidgeShear(Shear):
    """The gradient K^T (w * sigma(K z + b)) of a sum of ridge functions. K: (k, d); w, b: (k, 1); b may be (k, M), one
    for each of M states."""

    K: Tensor
    w: Tensor
    b: Tensor
    activation: Activation

    def gradient(self, z: Tensor) -> Tensor:
        return self.K.mT @ (self.w * self.activation(affine(self.b, self.K, z)))

    def hessian(self, z: Tensor) -> Tensor:
        D = self.activation.derivative(affine(self.b, self.K, z))
        return weighted_products(self.K.mT, self.w * D, self.K)

    def steepest(self) -> float:
        """max over slopes D of ||K^T diag(w D) K||: its largest eigenvalue grows and its smallest one falls with w D,
        entry by entry, so both ends are attained at a corner that is known, for any number k of neurons."""
        K, w = self.K.detach().double(), self.w.detach().double()
        ends = torch.stack([w * slope for slope in self.activation.slopes])
        most, least = (K.mT @ (end * K) for end in (ends.amax(0), ends.amin(0)))
        top, bottom = torch.linalg.eigvalsh(most)[-1], torch.linalg.eigvalsh(least)[0]
        rounding = (ROUNDING - 1) * float((K.abs().mT @ (ends.abs().amax(0) * K.abs())).sum())
        return max(float(top), -float(bottom)) + rounding

    def push(self, z: Enclosure) -> Enclosure:
        K, w, b = (each.double() for each in (self.K, self.w, self.b))
        inner = z.linear(self.looking(K), b).activated(self.activation)
        return inner.linear(self.moving(K.mT * w.mT))
