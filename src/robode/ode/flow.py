"""The flow Phi = phi_N o ... o phi_1: N integrator steps of size h through N fields (or one shared field)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.ode.bounds import Scalar, value
from robode.ode.integrators import Integrator
from robode.ode.vector_field import VectorField

# What a family promises about its fields, and about its steps under the integrators that keep the promise:
#   contractive  sym(df/dy) <= 0 everywhere; no step expands (etd, imex, implicit midpoint; euler and rk4 within h*)
#   hamiltonian  f = J grad H conserves H; the steps of symplectic_euler and implicit_midpoint are symplectic
#   bounded      no more than the certified bounds: lognorm of the field, Lipschitz constant of the step
Claim = Literal["contractive", "hamiltonian", "bounded"]


@runtime_checkable
class Constrained(Protocol):
    """A module with quantities that follow its weights (gamma) or with weights confined to a set."""

    def project_(self) -> dict[str, float]:
        """Restores the constraint; idempotent. Returns what is logged, e.g. {"gamma": ...}."""


class Flow(nn.Module, ABC):
    """Phi over [0, T], T = N h. Owns the parameters; its fields are bound to them when they are needed.

    width n, depth N, integrator; exactly one of step (h, or "auto") and horizon (T).
    Images (B, n, H, W) flow pixel by pixel, vectors (B, n) one by one.
    """

    h: Tensor
    auto: bool
    claim: ClassVar[Claim]
    flattens: bool = False  # True where a whole image is one state, a vector
    solves_an_ode: ClassVar[bool] = True  # False where a layer of step h is all there is, and half of it means nothing
    pixelwise: ClassVar[bool] = True  # False where steps mix pixels: their Jacobians are no small matrices
    project_at_start = True  # False for recipes whose first forward pass runs before the first projection

    def __init__(
        self, width: int, depth: int, integrator: Integrator, step: float | str = "auto", horizon: float | None = None
    ):
        super().__init__()
        if depth < 1 or width < 1:
            raise BadInput(f"depth and model.width: expected whole numbers >= 1, got depth={depth}, width={width}")
        if horizon is not None and step != "auto":
            raise BadInput(f"step and horizon: expected exactly one, got step={step} and horizon={horizon}")
        h = horizon / depth if horizon is not None else step
        self.auto = h == "auto"
        if not self.auto and not (isinstance(h, int | float) and not isinstance(h, bool) and 0 < h < math.inf):
            key = "step" if horizon is None else "horizon"
            raise BadInput(f"{key}: expected a positive number, got {step if horizon is None else horizon}")
        self.width, self.depth, self.integrator = width, depth, integrator
        self.register_buffer("h", torch.tensor(math.nan if self.auto else float(h), dtype=torch.float64))

    @abstractmethod
    def bind(self, dtype: torch.dtype | None = None) -> tuple[Sequence[VectorField], Scalar]:
        """The N fields and the step h at the current parameters. With a dtype: detached copies, for certificates."""

    @abstractmethod
    def layer_parameters(self) -> tuple[Tensor, Tensor] | None:
        """Stacked K (N, n, n) and b (N, n, 1) for regularisers across layers; None if shared or not of that form."""

    def bind_shape_(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Tells the flow the shape of its first state, (n,) or (n, H, W). Returns that of its last."""
        return shape

    @property
    def method(self) -> Integrator:
        """The integrator that runs; flows whose substeps follow the weights fill in their number."""
        return self.integrator

    def properties(self) -> dict[str, float]:
        """What the family logs about itself besides the certificates."""
        return {"h": float(self.h), "horizon": self.horizon}

    @property
    def horizon(self) -> float:
        return self.depth * float(self.h)

    def forward(self, y: Tensor) -> Tensor:
        """(B, n) -> (B, n), or (B, n, H, W) -> (B, n, H, W)."""
        (fields, h), method = self.bind(), self.method
        z = to_columns(y)
        for j, field in enumerate(fields):
            z = method.step(field, j * value(h), h, z)
        return from_columns(z, y.shape)

    def states(self, y: Tensor) -> list[Tensor]:
        """The N + 1 states along the trajectory, each shaped like y."""
        (fields, h), method = self.bind(), self.method
        columns = [to_columns(y)]
        for j, field in enumerate(fields):
            columns.append(method.step(field, j * value(h), h, columns[-1]))
        return [from_columns(z, y.shape) for z in columns]

    def step_jacobians(self, y: Tensor) -> list[Tensor]:
        """Exact one-step Jacobians d phi_j / d y_(j-1) along the trajectory: N tensors (M, n, n), M states."""
        (fields, h), method = self.bind(), self.method
        z = to_columns(y)
        jacobians = []
        for j, field in enumerate(fields):
            jacobians.append(method.jacobian(field, j * value(h), h, z))
            z = method.step(field, j * value(h), h, z)
        return jacobians

    def step_bounds(self) -> list[tuple[float, float]]:
        """Per layer the certified Lipschitz bound of the ODE over one step, and of the integrator step that runs."""
        (fields, h), method = self.bind(torch.float64), self.method
        size = float(h)
        known: dict[int, tuple[float, float]] = {}
        for field in fields:
            if id(field) not in known:
                known[id(field)] = (exp_or_inf(size * field.lognorm()), method.lipschitz(field, size))
        return [known[id(field)] for field in fields]

    def certificate(self) -> dict[str, float]:
        """Certified Lipschitz bounds of the whole flow: `flow_ode` for the ODE (Theorems 1, 2), `flow_discrete` for
        the network that runs. inf where there is none. Never about lift or readout."""
        return _products(self.step_bounds())

    def certificate_table(self) -> dict[str, float]:
        """The certificate and its factors, named for the training log."""
        return bounds_table(self.step_bounds())


def bounds_table(steps: list[tuple[float, float]]) -> dict[str, float]:
    """What `Flow.step_bounds` says, named for the training log."""
    table = _products(steps)
    for j, (ode, discrete) in enumerate(steps, 1):
        table |= {f"step_ode/{j}": ode, f"step_discrete/{j}": discrete}
    return table


def _products(steps: list[tuple[float, float]]) -> dict[str, float]:
    return {"flow_ode": math.prod(a for a, _ in steps), "flow_discrete": math.prod(b for _, b in steps)}


def exp_or_inf(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def to_columns(y: Tensor) -> Tensor:
    """(B, n) or (B, n, H, W) -> (n, M) with M = B or B H W."""
    return y.transpose(0, 1).reshape(y.shape[1], -1)


def from_columns(z: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `to_columns` for a tensor of that shape."""
    return z.reshape(shape[1], shape[0], *shape[2:]).transpose(0, 1)
