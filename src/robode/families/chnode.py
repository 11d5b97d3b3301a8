"""Contractive Hamiltonian NODE: gamma follows the weights so that Theorem 1 holds.

Zakwan, Xu, Ferrari-Trecate: Robust classification using contractive Hamiltonian neural ODEs, L-CSS 2023.
"""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.families.gamma import check_rule, gamma_of, no_solution
from robode.families.hamiltonian import HamiltonianFlow, HamiltonianKeys, Rates, centre
from robode.integrators.euler import MAX_SUBSTEPS, Euler
from robode.integrators.integrator import Integrator
from robode.linalg.norms import largest_eigenvalue
from robode.ode.bounds import h_star, value
from robode.ode.guarantees import CONTRACTIVE

AUTO_KAPPA = 0.1
INSIDE = 0.999  # of h*


class CHNode(HamiltonianFlow):
    """F = J - gamma I, kappa > 0.

    kappa: a number, or "auto" = 0.1 S max_j ||K_j||^2 at initialisation (then fixed): the regime in which J matters.
    gamma: "theorem1" (after every optimiser step), "differentiable" (a function of the weights inside the forward pass,
      so that the guarantee holds at every iterate), "factor" (factor * gamma_min after every optimiser step; sqrt(3)
      lets explicit Euler take its longest steps), or the published scripts' "script_mnist", "script_2d".
    gamma_start: "rule", or "zero" as in the published scripts (first forward pass with gamma = 0).
    images: "pixels" (each pixel is a state of its own, as in the paper) or "vectors" (the whole image is one state).
    eta: epsilon = eta (1 - alpha^2). step="auto": h c gamma = 1 with c = (c1 + c2)/2, following the weights; with euler
      and rk4, which are certified up to h* alone, the smaller of that and h* (64 h* with integrator.substeps=auto);
      with rk38 of that and 0.46 h*.
    Property: `project_` leaves gamma >= gamma_min, so the ODE contracts (Theorem 1); with etd and imex so do the steps.
    """

    guarantee = CONTRACTIVE
    substeps: Tensor

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        kappa: float | str = "auto",
        gamma: str = "theorem1",
        gamma_start: str = "rule",
        eta: float = 0.1,
        factor: float | None = None,
        images: str = "pixels",
        **keys: Unpack[HamiltonianKeys],
    ):
        super().__init__(width, depth, integrator, step, horizon, **keys)
        check_rule(gamma, eta, factor)
        if images not in ("pixels", "vectors"):
            raise BadInput(f"model.images: expected pixels or vectors, got '{images}'")
        self.flattens = images == "vectors"
        if gamma_start not in ("rule", "zero"):
            raise BadInput(f"model.gamma_start: expected rule or zero, got '{gamma_start}'")
        if gamma_start == "zero" and gamma == "differentiable":
            raise BadInput("model.gamma_start: expected rule with model.gamma=differentiable, got zero")
        if self.auto and gamma_start == "zero":
            raise BadInput("step: expected a number with model.gamma_start=zero (auto divides by gamma), got auto")
        self.rule, self.eta, self.factor = gamma, eta, factor
        self.differentiable = gamma == "differentiable"
        self.kappa.fill_(self._kappa(kappa))
        if self.integrator.auto_substeps:
            self.register_buffer("substeps", torch.ones((), dtype=torch.int64))
        self.method.check(self.fields()[0])
        self.project_at_start = gamma_start == "rule"
        if self.project_at_start:
            self._check_start()
            self.project_()
        else:
            super().project_()

    def _kappa(self, kappa: float | str) -> float:
        if kappa == "auto":
            S = self.activation.slope_bound
            automatic = AUTO_KAPPA * S * float(largest_eigenvalue(self.weights()).max())
            if not 0 < automatic < math.inf:
                raise BadInput(
                    "model.kappa: expected a number where model.init_std=0 or leaves no finite ||K||^2, got auto"
                )
            return automatic
        if isinstance(kappa, str) or not 0 < kappa < math.inf:
            raise BadInput(f"model.kappa: expected auto or a number > 0 (c1 = kappa must be positive), got {kappa}")
        return float(kappa)

    def _rates(self) -> Rates:
        """gamma by its rule, h c gamma = 1 (or the integrator's limit) where step=auto, the centres. Tensor code."""
        m, M = self.hessian_bounds(self.differentiable)
        c1, c2 = m.min(), M.max()
        gamma = torch.as_tensor(gamma_of(self.rule, c1, c2, self.skew.norm, self.eta, self.factor))
        h = self.h
        if self.auto:
            h = 2 / ((c1 + c2) * gamma)
            if self.method_limit is not None:
                h = torch.minimum(h, self.method_limit * torch.as_tensor(h_star(c1, c2, gamma, self.skew.norm)))
        return Rates(gamma, h, centre(m, M))

    @property
    def method_limit(self) -> float | None:
        """The longest step at which the integrator keeps the contraction, as a multiple of h*: just inside it, on the
        edge itself rounding would decide. None where every step keeps it, or no length is known that does."""
        return INSIDE * self.integrator.circle if self.integrator.circle > 0 else None

    def _check_start(self) -> None:
        """Raises `BadInput` where gamma <= gamma_min leaves no step for step=auto, `JobFailed` where a script's rule
        for gamma has no solution."""
        self.project_weights_()
        with torch.no_grad():
            m, M = self.hessian_bounds(self.differentiable)
        c1, c2 = float(m.min()), float(M.max())
        gamma = float(gamma_of(self.rule, c1, c2, self.skew.norm, self.eta, self.factor))
        limit = math.inf if self.method_limit is None else value(h_star(c1, c2, gamma, self.skew.norm))
        at_the_edge = self.factor == 1 and limit < math.inf  # h* is 0 there but for rounding
        if self.auto and (limit <= 0 or at_the_edge or gamma == 0):
            raise BadInput(
                f"step: expected a number with integrator={self.integrator.name} and model.gamma={self.rule}, whose "
                "gamma leaves no contractive step (h* = 0), got auto"
            )

    def rates(self) -> Rates:
        return self._rates() if self.differentiable else super().rates()

    @property
    def method(self) -> Integrator:
        """With substeps=auto their number, which is in the state dict, is read from the device: how many steps run
        cannot stay there."""
        return Euler(int(self.substeps)) if self.integrator.auto_substeps else self.integrator

    def properties(self) -> dict[str, float]:
        values = super().properties()
        return values | {"substeps": float(self.substeps)} if self.integrator.auto_substeps else values

    def warnings(self) -> list[str]:
        values = self.properties()
        if values.get("substeps") == MAX_SUBSTEPS and values["h"] > MAX_SUBSTEPS * values["h_star"]:
            return [
                f"integrator.substeps=auto: even {MAX_SUBSTEPS} substeps, the most, are longer than h_star; whether "
                "the network that runs contracts is certified by flow_discrete alone"
            ]
        return super().warnings()

    def defect(self) -> str | None:
        """Where a script's rule for gamma has no solution, or the weights are not finite."""
        if bool(self.gamma.isfinite()):
            return None
        with torch.no_grad():
            m, M = self.hessian_bounds(self.differentiable)
        return no_solution(self.rule, float(m.min()), float(M.max()))

    @torch.no_grad()
    def project_(self) -> None:
        """c1, c2 -> gamma (and h, c): the paper's update, here in float64. Idempotent: depends on the weights alone."""
        self.project_weights_()
        rates = self._rates()
        for buffer, rate in ((self.gamma, rates.gamma), (self.h, rates.h), (self.c, rates.c)):
            buffer.copy_(rate)
        if self.integrator.auto_substeps:
            m, M = self.hessian_bounds(self.differentiable)
            longest = INSIDE * torch.as_tensor(h_star(m.min(), M.max(), rates.gamma, self.skew.norm))
            self.substeps.copy_(Euler.enough(rates.h / longest))
