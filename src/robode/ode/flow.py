"""The flow Phi = phi_N o ... o phi_1: a list of steps, mostly those of an integrator through N fields."""

from __future__ import annotations

import copy
import math
from abc import ABC
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from robode.errors import BadInput, JobFailed
from robode.foreign import patched, refused, speaks_of, unchanged
from robode.integrators.integrator import Integrator
from robode.ode import chain
from robode.ode.bounds import Scalar, value
from robode.ode.field import VectorField
from robode.ode.guarantees import BOUNDED, Guarantee
from robode.ode.lognorm import LogNormBounds
from robode.ode.step import Step, once, own_lipschitz


@runtime_checkable
class Constrained(Protocol):
    """A module with quantities that follow its weights (gamma) or with weights confined to a set."""

    def project_(self) -> None:
        """Restores the constraint; idempotent. Tensor code: looks at no value from the host."""


class Flow(nn.Module, ABC):
    """Phi over [0, T], T = N h. Owns the parameters; its fields are bound to them when they are needed.

    A family writes `fields`, or `steps` where its layers solve no ODE. width n, depth N, integrator; exactly one of
    step (h, or "auto") and horizon (T). Images (B, n, H, W) flow pixel by pixel, vectors (B, n) one by one.
    """

    h: Tensor
    auto: bool
    guarantee: ClassVar[Guarantee] = BOUNDED
    default_step: ClassVar[float] = 1.0  # what step=auto means
    flattens: bool = False  # True where a whole image is one state, a vector
    solves_an_ode: ClassVar[bool] = True  # False where a layer of step h is all there is, and half of it means nothing
    pixelwise: ClassVar[bool] = True  # False where steps mix pixels: states are images, not columns
    controlled: ClassVar[bool] = False  # True where fields are bound to the data, by the context of the encoder
    context: int = 0  # how many numbers of a sample that context has, where the encoder has to know it
    project_at_start = True  # False for recipes whose first forward pass runs before the first projection
    _bound: tuple[Sequence[VectorField], Scalar] | None = None  # of a copy whose weights stay as they are

    def __init__(
        self, width: int, depth: int, integrator: Integrator, step: float | str = "auto", horizon: float | None = None
    ):
        super().__init__()
        if not self._has_fields and type(self).steps is Flow.steps:
            name = type(self).__name__
            raise BadInput(f"model: {name} has neither fields nor steps; a family writes one of the two")
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
        h = self.default_step if self.auto else float(h)
        self.register_buffer("h", torch.tensor(h, dtype=torch.float64))

    # ---- what a family writes -----------------------------------------------------------------------------------

    def fields(self, context: Tensor | None = None) -> Sequence[VectorField]:
        """The N fields at the current parameters, bound to the context that the encoder gives (None for most)."""
        raise BadInput(f"model: {type(self).__name__} has steps alone, and this needs the fields of an ODE")

    @property
    def _has_fields(self) -> bool:
        return type(self).fields is not Flow.fields

    def layer_parameters(self) -> tuple[Tensor, Tensor] | None:
        """Stacked matrices (N, k, n), those of a layer above each other, and b (N, m, 1) for regularisers across
        layers; None if shared or not of that form."""
        return None

    def build(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Tells the flow the shape of its first state, (n,) or (n, H, W). Returns that of its last. Raises `BadInput`
        for states that it cannot take."""
        return shape

    def span(self, dt: float, timed: bool) -> None:
        """Tells the flow that it learns where states are after dt, or after a time that each sample says (`timed`), of
        which dt is the longest. Raises `BadInput` where that is not what it does."""

    def defect(self) -> str | None:
        """Why what follows the weights has become useless, in words; None where it has not. Reads from the device."""
        return None

    def properties(self) -> dict[str, float]:
        """What the family logs about itself besides the certificates."""
        return {"h": float(self.h), "horizon": self.horizon}

    def warnings(self) -> list[str]:
        """One line for each thing that a user of these settings should know."""
        bounds = self.certificate()
        if bounds["flow_ode"] <= 1 < bounds["flow_discrete"]:
            return [
                "the ODE contracts (flow_ode <= 1) but the network that runs is not certified to (flow_discrete > 1): "
                "shorter steps come nearer to it (a larger depth and the same horizon), and steps contract below "
                "h_star, where that is known, and with integrator=etd, where the model takes it"
            ]
        return []

    # ---- what follows from it -----------------------------------------------------------------------------------

    @property
    def method(self) -> Integrator:
        """The integrator that runs; flows whose substeps follow the weights fill in their number."""
        return self.integrator

    @property
    def horizon(self) -> float:
        """T = N h, in the time of the ODE."""
        return self.depth * float(self.h)

    def bind(self, context: Tensor | None = None) -> tuple[Sequence[VectorField], Scalar]:
        """The fields, and the step h that belongs to them."""
        return self.fields(context), self.h

    def steps(self, context: Tensor | None = None) -> list[Step]:
        """The N steps of the network that runs."""
        return self.method.steps(*(self._bound or self.bind(context)))

    def enter(self, y: Tensor) -> Tensor:
        """From a state as the encoder gives it to what the steps map. Raises `BadInput` for a state of another shape
        than `build` was told, where that matters."""
        return to_columns(y) if self.pixelwise else y

    def leave(self, z: Tensor, shape: torch.Size) -> Tensor:
        """Back again; shape: of the first state."""
        return from_columns(z, shape) if self.pixelwise else z

    def forward(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, n) -> (B, n), or (B, n, H, W) -> (B, n, H, W), or what `build` says."""
        z = self.enter(y)
        return self.leave(chain.run(self.steps(context), z), y.shape)

    def engine(self, device: torch.device | None = None) -> str:
        """What takes a batch through the steps: "reference" for torch, step by step (`ode.chain`). The batch is in
        torch's default type, on that device, by default the flow's."""
        if self.controlled or not self.pixelwise:
            return chain.REFERENCE
        with torch.no_grad():
            return chain.engine(self.steps(), torch.zeros(self.width, 1, device=device or self.h.device))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The first state whose last one is y, shaped like it. Raises `BadInput` for steps that know no inverse."""
        z = self.enter(y)
        for step in reversed(self.steps(context)):
            z = step.inverse(z)
        return self.leave(z, y.shape)

    def states(self, y: Tensor, context: Tensor | None = None) -> list[Tensor]:
        """The N + 1 states along the trajectory, each shaped like y (where steps keep the shape)."""
        z = self.enter(y)
        found = [y]
        for step in self.steps(context):
            z = step(z)
            found.append(self.leave(z, y.shape))
        return found

    def step_jacobians(self, y: Tensor, context: Tensor | None = None) -> list[Tensor]:
        """Exact one-step Jacobians d phi_j / d y_(j-1) along the trajectory: N tensors (M, n, n), M states. Raises
        `BadInput` for flows whose steps mix pixels."""
        if not self.pixelwise:
            name = type(self).__name__
            raise BadInput(f"callbacks.bsm: expected a flow whose pixels do not mix, got {name}; leave it out")
        z, jacobians = self.enter(y), []
        for step in self.steps(context):
            jacobians.append(step.jacobian(z))
            z = step(z)
        return jacobians

    def check(self, y: Tensor, context: Tensor | None = None) -> None:
        """Raises `BadInput` for a family that does not keep its word at the first states y, (B, n) or (B, n, H, W):
        `fields` are N vector fields, `steps` N maps that keep the shape of a column, and the last state has the shape
        that `build` says."""
        name = type(self).__name__
        if self._has_fields:
            with refused(f"model: {name}.fields() fails"):
                fields = self.fields(context)
            _expect_all(f"model: {name}.fields()", fields, VectorField, self.depth)
        with refused(f"model: the steps of {name} cannot be made"):
            steps, z = self.steps(context), self.enter(y)
        _expect_all(f"model: {name}.steps()", steps, Step, self.depth)
        for j, step in enumerate(steps, 1):
            with (
                refused(f"model: step {j} of {name} fails on states of shape {tuple(z.shape)}"),
                unchanged(f"model: step {j} of {name}", state=z),
            ):
                after = step(z)
            if not isinstance(after, Tensor) or (self.pixelwise and after.shape != z.shape):
                got = tuple(after.shape) if isinstance(after, Tensor) else type(after).__name__
                raise BadInput(f"model: step {j} of {name} makes {got} of states {tuple(z.shape)}, expected that shape")
            z = after
        with refused(f"model: the forward pass of {name} fails on states of shape {tuple(y.shape)}"):
            last = tuple(self(y, context).shape)
        expected = (len(y), *self.build(tuple(y.shape[1:])))
        if last != expected:
            raise BadInput(f"model: {name} ends with states {last}, expected {expected} as its build() says")

    def uncontrolled(self, who: str) -> None:
        """Raises `BadInput` for fields that are bound to the data: `who` looks at states without their data."""
        if self.controlled:
            raise BadInput(f"{who}: expected a model whose fields do not depend on the data, got {type(self).__name__}")

    def exact(self) -> Flow:
        """A copy in float64 with the very same weights, gamma, h, kappa and c: what certificates are about, and all of
        them. So the kappa that is certified is the float64 number of the state dict; the forward pass in float32 rounds
        it, in Q = L^T L + kappa I, and the weights that a family computes from others. In eval mode, as it is measured.

        Raises:
            JobFailed: weights that are not finite.
        """
        for name, parameter in self.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise JobFailed(f"the weights are not finite ({name}): training diverged; try a smaller lr or step")
        return copy.deepcopy(self).double().eval()

    @torch.no_grad()
    def step_bounds(self) -> list[tuple[float, float]]:
        """Per layer the certified Lipschitz bound of the ODE over one step, and of the step that runs; nan for the
        first where there is no ODE. Nothing is certified where the fields are bound to the data, where a forward pass
        is not that of `Flow`, nor where a step or field inherits its constant from one that computes something else.

        Raises:
            JobFailed: weights that are not finite.
        """
        if self.controlled:
            return [(math.inf, math.inf)] * self.depth
        flow = self.exact()
        if not flow.computes_its("lipschitz", "euler_lipschitz"):
            return [(math.inf, math.inf)] * self.depth
        flow._bound = flow.bind() if flow._has_fields else None  # both bounds ask the same fields, which remember
        discrete = once(lambda step: certified(lambda: own_lipschitz(step)), flow.steps())
        return list(zip(flow.ode_bounds(), discrete, strict=True))

    def computes_its(self, *certificates: str) -> bool:
        """Whether the forward pass is the steps and nothing else, and no field inherits one of these methods from a
        class that computes something else."""
        kinds = {type(field) for field in self.fields()} if self._has_fields else set()
        own = all(speaks_of(kind, name) for kind in kinds for name in certificates)
        return own and type(self).forward is Flow.forward and not patched(self)

    def ode_bounds(self) -> list[float]:
        """Certified Lipschitz bounds of the ODE's flow over the interval of each step, from the fields' log-norms; nan
        for a family of steps alone."""
        if not self._has_fields:
            return [math.nan] * self.depth
        fields, h = self._bound or self.bind()
        return [exp_or_inf(value(h) * lognorm) for lognorm in once(field_bound, fields)]

    @torch.no_grad()
    def lognorm_bounds(self, known: Sequence[LogNormBounds] = ()) -> list[LogNormBounds]:
        """Of each layer's field the log-norm from both sides (`VectorField.lognorm_bounds`). None at all for flows with
        a field that does not know it, is bound to the data or inherits it from one that computes something else, nor
        where numbers overflow.

        known: the answer for earlier weights, to begin with. The largest bounds are as good as the fields can afford;
        of layers that are proved to be below the largest no better ones are sought.

        Raises:
            JobFailed: weights that are not finite.
        """
        if not self._has_fields or not self.solves_an_ode or self.controlled:
            return []
        flow = self.exact()
        if not flow.computes_its("lognorm_bounds"):
            return []
        fields, found = flow.fields(), dict[int, LogNormBounds]()
        start = dict(zip(map(id, fields), known, strict=True)) if known else {}
        enough = -math.inf
        for field in sorted(fields, key=lambda each: -start[id(each)].upper if start else 0.0):
            if id(field) in found:
                continue
            try:
                bounds = field.lognorm_bounds(start.get(id(field)), enough)
            except (BadInput, ArithmeticError, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
                return []
            if bounds is None:
                return []
            found[id(field)], enough = bounds, max(enough, bounds.upper)
        return [found[id(field)] for field in fields]

    def certificate(self) -> dict[str, float]:
        """Certified Lipschitz bounds of the whole flow: `flow_ode` for the ODE (Theorems 1, 2), `flow_discrete` for
        the network that runs. inf where there is none. Never about encoder or head."""
        return products(self.step_bounds())

    def averagedness(self) -> float:
        """A certified theta such that the flow is theta-averaged; 1 = nonexpansive and no more, inf where nothing is
        proven (docs/theory.md, section 30). Raises `JobFailed` for weights that are not finite."""
        return math.inf

    def certificate_table(self) -> dict[str, float]:
        """The certificate and its factors, named for the training log."""
        steps = self.step_bounds()
        table = products(steps)
        for j, (ode, discrete) in enumerate(steps, 1):
            table |= {f"step_ode/{j}": ode, f"step_discrete/{j}": discrete}
        return table


def _expect_all(what: str, found: object, kind: type, count: int) -> None:
    """Raises `BadInput` unless it is a list of so many things of that kind."""
    if not isinstance(found, Sequence):
        raise BadInput(f"{what} gives a {type(found).__name__}, expected a list of depth={count} {kind.__name__}s")
    wrong = [type(each).__name__ for each in found if not isinstance(each, kind)]
    if wrong or len(found) != count:
        given = f"a {wrong[0]} among them" if wrong else f"{len(found)}"
        raise BadInput(f"{what} gives {given}, expected depth={count} {kind.__name__}s")


def products(steps: list[tuple[float, float]]) -> dict[str, float]:
    """`Flow.certificate` from `Flow.step_bounds`."""
    return {
        "flow_ode": math.prod(a for a, _ in steps),
        "flow_discrete": certified(lambda: math.prod(b for _, b in steps)),
    }


def field_bound(field: VectorField) -> float:
    """The certified logarithmic norm of a field; inf where that is about another computation."""
    return certified(field.lognorm) if speaks_of(type(field), "lognorm") else math.inf


def certified(bound: Callable[[], float]) -> float:
    """A bound of finite weights; inf where numbers overflow on the way to it, so that nothing is certified."""
    try:
        found = bound()
    except (OverflowError, ZeroDivisionError, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
        return math.inf
    return math.inf if math.isnan(found) else found


def exp_or_inf(x: float) -> float:
    """exp(x); inf where that overflows, or x is no number."""
    return math.exp(x) if x < 700 else math.inf


def to_columns(y: Tensor) -> Tensor:
    """(B, n) or (B, n, H, W) -> (n, M) with M = B or B H W."""
    return y.transpose(0, 1).reshape(y.shape[1], -1)


def from_columns(z: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `to_columns` for a tensor of that shape."""
    return z.reshape(shape[1], shape[0], *shape[2:]).transpose(0, 1)
