"""The stabilised neural ODE u' = sigma(A u + b) on [0, 1], whose log-norm delta is controlled.

With slopes of sigma in [alpha, 1], two solutions separate by at most e^delta, delta = max over diagonal D in [alpha, 1]
of lambda_max(sym(D A)); the explicit Euler network by (1 + 2 h delta + h^2 ||A||^2)^(N/2). (Guglielmi, De Marinis,
Savostianov, Tudisco, Math. Comp. 95, 2026; De Marinis, Guglielmi, Sicilia, Tudisco, arXiv 2501.10740; docs/theory.md,
sections 20 and 21)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.families.layered import LayeredFlow
from robode.integrators.integrator import Integrator
from robode.linalg.leaky import leaky_activation
from robode.ode.field import OneLayerField
from robode.ode.guarantees import STABILISED
from robode.ode.jacobians import JacobianSet, scaled_rows
from robode.ode.lognorm import LogNormBounds
from robode.ode.lognorm_upper import QUICK, quadratic, upper_bound
from robode.ode.projection import Certificate, stabilise

WAYS = ("projection", "penalty", "none")


@dataclass(frozen=True)
class StableField(OneLayerField):
    """sigma(A u + b) with what has bounded its log-norm before, theta (n,) and shift (0-d) of a `Certificate`."""

    theta: Tensor
    shift: Tensor

    def lognorm(self) -> float:
        """The better of what the certificate proves and of what is found anew."""
        return min(self._proved(), super().lognorm())

    def lognorm_bounds(self, known: LogNormBounds | None = None, enough: float = -math.inf) -> LogNormBounds:
        proved = self._proved()
        found = super().lognorm_bounds(known, math.inf if proved <= enough else enough)
        return replace(found, upper=min(found.upper, proved))

    def _proved(self) -> float:
        return Certificate(self.theta.cpu(), float(self.shift)).bound(self.K.detach(), self.activation.slopes[0])


class StableNode(LayeredFlow):
    """One field for all steps (shared), or one a step. step="auto" is h = 1/N, the time interval [0, 1].

    activation: smooth_leaky, leaky_tanh or leaky_relu, with slopes in [alpha, 1].
    init_std: of the entries of A and b; "auto" = 1/sqrt(width), with which ||A|| starts at about 2.
    stabilise: "projection" (A is moved to the nearest matrix that is proved to have a log-norm of at most delta, at the
      start, every `every` optimiser steps and at the end of each epoch), "penalty" (a log-norm above delta
      costs: the objective `lognorm_penalty`) or "none" (the unconstrained baseline, which has no delta).
    images: "pixels" (each pixel is a state of its own) or "vectors" (the whole image is one state).
    Property: with projection, `project_` leaves weights whose log-norm is proved to be at most delta, as the type of
      the weights holds them.
    """

    guarantee = STABILISED
    theta: Tensor  # 0 where none is known yet
    shift: Tensor

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        activation: str = "smooth_leaky",
        alpha: float = 0.1,
        stabilise: str = "projection",
        delta: float = 0.0,
        every: int = 20,
        images: str = "pixels",
        init_std: float | str = "auto",
        shared: bool = True,
    ):
        sigma = leaky_activation(activation, alpha)
        std = 1 / math.sqrt(max(width, 1)) if isinstance(init_std, str) else init_std
        end = 1.0 if step == "auto" and horizon is None else horizon
        super().__init__(width, depth, integrator, step, end, activation=sigma, shared=shared, init_std=std)
        if images not in ("pixels", "vectors"):
            raise BadInput(f"model.images: expected pixels or vectors, got '{images}'")
        self.flattens = images == "vectors"
        self.stabilise, self.delta, self.project_every = stabilise, largest_allowed(stabilise, delta), every
        layers = len(self.K)
        self.register_buffer("theta", torch.zeros(layers, width, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(layers, dtype=torch.float64))
        self.integrator.check(self.fields()[0])
        self.project_()

    def fields(self, context: Tensor | None = None) -> list[StableField]:
        layers = zip(self.weights(), self.biases(), self.theta, self.shift, strict=True)
        return self.each_step([StableField(A, b, self.activation, theta, s) for A, b, theta, s in layers])

    @torch.no_grad()
    def project_(self) -> None:
        """A -> the nearest one that is proved to have a log-norm of at most delta, from the last theta on. Weights that
        have it already stay as they are, bit by bit, and so do weights that are not finite. With the penalty: a new
        theta alone."""
        if self.stabilise == "none" or not bool(self.K.isfinite().all()):
            return
        alpha = self.activation.slopes[0]
        if self.stabilise == "penalty":
            self.theta.copy_(upper_bound(scaled_rows(self.K, alpha), known(self.theta), QUICK).theta)
            return
        for j, A in enumerate(self.K):
            theta = known(self.theta[j])
            before = None if theta is None else Certificate(theta, float(self.shift[j]))
            found = stabilise(A, self.delta, alpha, warm=before)
            assert found.certificate is not None  # of `lmi` always
            A.copy_(found.W)
            self.theta[j], self.shift[j] = found.certificate.theta, found.certificate.shift

    def lognorm_bound(self) -> Tensor:
        """The bound of each layer's log-norm that the last theta gives, up to rounding, with gradients. (layers,)"""
        A, slopes = self.K.double(), torch.ones_like(self.theta)
        eye = torch.eye(self.width, dtype=A.dtype, device=A.device).expand_as(A)
        J = JacobianSet(torch.zeros_like(A), eye, A, self.activation.slopes[0] * slopes, slopes)
        return torch.linalg.eigvalsh(quadratic(J, self.theta))[:, -1]

    def properties(self) -> dict[str, float]:
        return super().properties() | ({"delta": self.delta} if self.stabilise == "projection" else {})


def largest_allowed(way: str, delta: float) -> float:
    """The largest log-norm that is allowed, or costs nothing. Raises `BadInput`."""
    if way not in WAYS:
        raise BadInput(f"model.stabilise: expected one of {', '.join(WAYS)}, got '{way}'")
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not math.isfinite(delta):
        raise BadInput(f"model.delta: expected a number, the largest log-norm, got {delta}")
    return float(delta)


def known(theta: Tensor) -> Tensor | None:
    """theta of earlier weights on the CPU, None where there is none, or none that proves anything."""
    return theta.detach().cpu() if bool(((theta > 0) & theta.isfinite()).all()) else None
