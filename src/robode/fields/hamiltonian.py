"""x' = (J - gamma I) grad H(x), the family of CH-NODE and H-DNN.  (CH-NODE paper, Eq. 7 to 12 with F constant)

H_j(x) = 1^T sigma~(K_j x + b_j) + x^T (L_j^T L_j + kappa I) x / 2. One gamma serves all layers (c1, c2 are inf and sup
over time); the centre c_j about which etd and imex linearise is each layer's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robode.fields.gamma import Contraction
from robode.fields.layered import LayeredFlow
from robode.ode.bounds import Scalar, value
from robode.ode.integrators import Integrator
from robode.ode.norms import gram_norm_squared, largest_eigenvalue, smallest_eigenvalue
from robode.ode.skew import skew
from robode.ode.vector_field import GradientField


def centre(m: Tensor, M: Tensor) -> Tensor:
    """c = (m + M)/2, where etd and imex linearise; any positive number is valid, and they divide by it."""
    return (0.5 * (m + M)).clamp_min(1e-12)


@dataclass(frozen=True)
class Rates:
    """What follows the weights: gamma, h, the centres c (one per layer set) and, for euler with substeps=auto, their
    number; tensors carry gradients."""

    gamma: Scalar
    h: Scalar
    c: Tensor
    substeps: int = 1


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
        activation: str = "tanh",
        shared: bool = False,
        init_std: float = 1.0,
        J: str = "canonical",
        J_file: str | None = None,
        trainable_L: bool = False,
        norm_bound: float | None = None,
    ):
        super().__init__(
            width, depth, integrator, step, horizon,
            activation=activation, shared=shared, init_std=init_std, norm_bound=norm_bound,
        )  # fmt: skip
        self.skew = skew(J, width, J_file)
        sets = self.K.shape[0]
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
        return Rates(float(self.gamma), float(self.h), self.c)

    def bind(self, dtype: torch.dtype | None = None) -> tuple[list[GradientField], Scalar]:
        rates = self.rates()
        K, b = self.weights(), self.biases()
        Q = self.quadratic()
        gamma, h, c = rates.gamma, rates.h, rates.c
        if dtype is not None:
            K, b, Q, c = (t.detach().to(dtype) for t in (K, b, Q, c))
            gamma, h = value(gamma), value(h)
        centres: list[Scalar] = list(c.unbind(0)) if c.requires_grad else c.tolist()
        fields = [
            GradientField(self.skew, gamma, Kj, bj, Qj, self.activation, cj, self.partitioned)
            for Kj, bj, Qj, cj in zip(K.unbind(0), b.unbind(0), Q.unbind(0), centres, strict=True)
        ]
        return fields * (self.depth if self.shared else 1), h

    def project_(self) -> dict[str, float]:
        """Re-centres etd and imex on the current Hessian bounds; subclasses also choose gamma and h. Idempotent."""
        self.confine_()
        with torch.no_grad():
            m, M = self.hessian_bounds()
            self.c.copy_(centre(m, M))
        return {"gamma": float(self.gamma)}

    def properties(self) -> dict[str, float]:
        """gamma, c1, c2, alpha, epsilon, rho, h*, h c_j gamma and ||J||/gamma; see `Contraction`."""
        with torch.no_grad():
            m, M = self.hessian_bounds()
            rates = self.rates()
        gamma, h, norm_J = value(rates.gamma), value(rates.h), self.skew.norm
        values = {"h": h, "horizon": self.depth * h, "kappa": float(self.kappa)}
        values |= Contraction(float(m.min()), float(M.max()), gamma, norm_J).as_dict()
        values["J_over_gamma"] = norm_J / gamma if gamma > 0 else float("inf")
        products = [h * c * gamma for c in rates.c.tolist()]
        values |= {f"hcgamma/{j}": x for j, x in enumerate(products, 1)}
        return values | {"hcgamma_max": max(products)}
