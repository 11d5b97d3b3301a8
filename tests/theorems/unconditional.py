"""Random problems for the integrators that must be nonexpansive, each with its worst potential."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from problems import KINDS, eye, field_with_hessian, norm2, skew_matrix, smallest_gamma, worst_hessian
from torch import Tensor

from robode.integrators.integrator import SpectralIntegrator
from robode.linalg.skew import Skew
from robode.ode import bounds

RATIOS = (1.0, 1.001, 1.5, 3.0)


@dataclass(frozen=True)
class Problem:
    """m I <= Hess V <= M I, F = J - gamma I, step h, centre c."""

    m: float
    M: float
    J: Tensor
    gamma: float
    h: float
    c: float

    def attack(self, integrator: SpectralIntegrator) -> tuple[float, float, float]:
        """(bound over the class, certificate of the worst field, its measured Jacobian norm)."""
        n = self.J.shape[0]
        flat = field_with_hessian(self.c * eye(n), self.m, self.J, self.gamma, self.c)
        multipliers = [complex(float(re), float(im)) for re, im in integrator.multipliers(flat, self.h)]
        bound = bounds.one_step_lipschitz(self.m, self.M, multipliers)
        G = Skew(self.J).function(integrator.multipliers(flat, self.h), torch.float64)
        S = worst_hessian(self.m, self.M, G, iterations=100)
        field = field_with_hessian(S, self.m, self.J, self.gamma, self.c)
        jacobian = integrator.step(field, 0.0, self.h).jacobian(torch.zeros(n, 1, dtype=torch.float64))
        return bound, integrator.step(field, 0.0, self.h).lipschitz(), norm2(jacobian)


def problems(ratio: float, count: int, kinds: tuple[str, ...] = KINDS) -> Iterator[Problem]:
    """gamma = ratio * gamma_min, h c rho from 1e-3 to 1e4, M/m from 1.5 to 1e5, widths 2 to 8 (odd too)."""
    draw = random.Random(f"{ratio} {count}")
    for i in range(count):
        kind = kinds[i % len(kinds)]
        n = draw.choice((2, 4, 8)) if kind == "canonical" else draw.randint(2, 8)
        J = skew_matrix(kind, n, seed=i)
        m = 10 ** draw.uniform(-4, 1)
        M = m * 1.5 * 10 ** draw.uniform(0, 4.8)
        gamma, c = ratio * smallest_gamma(m, M, J), 0.5 * (m + M)
        h = 10 ** draw.uniform(-3, 4) / (c * math.hypot(gamma, norm2(J)))
        yield Problem(m, M, J, gamma, h, c)
