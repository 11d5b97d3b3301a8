"""Flows whose fields have one hidden layer: weights K and biases b, one set per layer or one shared set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robode.ode.activations import named_activation
from robode.ode.flow import Flow
from robode.ode.integrators import Integrator


class LayeredFlow(Flow):
    """K (N, n, n) and b (N, n, 1) ~ init_std * N(0, 1); N = 1 if shared (time-invariant, as in Fig. 1)."""

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
    ):
        super().__init__(width, depth, integrator, step, horizon)
        self.activation = named_activation(activation)
        self.shared = shared
        sets = 1 if shared else depth
        self.K = nn.Parameter(init_std * torch.randn(sets, width, width))
        self.b = nn.Parameter(init_std * torch.randn(sets, width, 1))

    def weights(self) -> Tensor:
        """K as the fields use it, (N, n, n) or (1, n, n) if shared."""
        return self.K

    def biases(self) -> Tensor:
        """b, (N, n, 1) or (1, n, 1) if shared."""
        return self.b

    def layer_parameters(self) -> tuple[Tensor, Tensor] | None:
        return None if self.shared else (self.weights(), self.biases())
