"""Vanilla neural ODE: one time-invariant field for all steps.  (CH-NODE paper, Fig. 1: an MLP 2-64-64-2 with tanh)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from torch import Tensor, nn

from robode.errors import BadInput
from robode.integrators.integrator import Integrator
from robode.linalg.activations import Activation, named_activation
from robode.linalg.norms import largest_eigenvalue
from robode.ode.bounds import Scalar
from robode.ode.enclosure import Enclosure
from robode.ode.field import OneLayerField, VectorField
from robode.ode.flow import Flow
from robode.ode.layer import affine
from robode.ode.step import identity_like


@dataclass(frozen=True)
class MLPField(VectorField):
    """f(y) = W_k sigma(... sigma(W_1 y + b_1) ...) + b_k, linear last layer. W_i: (out, in), b_i: (out, 1)."""

    weights: Sequence[Tensor]
    biases: Sequence[Tensor]
    activation: Activation

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        for W, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            y = self.activation(affine(b, W, y))
        return affine(self.biases[-1], self.weights[-1], y)

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        n, M = y.shape
        product = identity_like(y)[:, None].expand(n, M, n).flatten(-2)  # rows of all Jacobians side by side: (n, M n)
        for W, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z = affine(b, W, y)
            product = self.activation.derivative(z).repeat_interleave(n, -1) * (W @ product)
            y = self.activation(z)
        return (self.weights[-1] @ product).view(-1, M, n).movedim(-3, -2)

    def lipschitz(self) -> float:
        """S^(k-1) prod ||W_i||, certified and loose."""
        return self._lipschitz

    @cached_property
    def _lipschitz(self) -> float:
        norms = [float(largest_eigenvalue(W).sqrt()) for W in self.weights]
        return self.activation.slope_bound ** (len(norms) - 1) * math.prod(norms)

    def enclose(self, z: Enclosure) -> Enclosure:
        for W, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z = z.linear(W, b).activated(self.activation)
        return z.linear(self.weights[-1], self.biases[-1])


class Node(Flow):
    """hidden: widths of the field's hidden layers; [] is the one-layer field sigma(K y + b).

    Weights as torch.nn.Linear initialises them. step="auto" is h = 0.05 (Fig. 1: T = 0.5 in ten steps).
    Property: none by design.
    """

    default_step = 0.05

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        activation: str = "tanh",
        hidden: Sequence[int] = (64, 64),
    ):
        super().__init__(width, depth, integrator, step, horizon)
        if any(size < 1 for size in hidden):
            raise BadInput(f"model.hidden: expected widths >= 1, got {list(hidden)}")
        self.activation = named_activation(activation)
        sizes = [width, *hidden, width]
        linears = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.W = nn.ParameterList([linear.weight for linear in linears])
        self.b = nn.ParameterList([linear.bias.detach()[:, None] for linear in linears])
        self.integrator.check(self.fields()[0])

    def fields(self, context: Tensor | None = None) -> list[VectorField]:
        W, b = list(self.W), list(self.b)
        one = len(W) == 1
        field: VectorField = OneLayerField(W[0], b[0], self.activation) if one else MLPField(W, b, self.activation)
        return [field] * self.depth
