"""Networks that keep the mass, the norm or a sphere, by what their fields are or by what follows each step.

docs/theory.md, section 28.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.families.node import MLPField
from robode.integrators.integrator import Integrator
from robode.linalg.activations import named_activation
from robode.linalg.norms import largest_eigenvalue
from robode.ode.bounds import Scalar
from robode.ode.field import VectorField
from robode.ode.flow import Flow
from robode.ode.guarantees import Bounded
from robode.ode.step import Step, identity_like

TINY = 1e-30  # of squared norms


def _mean_free(y: Tensor, f: Tensor) -> Tensor:
    """f without its mean: the sum of a state does not change. Both (n, M)."""
    return f - f.mean(0, keepdim=True)


def _tangent(y: Tensor, f: Tensor) -> Tensor:
    """f without its part along y: at right angles to y, so that ||y|| does not change. Both (n, M)."""
    return f - (f * y).sum(0, keepdim=True) / y.square().sum(0, keepdim=True).clamp_min(TINY) * y


def _same_norm(y: Tensor, z: Tensor) -> Tensor:
    """z scaled to the norm of y, both (n, M)."""
    squares = z.square().sum(0, keepdim=True).clamp_min(TINY)
    return z * (y.square().sum(0, keepdim=True) / squares).sqrt()


def _on_the_sphere(y: Tensor, z: Tensor) -> Tensor:
    """z = (q, v) (n, M) with q scaled to norm 1 and v without its part along q."""
    q, v = z.chunk(2)
    q = q / q.square().sum(0, keepdim=True).clamp_min(TINY).sqrt()
    return torch.cat([q, v - (q * v).sum(0, keepdim=True) * q])


Correction = Callable[[Tensor, Tensor], Tensor]
FIELDS: dict[str, Correction] = {"mass": _mean_free, "tangent": _tangent}
"""What is made of the field f at y."""
STEPS: dict[str, Correction] = {"norm": _same_norm, "sphere": _on_the_sphere}
"""What is made of the state z that a step from y ends in."""


@dataclass(frozen=True)
class CorrectedField(VectorField):
    """correct(y, f(y)), or correct(y, f(y) - y), of which y + f is f itself: `residual` false."""

    inner: VectorField
    correct: Correction
    residual: bool = True

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        f = self.inner(t, y)
        return self.correct(y, f if self.residual else f - y)

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        f, J = self.inner(t, y), self.inner.jacobian(t, y)
        return _chain(self.correct, y, *((f, J) if self.residual else (f - y, J - identity_like(y))))

    def lipschitz(self) -> float:
        """That of f where nothing but its mean is taken off, a projection; plus 1 without the skip; else none."""
        known = self.correct in (_mean_free, _nothing)
        return self.inner.lipschitz() + (not self.residual) if known else math.inf


@dataclass(frozen=True)
class LinearField(VectorField):
    """f(y) = S y with a skew S (n, n): solutions turn, ||y(t)|| = ||y(0)||."""

    S: Tensor

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return self.S @ y

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        return self.S.expand(y.shape[1], *self.S.shape)

    def lipschitz(self) -> float:
        return float(largest_eigenvalue(self.S).sqrt())

    def lognorm(self) -> float:
        """0: sym(S) = 0, of A - A^T exactly."""
        return 0.0


@dataclass(frozen=True)
class CorrectedStep(Step):
    """correct(y, phi(y)) of a step phi."""

    inner: Step
    correct: Correction

    def __call__(self, y: Tensor) -> Tensor:
        return self.correct(y, self.inner(y))

    def jacobian(self, y: Tensor) -> Tensor:
        return _chain(self.correct, y, self.inner(y), self.inner.jacobian(y))


def _chain(correct: Correction, y: Tensor, z: Tensor, J: Tensor) -> Tensor:
    """d correct(y, z(y)) / dy at each column, where J = dz/dy: y, z (n, M), J (M, n, n) -> (M, n, n)."""

    def of_one(y: Tensor, z: Tensor) -> Tensor:
        return correct(y[:, None], z[:, None])[:, 0]

    by_y, by_z = torch.func.vmap(torch.func.jacrev(of_one, argnums=(0, 1)), in_dims=1)(y, z)
    found: Tensor = by_y + by_z @ J
    return found


def _nothing(y: Tensor, f: Tensor) -> Tensor:
    return f


class Keeps(Bounded):
    """What `preserve` names is the same before and after every step."""

    name = "conserving"
    says = "every step keeps, to rounding, what preserve=mass, norm or sphere names"

    def violations(self, flow: Flow, y: Tensor) -> list[str]:
        found = super().violations(flow, y)
        assert isinstance(flow, Conserving)
        if not flow.exactly:
            return found
        z = flow.enter(y) if flow.preserve != "sphere" else _on_the_sphere(y.T, y.T)
        for j, step in enumerate(flow.steps(), 1):
            after = step(z)
            off = (kept(flow.preserve, after) - kept(flow.preserve, z)).abs()
            if not bool((off <= 1e-12 * (1 + z.norm(dim=0) + after.norm(dim=0))).all()):
                found.append(f"step {j} changes what preserve={flow.preserve} keeps by {float(off.max()):.3g}")
            z = after
        return found


def kept(preserve: str, z: Tensor) -> Tensor:
    """What is kept of states z (n, M), (k, M): the sum, the norm, or |q| - 1 and <q, v> of a sphere."""
    if preserve == "mass":
        return z.sum(0, keepdim=True)
    if preserve == "sphere":
        q, v = z.chunk(2)
        return torch.stack([q.norm(dim=0) - 1, (q * v).sum(0)])
    return z.norm(dim=0, keepdim=True)


class Conserving(Flow):
    """y' = f_j(y), a step each, with an MLP f_j = W_k sigma(... sigma(W_1 y + b_1) ...) + b_k and, of it,

    preserve: "mass" f without its mean, so that every Runge-Kutta method keeps the sum of the state; "tangent" f
      without its part along y, so that solutions keep the norm, and implicit_midpoint does; "skew" f = (A - A^T) y
      alone, for which implicit_midpoint is an orthogonal matrix (Cayley's); "norm" f as it is, and each step ends in
      ||y|| z/||z||; "sphere" the same for states (q, v): q/|q|, and v without its part along q; "none" f as it is.
    hidden: widths of the hidden layers of each f_j. residual: false leaves the skip out, phi(y) = f_j(y) for h = 1.
    Weights as torch.nn.Linear initialises them.

    Property: what `preserve` says, to rounding ("tangent" and "skew" to implicit_midpoint's tolerance).

    Raises:
        BadInput: an odd width for a sphere, hidden widths below 1, or no skip where fields are corrected.
    """

    guarantee = Keeps()

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        preserve: str = "norm",
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        residual: bool = True,
    ):
        super().__init__(width, depth, integrator, step, horizon)
        if any(size < 1 for size in hidden):
            raise BadInput(f"model.hidden: expected widths >= 1, got {list(hidden)}")
        if preserve == "sphere" and width % 2:
            raise BadInput(f"model.preserve=sphere: expected states (q, v), an even model.width, got {width}")
        if not residual and preserve in (*FIELDS, "skew"):
            raise BadInput(f"model.residual=false: expected preserve=none, norm or sphere, got {preserve}")
        self.preserve, self.residual = preserve, residual
        self.activation = named_activation(activation)
        sizes = [width, width] if preserve == "skew" else [width, *hidden, width]
        self.layers = len(sizes) - 1
        linears = [nn.Linear(a, b) for _ in range(depth) for a, b in pairwise(sizes)]
        self.W = nn.ParameterList([linear.weight for linear in linears])
        biases = [] if preserve == "skew" else [linear.bias.detach()[:, None] for linear in linears]
        self.b = nn.ParameterList(biases)
        self.integrator.check(self.fields()[0])

    @property
    def exactly(self) -> bool:
        """Whether steps keep it to rounding, in exact arithmetic."""
        return self.preserve in ("mass", *STEPS)

    def fields(self, context: Tensor | None = None) -> list[VectorField]:
        W, b, k = list(self.W), list(self.b), self.layers
        if self.preserve == "skew":
            found: list[VectorField] = [LinearField(A - A.mT) for A in W]
        else:
            found = [MLPField(W[i : i + k], b[i : i + k], self.activation) for i in range(0, len(W), k)]
            correct = FIELDS.get(self.preserve, _nothing)
            if correct is not _nothing or not self.residual:
                found = [CorrectedField(each, correct, self.residual) for each in found]
        return found

    def steps(self, context: Tensor | None = None) -> list[Step]:
        made = super().steps(context)
        if self.preserve not in STEPS:
            return made
        return [CorrectedStep(step, STEPS[self.preserve]) for step in made]

    def ode_bounds(self) -> list[float]:
        """Nothing where steps are corrected: the network is none of the ODE then."""
        return [math.inf] * self.depth if self.preserve in STEPS else super().ode_bounds()
