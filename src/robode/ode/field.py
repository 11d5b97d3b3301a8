"""Vector fields y' = f(t, y), bound to the parameters of the moment.

A field is cheap mathematics, not a module: the flow that owns the parameters builds its fields when it needs them, with
the gamma of that moment. States are columns, y: (n, M); an image contributes one column a pixel. A field that depends
on the data (data-controlled) is bound to them too, by the context that the encoder gives.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.linalg.activations import Activation
from robode.linalg.norms import ROUNDING, largest_eigenvalue, spectral_norms
from robode.linalg.skew import Skew
from robode.ode import bounds
from robode.ode.bounds import Scalar, value
from robode.ode.enclosure import Enclosure
from robode.ode.jacobians import JacobianSet, jacobian_set
from robode.ode.layer import VERTEX_WIDTH, Layer, affine, vertices, weighted_products
from robode.ode.lognorm import LogNormBounds, both_sides, euler_lipschitz
from robode.ode.lognorm_lower import attained
from robode.ode.lognorm_upper import QUICK, upper_bound
from robode.ode.step import Step, identity_like

Multipliers = Sequence[tuple[Scalar, Scalar]]
"""Spectral multipliers of a function g of F: (Re g, Im g) on each mode of F."""


class VectorField(ABC):
    """f(t, y) with what certificates need to know about it. autonomous: f does not depend on t. draws: a call draws
    random numbers (dropout), so that no two are alike."""

    autonomous: ClassVar[bool] = True
    draws: bool = False

    @abstractmethod
    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        """y: (n, M) -> y' (n, M)."""

    @abstractmethod
    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        """df/dy at each column. y: (n, M) -> (M, n, n), differentiable."""

    def lognorm(self) -> float:
        """Certified logarithmic 2-norm: d' log ||difference|| <= lognorm for any two solutions. At most the Lipschitz
        constant, where nothing better is known."""
        return self.lipschitz()

    def lognorm_bounds(self, known: LogNormBounds | None = None, enough: float = -math.inf) -> LogNormBounds | None:
        """Certified bounds from both sides of the largest log-norm of the Jacobian over all slopes of the activation,
        as good as a training log can afford; None where nothing is known from below.

        known: what was found of earlier weights, to begin with. enough: where the log-norm turns out to be at most
        this, no better bounds are sought.
        """
        return None

    def lipschitz(self) -> float:
        """Certified Lipschitz constant of f in y (2-norm); inf where nothing is proved."""
        return math.inf

    def euler_lipschitz(self, h: float) -> float:
        """Certified Lipschitz constant of y + h f(y)."""
        return 1 + abs(h) * self.lipschitz()

    def euler(self, t: Scalar, h: Scalar) -> Step:
        """The explicit Euler step; a `Layer` where the field has one hidden layer."""
        return EulerStep(self, t, h)

    def enclose(self, z: Enclosure) -> Enclosure:
        """f on every box. Raises `BadInput` for fields without a certified enclosure."""
        raise BadInput(f"model: a {type(self).__name__} has no certified enclosure")


@dataclass(frozen=True)
class EulerStep(Step):
    """y + h f(t, y) for a field that is no layer."""

    field: VectorField
    t: Scalar
    h: Scalar

    def __call__(self, y: Tensor) -> Tensor:
        return y + self.h * self.field(self.t, y)

    def jacobian(self, y: Tensor) -> Tensor:
        return identity_like(y) + self.h * self.field.jacobian(self.t, y)

    def lipschitz(self) -> float:
        return self.field.euler_lipschitz(value(self.h))

    def enclose(self, z: Enclosure) -> Enclosure:
        return (z + self.field.enclose(z).scaled(value(self.h))).absorbed()


def largest_symmetric(A: Tensor) -> float:
    """max over the last batch dimension of lambda_max(sym(A)), rounded upwards. A: (vertices, n, n)."""
    largest = torch.linalg.eigvalsh(0.5 * (A + A.mT))[..., -1].amax(-1)
    return float(largest + (ROUNDING - 1) * A.abs().amax())


def over_slopes(J: JacobianSet, known: LogNormBounds | None, enough: float) -> LogNormBounds:
    """Bounds of the maximum over slopes in the only layer of J: enumerated for small n, sought for larger ones."""
    n = J.K.shape[-2]
    if n > VERTEX_WIDTH:
        return both_sides(J, known, enough)
    D = torch.where(vertices(n, (0.0, 1.0)) > 0, J.hi, J.lo)
    values, Q = torch.linalg.eigh(J.symmetric(D))
    worst = int(values[:, -1].argmax())
    found = attained(J, D[worst], Q[worst, :, -1])
    return LogNormBounds(found.value, largest_symmetric(J.C + J.B * D[:, None, :] @ J.K))


