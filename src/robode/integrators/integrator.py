"""One-step methods: what turns a vector field into the steps of a network.

Euler, etd and imex are y + g(F) grad V(y) on gradient fields with three different functions g, whose values on the
modes of F are their multipliers; their steps are `Layer`s, so all three cost the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.ode.bounds import Scalar
from robode.ode.field import GradientField, Multipliers, VectorField, spectral_steps
from robode.ode.step import Chain, Step

SUBSTEPS = 4  # of a reference solver; the error of a method of order p falls by 4^p


class Integrator(ABC):
    """A fixed numerical method. Its class says what holds for its steps.

    order: of its global error. circle: if Euler with step R is nonexpansive, so is the method for h <= circle R
    (its radius of circle contractivity); 0 where that says nothing about it.
    contracts: its steps are nonexpansive where the ODE contracts, for the steps that step=auto chooses at least.
    symplectic: its steps keep the symplectic form of the Hamiltonian fields that it suits.
    twice_differentiable: gradients of its gradients are right.
    adaptive: its steps, and so its outputs, depend on the batch.
    auto_substeps: the number of its substeps follows the weights; the flow works it out.
    """

    name: str
    order: int
    circle: float = 0.0
    contracts: ClassVar[bool] = False
    symplectic: ClassVar[bool] = False
    twice_differentiable: bool = True
    adaptive: ClassVar[bool] = False
    auto_substeps: bool = False
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

    def refined(self) -> Integrator:
        """The same method with a much smaller error: `SUBSTEPS` steps in place of one."""
        return Substeps(self)


@dataclass(frozen=True)
class SolverStep(Step):
    """A step from t to t + h that evaluates its field."""

    field: VectorField
    t: Scalar
    h: Scalar


class SpectralIntegrator(Integrator):
    """y + g(F) grad V(y) on a gradient field; the methods differ in `multipliers`."""

    needs = "a model of the form F grad V (chnode, hdnn); others take euler"

    def suits(self, field: VectorField) -> bool:
        return isinstance(field, GradientField)

    @abstractmethod
    def multipliers(self, field: GradientField, h: Scalar) -> Multipliers:
        """(Re g, Im g) at lambda_k = -gamma + i omega_k for each mode k of F."""

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        assert isinstance(field, GradientField)
        return field.spectral_step(self.multipliers(field, h))

    def steps(self, fields: Sequence[VectorField], h: Scalar) -> list[Step]:
        return at_once(fields, lambda field: self.multipliers(field, h)) or super().steps(fields, h)


class Substeps(Integrator):
    """`count` steps of h/count of another method."""

    def __init__(self, method: Integrator, count: int = SUBSTEPS):
        self.inner, self.count = method, count
        self.name, self.order = f"{method.name} x {count}", method.order
        self.circle = method.circle  # the layers stay as long as they were

    def suits(self, field: VectorField) -> bool:
        return self.inner.suits(field)

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        size = h / self.count
        return repeated(lambda s: self.inner.step(field, s, size), t, size, self.count, field)


def repeated(make: Callable[[Scalar], Step], t: Scalar, h: Scalar, count: int, field: VectorField) -> Chain:
    """`count` steps of length h from t on; make gives the one that begins at a time. The same one each time where the
    field does not depend on the time."""
    return Chain([make(t)] * count if field.autonomous else [make(t + i * h) for i in range(count)])


def at_once(fields: Sequence[VectorField], multipliers: Callable[[GradientField], Multipliers]) -> list[Step] | None:
    """The step y + g(F) grad V(y) through each of gradient fields with one F, all matrices worked out together: a tenth
    of the operations. None where the fields are others.

    multipliers: of g, for a field whose c is the stack of the distinct fields'.
    """
    distinct = list({id(field): field for field in fields}.values())
    alike = [field for field in distinct if isinstance(field, GradientField) and field.has_F_of(distinct[0])]
    if not alike or len(alike) < len(distinct):
        return None
    every = replace(alike[0], c=torch.stack([as_tensor(field.c) for field in alike]))
    steps = spectral_steps(alike, multipliers(every))
    known = {id(field): step for field, step in zip(alike, steps, strict=True)}
    return [known[id(field)] for field in fields]


def as_tensor(x: Scalar) -> Tensor:
    """A number as a float64 tensor, 0-d; a tensor as it is."""
    return x if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64)
