"""Explicit one-step methods: what turns a vector field into the layers of a network.

An integrator is a `step` and two statements about it: the exact `jacobian` at each state, and `lipschitz`, a certified
Lipschitz constant of the step over all states. Euler, etd and imex are y + g(F) grad V(y) on gradient fields with three
different functions g; their steps are `Layer`s, so all three cost the same.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.ode import bounds
from robode.ode.bounds import Scalar
from robode.ode.layer import Layer
from robode.ode.vector_field import GradientField, VectorField

Gains = list[tuple[Scalar, Scalar]]

MAX_SUBSTEPS = 64


class Integrator(ABC):
    """One step of size h of a fixed numerical method. States are columns, y: (n, M)."""

    name: str
    order: int
    needs = "any field"

    def suits(self, field: VectorField) -> bool:
        """Whether the method makes sense on this field."""
        return True

    def check(self, field: VectorField) -> None:
        """Raises `BadInput` unless the method suits the field."""
        if not self.suits(field):
            raise BadInput(f"integrator={self.name}: expected {self.needs}")

    def step_limit(self, m: Scalar, M: Scalar, gamma: Scalar, omega: float) -> Scalar:
        """Largest step that step=auto may take for m I <= Hess V <= M I; inf if the method sets no such limit."""
        return math.inf

    @abstractmethod
    def step(self, field: VectorField, t: float, h: Scalar, y: Tensor, u: Tensor | None = None) -> Tensor:
        """phi(y) at t + h. y: (n, M) -> (n, M)."""

    @abstractmethod
    def jacobian(self, field: VectorField, t: float, h: Scalar, y: Tensor) -> Tensor:
        """Exact d phi / d y at each column. y: (n, M) -> (M, n, n)."""

    @abstractmethod
    def lipschitz(self, field: VectorField, h: float) -> float:
        """Certified Lipschitz constant of the step over all states; inf where there is none."""


class LayerIntegrator(Integrator):
    """A method whose step is a chain of `Layer`s (one for all but symplectic Euler)."""

    @abstractmethod
    def layers(self, field: VectorField, h: Scalar) -> list[Layer]:
        """The layers that the step applies, first to last; empty if the field is not made of such layers."""

    def step(self, field: VectorField, t: float, h: Scalar, y: Tensor, u: Tensor | None = None) -> Tensor:
        for layer in self.layers(field, h):
            y = layer(y)
        return y

    def jacobian(self, field: VectorField, t: float, h: Scalar, y: Tensor) -> Tensor:
        layers = self.layers(field, h)
        product = layers[0].jacobian(y)
        for before, layer in pairwise(layers):
            y = before(y)
            product = layer.jacobian(y) @ product
        return product

    def lipschitz(self, field: VectorField, h: float) -> float:
        return math.prod(layer.lipschitz() for layer in self.layers(field, h))


class GainIntegrator(LayerIntegrator):
    """y + g(F) grad V(y) on a gradient field; the methods differ in `gains`, the values of g on the modes of F."""

    needs = "a model of the form F grad V (chnode, hdnn); others take euler"

    def suits(self, field: VectorField) -> bool:
        return isinstance(field, GradientField)

    @abstractmethod
    def gains(self, field: GradientField, h: Scalar) -> Gains:
        """(Re g, Im g) at lambda_k = -gamma + i omega_k for each mode k of F."""

    def layers(self, field: VectorField, h: Scalar) -> list[Layer]:
        assert isinstance(field, GradientField)
        return [field.layer(field.skew.function(self.gains(field, h), field.K.dtype))]

    def lipschitz(self, field: VectorField, h: float) -> float:
        """The better of the exact bound over all slopes and the class bound over all potentials."""
        assert isinstance(field, GradientField)
        gains = [complex(float(re), float(im)) for re, im in self.gains(field, h)]
        return min(super().lipschitz(field, h), field.step_bound(gains))


class Euler(GainIntegrator):
    """Explicit Euler, order 1. Nonexpansive on the class of potentials iff h <= h* (bounds.h_star).

    substeps: a layer is that many Euler steps of h/substeps through its field. "auto": as few as h* needs, at most
    `MAX_SUBSTEPS`; the flow works them out, as it does gamma, and runs the method with that number.
    """

    name, order = "euler", 1

    def __init__(self, substeps: int | str = 1):
        if substeps != "auto" and not (type(substeps) is int and substeps >= 1):
            raise BadInput(f"integrator.substeps: expected auto or a whole number >= 1, got {substeps}")
        self.adaptive = substeps == "auto"
        self.substeps = MAX_SUBSTEPS if isinstance(substeps, str) else substeps

    def suits(self, field: VectorField) -> bool:
        return True

    def check(self, field: VectorField) -> None:
        if self.adaptive:
            raise BadInput("integrator.substeps: expected a whole number (auto needs chnode and its h*), got auto")

    def step_limit(self, m: Scalar, M: Scalar, gamma: Scalar, omega: float) -> Scalar:
        """Just inside h* with every substep: on the edge itself rounding would decide."""
        return self.substeps * 0.999 * bounds.h_star(m, M, gamma, omega)

    def gains(self, field: GradientField, h: Scalar) -> Gains:
        return [(-h * field.gamma, h * omega) for omega in field.skew.omegas]

    def layers(self, field: VectorField, h: Scalar) -> list[Layer]:
        """The same layer `substeps` times."""
        if isinstance(field, GradientField):
            return super().layers(field, h / self.substeps) * self.substeps
        layer = field.euler_layer(h / self.substeps)  # type: ignore[arg-type]
        return [layer] * self.substeps if layer else []

    def step(self, field: VectorField, t: float, h: Scalar, y: Tensor, u: Tensor | None = None) -> Tensor:
        layers = self.layers(field, h)
        for layer in layers:
            y = layer(y)
        size = h / self.substeps
        for i in range(0 if layers else self.substeps):
            y = y + size * field(t + i * bounds.value(size), y, u)
        return y

    def jacobian(self, field: VectorField, t: float, h: Scalar, y: Tensor) -> Tensor:
        if self.layers(field, h):
            return super().jacobian(field, t, h, y)
        size = h / self.substeps
        product = eye = torch.eye(y.shape[-2], dtype=y.dtype, device=y.device)
        for i in range(self.substeps):
            product = (eye + size * field.jacobian(t + i * bounds.value(size), y)) @ product
            y = y + size * field(t + i * bounds.value(size), y)
        return product

    def lipschitz(self, field: VectorField, h: float) -> float:
        """The product of the substeps' certified constants."""
        if self.substeps == 1 and isinstance(field, GradientField):
            return super().lipschitz(field, h)
        return math.prod([field.euler_lipschitz(h / self.substeps)] * self.substeps)

    @staticmethod
    def enough(h: float, limit: float) -> int:
        """The fewest substeps of h within `limit`, the `step_limit` of one; `MAX_SUBSTEPS` where those do not do."""
        return MAX_SUBSTEPS if h >= MAX_SUBSTEPS * limit else max(math.ceil(h / limit), 1)