@dataclass(frozen=True)
class OneLayerField(VectorField):
    """f(y) = sigma(K y + b): the ResNet of Table I, the one-layer NODE and the stabilised one. K: (n, n), b: (n, 1)."""

    K: Tensor
    b: Tensor
    activation: Activation

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return self.activation(affine(self.b, self.K, y))

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        D = self.activation.derivative(affine(self.b, self.K, y))
        return D.mT[..., None] * self.K

    def jacobians(self) -> JacobianSet:
        """All D K, with slopes D of the activation."""
        n = self.K.shape[-1]
        return jacobian_set(torch.zeros(n, n), torch.eye(n), self.K, *self.activation.slopes)

    def euler(self, t: Scalar, h: Scalar) -> Layer:
        eye = torch.eye(self.K.shape[-1], dtype=self.K.dtype, device=self.K.device)
        return OneLayerStep(eye, h * eye, self.K, self.b, self.activation, self, h)

    def euler_lipschitz(self, h: float) -> float:
        return self.euler(0.0, h).lipschitz()

    def lognorm(self) -> float:
        """max over all slopes D of lambda_max(sym(D K)): convex in D, hence exact at the vertices for small n; an upper
        bound of it for larger ones (docs/theory.md, sections 11 and 20)."""
        return self._lognorm

    @cached_property
    def _lognorm(self) -> float:
        """Worked out once: the bounds of the ODE and of an Euler step both need it."""
        K = self.K.detach().double()
        if K.shape[-1] <= VERTEX_WIDTH:
            return largest_symmetric(vertices(K.shape[-1], self.activation.slopes, K.device)[..., None] * K)
        return float(upper_bound(self.jacobians(), stages=QUICK).value)

    def lognorm_bounds(self, known: LogNormBounds | None = None, enough: float = -math.inf) -> LogNormBounds:
        return over_slopes(self.jacobians(), known, enough)

    def lipschitz(self) -> float:
        return self.activation.slope_bound * float(largest_eigenvalue(self.K).sqrt())

    def enclose(self, z: Enclosure) -> Enclosure:
        return z.linear(self.K, self.b).activated(self.activation)


@dataclass(frozen=True)
class OneLayerStep(Layer):
    """The explicit Euler step of a field with one hidden layer, y + h sigma(K y + b) for one, which knows its field."""

    field: VectorField
    h: Scalar

    def lipschitz(self) -> float:
        """Wide ones: at most (1 + 2 h delta + h^2 L^2)^(1/2) with the log-norm delta and the Lipschitz constant L of
        the field, too (docs/theory.md, section 20)."""
        known = super().lipschitz()
        if self.K.shape[-2] <= VERTEX_WIDTH:
            return known
        return min(known, euler_lipschitz(self.field.lognorm(), self.field.lipschitz(), value(self.h)))


