"""Centred implicit-explicit Euler, for gradient fields (Ascher, Ruuth and Wetton, Implicit-explicit methods for
time-dependent partial differential equations, 1995; here implicit in c F)."""

from __future__ import annotations

from robode.integrators.integrator import SpectralIntegrator
from robode.ode.bounds import Scalar
from robode.ode.field import GradientField, Multipliers


class IMEX(SpectralIntegrator):
    """Centred implicit-explicit Euler, order 1: (I - hcF)(y+ - y) = h F grad V(y).

    Linearly implicit in c F, solved in closed form mode by mode. Nonexpansive, for any h, exactly when
    gamma >= gamma_min (docs/theory.md, section 8).
    """

    name, order, contracts = "imex", 1, True

    def multipliers(self, field: GradientField, h: Scalar) -> Multipliers:
        c, x = field.c, h * field.c * field.gamma
        found: list[tuple[Scalar, Scalar]] = []
        for omega in field.skew.omegas:
            theta = h * c * omega
            D = (1 + x) ** 2 + theta**2
            found.append((-h * (field.gamma * (1 + x) + theta * omega) / D, h * omega / D))
        return found
