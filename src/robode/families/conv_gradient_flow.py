"""Convolutional gradient flow: x+ = x - h W^T sigma(W x + b) with 3x3 convolutions W, in stages of falling resolution.

The Jacobian I - h W^T D W, 0 <= D <= S, is symmetric with its spectrum in [1 - h S ||W||^2, 1]: a layer is 1-Lipschitz
while h S ||W||^2 <= 2. Source: Sherry et al., Designing stable neural networks using convex
analysis and ODEs, 2023; Meunier et al., A dynamical system perspective for Lipschitz neural networks, 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robode.errors import BadInput
from robode.families.stages import PixelMean, spread
from robode.integrators.euler import Euler
from robode.integrators.integrator import Integrator
from robode.iterations import Map, composed
from robode.linalg.activations import Activation, named_activation
from robode.linalg.conv_growth import growth, without_growth
from robode.linalg.conv_orthonormal import REACH, newton_schulz, random_orthonormal_kernels
from robode.linalg.convolution import (
    HALVINGS,
    Convolution,
    Size,
    norms_squared,
    norms_squared_of_every_size,
    size_of_grid,
)
from robode.linalg.norms import host_may_look, largest_eigenvalue
from robode.linalg.orthonormal import orthonormal, random_orthonormal
from robode.ode.bounds import Scalar
from robode.ode.field import VectorField
from robode.ode.flow import Flow
from robode.ode.guarantees import NONEXPANSIVE
from robode.ode.step import Chain, Step

KERNEL = 3
TYPICAL = 32  # image side for which initial weights are scaled
NEAR = 0.95  # share of the limit of ||W||^2 from which kernels=tangent takes a W for as long as it may be
ROOM = 2e-3  # by how much a shortened layer stays below the limit, so that a second projection finds nothing to do

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ConvGradientField(VectorField):
    """f(x) = -W^T sigma(W x + b) = -grad sum_i Sigma(W x + b)_i, Sigma' = sigma, on images x (B, c, H, W).

    b: (c'); size: (H, W), for which the constants are certified; None: for every size.
    """

    W: Convolution
    b: Tensor
    activation: Activation
    size: Size | None

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return -self.W.adjoint(self.activation(self.W(y, self.b)))

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        raise BadInput("expected a flow whose pixels do not mix: the Jacobian of a convolution is no small matrix")

    def lognorm(self) -> float:
        return 0.0  # -W^T D W is negative semidefinite, and zero where D is

    def lipschitz(self) -> float:
        norm = self.W.norm(*self.size) if self.size else self.W.norm_of_every_size()
        return self.activation.slope_bound * norm**2

    def euler_lipschitz(self, h: float) -> float:
        """Sharp over the slopes: max(1, h S ||W||^2 - 1)."""
        return max(1.0, h * self.lipschitz() - 1)

    def euler_averaged(self, h: float) -> float:
        """h S ||W||^2/2, with which the Euler step is averaged, up to 1 (docs/theory.md, section 30); inf above."""
        theta = h * self.lipschitz() / 2
        return theta if theta <= 1 else math.inf


@dataclass(frozen=True)
class StageChange(Step):
    """Half the resolution, then V, a 1x1 convolution to the next channels. V: (c_next, factor c), orthonormal."""

    halve: Callable[[Tensor], Tensor]
    V: Tensor
    between_stages = True

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv2d(self.halve(x), self.V[:, :, None, None])

    def lipschitz(self) -> float:
        """Certified: the norm of V, as halving has the constant 1."""
        return float(largest_eigenvalue(self.V).sqrt())


class ConvGradientFlow(Flow):
    """Layer j: in front of a stage's first one a StageChange, then Euler steps of h through ConvGradientField j.

    width: channels of the first stage; growth: factor of the channels from one stage to the next.
    layers: of each stage, adding up to depth; null = as equal as possible, later stages first.
    expansion: channels c' of W x over those of x, rounded to at least one.
    kernels: orthonormal = W starts with orthonormal rows (columns where c' > c) times the longest norm, and `project_`
      leads a W that is too long back towards them; free = W starts Gaussian and is only shortened. A gradient step
      lengthens a few directions; where all are shortened for it, step after step, the others fade to nothing. tangent =
      Gaussian, and gradients of a W that is as long as it may be do not lengthen it (`linalg.conv_growth`).
    change: space_to_depth (an isometry before V), mean_pool (rescaled to norm 1) or max_pool.
    pool: mean = the flow ends with sqrt(H W) times the mean over pixels (norm 1), (B, c, 1, 1); none = it does not.
    theta: each layer is theta-averaged; 1 = nonexpansive and no more. Below 1 the whole flow is averaged.
    init_norm: ||W|| at first, over the longest: a small one begins near the identity.
    sizes: one = constants are for the size of image that `build` was told, and no other runs; every = for every size.
    step="auto" is h = 1; another h only rescales the weights.
    integrator: euler. Its `substeps` are those of every layer, auto = as many as ||W_j|| needs, and W is free.

    Property: `project_` leaves h S ||W||^2 / substeps <= 2 theta and V orthonormal, for every size or the one that
    `build` was told, so every layer and the flow are nonexpansive. What it enforces is an upper bound in float32 that
    is cheap enough for every step of an optimiser (`norms_squared`); `step_bounds` takes the norms in float64 by
    singular values and believes nothing, so a flow that is not is shown as one.
    """

    guarantee = NONEXPANSIVE
    solves_an_ode = False
    pixelwise = False  # steps have no small Jacobians: nothing for bsm.csv
    substeps: Tensor

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        activation: str = "relu",
        stages: int = 3,
        layers: Sequence[int] | None = None,
        growth: int = 4,
        expansion: float = 0.5,
        kernels: str = "orthonormal",
        change: str = "space_to_depth",
        pool: str = "none",
        theta: float = 1.0,
        sizes: str = "one",
        init_norm: float = 1.0,
    ):
        super().__init__(width, depth, integrator, step, horizon)
        if not isinstance(integrator, Euler):
            raise BadInput(f"integrator={integrator.name}: expected euler, whose steps are the layers of this model")
        _check_counts(stages=stages, growth=growth)
        _check_numbers(expansion=expansion, theta=theta, init_norm=init_norm)
        _check_words(
            change=(change, HALVINGS), pool=(pool, ("none", "mean")), kernels=(kernels, KERNELS), sizes=(sizes, SIZES)
        )
        if sizes == "every" and stages > 1:
            raise BadInput(
                f"model.sizes=every: expected model.stages=1, since not all sides can be halved; got {stages}"
            )
        self.theta, self.every_size = theta, sizes == "every"
        self.orthonormal = kernels == "orthonormal" and not integrator.auto_substeps
        self.tangent = kernels == "tangent" and not integrator.auto_substeps
        self.activation = named_activation(activation)
        self.layers, self.pool = spread("layers", depth, stages, layers), pool
        self.halve, factor = HALVINGS[change]
        self._fill([width * growth**k for k in range(stages)], factor, expansion, KERNELS[kernels], init_norm)
        if integrator.auto_substeps:
            self.register_buffer("substeps", torch.ones(depth, dtype=torch.int64))
        self.sizes: list[Size | None] = []

    def _fill(
        self, channels: list[int], factor: int, expansion: float, draw: Callable[..., Tensor], init_norm: float
    ) -> None:
        """Draws K, b and, between two stages, V. factor: by how much a halved image has more channels."""
        self.K, self.b, self.V = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for k, (count, c) in enumerate(zip(self.layers, channels, strict=True)):
            W, biases = _initial(draw, count, max(1, round(expansion * c)), c)
            longest = float(self.limit) / norms_squared(W, TYPICAL, TYPICAL)
            self.K.append(nn.Parameter(_scaled(W, init_norm**2 * longest)))
            self.b.append(nn.Parameter(biases))
            if k > 0:
                self.V.append(nn.Parameter(random_orthonormal(c, channels[k - 1] * factor)))

    @property
    def limit(self) -> Tensor:
        """The largest ||W||^2 for which one Euler step of h is theta-averaged (theta = 1: nonexpansive)."""
        return 2 * self.theta / (self.h * self.activation.slope_bound)

    def build(self, shape: Shape) -> Shape:
        """Tells the flow the shape (width, H, W) of the images it starts from, for which norms are certified from now
        on, and projects. Returns the shape of its last state.

        Raises:
            BadInput: no images of that width, or sides that cannot be halved at every change of stage.
        """
        if len(shape) != 3:
            raise BadInput("model=gradient_flow_conv: expected images, got vectors; choose other data or another model")
        if shape[0] != self.width:
            raise BadInput(f"model.width: expected the channels of the encoded images, {shape[0]}, got {self.width}")
        changes = len(self.layers) - 1
        if any(side < 1 or side % 2**changes for side in shape[1:]):
            raise BadInput(
                f"model.stages={changes + 1}: expected images whose sides {2**changes} divides (halved at each change "
                f"of stage), got {shape[1]} x {shape[2]}"
            )
        sizes = [(shape[1] >> k, shape[2] >> k) for k in range(changes + 1)]
        self.sizes = [None if self.every_size else size for size in sizes]
        self.project_()
        return (self.K[-1].shape[2], *((1, 1) if self.pool == "mean" else sizes[-1]))

    def fields(self, context: Tensor | None = None) -> list[ConvGradientField]:
        if not self.sizes:
            raise BadInput("model=gradient_flow_conv: expected `build` before anything runs or is certified")
        found = []
        for kernels, biases, size in zip(self.K, self.b, self.sizes, strict=True):
            layers = zip(self._trained(kernels, size), biases, strict=True)
            found += [ConvGradientField(Convolution(K), b, self.activation, size) for K, b in layers]
        return found

    def _trained(self, K: Tensor, size: Size | None) -> Tensor:
        """K, in training maybe with other gradients."""
        if not (self.tangent and self.training and torch.is_grad_enabled()):
            return K
        norms, D = growth(K, *(size or size_of_grid(K.shape[3:])))
        return without_growth(K, D, norms.square() / self.limit > NEAR)

    def steps(self, context: Tensor | None = None) -> list[Step]:
        """Layer by layer: the change of stage in front of a stage's first, and the mean behind the last, belong to
        their layers."""
        found: list[Step] = []
        for j, field in enumerate(self.fields()):
            stage = self._stage_that_begins(j)
            parts: list[Step] = [StageChange(self.halve, self.V[stage - 1])] if stage else []
            parts.append(self.method_of(j).step(field, j * self.h, self.h))
            if j == self.depth - 1 and self.pool == "mean":
                parts.append(PixelMean(rescaled=True))
            found.append(parts[0] if len(parts) == 1 else Chain(parts))
        return found

    def ode_bounds(self) -> list[float]:
        """1 for each layer, times the constant of the change of stage in front of it."""
        stages = map(self._stage_that_begins, range(self.depth))
        return [StageChange(self.halve, self.V[stage - 1]).lipschitz() if stage else 1.0 for stage in stages]

    @torch.no_grad()
    def averagedness(self) -> float:
        flow = self.exact()
        if len(self.layers) > 1 or self.pool == "mean" or not flow.computes_its("lipschitz", "euler_averaged"):
            return math.inf
        assert isinstance(flow, ConvGradientFlow)
        methods, found = map(flow.method_of, range(self.depth)), list[Map]()
        for method, field in zip(methods, flow.fields(), strict=True):
            assert isinstance(method, Euler)
            theta = field.euler_averaged(float(self.h) / method.substeps)
            found += [Map("step", method.step(field, 0.0, self.h), averaged=theta)] * method.substeps
        return composed(*found).averaged

    def _stage_that_begins(self, j: int) -> int:
        """The number of the stage whose first layer is layer j; 0 for other layers and for the first stage."""
        firsts = {sum(self.layers[:k]): k for k in range(1, len(self.layers))}
        return firsts.get(j, 0)

    def method_of(self, j: int) -> Integrator:
        """What layer j runs; with substeps=auto their number is read from the device."""
        return Euler(int(self.substeps[j])) if self.integrator.auto_substeps else self.integrator

    def enter(self, y: Tensor) -> Tensor:
        if not self.sizes:
            self.build(tuple(y.shape[1:]))
        if self.sizes[0] not in (None, tuple(y.shape[2:])):
            raise BadInput(f"model=gradient_flow_conv: expected images {self.sizes[0]}, got {tuple(y.shape[2:])}")
        return y

    def properties(self) -> dict[str, float]:
        most = {"substeps_max": float(self.substeps.max())} if self.integrator.auto_substeps else {}
        return super().properties() | most

    @torch.no_grad()
    def project_(self) -> None:
        """Makes every layer nonexpansive by a W that is shorter, or nearer to orthonormal (or by more substeps), and V
        orthonormal; the rest stays.

        Idempotent; does nothing before `build`.
        """
        for stage in range(len(self.sizes)):
            self._project_stage(stage)
        for V in self.V:
            V.copy_(orthonormal(V))

    def _project_stage(self, stage: int) -> None:
        """`project_` for the layers of a stage."""
        K, size, limit = self.K[stage], self.sizes[stage], self.limit
        reach = _norms_squared(K, size) / limit
        if self.integrator.auto_substeps:
            substeps = Euler.enough(reach)
            first = sum(self.layers[:stage])
            self.substeps[first : first + len(substeps)] = substeps
            reach = reach / substeps
        beyond = reach > 1
        if host_may_look(reach) and not bool(beyond.any()):
            return
        W = K
        if self.orthonormal:
            root = limit.sqrt().to(K.dtype)
            W = root * newton_schulz(_scaled(K, (REACH / reach).clamp(max=1)) / root)
            reach = _norms_squared(W, size) / limit
        shorter = _scaled(W, torch.where(reach > 1, (1 - ROOM) / reach, 1.0))
        K.copy_(torch.where(beyond[:, None, None, None, None], shorter, K))


def _check_counts(**numbers: int) -> None:
    for key, number in numbers.items():
        if type(number) is not int or number < 1:
            raise BadInput(f"model.{key}: expected a whole number >= 1, got {number}")


def _check_numbers(expansion: float, **shares: float) -> None:
    """Raises `BadInput` for an expansion that is not positive, or a share outside (0, 1]."""
    if type(expansion) not in (int, float) or not 0 < expansion < math.inf:
        raise BadInput(f"model.expansion: expected a number > 0, got {expansion}")
    for key, share in shares.items():
        if type(share) not in (int, float) or not 0 < share <= 1:
            raise BadInput(f"model.{key}: expected a number in (0, 1], got {share}")


def _check_words(**chosen: tuple[str, Iterable[str]]) -> None:
    for key, (word, words) in chosen.items():
        if word not in words:
            raise BadInput(f"model.{key}: expected one of {', '.join(words)}, got '{word}'")


def _gaussian(count: int, rows: int, channels: int, size: int) -> Tensor:
    return torch.randn(count, rows, channels, size, size)


KERNELS = {"orthonormal": random_orthonormal_kernels, "free": _gaussian, "tangent": _gaussian}
SIZES = ("one", "every")


def _norms_squared(kernels: Tensor, size: Size | None) -> Tensor:
    """On images of that size, or (None) of every size."""
    return norms_squared(kernels, *size) if size else norms_squared_of_every_size(kernels)


def _initial(draw: Callable[..., Tensor], count: int, rows: int, channels: int) -> tuple[Tensor, Tensor]:
    """Kernels (count, c', c, 3, 3), and biases (count, c') as torch.nn.Conv2d draws them."""
    kernels = draw(count, rows, channels, KERNEL)
    bound = (channels * KERNEL**2) ** -0.5
    return kernels, torch.empty(kernels.shape[:2]).uniform_(-bound, bound)


def _scaled(kernels: Tensor, squared: Tensor) -> Tensor:
    """Each kernel times the root of its factor. kernels: (L, c', c, k, k); squared: (L)."""
    return kernels * squared.sqrt().to(kernels.dtype)[:, None, None, None, None]
