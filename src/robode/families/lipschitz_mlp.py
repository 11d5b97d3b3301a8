"""The baseline of 1-Lipschitz networks: orthogonal matrices and an activation that sorts pairs (Anil et al. 2019).

Sorting is a gradient layer too: (max, min)(z) = z - 2 P^T relu(P z), where the orthonormal rows of P take the
differences (z_2i+1 - z_2i)/sqrt 2 of neighbours. So this is `gradient_flow` with the same W for all layers, P, and a
turn in front of each; with other activations in place of relu it stays non-expansive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.families.gradient_flow import NonexpansiveFlow
from robode.integrators.integrator import Integrator
from robode.linalg.activations import Activation
from robode.linalg.norms import largest_eigenvalue
from robode.ode.bounds import Scalar
from robode.ode.field import VectorField


@dataclass(frozen=True)
class SortingField(VectorField):
    """f(y) = phi(y) - y with phi(y) = z - (2/S) P^T sigma(P z + b), z = Q y. Q: (n, n), n even; b: (n/2, 1)."""

    Q: Tensor
    b: Tensor
    activation: Activation

    def differences(self, z: Tensor) -> Tensor:
        """P z + b. z: (n, M) -> (n/2, M)."""
        return torch.add(self.b, z[1::2] - z[::2], alpha=math.sqrt(0.5))

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        z = self.Q @ y
        moved = math.sqrt(2) / self.activation.slope_bound * self.activation(self.differences(z))
        return torch.stack((z[::2] + moved, z[1::2] - moved), dim=1).flatten(0, 1) - y

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        D = self.activation.derivative(self.differences(self.Q @ y)) / self.activation.slope_bound
        rows = D.mT[..., None] * (self.Q[1::2] - self.Q[::2])
        turned = self.Q.expand(len(rows), *self.Q.shape).clone()
        turned[:, ::2] += rows
        turned[:, 1::2] -= rows
        return turned - torch.eye(len(self.Q), dtype=y.dtype, device=y.device)

    def norm(self) -> float:
        """||phi'|| <= ||Q||, certified: I - (2/S) P^T D P has its spectrum in [-1, 1]."""
        return math.sqrt(float(largest_eigenvalue(self.Q)))

    def lognorm(self) -> float:
        """At most ||phi'|| - 1."""
        return self.norm() - 1

    def lipschitz(self) -> float:
        return 1 + self.norm()

    def euler_lipschitz(self, h: float) -> float:
        """Of (1 - h) y + h phi(y)."""
        return abs(1 - h) + h * self.norm()


class LipschitzMLP(NonexpansiveFlow):
    """N layers y -> (max, min)(Q_j y) on neighbouring pairs, Q_j orthogonal; the threshold of each pair is learned.

    activation: relu sorts; others take its place in z - (2/S) P^T sigma(P z + b). step: h < 1 is the mean of a layer
    and the identity, (1 - h) y + h phi(y); auto is 1. Property: every layer is nonexpansive, at any iterate.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        activation: str = "relu",
    ):
        super().__init__(width, depth, integrator, step, horizon, activation=activation)
        if self.width % 2:
            raise BadInput(f"model.width: expected an even number, entries are sorted in pairs, got {self.width}")
        self.limit_step(1.0)
        self.start(self.width, biases=self.width // 2)
        self.project_()

    def fields(self, context: Tensor | None = None) -> list[SortingField]:
        layers = zip(self.W.unbind(0), self.b.unbind(0), strict=True)
        return [SortingField(Q, c, self.activation) for Q, c in layers]
