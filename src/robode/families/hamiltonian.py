"""x' = (J - gamma I) grad H(x), the family of CH-NODE and H-DNN.  (CH-NODE paper, Eq. 7 to 12 with F constant)

H_j(x) = 1^T sigma~(K_j x + b_j) + x^T (L_j^T L_j + kappa I) x / 2. One gamma serves all layers (c1, c2 are inf and sup
over time); the centre c_j about which etd and imex linearise is each layer's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from robode.families.gamma import contraction
from robode.families.layered import LayeredFlow, LayeredKeys
from robode.integrators.etd import ETD
from robode.integrators.integrator import Integrator
from robode.linalg.norms import gram_norm_squared, largest_eigenvalue, smallest_eigenvalue
from robode.linalg.skew import skew
from robode.ode.field import GradientField

ACTIVE_J = 0.05  # exp(-h c gamma) below this: an etd step is a gradient step and J plays no part


def centre(m: Tensor, M: Tensor) -> Tensor:
    """c = (m + M)/2, where etd and imex linearise; any positive number is valid, and they divide by it."""
    return (0.5 * (m + M)).clamp_min(1e-12)


@dataclass(frozen=True)
class Rates:
    """What follows the weights, float64 tensors that may carry gradients: gamma and h, 0-d; the centres c (sets,)."""

    gamma: Tensor
    h: Tensor
    c: Tensor


class HamiltonianKeys(LayeredKeys, total=False):
    """Keys of `HamiltonianFlow` that its families hand on as they are."""

    init_std: float
    J: str
    J_file: str | None
    trainable_L: bool


class HamiltonianFlow(LayeredFlow):
    """Common to CHNode and HDNN: parameters, Hessian bounds, and fields bound to the current gamma, h and c."""

    gamma: Tensor
    kappa: Tensor
    c: Tensor
    partitioned = False

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        init_std: float = 1.0,
        J: str = "canonical",
        J_file: str | None = None,
        trainable_L: bool = False,
        **keys: Unpack[LayeredKeys],
    ):
        super().__init__(width, depth, integrator, step, horizon, init_std=init_std, **keys)
        sets = self.K.shape[0]
        self.skew = skew(J, width, J_file)
        self.L = nn.Parameter(0.1 * init_std * torch.randn(sets, width, width)) if trainable_L else None
        zero = torch.zeros((), dtype=torch.float64)
        self.register_buffer("gamma", zero.clone())
        self.register_buffer("kappa", zero.clone())
        self.register_buffer("c", torch.ones(sets, dtype=torch.float64))

    def hessian_bounds(self, differentiable: bool = False) -> tuple[Tensor, Tensor]:
        """Certified m_j, M_j with m_j I <= Hess H_j <= M_j I (Eq. 15), (sets,) float64 each.

        differentiable: upper bounds by Gram iteration, and m_j = kappa (the part of L is not differentiated).
        """
        S, kappa = self.activation.slope_bound, self.kappa
        norm = gram_norm_squared if differentiable else largest_eigenvalue
        M = S * norm(self.weights()) + kappa
        m = kappa.expand_as(M)
        if self.L is not None:
            M = M + norm(self.L)
            m = m if differentiable else m + smallest_eigenvalue(self.L)
        return m, M

    def quadratic(self) -> Tensor:
        """Q_j = L_j^T L_j + kappa I, (sets, n, n)."""
        eye = torch.eye(self.width, dtype=self.K.dtype, device=self.K.device).expand_as(self.K)
        Q = self.kappa.to(self.K.dtype)[..., None, None] * eye
        return Q if self.L is None else Q + self.L.mT @ self.L

    def rates(self) -> Rates:
        """gamma, h and c for the next forward pass: the stored ones."""
        return Rates(self.gamma, self.h, self.c)

    def bind(self, context: Tensor | None = None) -> tuple[list[GradientField], Tensor]:
        rates = self.rates()
        sets = zip(self.weights(), self.biases(), self.quadratic(), rates.c, strict=True)
        fields = [
            GradientField(self.skew, rates.gamma, K, b, Q, self.activation, c, self.partitioned) for K, b, Q, c in sets
        ]
        return self.each_step(fields), rates.h

    def fields(self, context: Tensor | None = None) -> list[GradientField]:
        return self.bind(context)[0]

    @torch.no_grad()
    def project_(self) -> None:
        """Re-centres etd and imex on the current Hessian bounds; subclasses also choose gamma and h. Idempotent."""
        self.project_weights_()
        self.c.copy_(centre(*self.hessian_bounds()))

    def properties(self) -> dict[str, float]:
        """gamma, c1, c2, alpha, epsilon, rho, h*, h c_j gamma and ||J||/gamma; see `contraction`."""
        with torch.no_grad():
            m, M = self.hessian_bounds()
            rates = self.rates()
        gamma, h, norm_J = float(rates.gamma), float(rates.h), self.skew.norm
        values = {"h": h, "horizon": self.depth * h, "kappa": float(self.kappa)}
        values |= contraction(float(m.min()), float(M.max()), gamma, norm_J)
        values["J_over_gamma"] = norm_J / gamma if gamma > 0 else float("inf")
        products = [h * c * gamma for c in rates.c.tolist()]
        values |= {f"hcgamma/{j}": x for j, x in enumerate(products, 1)}
        return values | {"hcgamma_max": max(products)}

    def warnings(self) -> list[str]:
        """Also where J plays no part any more."""
        found = super().warnings()
        if isinstance(self.integrator, ETD) and math.exp(-self.properties()["hcgamma_max"]) < ACTIVE_J:
            found.append(
                f"J has no effect: exp(-h c gamma) < {ACTIVE_J} in some layer; use step=auto or a smaller step"
            )
        return found
