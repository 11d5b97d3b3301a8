"""The stabilised neural ODE on images, u' = sigma(A * u + b) on [0, 1], A a convolution, whose log-norm delta is
controlled.

With slopes of sigma in [alpha, 1], two solutions separate by at most e^delta, delta = max over diagonal D in [alpha, 1]
of lambda_max(sym(D A)); the explicit Euler network by (1 + 2 h delta + h^2 ||A||^2)^(N/2). (The problem: De Marinis,
Guglielmi, Sicilia, Tudisco, arXiv 2501.10740; bounds by frequencies: docs/theory.md, sections 20 and 21)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.families.stable_node import known, largest_allowed
from robode.integrators.implicit_midpoint import ImplicitMidpoint
from robode.integrators.integrator import Integrator
from robode.linalg.activations import Activation
from robode.linalg.convolution import Convolution
from robode.linalg.leaky import leaky_activation
from robode.ode.bounds import Scalar
from robode.ode.conv_lognorm import ConvJacobians, conv_lower_bound, conv_upper_bound
from robode.ode.conv_projection import conv_stabilise
from robode.ode.field import VectorField
from robode.ode.flow import Flow
from robode.ode.guarantees import STABILISED
from robode.ode.lognorm import LogNormBounds, euler_lipschitz

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ConvLayerField(VectorField):
    """f(u) = sigma(A * u + b) on images u (B, C, H, W), zero padding.

    b: (C,); size: (H, W), for which the constants are certified; theta: (C,), what bounded the log-norm before, 0 where
    nothing did.
    """

    A: Convolution
    b: Tensor
    activation: Activation
    size: tuple[int, int]
    theta: Tensor

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return self.activation(self.A(y, self.b))

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        raise BadInput("expected a flow whose pixels do not mix: the Jacobian of a convolution is no small matrix")

    def jacobians(self) -> ConvJacobians:
        """All D A, with slopes D of the activation."""
        return ConvJacobians(self.A.kernel, self.size, self.activation.slopes[0])

    def lognorm(self) -> float:
        """The best of what the known theta proves and what is found from there (docs/theory.md, section 20)."""
        return self._upper()[0]

    def lognorm_bounds(self, known: LogNormBounds | None = None, enough: float = -math.inf) -> LogNormBounds:
        """Certified bounds of the log-norm: what slopes that were found attain, and `lognorm`."""
        upper, theta = self._upper()
        return LogNormBounds(conv_lower_bound(self.jacobians(), theta).value, upper)

    def _upper(self) -> tuple[float, Tensor]:
        found = conv_upper_bound(self.jacobians(), known(self.theta))
        return found.value, found.theta

    def lipschitz(self) -> float:
        return self.activation.slope_bound * self.A.norm(*self.size)

    def euler_lipschitz(self, h: float) -> float:
        """The better of what log-norm and norm prove and what the norm alone does."""
        plain = super().euler_lipschitz(h)
        return min(plain, euler_lipschitz(self.lognorm(), self.lipschitz(), h)) if h >= 0 else plain


class ConvStableNode(Flow):
    """One field for all steps (shared), or one a step. step="auto" is h = 1/N, the time interval [0, 1].

    width: channels C of the images; kernel: side of A, odd. activation: smooth_leaky, leaky_tanh or leaky_relu, with
    slopes in [alpha, 1].
    init_std: of the entries of A and b; "auto" = 1/(kernel sqrt(C)), with which ||A|| starts at about 2.
    stabilise: "projection" (A is moved to the nearest kernel that is proved to have a log-norm of at most delta, when
      the size of the images is known, every `every` optimiser steps and at the end of each epoch), "penalty" (a
      log-norm above delta costs: the objective `lognorm_penalty`) or "none" (the unconstrained baseline).
    Property: with projection, `project_` leaves weights whose log-norm on images of the size that `build` was told is
      proved to be at most delta, as the type of the weights holds them.
    """

    guarantee = STABILISED
    pixelwise = False  # steps have no small Jacobians: nothing for bsm.csv
    theta: Tensor  # 0 where none is known yet

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        kernel: int = 3,
        activation: str = "smooth_leaky",
        alpha: float = 0.1,
        stabilise: str = "projection",
        delta: float = 0.0,
        every: int = 20,
        init_std: float | str = "auto",
        shared: bool = True,
    ):
        end = 1.0 if step == "auto" and horizon is None else horizon
        super().__init__(width, depth, integrator, step, end)
        if type(kernel) is not int or kernel < 1 or kernel % 2 == 0:
            raise BadInput(f"model.kernel: expected an odd whole number >= 1, got {kernel}")
        if isinstance(integrator, ImplicitMidpoint):
            raise BadInput(
                f"integrator={integrator.name}: expected a model whose pixels do not mix; choose euler or rk4"
            )
        self.activation, self.shared = leaky_activation(activation, alpha), shared
        self.stabilise, self.delta, self.project_every = stabilise, largest_allowed(stabilise, delta), every
        layers, std = 1 if shared else depth, (kernel**2 * width) ** -0.5 if isinstance(init_std, str) else init_std
        self.K = nn.Parameter(std * torch.randn(layers, width, width, kernel, kernel))
        self.b = nn.Parameter(std * torch.randn(layers, width))
        self.register_buffer("theta", torch.zeros(layers, width, dtype=torch.float64))
        self.size: tuple[int, int] | None = None

    def build(self, shape: Shape) -> Shape:
        """Tells the flow the shape (width, H, W) of the images it starts from, for which its log-norm is bounded from
        now on, and projects. Raises `BadInput` for other states."""
        if len(shape) != 3:
            raise BadInput("model=conv_stable_node: expected images, got vectors; choose other data, or stable_node")
        if shape[0] != self.width:
            raise BadInput(f"model.width: expected the channels of the encoded images, {shape[0]}, got {self.width}")
        self.size = (shape[1], shape[2])
        self.integrator.check(self.fields()[0])
        self.project_()
        return shape

    def fields(self, context: Tensor | None = None) -> list[ConvLayerField]:
        if self.size is None:
            raise BadInput("model=conv_stable_node: expected `build` before anything runs or is certified")
        layers = zip(self.K, self.b, self.theta, strict=True)
        found = [ConvLayerField(Convolution(K), b, self.activation, self.size, theta) for K, b, theta in layers]
        return found * (self.depth if self.shared else 1)

    def enter(self, y: Tensor) -> Tensor:
        if self.size is None:
            self.build(tuple(y.shape[1:]))
        if tuple(y.shape[2:]) != self.size:
            raise BadInput(f"model=conv_stable_node: expected images {self.size}, got {tuple(y.shape[2:])}")
        return y

    @torch.no_grad()
    def project_(self) -> None:
        """A -> the nearest one that is proved to have a log-norm of at most delta, from the last theta on. Weights that
        have it already stay as they are, bit by bit, and so do weights that are not finite. With the penalty: a new
        theta alone. Nothing before `build`."""
        if self.stabilise == "none" or self.size is None or not bool(self.K.isfinite().all()):
            return
        for A, theta in zip(self.K, self.theta, strict=True):
            J = ConvJacobians(A, self.size, self.activation.slopes[0])
            if self.stabilise == "penalty":
                theta.copy_(conv_upper_bound(J, known(theta)).theta)
                continue
            found = conv_stabilise(J, self.delta, known(theta))
            A.copy_(found.kernel)
            theta.copy_(found.theta)

    def lognorm_bound(self) -> Tensor:
        """The bound of each layer's log-norm that the last theta gives, up to rounding, with gradients. (layers,)"""
        assert self.size is not None
        found = []
        for A, theta in zip(self.K, self.theta, strict=True):
            J = ConvJacobians(A, self.size, self.activation.slopes[0])
            found.append(J.largest(J.symbol.to(A.device)(A.double()), theta).amax())
        return torch.stack(found)

    def properties(self) -> dict[str, float]:
        return super().properties() | ({"delta": self.delta} if self.stabilise == "projection" else {})
