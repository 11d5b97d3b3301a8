"""Several flows of one family side by side, with a leading dimension for the flows.

S small networks then cost hardly more operations than one, and the matrices of all their layers are made at once:
for toy sets, where calling an operation takes longer than computing it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from robode.errors import JobFailed
from robode.fields.chnode import CHNode
from robode.fields.hamiltonian import Bounds, HamiltonianFlow
from robode.fields.hdnn import HDNN
from robode.fields.layered import LayeredFlow
from robode.fields.node import MLPField, Node
from robode.fields.resnet import ResNet
from robode.ode.bounds import Scalar, lognorm, one_step_lipschitz, value
from robode.ode.flow import Constrained, Flow, exp_or_inf
from robode.ode.integrators import ETD, IMEX, Euler, GainIntegrator, LayerIntegrator, SymplecticEuler
from robode.ode.layer import Layer
from robode.ode.runge_kutta import RK4, Midpoint
from robode.ode.vector_field import GradientField, OneLayerField, VectorField

FAMILIES = (CHNode, HDNN, ResNet, Node)
METHODS = (Euler, ETD, IMEX, SymplecticEuler, Midpoint, RK4)
FOLLOWING = ("gamma", "h", "kappa", "c")  # buffers that differ between flows of one configuration


def joinable(flow: Flow) -> bool:
    """Whether `JoinedFlow` computes what this flow computes.

    Not so for families of the user's (subclasses too), for methods that look at the whole batch to choose their steps
    (dopri5, implicit_midpoint, euler with substeps=auto), and for gamma=differentiable.
    """
    varying = isinstance(flow, CHNode) and (flow.differentiable or flow.adaptive)
    return type(flow) in FAMILIES and type(flow.integrator) in METHODS and not varying


class JoinedFlow:
    """S flows of one configuration for which `joinable` holds.

    parameters: name in the flow -> (S, *shape); entry s must share its memory with the parameter of flow s. The
    buffers that follow the weights are moved into such common tensors here. The flows stay usable one by one.
    """

    def __init__(self, flows: Sequence[Flow], parameters: Mapping[str, Tensor]):
        self.flows, self.first = flows, flows[0]
        self.parameters = parameters
        self.wide = copy.copy(flows[0])  # the family's own formulas, on tensors with one more dimension
        self.wide._parameters = {name: parameters.get(name) for name in self.first._parameters}  # type: ignore[misc]
        self.wide._buffers = dict(self.first._buffers)
        for name in FOLLOWING:
            if name in self.first._buffers:
                self.wide._buffers[name] = _join(flows, name)

    def __call__(self, z: Tensor) -> Tensor:
        """z: (S, n, M) columns -> (S, n, M)."""
        field, h = self._field()
        method = self.first.integrator
        if not isinstance(field, MLPField) and isinstance(method, LayerIntegrator):
            return self._through(method.layers(field, h), z)
        size = h.to(z.dtype).squeeze(1) if isinstance(h, Tensor) else h
        for j in self._sets():  # the fields are autonomous: t plays no part
            z = method.step(_layer_of(field, j), 0.0, size, z)
        return z

    def step_jacobians(self, z: Tensor) -> list[Tensor] | None:
        """Exact one-step Jacobians, N tensors (S, M, n, n), along the trajectories of z (S, n, M); None where there is
        no joint form (rk4 and midpoint on flows whose steps differ)."""
        field, h = self._field()
        method, jacobians = self.first.integrator, []
        layered = not isinstance(field, MLPField) and isinstance(method, LayerIntegrator)
        if not layered and isinstance(h, Tensor):
            return None
        layers = method.layers(field, h) if layered else []  # type: ignore[attr-defined]
        for j in self._sets():
            if not layered:
                each = _layer_of(field, j)
                jacobians.append(method.jacobian(each, 0.0, h, z))
                z = method.step(each, 0.0, h, z)
                continue
            product: Tensor | None = None
            for layer in (_of_set(layer, j) for layer in layers):
                product = layer.jacobian(z) if product is None else layer.jacobian(z) @ product
                z = layer(z)
            assert product is not None
            jacobians.append(product)
        return jacobians

    def layer_parameters(self) -> tuple[Tensor, Tensor] | None:
        """K (S, N, n, n) and b (S, N, n, 1) as `Flow.layer_parameters` gives them for one."""
        return self.wide.layer_parameters()

    def project_(self) -> list[JobFailed | None]:
        """`project_` of every flow, if they have one, with one eigenvalue problem for all. Returns what each raised."""
        if not isinstance(self.first, Constrained):
            return [None] * len(self.flows)
        bounds = self._bounds()
        failures: list[JobFailed | None] = []
        for s, flow in enumerate(self.flows):
            try:
                if bounds is None:
                    flow.project_()  # type: ignore[operator]
                else:
                    flow.project_((bounds[0][s], bounds[1][s]))  # type: ignore[operator]
                failures.append(None)
            except JobFailed as error:
                failures.append(error)
        return failures

    @torch.no_grad()
    def step_bounds(self) -> list[list[tuple[float, float]]]:
        """`Flow.step_bounds` of every flow, with the eigenvalue problems of all layers in one."""
        field, h = self._field()
        method = self.first.integrator
        if isinstance(field, GradientField) and isinstance(method, GainIntegrator) and isinstance(h, Tensor):
            if type(method) is not Euler or method.substeps == 1:
                return self._of_steps(*_gradient_bounds(_in_float64(field), h, method))
        if isinstance(field, OneLayerField) and type(method) is Euler and isinstance(h, float):
            wide = _in_float64(field)
            discrete = wide.euler_layer(h / method.substeps).lipschitz_each() ** method.substeps
            return self._of_steps((h * wide.lognorm_each()).exp().tolist(), discrete.tolist())
        return [flow.step_bounds() for flow in self.flows]

    def _of_steps(self, ode: list[list[float]], discrete: list[list[float]]) -> list[list[tuple[float, float]]]:
        """From bounds for each set of weights to bounds for each step."""
        return [[(a[j], b[j]) for j in self._sets()] for a, b in zip(ode, discrete, strict=True)]

    def _bounds(self) -> Bounds | None:
        """The Hessian bounds (S, sets) of all flows; None where each has to find its own."""
        if not isinstance(self.wide, HamiltonianFlow) or self.wide.norm_bound is not None:
            return None
        try:
            with torch.no_grad():
                return self.wide.hessian_bounds()
        except JobFailed:  # some flow's weights are not finite: each says so for itself
            return None

    def _field(self) -> tuple[VectorField, Scalar]:
        """All fields of all flows as one, K (S, sets, n, n), and h; for an MLP, W_i (S, out, in)."""
        wide, h = self.wide, float(self.first.h)
        if isinstance(wide, HamiltonianFlow):
            gamma, c = wide.gamma[..., None, None], wide.c[..., None, None]
            potential = wide.weights(), wide.biases(), wide.quadratic()
            field = GradientField(wide.skew, gamma, *potential, wide.activation, c, wide.partitioned)
            return field, wide.h[..., None, None]
        if isinstance(wide, LayeredFlow):
            return OneLayerField(wide.weights(), wide.biases(), wide.activation), h
        assert isinstance(wide, Node)
        W, b = ([self.parameters[f"{name}.{i}"] for i in range(len(wide.W))] for name in ("W", "b"))
        if len(W) == 1:
            return OneLayerField(W[0][:, None], b[0][:, None], wide.activation), h
        return MLPField(W, b, wide.activation), h

    def _sets(self) -> list[int]:
        """Which set of weights each of the N steps uses."""
        one = isinstance(self.first, Node) or isinstance(self.first, LayeredFlow) and self.first.shared
        return [0] * self.first.depth if one else list(range(self.first.depth))

    def _through(self, layers: Sequence[Layer], z: Tensor) -> Tensor:
        """What `Layer` does to one state, for S states and step by step. The layers hold all S * sets matrices."""
        parts = {id(layer): _unbound(layer) for layer in layers}
        s = layers[0].activation.kernel.s
        for j in self._sets():
            for layer in layers:
                b, K, q, A, B = parts[id(layer)][j]
                hidden = s(torch.baddbmm(b, K, z))
                z = torch.baddbmm(q, A, z).baddbmm_(B, hidden)
        return z


def _join(flows: Sequence[Flow], name: str) -> Tensor:
    """One tensor for a buffer of all flows, whose own buffers become views of it: (S, 1) for numbers, else (S, ...)."""
    rows = torch.stack([getattr(flow, name) for flow in flows])
    for flow, row in zip(flows, rows, strict=True):
        flow._buffers[name] = row
    return rows if rows.dim() > 1 else rows[:, None]


def _unbound(layer: Layer) -> list[tuple[Tensor, ...]]:
    """The folded matrices (S, n, n) of each set of weights."""
    lead = layer.K.shape[:2]
    return list(zip(*(t.expand(*lead, *t.shape[-2:]).unbind(1) for t in layer.folded()), strict=True))


Field = TypeVar("Field", GradientField, OneLayerField)


def _in_float64(field: Field) -> Field:
    names = ("K", "b", "Q") if isinstance(field, GradientField) else ("K", "b")
    return replace(field, **{name: getattr(field, name).detach().double() for name in names})


def _gradient_bounds(field: GradientField, h: Tensor, method: GainIntegrator) -> tuple[list[list[float]], ...]:
    """exp(h lognorm) and the Lipschitz constant of the step for stacked fields, K (S, sets, n, n): S lists each."""
    lower, upper = field.hessian_bounds_each()
    (layer,) = method.layers(field, h)
    gains = [[part.expand(*lower.shape, 1, 1) for part in gain] for gain in method.gains(field, h)]  # type: ignore[union-attr]
    modes = torch.stack([torch.complex(re, im).flatten(-3) for re, im in gains], dim=-1)
    sizes, gammas = h.flatten().tolist(), torch.as_tensor(field.gamma).flatten().tolist()
    ode, discrete = [], []
    tables = (t.tolist() for t in (lower, upper, field.steepest_each(), layer.lipschitz_each(), modes))
    for size, gamma, *rows in zip(sizes, gammas, *tables, strict=True):
        each = list(zip(*rows, strict=True))
        over_class = [value(lognorm(m, M, gamma, field.skew.norm)) for m, M, *_ in each]
        ode.append(
            [exp_or_inf(size * min(mu, steep)) for mu, (_, _, steep, _, _) in zip(over_class, each, strict=True)]
        )
        discrete.append([min(exact, one_step_lipschitz(m, M, g)) for m, M, _, exact, g in each])
    return ode, discrete


def _of_set(layer: Layer, j: int) -> Layer:
    """The layers of the j-th set of weights, K (S, n, n)."""
    lead = layer.K.shape[:2]
    A, B, K, b = (t.expand(*lead, *t.shape[-2:])[:, j] for t in (layer.A, layer.B, layer.K, layer.b))
    return Layer(A, B, K, b, layer.activation)


def _layer_of(field: VectorField, j: int) -> VectorField:
    """The fields of the j-th set of weights, K (S, n, n)."""
    if isinstance(field, GradientField):
        assert isinstance(field.gamma, Tensor) and isinstance(field.c, Tensor)
        return replace(
            field, gamma=field.gamma.squeeze(1), K=field.K[:, j], b=field.b[:, j], Q=field.Q[:, j], c=field.c[:, j]
        )
    return replace(field, K=field.K[:, j], b=field.b[:, j]) if isinstance(field, OneLayerField) else field
