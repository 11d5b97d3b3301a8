"""A continuous-depth residual network: h' = rate F(t, h) with convolutions and batch normalisations that are piecewise
constant in time, in stages of falling resolution.

Source: Queiruga, Erichson, Hodgkinson, Mahoney, Stateful ODE-Nets using basis function expansions, 2021 (the network);
Jimenez Rodriguez, Ames, Yue, LyaNet, 2022, Section 5 (the rows Continuous and Continuous LyaNet of Table 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robode.backbones import initialise_
from robode.errors import BadInput
from robode.families.resnet18 import channels_of, expect_images, several
from robode.families.stages import PixelMean, spread
from robode.integrators.adjoint import WithAdjoint
from robode.integrators.implicit_midpoint import ImplicitMidpoint
from robode.integrators.integrator import Integrator
from robode.ode.bounds import Scalar
from robode.ode.field import VectorField
from robode.ode.flow import Flow
from robode.ode.step import Chain, Step

KERNEL = 3
ENDS = ("own", "next")
Shape = tuple[int, ...]


class ConvField(VectorField):
    """A field of images whose convolutions have no small Jacobian, and no certified constant."""

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        raise BadInput("expected a flow whose pixels do not mix: the Jacobian of a convolution is no small matrix")


@dataclass(frozen=True)
class Piece(ConvField):
    """f(y) = scale N2(relu(K2 * z + b2)), z = N1(relu(K1 * y + b1)), with zero padding.

    kernels: (c, c, 3, 3) twice; biases: (c) twice; norms: batch normalisation of each; scale: a number or 0-d tensor.
    """

    kernels: tuple[Tensor, Tensor]
    biases: tuple[Tensor, Tensor]
    norms: tuple[nn.Module, nn.Module]
    scale: Scalar

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        for kernel, bias, norm in zip(self.kernels, self.biases, self.norms, strict=True):
            y = norm(F.conv2d(y, kernel, bias, padding=KERNEL // 2).relu())
        return self.scale * y


@dataclass(frozen=True)
class PieceThenNext(ConvField):
    """The field of a piece before time `end`, and there that of the next piece."""

    piece: Piece
    after: Piece
    end: float
    autonomous = False

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return (self.after if t >= self.end else self.piece)(t, y)


class Pieces(nn.Module):
    """The weights of a stage of c channels: a set for each piece of time, stacked. Kernels N(0, 2/(9 c)), biases 0."""

    def __init__(self, count: int, c: int):
        super().__init__()
        std = math.sqrt(2 / (KERNEL**2 * c))
        draws = [std * torch.randn(count, c, c, KERNEL, KERNEL) for _ in range(2)]
        self.K1, self.K2 = map(nn.Parameter, draws)
        self.b1, self.b2 = nn.Parameter(torch.zeros(count, c)), nn.Parameter(torch.zeros(count, c))
        self.norms1 = nn.ModuleList([nn.BatchNorm2d(c) for _ in range(count)])
        self.norms2 = nn.ModuleList([nn.BatchNorm2d(c) for _ in range(count)])

    def fields(self, scale: Scalar) -> list[Piece]:
        """One for each piece of time."""
        kernels, biases = zip(self.K1, self.K2, strict=True), zip(self.b1, self.b2, strict=True)
        norms = zip(self.norms1, self.norms2, strict=True)
        return [Piece(K, b, norm, scale) for K, b, norm in zip(kernels, biases, norms, strict=True)]


class Stitch(nn.Module):
    """y -> D y + g(y) into a stage: D a 1x1 convolution, g two 3x3 convolutions, each followed by relu and a batch
    normalisation. (B, before, H, W) -> (B, after, H / stride, W / stride)."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.D = nn.Conv2d(before, after, 1, stride, bias=False)
        first, second = nn.Conv2d(before, after, KERNEL, stride, 1), nn.Conv2d(after, after, KERNEL, 1, 1)
        self.g = nn.Sequential(first, nn.ReLU(), nn.BatchNorm2d(after), second, nn.ReLU(), nn.BatchNorm2d(after))
        initialise_(self)

    def forward(self, y: Tensor) -> Tensor:
        """D y + g(y). y: (B, before, H, W) -> (B, after, H / stride, W / stride)."""
        found: Tensor = self.D(y) + self.g(y)
        return found


