"""Adaptive Dormand-Prince 5(4) of torchdiffeq (Dormand, Prince, A family of embedded Runge-Kutta formulae, 1980)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

from robode.errors import BadInput
from robode.integrators.integrator import Integrator
from robode.ode.bounds import Scalar
from robode.ode.field import VectorField
from robode.ode.step import Step

TIGHTER = 0.01  # the tolerances of a reference solver, as a share of those of the method


class Dopri5(Integrator):
    """Adaptive Dormand-Prince 5(4) of torchdiffeq over each layer's interval. rtol, atol: its tolerances.

    The steps depend on the batch, so there is no certificate for the network that runs. They depend on values that are
    read on the host, so a training step is no graph that could be compiled or captured.
    """

    name, order = "dopri5", 5

    def __init__(self, rtol: float = 1e-5, atol: float = 1e-6):
        if not (rtol > 0 and atol > 0):
            raise BadInput(f"integrator.rtol, integrator.atol: expected positive tolerances, got {rtol} and {atol}")
        self.rtol, self.atol = rtol, atol

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        return AdaptiveStep(field, t, h, self.rtol, self.atol)

    def refined(self) -> Integrator:
        """Tolerances times `TIGHTER`."""
        return Dopri5(TIGHTER * self.rtol, TIGHTER * self.atol)


@dataclass(frozen=True)
class AdaptiveStep(Step):
    """The solution at t + h to within tolerances."""

    field: VectorField
    t: Scalar
    h: Scalar
    rtol: float
    atol: float

    def __call__(self, y: Tensor) -> Tensor:
        # h multiplies the field, so that its gradient flows where it has one
        times = torch.tensor([0.0, 1.0], dtype=y.dtype, device=y.device)
        tolerances = {"rtol": self.rtol, "atol": self.atol}
        return odeint(lambda s, z: self.h * self.field(self._at(s), z), y, times, method="dopri5", **tolerances)[-1]

    def _at(self, share: Tensor) -> Scalar:
        return self.t if self.field.autonomous else self.t + share * self.h

    def jacobian(self, y: Tensor) -> Tensor:
        """By n reverse-mode products (the adaptive loop has no forward mode)."""
        with torch.enable_grad():
            z = y.detach().requires_grad_()
            out = self(z)
            rows = [torch.autograd.grad(out[i].sum(), z, retain_graph=True)[0].T for i in range(y.shape[0])]
        return torch.stack(rows, dim=1)
