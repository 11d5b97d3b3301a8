"""1-Lipschitz residual layers: y+ = y - tau W^T sigma(W y + b), one step of the gradient flow y' = -W^T sigma(W y + b).

The Jacobian I - tau W^T D W, 0 <= D <= S, is symmetric with its spectrum in [1 - tau S ||W||^2, 1]: the layer is
1-Lipschitz exactly when tau <= 2/(S ||W||^2). (Meunier et al. 2022; Sherry et al. 2024; docs/theory.md, section 13)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.integrators.euler import Euler
from robode.integrators.integrator import Integrator
from robode.linalg.activations import Activation, named_activation
from robode.linalg.norms import ROUNDING, largest_eigenvalue
from robode.linalg.orthonormal import orthonormal, random_orthonormal
from robode.ode.bounds import Scalar, value
from robode.ode.field import VectorField
from robode.ode.flow import Flow
from robode.ode.guarantees import NONEXPANSIVE
from robode.ode.layer import affine


@dataclass(frozen=True)
class DescentField(VectorField):
    """f(y) = -s W^T sigma(W y + b). W: (k, n), b: (k, 1); s >= 0 is a number, or a 0-d tensor with gradients."""

    W: Tensor
    b: Tensor
    activation: Activation
    s: Scalar = 1.0

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return -self.s * (self.W.mT @ self.activation(affine(self.b, self.W, y)))

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        D = self.activation.derivative(affine(self.b, self.W, y))
        return -self.s * (self.W.mT @ (D.mT[..., None] * self.W))

    def lognorm(self) -> float:
        """Two solutions never separate: -W^T D W <= 0."""
        return 0.0

    def lipschitz(self) -> float:
        """s S ||W||^2."""
        return value(self.s) * self.activation.slope_bound * float(largest_eigenvalue(self.W))

    def euler_lipschitz(self, h: float) -> float:
        """max(1, |1 - h s S ||W||^2|): the spectrum's ends, where all slopes are 0 or S."""
        return max(1.0, abs(1 - h * self.lipschitz()))


class NonexpansiveFlow(Flow):
    """Layers that are nonexpansive by the choice of their weights; each is one explicit Euler step.

    W (N, k, n) with orthonormal rows, b (N, m, 1). A whole image is one state, a vector, and not one state a pixel.
    The step is as long as this permits, so half of it makes another network, not a better solution of an ODE.
    """

    guarantee = NONEXPANSIVE
    solves_an_ode = False
    flattens = True

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        activation: str = "relu",
    ):
        super().__init__(width, depth, integrator, step, horizon)
        if not isinstance(integrator, Euler):
            raise BadInput(f"integrator={integrator.name}: expected euler, one step of which is the layer")
        if integrator.auto_substeps:
            raise BadInput("integrator.substeps: expected a whole number (auto needs chnode and its h*), got auto")
        self.activation = named_activation(activation)

    def limit_step(self, longest: float) -> None:
        """Fills in step=auto. Raises `BadInput` for a step beyond the longest at which every layer is nonexpansive."""
        if self.auto:
            self.h.fill_(longest)
        elif float(self.h) > longest * ROUNDING:
            raise BadInput(
                f"step (or horizon/depth): expected at most {longest:g} for nonexpansive layers, got {self.h:g}"
            )

    def start(self, rows: int, biases: int | None = None) -> None:
        """Random weights and no biases."""
        self.W = nn.Parameter(random_orthonormal(self.depth, rows, self.width))
        self.b = nn.Parameter(torch.zeros(self.depth, rows if biases is None else biases, 1))

    @torch.no_grad()
    def project_(self) -> None:
        """Makes the rows of every W orthonormal again. Idempotent."""
        self.W.copy_(orthonormal(self.W))

    def layer_parameters(self) -> tuple[Tensor, Tensor]:
        """W (N, k, n) and b (N, m, 1)."""
        return self.W, self.b


class GradientFlow(NonexpansiveFlow):
    """N layers y - tau_j W_j^T sigma(W_j y + b_j), W_j (k, n).

    rows: k, at most the width; "auto" is half of it.
    tau: "step", all tau_j are the step (auto: 2/S) and the rows of W_j are orthonormal, which keeps the length of
      gradients where sigma' is 0 or S; or "learned", one tau_j a layer that starts at the step, and W_j without
      constraints: `project_` keeps 0 <= tau_j <= 2/(S ||W_j||^2), with certified norms.
    Property: every layer is nonexpansive, at any iterate.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        activation: str = "relu",
        rows: int | str = "auto",
        tau: str = "step",
    ):
        super().__init__(width, depth, integrator, step, horizon, activation=activation)
        self.limit_step(2 / self.activation.slope_bound)
        number = max(self.width // 2, 1) if rows == "auto" else rows
        if type(number) is not int or not 1 <= number <= self.width:
            raise BadInput(f"model.rows: expected auto or a number from 1 to model.width={self.width}, got {rows}")
        if tau not in ("step", "learned"):
            raise BadInput(f"model.tau: expected step or learned, got '{tau}'")
        self.start(number)
        self.tau = nn.Parameter(torch.full((self.depth,), float(self.h))) if tau == "learned" else None
        self.project_()

    def fields(self, context: Tensor | None = None) -> list[DescentField]:
        scales: Sequence[Scalar] = [1.0] * self.depth if self.tau is None else (self.tau / self.h).unbind(0)
        layers = zip(self.W.unbind(0), self.b.unbind(0), scales, strict=True)
        return [DescentField(W, b, self.activation, s) for W, b, s in layers]

    @torch.no_grad()
    def project_(self) -> None:
        """Restores orthonormal rows or, where tau is learned, 0 <= tau_j <= 2/(S ||W_j||^2). Idempotent."""
        if self.tau is None:
            super().project_()
            return
        longest = 2 / (self.activation.slope_bound * largest_eigenvalue(self.W).clamp_min(1e-30))
        # a little inside: the division by h in `fields` and rounding to tau's precision may go the wrong way
        inside = longest.to(self.tau.dtype) * (1 - 4 * torch.finfo(self.tau.dtype).eps)
        self.tau.copy_(torch.minimum(self.tau.clamp_min(0), inside))

    def properties(self) -> dict[str, float]:
        """tau/1 … tau/N too, where they are learned."""
        learned = [] if self.tau is None else self.tau.tolist()
        return super().properties() | {f"tau/{j}": x for j, x in enumerate(learned, 1)}