@dataclass(frozen=True)
class Stitched(Step):
    """A `Stitch` as a step."""

    stitch: Stitch
    between_stages = True

    def __call__(self, y: Tensor) -> Tensor:
        found: Tensor = self.stitch(y)
        return found


class Continuous(Flow):
    """One step of the integrator through each piece of time; in front of a stage's first one a stitch, behind the last
    piece the mean over pixels: (B, width, H, W) -> (B, 2^(stages-1) width, 1, 1).

    stages: the first has `width` channels; each has twice the channels of the one before and half its sides.
    pieces: of each stage, adding up to depth; null = as equal as possible, later stages first.
    rate: dh/dt over F. step=auto: a time of 1 for each stage on average, horizon = stages (as published:
    depth=9, h=1/3).
    piece_end: whose weights the last stage of a Runge-Kutta step uses, at the very time where a piece ends: its own
    (the method keeps its order), or the next piece's, within a stage, as stock solvers do on a piecewise field.

    Property: none; batch normalisation is certified nowhere.

    Raises:
        BadInput: keys that make no sense; in training, a batch of one sample.
    """

    pixelwise = False  # steps have no small Jacobians: nothing for bsm.csv

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        stages: int = 3,
        pieces: Sequence[int] | None = None,
        rate: float = 3.0,
        piece_end: str = "own",
    ):
        channels = channels_of(width, stages)
        end = float(stages) if step == "auto" and horizon is None else horizon
        super().__init__(width, depth, integrator, step, end)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise BadInput(f"model.rate: expected a number > 0, got {rate}")
        if piece_end not in ENDS:
            raise BadInput(f"model.piece_end: expected one of {', '.join(ENDS)}, got '{piece_end}'")
        if isinstance(integrator, ImplicitMidpoint):
            raise BadInput(f"integrator={integrator.name}: expected a model whose pixels do not mix; choose rk38")
        if isinstance(integrator, WithAdjoint) and integrator.gradient != "backprop":
            raise BadInput(
                "integrator.gradient=adjoint: batch normalisation gathers statistics wherever the field is evaluated, "
                "on the way back too; expected integrator.gradient=backprop with model=continuous"
            )
        self.rate, self.next_at_end = float(rate), piece_end == "next"
        self.pieces, self.channels = spread("pieces", depth, stages, pieces), channels
        before = [width, *channels]
        self.stitches = nn.ModuleList(Stitch(before[k], c, 2 if k else 1) for k, c in enumerate(channels))
        self.stages = nn.ModuleList(Pieces(count, c) for count, c in zip(self.pieces, channels, strict=True))
        self.integrator.check(self.fields()[0])

    def build(self, shape: Shape) -> Shape:
        expect_images("continuous", shape, self.width)
        return (self.channels[-1], 1, 1)

    def enter(self, y: Tensor) -> Tensor:
        several("continuous", self.training, y)
        return y

    def bind(self, context: Tensor | None = None) -> tuple[Sequence[VectorField], Scalar]:
        """Time is counted in steps, so that the piece of a time is known without reading h: the step is 1."""
        return self.fields(context), 1.0

    def fields(self, context: Tensor | None = None) -> list[ConvField]:
        """y' = h rate F_j(y) for times j - 1 <= t <= j."""
        found: list[ConvField] = []
        for stage in self.stages:
            assert isinstance(stage, Pieces)
            own = stage.fields(self.h * self.rate)
            for place, piece in enumerate(own, 1):
                last = place == len(own) or not self.next_at_end
                found.append(piece if last else PieceThenNext(piece, own[place], len(found) + 1.0))
        return found

    def steps(self, context: Tensor | None = None) -> list[Step]:
        """The stitch in front of a stage's first piece, and the mean behind the last, belong to their pieces."""
        found, first = super().steps(context), 0
        for count, stitch in zip(self.pieces, self.stitches, strict=True):
            assert isinstance(stitch, Stitch)
            found[first] = Chain([Stitched(stitch), found[first]])
            first += count
        parts = found[-1].steps if isinstance(found[-1], Chain) else [found[-1]]
        return [*found[:-1], Chain([*parts, PixelMean()])]
