"""The residual layer with two matrices, x+ = x + h A^T sigma(B x + b): an Euler step of x' = A^T sigma(B x + b).

D. Murari, Neural networks as dynamical systems (lecture, Cambridge); He et al., Deep residual learning for image
recognition, 2016. B = -A makes it a gradient flow (`gradient_flow`), A = B J^T with a skew J a Hamiltonian system
(`hdnn`); on its own it has no property but its constants (docs/theory.md, section 25).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.integrators.integrator import Integrator
from robode.linalg.activations import Activation, named_activation
from robode.linalg.norms import ROUNDING, largest_eigenvalue, spectral_norms
from robode.ode.bounds import Scalar
from robode.ode.enclosure import Enclosure
from robode.ode.field import OneLayerStep, VectorField, largest_symmetric, over_slopes
from robode.ode.flow import Flow
from robode.ode.jacobians import JacobianSet, jacobian_set
from robode.ode.layer import VERTEX_WIDTH, affine, vertices, weighted_products
from robode.ode.lognorm import LogNormBounds
from robode.ode.lognorm_upper import QUICK, upper_bound
from robode.ode.step import identity_like


@dataclass(frozen=True)
class ResidualField(VectorField):
    """f(y) = A^T sigma(B y + b). A, B: (k, n), b: (k, 1), for any number k of neurons."""

    A: Tensor
    B: Tensor
    b: Tensor
    activation: Activation

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return self.A.mT @ self.activation(affine(self.b, self.B, y))

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        D = self.activation.derivative(affine(self.b, self.B, y))
        return weighted_products(self.A.mT, D, self.B)

    def jacobians(self) -> JacobianSet:
        """All A^T D B, with slopes D of the activation."""
        n = self.B.shape[-1]
        return jacobian_set(torch.zeros(n, n), self.A.mT, self.B, *self.activation.slopes)

    def euler(self, t: Scalar, h: Scalar) -> OneLayerStep:
        return OneLayerStep(identity_like(self.B.mT), h * self.A.mT, self.B, self.b, self.activation, self, h)

    def euler_lipschitz(self, h: float) -> float:
        return self.euler(0.0, h).lipschitz()

    def lognorm(self) -> float:
        """max over slopes D of lambda_max(sym(A^T D B)): exact at the vertices for few neurons, an upper bound of it
        for more (docs/theory.md, section 25)."""
        return self._constants[0]

    def lipschitz(self) -> float:
        """max over slopes D of ||A^T D B||, exact for few neurons; S ||A|| ||B|| for more."""
        return self._constants[1]

    @cached_property
    def _constants(self) -> tuple[float, float]:
        """Log-norm and Lipschitz constant, worked out once: the bounds of the ODE and of a step need both."""
        A, B = (each.detach().double() for each in (self.A, self.B))
        if len(B) <= VERTEX_WIDTH:
            J = A.mT @ (vertices(len(B), self.activation.slopes, B.device)[..., None] * B)
            return largest_symmetric(J), float(spectral_norms(J).amax()) * ROUNDING
        norm = self.activation.slope_bound * float((largest_eigenvalue(A) * largest_eigenvalue(B)).sqrt())
        return min(norm, float(upper_bound(self.jacobians(), stages=QUICK).value)), norm

    def lognorm_bounds(self, known: LogNormBounds | None = None, enough: float = -math.inf) -> LogNormBounds:
        return over_slopes(self.jacobians(), known, enough)

    def enclose(self, z: Enclosure) -> Enclosure:
        return z.linear(self.B, self.b).activated(self.activation).linear(self.A.mT)


class Residual(Flow):
    """N layers x + h A_j^T sigma(B_j x + b_j), A_j and B_j (k, n). step="auto" is h = 1, the layer as printed.

    hidden: k, the neurons of a layer; "auto" = the width. shared: one A, B, b for all layers (time-invariant).
    init_std: of all entries; "auto" = 1/sqrt(width), with which ||B|| starts at about 2.
    images: "pixels" (each pixel is a state of its own) or "vectors" (the whole image is one state).
    Property: none by design; ||d phi|| <= the certified bound, which grows with ||A|| ||B||.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        activation: str = "tanh",
        hidden: int | str = "auto",
        shared: bool = False,
        init_std: float | str = "auto",
        images: str = "pixels",
    ):
        super().__init__(width, depth, integrator, step, horizon)
        if images not in ("pixels", "vectors"):
            raise BadInput(f"model.images: expected pixels or vectors, got '{images}'")
        self.flattens = images == "vectors"
        k = width if hidden == "auto" else hidden
        if type(k) is not int or k < 1:
            raise BadInput(f"model.hidden: expected auto or a whole number >= 1, got {hidden}")
        std = 1 / math.sqrt(width) if isinstance(init_std, str) else init_std
        self.activation, self.shared = named_activation(activation), shared
        sets = 1 if shared else depth
        self.A, self.B = (nn.Parameter(std * torch.randn(sets, k, width)) for _ in "AB")
        self.b = nn.Parameter(std * torch.randn(sets, k, 1))
        self.integrator.check(self.fields()[0])

    def fields(self, context: Tensor | None = None) -> list[ResidualField]:
        layers = zip(self.A.unbind(0), self.B.unbind(0), self.b.unbind(0), strict=True)
        return [ResidualField(A, B, b, self.activation) for A, B, b in layers] * (self.depth if self.shared else 1)

    def layer_parameters(self) -> tuple[Tensor, Tensor] | None:
        """A_j above B_j (N, 2 k, n), and b (N, k, 1)."""
        return None if self.shared else (torch.cat([self.A, self.B], dim=1), self.b)
