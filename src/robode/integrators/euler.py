"""Explicit Euler, the method of the published networks, with or without substeps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from robode.errors import BadInput
from robode.integrators.integrator import Integrator, at_once, repeated
from robode.ode.bounds import Scalar
from robode.ode.field import VectorField
from robode.ode.step import Step

MAX_SUBSTEPS = 64


class Euler(Integrator):
    """y + h f(t, y), order 1. Nonexpansive on the class of potentials iff h <= h* (bounds.h_star).

    substeps: a layer is that many Euler steps of h/substeps through its field. "auto": as few as h* needs, at most
    `MAX_SUBSTEPS`; the flow works them out, as it does gamma, and runs the method with that number, which it has to
    read from the device.
    """

    name, order, contracts = "euler", 1, True

    def __init__(self, substeps: int | str = 1):
        if substeps != "auto" and not (type(substeps) is int and substeps >= 1):
            raise BadInput(f"integrator.substeps: expected auto or a whole number >= 1, got {substeps}")
        self.auto_substeps = substeps == "auto"
        self.substeps = MAX_SUBSTEPS if isinstance(substeps, str) else substeps
        self.circle = float(self.substeps)

    def check(self, field: VectorField) -> None:
        if self.auto_substeps:
            raise BadInput("integrator.substeps: expected a whole number (auto needs chnode and its h*), got auto")

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        if self.substeps == 1:
            return field.euler(t, h)
        return repeated(lambda s: field.euler(s, h / self.substeps), t, h / self.substeps, self.substeps, field)

    def steps(self, fields: Sequence[VectorField], h: Scalar) -> list[Step]:
        together = at_once(fields, lambda field: field.euler_multipliers(h)) if self.substeps == 1 else None
        return together or super().steps(fields, h)

    @staticmethod
    def enough(reach: Tensor) -> Tensor:
        """The fewest substeps for steps that reach so many times as far as the longest that is allowed; `MAX_SUBSTEPS`
        where those do not do, and where diverged weights leave no number. Any shape, float -> the same."""
        return reach.ceil().nan_to_num(MAX_SUBSTEPS).clamp(1, MAX_SUBSTEPS)
