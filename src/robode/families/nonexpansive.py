"""What 1-Lipschitz families share: stacked weights with orthonormal rows, and a step that is the layer itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.integrators.one_step import Euler, Integrator
from robode.linalg.activations import named_activation
from robode.linalg.norms import ROUNDING
from robode.linalg.orthonormal import orthonormal, random_orthonormal
from robode.ode.flow import Flow
from robode.ode.guarantees import NONEXPANSIVE


class NonexpansiveFlow(Flow):
    """Layers that never expand by the choice of their weights; each is one explicit Euler step.

    W (N, k, n) with orthonormal rows, b (N, m, 1). A whole image is one state, a vector, and not one state a pixel.
    The step is as long as not expanding permits, so half of it makes another network, not a better solution of an ODE.
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
        if integrator.adaptive:
            raise BadInput("integrator.substeps: expected a whole number (auto needs chnode and its h*), got auto")
        self.activation = named_activation(activation)

    def confine_step(self, longest: float) -> None:
        """Fills in step=auto. Raises `BadInput` for a step beyond the longest at which no layer expands."""
        if self.auto:
            self.h.fill_(longest)
        elif float(self.h) > longest * ROUNDING:
            raise BadInput(
                f"step (or horizon/depth): expected at most {longest:g}, beyond which layers expand, got {self.h:g}"
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
