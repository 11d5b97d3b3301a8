"""SympFlow: a symplectic map for every time t, the identity at t = 0. (Canizares, Murari, Schoenlieb, Sherry,
Shumaylov, Symplectic neural flows for modeling and discovery, arXiv 2412.16787)

For each t it is a product of shears like a SympNet, along the gradients of U(t, p) - U(0, p) and V(t, q) - V(0, q).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.families.layers import LayersAlone
from robode.families.sympnet import halves
from robode.integrators.integrator import Integrator
from robode.linalg.activations import named_activation
from robode.ode.guarantees import SYMPLECTIC
from robode.ode.shear import RidgeShear
from robode.ode.step import Chain, Step


class SympFlow(LayersAlone):
    """N layers of shears of (q, p), bound to the time t of each sample, which is the context.

    q+ = q + K^T (w * (sigma(K p + a t + b) - sigma(K p + b))), K (hidden, d), then p likewise with a minus and weights
    of its own; step and horizon mean nothing, as the samples say their time.
    init_std: of K, a and b; w is N(0, 1)/hidden at first.
    Property: symplectic and invertible for every t, the identity at t = 0, at any iterate.

    Raises:
        BadInput: an odd width, or a number of neurons below 1; data whose samples say no time.
    """

    guarantee = SYMPLECTIC
    pixelwise = True
    controlled = True
    flattens = True

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        hidden: int = 10,
        activation: str = "tanh",
        init_std: float = 1.0,
    ):
        super().__init__(width, depth, integrator, step, horizon)
        if type(hidden) is not int or hidden < 1:
            raise BadInput(f"model.hidden: expected a whole number >= 1, got {hidden}")
        d, self.context, self.activation = halves(width), 1, named_activation(activation)
        self.K = nn.Parameter(init_std * torch.randn(2 * depth, hidden, d))
        self.a, self.b = (nn.Parameter(init_std * torch.randn(2 * depth, hidden, 1)) for _ in "ab")
        self.w = nn.Parameter(torch.randn(2 * depth, hidden, 1) / hidden)

    def span(self, dt: float, timed: bool) -> None:
        """Samples must say their time."""
        if not timed:
            raise BadInput(
                "model: SympFlow needs samples that say their time, as oscillator_paths and henon_heiles_paths do; all "
                f"of these are {dt:g} apart: choose sympnet"
            )

    def steps(self, context: Tensor | None = None) -> list[Step]:
        """context: the times, (B, 1). Raises `BadInput` where the encoder gives none."""
        if context is None or context.shape[1:] != (1,):
            raise BadInput("encoder: expected one that gives a time for each sample; choose encoder=time")
        shears = []
        for j, (K, w, a, b) in enumerate(zip(self.K, self.w, self.a, self.b, strict=True)):
            later, now = b + a * context.mT, b.expand(-1, len(context))  # at t and at 0: (hidden, B) each
            twice = torch.cat([K, K]), torch.cat([w, -w]), torch.cat([later, now])
            shears.append(RidgeShear(j % 2 == 0, *twice, self.activation))
        return [Chain(shears[2 * j : 2 * j + 2]) for j in range(self.depth)]
