"""One-step methods: what turns a vector field into the steps of a network.

Euler, etd and imex are y + g(F) grad V(y) on gradient fields with three different functions g; their steps are
`Layer`s, so all three cost the same.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.ode.bounds import Scalar
from robode.ode.field import Gains, GradientField, VectorField
from robode.ode.step import Chain, Step

MAX_SUBSTEPS = 64


class Integrator(ABC):
    """A fixed numerical method.

    order: of its global error. circle: if Euler with step R does not expand, neither does the method for h <= circle R
    (its radius of circle contractivity); 0 where that says nothing about it.
    """

    name: str
    order: int
    circle: float = 0.0
    needs = "any field"

    def suits(self, field: VectorField) -> bool:
        """Whether the method makes sense on this field."""
        return True

    def check(self, field: VectorField) -> None:
        """Raises `BadInput` unless the method suits the field."""
        if not self.suits(field):
            raise BadInput(f"integrator={self.name}: expected {self.needs}")

    @abstractmethod
    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        """The step from t to t + h through the field."""

    def steps(self, fields: Sequence[VectorField], h: Scalar) -> list[Step]:
        """One step of h through each field in turn, from t = 0 on; those through one field are the same step where time
        plays no part."""
        known: dict[int, Step] = {}
        found = []
        for j, field in enumerate(fields):
            if id(field) not in known or not field.autonomous:
                known[id(field)] = self.step(field, j * h, h)
            found.append(known[id(field)])
        return found


class GainIntegrator(Integrator):
    """y + g(F) grad V(y) on a gradient field; the methods differ in `gains`, the values of g on the modes of F."""

    needs = "a model of the form F grad V (chnode, hdnn); others take euler"

    def suits(self, field: VectorField) -> bool:
        return isinstance(field, GradientField)

    @abstractmethod
    def gains(self, field: GradientField, h: Scalar) -> Gains:
        """(Re g, Im g) at lambda_k = -gamma + i omega_k for each mode k of F."""

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        assert isinstance(field, GradientField)
        return field.gain_step(self.gains(field, h))

    def steps(self, fields: Sequence[VectorField], h: Scalar) -> list[Step]:
        distinct = alike(fields)
        if distinct is None:
            return super().steps(fields, h)
        every = replace(distinct[0], c=torch.stack([_scalar(field.c) for field in distinct]))
        return gain_steps(fields, distinct, self.gains(every, h))


class Euler(Integrator):
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
        self.circle = float(self.substeps)

    def check(self, field: VectorField) -> None:
        if self.adaptive:
            raise BadInput("integrator.substeps: expected a whole number (auto needs chnode and its h*), got auto")

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        if self.substeps == 1:
            return field.euler(t, h)
        return repeated(lambda s: field.euler(s, h / self.substeps), t, h / self.substeps, self.substeps, field)

    def steps(self, fields: Sequence[VectorField], h: Scalar) -> list[Step]:
        distinct = alike(fields) if self.substeps == 1 else None
        if distinct is None:
            return super().steps(fields, h)
        return gain_steps(fields, distinct, distinct[0].euler_gains(h))

    @staticmethod
    def enough(h: float, limit: float) -> int:
        """The fewest substeps of h within `limit`, the longest one; `MAX_SUBSTEPS` where those do not do, and where
        diverged weights leave no number."""
        return max(math.ceil(h / limit), 1) if h < MAX_SUBSTEPS * limit else MAX_SUBSTEPS


class ETD(GainIntegrator):
    """Centred exponential Euler, order 1: y + (1/c)(exp(hcF) - I) grad V(y).

    Never expands, for any h, exactly when gamma >= gamma_min (docs/theory.md, section 8). Not the exponential Euler
    that splits off kappa alone: the linear part is c F with c the centre of the Hessian's range.
    """

    name, order = "etd", 1

    def gains(self, field: GradientField, h: Scalar) -> Gains:
        c, hc = field.c, _scalar(h * field.c)
        x = hc * field.gamma
        decay, shrink = torch.exp(-x), torch.expm1(-x)
        turns = [hc * omega for omega in field.skew.omegas]
        # e^-x cos a - 1 without cancellation for small steps
        return [((shrink - 2 * decay * torch.sin(a / 2) ** 2) / c, decay * torch.sin(a) / c) for a in turns]


class IMEX(GainIntegrator):
    """Centred implicit-explicit Euler, order 1: (I - hcF)(y+ - y) = h F grad V(y).

    Linearly implicit in c F, solved in closed form mode by mode. Never expands, for any h, exactly when
    gamma >= gamma_min (docs/theory.md, section 8).
    """

    name, order = "imex", 1

    def gains(self, field: GradientField, h: Scalar) -> Gains:
        c, x = field.c, h * field.c * field.gamma
        gains: list[tuple[Scalar, Scalar]] = []
        for omega in field.skew.omegas:
            theta = h * c * omega
            D = (1 + x) ** 2 + theta**2
            gains.append((-h * (field.gamma * (1 + x) + theta * omega) / D, h * omega / D))
        return gains


class SymplecticEuler(Integrator):
    """q first, then p with the new q, order 1; symplectic on separable Hamiltonians (H2 of H-DNN)."""

    name, order = "symplectic_euler", 1

    needs = "a separable Hamiltonian (model=hdnn model.separable=true)"

    def suits(self, field: VectorField) -> bool:
        return isinstance(field, GradientField) and field.partitioned

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        assert isinstance(field, GradientField)
        G = h * field.F
        half = G.shape[-1] // 2
        upper = torch.cat([G[:half], torch.zeros_like(G[half:])])
        return Chain([field.through(upper), field.through(G - upper)])


def alike(fields: Sequence[VectorField]) -> list[GradientField] | None:
    """The distinct ones of gradient fields with one J and one gamma; None where they are others."""
    distinct = [field for field in {id(field): field for field in fields}.values() if isinstance(field, GradientField)]
    same = all(field.skew is distinct[0].skew and field.gamma is distinct[0].gamma for field in distinct)
    return distinct if distinct and same and all(isinstance(field, GradientField) for field in fields) else None


def gain_steps(fields: Sequence[VectorField], distinct: Sequence[GradientField], gains: Gains) -> list[Step]:
    """A step y + g(F) grad V(y) through each field, with the matrices of all of them worked out at once: a tenth of the
    operations. gains: numbers for all fields, or tensors with one entry for each of the distinct ones."""
    G = distinct[0].skew.function(list(gains), distinct[0].K.dtype)
    matrices = G.unbind(0) if G.dim() > 2 else [G] * len(distinct)
    pairs = enumerate(zip(distinct, matrices, strict=True))
    known = {id(field): field.gain_step_of(matrix, gains, j) for j, (field, matrix) in pairs}
    return [known[id(field)] for field in fields]


def repeated(make: Callable[[Scalar], Step], t: Scalar, h: Scalar, count: int, field: VectorField) -> Chain:
    """`count` steps of length h from t on; make gives the one that begins at a time. The same one each time where the
    field does not depend on the time."""
    return Chain([make(t)] * count if field.autonomous else [make(t + i * h) for i in range(count)])


def _scalar(x: Scalar) -> Tensor:
    return x if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64)
