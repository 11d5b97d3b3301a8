"""SympNets: symplectic maps as products of shears. (Jin, Zhang, Zhu, Tang, Karniadakis, Neural Networks 132, 2020)

Each shear is the exact flow of a Hamiltonian U(p) or V(q) over the time h, so whatever the weights are the network is
the flow map of a piecewise constant Hamiltonian: symplectic, with volume kept and an exact inverse.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.integrators.euler import Euler
from robode.integrators.integrator import Integrator
from robode.linalg.activations import named_activation
from robode.ode.flow import Flow
from robode.ode.guarantees import SYMPLECTIC
from robode.ode.shear import LinearShear, RidgeShear, Shear
from robode.ode.step import Chain, Step

ALIKE = 1e-9  # relative: what rounding may leave between depth * step and the dt of the data


def halves(width: int) -> int:
    """d of states (q, p) in R^(2 d). Raises `BadInput` for an odd width."""
    if width % 2:
        raise BadInput(f"model.width: expected an even number, d positions and d momenta, got {width}")
    return width // 2


class SympNet(Flow):
    """N layers of shears of (q, p), q the first half of a state; h is the step, auto: dt/N of data that are flow maps.

    modules: "gradient": a layer is q+ = q + h K^T (w * sigma(K p + b)), then p likewise with a minus and weights of its
      own, K (hidden, d); "la": a layer is `sublayers` linear shears with symmetric S in turn, q+ = q + h w * sigma(p),
      linear shears again, and p likewise; behind the last layer comes one more set of linear shears.
    init_std: of all weights but w, which are N(0, 1)/hidden (gradient) and N(0, 1) (la) at first.
    Property: symplectic and invertible, at any iterate.

    Raises:
        BadInput: an odd width, or keys out of their ranges; a step or horizon that is not the data's dt.
    """

    guarantee = SYMPLECTIC
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
        modules: str = "gradient",
        hidden: int = 10,
        sublayers: int = 3,
        activation: str = "tanh",
        init_std: float = 1.0,
    ):
        super().__init__(width, depth, integrator, step, horizon)
        if not isinstance(integrator, Euler) or integrator.auto_substeps or integrator.substeps != 1:
            raise BadInput(f"integrator={integrator.name}: a shear is exact; expected euler with one substep")
        if modules not in ("gradient", "la"):
            raise BadInput(f"model.modules: expected gradient or la, got '{modules}'")
        for key, number in (("hidden", hidden), ("sublayers", sublayers)):
            if type(number) is not int or number < 1:
                raise BadInput(f"model.{key}: expected a whole number >= 1, got {number}")
        d, self.modules_are = halves(width), modules
        self.activation = named_activation(activation)
        k, sets = (hidden, 2 * depth) if modules == "gradient" else (d, 2 * depth)
        self.w = nn.Parameter(torch.randn(sets, k, 1) / (hidden if modules == "gradient" else 1))
        if modules == "gradient":
            self.K = nn.Parameter(init_std * torch.randn(sets, k, d))
            self.b = nn.Parameter(init_std * torch.randn(sets, k, 1))
        else:
            self.S = nn.Parameter(init_std * torch.randn(sets + 1, sublayers, d, d))
            self.b = nn.Parameter(init_std * torch.randn(sets + 1, sublayers, d, 1))

    def span(self, dt: float, timed: bool) -> None:
        """The time of the flow map is that of the data."""
        if timed:
            raise BadInput("model: SympNet maps over one time, and each of these samples says its own; choose sympflow")
        if self.auto:
            self.h.fill_(dt / self.depth)
        elif abs(self.horizon - dt) > ALIKE * dt:
            raise BadInput(
                f"horizon (depth*step): expected {dt:g}, the time from a state to its target in these data, got "
                f"{self.horizon:g}; leave step and horizon out, or change that of data.source"
            )

    def steps(self, context: Tensor | None = None) -> list[Step]:
        shears = self.gradient_shears() if self.modules_are == "gradient" else self.la_shears()
        return [Chain(layer) for layer in shears]

    def gradient_shears(self) -> list[list[Shear]]:
        """Of each layer: q moves, then p."""
        w, h = self.w * self.h.to(self.w.dtype), zip(self.K.unbind(0), self.b.unbind(0), strict=True)
        moves = [RidgeShear(j % 2 == 0, K, w[j], b, self.activation) for j, (K, b) in enumerate(h)]
        return [[*moves[2 * j : 2 * j + 2]] for j in range(self.depth)]

    def la_shears(self) -> list[list[Shear]]:
        """Of each layer: linear shears, q moves, linear shears, p moves; and linear shears behind the last."""
        h = self.h.to(self.w.dtype)
        eye = torch.eye(self.width // 2, dtype=self.w.dtype, device=self.w.device)
        zero = torch.zeros_like(self.w[0])
        linear = [self.linear_shears(S, b) for S, b in zip(h * (self.S + self.S.mT) / 2, h * self.b, strict=True)]
        moves = [RidgeShear(j % 2 == 0, eye, h * w, zero, self.activation) for j, w in enumerate(self.w.unbind(0))]
        layers: list[list[Shear]] = []
        for j in range(self.depth):
            first, second = 2 * j, 2 * j + 1
            layers.append([*linear[first], moves[first], *linear[second], moves[second]])
        layers[-1] += linear[-1]
        return layers

    @staticmethod
    def linear_shears(S: Tensor, b: Tensor) -> Sequence[Shear]:
        """Shears in turn. S: (sublayers, d, d), symmetric; b: (sublayers, d, 1)."""
        return [LinearShear(j % 2 == 0, *each) for j, each in enumerate(zip(S, b, strict=True))]
