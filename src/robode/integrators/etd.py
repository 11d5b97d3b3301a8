"""Centred exponential time differencing, for gradient fields (Cox and Matthews, Exponential time differencing for stiff
systems, 2002, ETD1; here about c F instead of a given linear part)."""

from __future__ import annotations

import torch

from robode.integrators.integrator import SpectralIntegrator, as_tensor
from robode.ode.bounds import Scalar
from robode.ode.field import GradientField, Multipliers


class ETD(SpectralIntegrator):
    """Centred exponential Euler, order 1: y + (1/c)(exp(hcF) - I) grad V(y).

    Nonexpansive, for any h, exactly when gamma >= gamma_min (docs/theory.md, section 8). Not the exponential Euler
    that splits off kappa alone: the linear part is c F with c the centre of the Hessian's range.
    """

    name, order, contracts = "etd", 1, True

    def multipliers(self, field: GradientField, h: Scalar) -> Multipliers:
        c, hc = field.c, as_tensor(h * field.c)
        x = hc * field.gamma
        decay, shrink = torch.exp(-x), torch.expm1(-x)
        turns = [hc * omega for omega in field.skew.omegas]
        # e^-x cos a - 1 without cancellation for small steps
        return [((shrink - 2 * decay * torch.sin(a / 2) ** 2) / c, decay * torch.sin(a) / c) for a in turns]
