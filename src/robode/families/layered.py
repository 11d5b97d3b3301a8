"""Flows whose fields have one hidden layer: weights K and biases b, one set per layer or one shared set."""

from __future__ import annotations

import math
from typing import TypedDict, TypeVar

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.integrators.integrator import Integrator
from robode.linalg.activations import Activation, named_activation
from robode.linalg.norms import clipped, largest_eigenvalue
from robode.ode.field import VectorField
from robode.ode.flow import Flow

BELOW = 1 - 1e-6  # so that float32's rounding cannot lift scaled weights above their bound
ALIKE = 1e-5  # of the bound: what rounding may leave between a clipped matrix and the weights made of it
Field = TypeVar("Field", bound=VectorField)


class LayeredKeys(TypedDict, total=False):
    """Keys of `LayeredFlow` that its families hand on as they are."""

    activation: str
    shared: bool
    norm_bound: float | None


class LayeredFlow(Flow):
    """K (N, n, n) and b (N, n, 1) ~ init_std * N(0, 1); N = 1 if shared (time-invariant, as in Fig. 1).

    norm_bound: `project_` keeps ||K_j||_2 <= norm_bound, from the start on, by clipping singular values (the nearest
    such matrix). b and a trainable L stay free.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        activation: str | Activation = "tanh",
        shared: bool = False,
        init_std: float = 1.0,
        norm_bound: float | None = None,
    ):
        super().__init__(width, depth, integrator, step, horizon)
        number = isinstance(norm_bound, int | float) and not isinstance(norm_bound, bool)
        if norm_bound is not None and not (number and 0 < norm_bound < math.inf):
            raise BadInput(f"model.norm_bound: expected a number > 0 or null, got {norm_bound}")
        self.activation = named_activation(activation) if isinstance(activation, str) else activation
        self.shared = shared
        sets = 1 if shared else depth
        self.K = nn.Parameter(init_std * torch.randn(sets, width, width))
        self.b = nn.Parameter(init_std * torch.randn(sets, width, 1))
        self.norm_bound = norm_bound
        self.project_weights_()

    @torch.no_grad()
    def project_weights_(self) -> None:
        """Puts weights beyond norm_bound back onto it; leaves the others as they are, bit by bit.

        The bound is that of `weights`, which a subclass may compute from K (homogeneously: twice the K, twice the
        weights). Their singular values are clipped where that gives a K with these weights; elsewhere K is scaled.
        """
        if self.norm_bound is None:
            return
        before = self.K.clone()
        beyond = largest_eigenvalue(self.weights())[..., None, None] > self.norm_bound**2
        self.K.copy_(clipped(self.weights(), self.norm_bound))
        if type(self).weights is not LayeredFlow.weights:
            # only where clipped weights are their own K (a mask) do they go into K as they are
            off = (self.weights() - self.K).abs().amax((1, 2), keepdim=True)
            own = beyond & (off <= ALIKE * self.norm_bound)
            self.K.copy_(torch.where(own, self.K, before))
            norms = largest_eigenvalue(self.weights()).sqrt()[..., None, None]
            self.K.mul_(torch.where(norms > self.norm_bound, self.norm_bound * BELOW / norms, 1.0))

    def project_(self) -> None:
        """Confines the weights; subclasses also renew what follows the weights. Idempotent."""
        self.project_weights_()

    def weights(self) -> Tensor:
        """K as the fields use it, (N, n, n) or (1, n, n) if shared."""
        return self.K

    def biases(self) -> Tensor:
        """b, (N, n, 1) or (1, n, 1) if shared."""
        return self.b

    def each_step(self, fields: list[Field]) -> list[Field]:
        """One field for each of the N steps."""
        return fields * (self.depth if self.shared else 1)

    def layer_parameters(self) -> tuple[Tensor, Tensor] | None:
        return None if self.shared else (self.weights(), self.biases())