class ETD(GainIntegrator):
    """Centred exponential Euler, order 1: y + (1/c)(exp(hcF) - I) grad V(y).

    Never expands, for any h, exactly when gamma >= gamma_min (specs, step-size theory 8.4 d). Not the exponential
    Euler that splits off kappa alone: the linear part is c F with c the centre of the Hessian's range.
    """

    name, order = "etd", 1

    def gains(self, field: GradientField, h: Scalar) -> Gains:
        c, x = field.c, h * field.c * field.gamma
        if isinstance(x, Tensor):
            angles = [torch.as_tensor(h * c * omega) for omega in field.skew.omegas]
            return [((torch.exp(-x) * a.cos() - 1) / c, torch.exp(-x) * a.sin() / c) for a in angles]
        # e^-x cos a - 1 without cancellation for small steps
        decay, turns = math.exp(-x), [float(h * c * omega) for omega in field.skew.omegas]
        return [((math.expm1(-x) - 2 * decay * math.sin(a / 2) ** 2) / c, decay * math.sin(a) / c) for a in turns]


class IMEX(GainIntegrator):
    """Centred implicit-explicit Euler, order 1: (I - hcF)(y+ - y) = h F grad V(y).

    Linearly implicit in c F, solved in closed form mode by mode. Never expands, for any h, exactly when
    gamma >= gamma_min (8.4 e).
    """

    name, order = "imex", 1

    def gains(self, field: GradientField, h: Scalar) -> Gains:
        c, x = field.c, h * field.c * field.gamma
        gains: Gains = []
        for omega in field.skew.omegas:
            theta = h * c * omega
            D = (1 + x) ** 2 + theta**2
            gains.append((-h * (field.gamma * (1 + x) + theta * omega) / D, h * omega / D))
        return gains


class SymplecticEuler(LayerIntegrator):
    """q first, then p with the new q, order 1; symplectic on separable Hamiltonians (H2 of H-DNN)."""

    name, order = "symplectic_euler", 1

    needs = "a separable Hamiltonian (model=hdnn model.separable=true)"

    def suits(self, field: VectorField) -> bool:
        return isinstance(field, GradientField) and field.partitioned

    def layers(self, field: VectorField, h: Scalar) -> list[Layer]:
        assert isinstance(field, GradientField)
        G = h * field.F
        upper = torch.zeros_like(G)
        half = G.shape[-1] // 2
        upper[..., :half, :] = G[..., :half, :]
        return [field.layer(upper), field.layer(G - upper)]
