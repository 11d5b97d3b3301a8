"""Data-controlled neural ODE: the sample says, through its encoder, by which matrix W(x) a state at 0 flows.

Source: Jimenez Rodriguez, Ames, Yue, "LyaNet: a Lyapunov framework for training neural ODEs", 2022, Eq. (1) to (3) with
the initial state 0 of section 4; the field's form is that of the experiments. It is Neural ODE and LyaNet of Table 1:
the two differ in the objective, and in the gain that they begin with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robode.errors import BadInput
from robode.integrators.implicit_midpoint import ImplicitMidpoint
from robode.integrators.integrator import Integrator
from robode.ode.bounds import Scalar
from robode.ode.controlled import ControlledField
from robode.ode.flow import Flow
from robode.ode.layer import affine

TINY = 1e-12


@dataclass(frozen=True)
class CornerField(ControlledField):
    """f(y; x) = speed (1/n sum_k p_k d_k) u: along u = r/|r| with r = W2 a(W(x) a(W1 y + b1)) + b2.

    d_k = |y - c_k| are the distances from the corners c_k = s (2 e_k - 1) of the box [-s, s]^n, one for each class;
    p = softmax((c_k - y) . u) = softmax(2 s u), since what is left of the scalar products does not depend on k.
    At y = 0 all d_k are s sqrt n, so |f| = speed s / sqrt n wherever u points to. a = PReLU after dropout.

    W1: (m, n); b1: (m, 1); W: (B, m, m), of B samples; W2: (n, m); b2: (n, 1); slope: () of the PReLU; speed: gain
    kappa; s: half the side of the box; dropout: the share of hidden numbers that are dropped, drawn anew each time.
    """

    W1: Tensor
    b1: Tensor
    W: Tensor
    W2: Tensor
    b2: Tensor
    slope: Tensor
    speed: Scalar
    s: float
    dropout: float = 0.0

    @property
    def draws(self) -> bool:  # type: ignore[override]
        """Whether it is random, which dropout makes it."""
        return self.dropout > 0

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        """Column b of y (n, B) by W(x_b)."""
        hidden = self._active(affine(self.b1, self.W1, y))
        hidden = self._active((self.W @ hidden.T[..., None])[..., 0].T)
        return self._along(affine(self.b2, self.W2, hidden), y)

    def on_all(self, t: Scalar, y: Tensor) -> Tensor:
        """One product of matrices a sample: nothing is larger than (B, m, S)."""
        hidden = affine(self.b1, self.W1, y)
        if self.dropout:  # each pair of a sample and a state has a mask of its own
            hidden = hidden.expand(len(self.W), *hidden.shape)
        hidden = self._active(self.W @ self._active(hidden))
        return self._along(self.W2 @ hidden + self.b2, y)

    def _active(self, z: Tensor) -> Tensor:
        if self.dropout:  # a third of the time of functional.dropout on a CPU
            z = z * (torch.rand_like(z) >= self.dropout).mul(1 / (1 - self.dropout))
        return functional.prelu(z, self.slope.view(1))

    def _along(self, r: Tensor, y: Tensor) -> Tensor:
        """r like y (n, M), or (B, n, S) beside y (n, S)."""
        n = y.shape[0]
        u = r / r.square().sum(-2, keepdim=True).clamp_min(TINY**2).sqrt()
        p = torch.softmax(2 * self.s * u, dim=-2)
        squares = y.square().sum(-2, keepdim=True) - 2 * self.s * (2 * y - y.sum(-2, keepdim=True)) + n * self.s**2
        d = squares.clamp_min(TINY).sqrt()  # the root of a rounding error has no gradient
        return self.speed * ((p * d).sum(-2, keepdim=True) / n) * u


class DataNode(Flow):
    """width: n, the number of outputs, which the last state is (head=identity). hidden: m; the encoder gives m^2
    numbers, W(x). step="auto" is h = 1/N, the time interval [0, 1].

    box: s, half the side of the box at whose corners the classes lie. kappa: "auto" = log(s sqrt n), the radius of the
      ball that holds the corners. gain: of the field, a float64 number of the state dict that no gradient changes (the
      callback `gain_schedule` does); 1 for Neural ODE and 100, at the start, for LyaNet.
    dropout: share of hidden numbers that are dropped while training, drawn from torch's global generator.
    Property: none by design. u has no limit where r is 0, so the field is not Lipschitz, and nothing is certified.
    """

    controlled = True
    flattens = True
    gain: Tensor

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        hidden: int = 128,
        box: float = 15.0,
        kappa: float | str = "auto",
        gain: float = 1.0,
        dropout: float = 0.5,
    ):
        end = 1.0 if step == "auto" and horizon is None else horizon
        super().__init__(width, depth, integrator, step, end)
        if hidden < 1:
            raise BadInput(f"model.hidden: expected a whole number >= 1, got {hidden}")
        self.hidden, self.context = hidden, hidden**2
        self.box = positive("model.box", box)
        self.kappa = rate_of(kappa, width, self.box, "model.kappa")
        if not 0 <= dropout < 1:
            raise BadInput(f"model.dropout: expected a share in [0, 1), got {dropout}")
        self.dropout = dropout
        first, last = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.W1, self.b1 = first.weight, nn.Parameter(first.bias.detach()[:, None])
        self.W2, self.b2 = last.weight, nn.Parameter(last.bias.detach()[:, None])
        self.slope = nn.Parameter(torch.tensor(0.25))
        self.first_gain = positive("model.gain", gain)
        self.register_buffer("gain", torch.tensor(self.first_gain, dtype=torch.float64))
        self.integrator.check(self.fields(torch.zeros(1, self.context))[0])
        if isinstance(integrator, ImplicitMidpoint):
            raise BadInput(
                "integrator=implicit_midpoint: expected an explicit method, as Newton finds no step where r is 0"
            )

    def fields(self, context: Tensor | None = None) -> Sequence[CornerField]:
        """context: W(x), (B, m^2). Raises `BadInput` where the encoder gives another."""
        if context is None or context.shape[1:] != (self.context,):
            got = "none" if context is None else f"{tuple(context.shape[1:])}"
            raise BadInput(
                f"encoder: expected one that gives a context of model.hidden^2 = {self.context} numbers a sample, got "
                f"{got}; choose encoder=resnet18 for images, encoder=mlp for vectors"
            )
        W = context.view(-1, self.hidden, self.hidden)
        speed, share = self.gain * self.kappa, self.dropout if self.training else 0.0
        return [CornerField(self.W1, self.b1, W, self.W2, self.b2, self.slope, speed, self.box, share)] * self.depth

    def properties(self) -> dict[str, float]:
        return super().properties() | {"gain": float(self.gain), "kappa": self.kappa}


def positive(key: str, value: float) -> float:
    """A finite number > 0. Raises `BadInput` that names the key."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 < value < math.inf):
        raise BadInput(f"{key}: expected a number > 0, got {value}")
    return float(value)


def rate_of(kappa: float | str, n: int, s: float, key: str) -> float:
    """kappa as a number; "auto" is log(s sqrt n), for n outputs and the box of side 2 s. Raises `BadInput`."""
    if kappa != "auto":
        return positive(key, kappa)  # type: ignore[arg-type]
    return positive(f"{key}=auto, log({s:g} sqrt {n})", math.log(s * math.sqrt(n)))
