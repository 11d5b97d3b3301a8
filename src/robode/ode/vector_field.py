"""Vector fields y' = f(t, y), bound to the parameters of the moment.

A field is cheap mathematics, not a module: the flow that owns the parameters builds its fields when it needs them, with
the gamma of that moment. States are columns, y: (n, M); an image contributes one column a pixel.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from robode.ode import bounds
from robode.ode.activations import Activation
from robode.ode.bounds import Scalar
from robode.ode.layer import VERTEX_WIDTH, Layer, affine, vertices, weighted_products
from robode.ode.norms import ROUNDING, largest_eigenvalue, spectral_norms
from robode.ode.skew import Skew


class VectorField(ABC):
    """f(t, y) with what certificates need to know about it."""

    @abstractmethod
    def __call__(self, t: float, y: Tensor, u: Tensor | None = None) -> Tensor:
        """y: (n, M) -> y' (n, M). u: control or input, for fields that take one."""

    @abstractmethod
    def jacobian(self, t: float, y: Tensor) -> Tensor:
        """df/dy at each column. y: (n, M) -> (M, n, n), differentiable."""

    @abstractmethod
    def lognorm(self) -> float:
        """Certified logarithmic 2-norm: d' log ||difference|| <= lognorm for any two solutions."""

    @abstractmethod
    def lipschitz(self) -> float:
        """Certified Lipschitz constant of f in y (2-norm)."""

    def euler_layer(self, h: float) -> Layer | None:
        """The explicit Euler step as a layer, where the field has one hidden layer."""
        return None

    def euler_lipschitz(self, h: float) -> float:
        """Certified Lipschitz constant of y + h f(y)."""
        layer = self.euler_layer(h)
        return layer.lipschitz() if layer else 1 + abs(h) * self.lipschitz()


def _largest_symmetric(A: Tensor) -> Tensor:
    """max over the last batch dimension of lambda_max(sym(A)), rounded upwards. A: (..., vertices, n, n) -> (...)."""
    largest = torch.linalg.eigvalsh(0.5 * (A + A.mT))[..., -1].amax(-1)
    return largest + (ROUNDING - 1) * A.abs().amax((-3, -2, -1))


@dataclass(frozen=True)
class OneLayerField(VectorField):
    """f(y) = sigma(K y + b): the ResNet of Table I and the one-layer NODE. K: (n, n), b: (n, 1)."""

    K: Tensor
    b: Tensor
    activation: Activation

    def __call__(self, t: float, y: Tensor, u: Tensor | None = None) -> Tensor:
        return self.activation(affine(self.b, self.K, y))

    def jacobian(self, t: float, y: Tensor) -> Tensor:
        D = self.activation.derivative(affine(self.b, self.K, y))
        return D.mT[..., None] * self.K[..., None, :, :]

    def euler_layer(self, h: float) -> Layer:
        eye = torch.eye(self.K.shape[-1], dtype=self.K.dtype, device=self.K.device)
        return Layer(eye, h * eye, self.K, self.b, self.activation)

    def lognorm(self) -> float:
        """max over 0 <= D <= S of lambda_max(sym(D K)): convex in D, hence exact at the vertices for small n."""
        return float(self.lognorm_each())

    def lognorm_each(self) -> Tensor:
        """`lognorm` of each of the fields whose matrices are stacked here: (...) float64 for K (..., n, n)."""
        K = self.K.detach().double()
        if K.shape[-1] > VERTEX_WIDTH:
            return self.activation.slope_bound * largest_eigenvalue(K).sqrt()
        return _largest_symmetric(
            self.activation.slope_bound * vertices(K.shape[-1], K.device)[..., None] * K[..., None, :, :]
        )

    def lipschitz(self) -> float:
        return self.activation.slope_bound * float(largest_eigenvalue(self.K).sqrt())


@dataclass(frozen=True)
class GradientField(VectorField):
    """f(y) = F grad V(y), F = J - gamma I, grad V(y) = K^T sigma(K y + b) + Q y  (CH-NODE paper, Eq. 7 and 8).

    Hess V = K^T D K + Q lies between m I and M I (Eq. 15). K: (k, n) square here, Q: (n, n) symmetric, b: (k, 1).
    gamma and c (the centre about which etd and imex linearise) are floats, or 0-d tensors that carry gradients.
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
        return weighted_products(self.K.mT, D, self.K) + self.Q[..., None, :, :]

    def __call__(self, t: float, y: Tensor, u: Tensor | None = None) -> Tensor:
        return self.F @ self.gradient(y)

    def jacobian(self, t: float, y: Tensor) -> Tensor:
        return self.F[..., None, :, :] @ self.hessian(y)

    @property
    def F(self) -> Tensor:
        """J - gamma I, (n, n)."""
        return self.skew.function([(-self.gamma, omega) for omega in self.skew.omegas], self.K.dtype)

    def layer(self, G: Tensor) -> Layer:
        """y + G grad V(y) as a layer, for any gain matrix G (n, n)."""
        eye = torch.eye(self.K.shape[-1], dtype=self.K.dtype, device=self.K.device)
        return Layer(eye + G @ self.Q, G @ self.K.mT, self.K, self.b, self.activation)

    def euler_layer(self, h: float) -> Layer:
        return self.layer(h * self.F)

    def euler_lipschitz(self, h: float) -> float:
        gains = [complex(-h * float(self.gamma), h * omega) for omega in self.skew.omegas]
        return min(self.euler_layer(h).lipschitz(), self.step_bound(gains))

    def hessian_bounds(self) -> tuple[float, float]:
        """Certified (m, M) with m I <= Hess V <= M I everywhere (Eq. 15)."""
        m, M = self.hessian_bounds_each()
        return float(m), float(M)

    def hessian_bounds_each(self) -> tuple[Tensor, Tensor]:
        """`hessian_bounds` of each of the fields whose matrices are stacked here: (...) float64 for K (..., n, n)."""
        eigenvalues = torch.linalg.eigvalsh(self.Q.detach().double())
        M = eigenvalues[..., -1] + self.activation.slope_bound * largest_eigenvalue(self.K)
        return eigenvalues[..., 0].clamp_min(0), M.clamp_min(0)

    def lognorm(self) -> float:
        """The better of the sharp bound over the class of potentials (8.1), which is Theorem 1, and of the exact
        maximum over slopes: lambda_max(sym(F Hess)) is convex in D, hence attained at a vertex (small n)."""
        m, M = self.hessian_bounds()
        over_class = bounds.value(bounds.lognorm(m, M, float(self.gamma), self.skew.norm))
        return min(over_class, float(self.steepest_each()))

    def steepest_each(self) -> Tensor:
        """The maximum over slopes in `lognorm` for each of the fields whose matrices are stacked here, (...) float64;
        inf for wide fields."""
        K, Q, F = (t.detach().double()[..., None, :, :] for t in (self.K, self.Q, self.F))
        if K.shape[-1] > VERTEX_WIDTH:
            return torch.full(K.shape[:-3], math.inf, dtype=torch.float64)
        slopes = self.activation.slope_bound * vertices(K.shape[-1], K.device)[..., None]
        return _largest_symmetric(F @ (K.mT @ (slopes * K) + Q))

    def lipschitz(self) -> float:
        return float(spectral_norms(self.F.detach().double())) * self.hessian_bounds()[1]

    def step_bound(self, gains: list[complex]) -> float:
        """Certified Lipschitz constant of x + g(F) grad V over the class of potentials (bounds.py)."""
        return bounds.one_step_lipschitz(*self.hessian_bounds(), gains)