@dataclass(frozen=True)
class GradientField(VectorField):
    """f(y) = F grad V(y), F = J - gamma I, grad V(y) = K^T sigma(K y + b) + Q y  (CH-NODE paper, Eq. 7 and 8).

    Hess V = K^T D K + Q lies between m I and M I (Eq. 15). K: (k, n) square here, Q: (n, n) symmetric, b: (k, 1).
    gamma and c (the centre about which etd and imex linearise) are numbers or 0-d float64 tensors, which may carry
    gradients.
    """

    skew: Skew
    gamma: Scalar
    K: Tensor
    b: Tensor
    Q: Tensor
    activation: Activation
    c: Scalar
    partitioned: bool = False

    def gradient(self, y: Tensor) -> Tensor:
        """grad V. y: (n, M) -> (n, M)."""
        return affine(self.Q @ y, self.K.mT, self.activation(affine(self.b, self.K, y)))

    def hessian(self, y: Tensor) -> Tensor:
        """Hess V at each column. y: (n, M) -> (M, n, n)."""
        D = self.activation.derivative(affine(self.b, self.K, y))
        return weighted_products(self.K.mT, D, self.K) + self.Q

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return self.F @ self.gradient(y)

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        return self.F @ self.hessian(y)

    @property
    def F(self) -> Tensor:
        """J - gamma I, (n, n)."""
        return self.skew.function([(-self.gamma, omega) for omega in self.skew.omegas], self.K.dtype)

    def through(self, G: Tensor) -> Layer:
        """y + G grad V(y) as a layer, for any matrix G (n, n)."""
        eye = torch.eye(self.K.shape[-1], dtype=self.K.dtype, device=self.K.device)
        return Layer(eye + G @ self.Q, G @ self.K.mT, self.K, self.b, self.activation)

    def has_F_of(self, other: VectorField) -> bool:
        """Whether the two fields share J and gamma, and so F."""
        return isinstance(other, GradientField) and self.skew is other.skew and self.gamma is other.gamma

    def spectral_step(self, multipliers: Multipliers) -> SpectralStep:
        """y + g(F) grad V(y) for the function g of F with these multipliers."""
        return spectral_steps([self], multipliers)[0]

    def euler_multipliers(self, h: Scalar) -> Multipliers:
        """Those of g(F) = h F."""
        return [(-h * self.gamma, h * omega) for omega in self.skew.omegas]

    def euler(self, t: Scalar, h: Scalar) -> Step:
        return self.spectral_step(self.euler_multipliers(h))

    def euler_lipschitz(self, h: float) -> float:
        return self.euler(0.0, h).lipschitz()

    def hessian_bounds(self) -> tuple[float, float]:
        """Certified (m, M) with m I <= Hess V <= M I everywhere (Eq. 15)."""
        eigenvalues = torch.linalg.eigvalsh(self.Q.detach().double())
        M = eigenvalues[-1] + self.activation.slope_bound * largest_eigenvalue(self.K)
        return float(eigenvalues[0].clamp_min(0)), float(M.clamp_min(0))

    def lognorm(self) -> float:
        """The better of the sharp bound over the class of potentials, Theorem 1 (docs/theory.md, section 4), and of the
        maximum over slopes: lambda_max(sym(F Hess)) is convex in D, hence attained at a vertex; for small n it is
        exact, for larger ones bounded (section 20)."""
        over_class = self._lognorm_of_class()
        K, Q, F = (t.detach().double() for t in (self.K, self.Q, self.F))
        if K.shape[-1] > VERTEX_WIDTH:
            return min(over_class, float(upper_bound(self.jacobians(), stages=QUICK).value))
        slopes = vertices(K.shape[-1], self.activation.slopes, K.device)[..., None]
        return min(over_class, largest_symmetric(F @ (K.mT @ (slopes * K) + Q)))

    def lognorm_bounds(self, known: LogNormBounds | None = None, enough: float = -math.inf) -> LogNormBounds:
        found = over_slopes(self.jacobians(), known, enough)
        return replace(found, upper=min(found.upper, self._lognorm_of_class()))

    def _lognorm_of_class(self) -> float:
        return bounds.value(bounds.lognorm(*self.hessian_bounds(), value(self.gamma), self.skew.norm))

    def jacobians(self) -> JacobianSet:
        """All F (K^T D K + Q), with slopes D of the activation."""
        K, Q, F = (t.detach().double() for t in (self.K, self.Q, self.F))
        return jacobian_set(F @ Q, F @ K.mT, K, *self.activation.slopes)

    def lipschitz(self) -> float:
        return float(spectral_norms(self.F.detach().double())) * self.hessian_bounds()[1]

    def enclose(self, z: Enclosure) -> Enclosure:
        gradient = z.linear(self.Q) + z.linear(self.K, self.b).activated(self.activation).linear(self.K.T)
        return gradient.linear(self.F)


@dataclass(frozen=True)
class SpectralStep(Layer):
    """The layer y + g(F) grad V(y) of a gradient field, which knows what it is made of.

    multipliers: of several fields where they are tensors (fields,), of which this is number `place`.
    """

    field: GradientField
    multipliers: Multipliers
    place: int

    def lipschitz(self) -> float:
        """The better of the exact bound over all slopes and of the class bound over all potentials (bounds.py)."""
        mine = [complex(*(self._mine(part) for part in pair)) for pair in self.multipliers]
        over_class = bounds.one_step_lipschitz(*self.field.hessian_bounds(), mine)
        return min(super().lipschitz(), over_class)

    def _mine(self, part: Scalar) -> float:
        return value(part[self.place] if isinstance(part, Tensor) and part.dim() else part)


def spectral_steps(fields: Sequence[GradientField], multipliers: Multipliers) -> list[SpectralStep]:
    """The step y + g(F) grad V(y) through each of gradient fields with one F. multipliers: of g, numbers or 0-d tensors
    for all fields, or tensors with one entry for each."""
    G = fields[0].skew.function(multipliers, fields[0].K.dtype)
    matrices = G.unbind(0) if G.dim() > 2 else [G] * len(fields)
    found = []
    for place, (field, matrix) in enumerate(zip(fields, matrices, strict=True)):
        layer = field.through(matrix)
        found.append(SpectralStep(layer.A, layer.B, layer.K, layer.b, layer.activation, field, multipliers, place))
    return found
