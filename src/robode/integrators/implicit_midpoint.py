"""Implicit midpoint: the reference that keeps contraction at the price of a nonlinear solve per step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robode.errors import BadInput, JobFailed
from robode.integrators.integrator import Integrator, SolverStep
from robode.ode.bounds import Scalar, value
from robode.ode.field import VectorField
from robode.ode.step import Step, identity_like

MAX_NEWTON = 50
# The largest tolerance with a certificate: the share that certificates of a network allow for float32's rounding
# (certificates.radius.LOGIT_ROUNDING). A choice and no proof; `lipschitz` says what is neglected below it.
CERTIFIED = 2.0**-16
# The same for the error that rounding in the residual leaves, in float32: beyond it nearly any state passes for a
# solution. A choice too.
VERIFIED = 2.0**-4
ROUNDINGS = 16  # of the size of h A: what rounding may leave of a residual
LARGEST = 2.0**60  # h A whose squares do not overflow in float32


class ImplicitMidpoint(Integrator):
    """y+ = y + h f((y + y+)/2), order 2, symplectic; nonexpansive for every h wherever the ODE is (docs/theory.md,
    section 10).

    Newton with the exact Jacobian of each column. tolerance: largest residual, as a share of 1 + |y+|; where rounding
    alone leaves more, that is enough. All columns go on until the last has converged, so a sample's result depends on
    its batch, by twice the error below at most. Raises `JobFailed` if Newton has not converged after 50 iterations, and
    where numbers overflow.

    How many iterations there are depends on values, which are read on the host: of three or four that are needed, a
    fixed number would have to do as many as the stiffest state takes, a line search in each, and results would still
    have to be frozen where Newton stops today. On a CPU, reading costs nothing.

    The error. y+ - h f((y + y+)/2) is strongly monotone in y+ with constant 1 - h mu/2, mu the field's log-norm. A
    residual r therefore leaves a distance of at most |r|/(1 - h mu/2) to the solution, and the Newton step that follows
    it moves by no more than that: together at most 2 tolerance (1 + |y+|)/(1 - h mu/2), with |y+| before that step. No
    more is certain, but with smooth fields the last step squares it: 3e-11 (1 + |y+|) at the default, measured.
    """

    name, order, contracts, symplectic = "implicit_midpoint", 2, True, True
    twice_differentiable = False  # the Newton matrix is a constant to autograd

    def __init__(self, tolerance: float = 1e-5):
        if not 0 < tolerance < math.inf:
            raise BadInput(f"integrator.tolerance: expected a positive, finite number, got {tolerance}")
        self.tolerance = tolerance

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        return ImplicitStep(field, t, h, self.tolerance)


@dataclass(frozen=True)
class ImplicitStep(SolverStep):
    """The y+ that solves y+ = y + h f((y + y+)/2), to within the tolerance."""

    tolerance: float

    def __call__(self, y: Tensor) -> Tensor:
        with torch.no_grad():
            solution, inverse = self._solve(y)
        # One more Newton step inside autograd: its derivative is that of the solution (implicit function theorem).
        return solution - torch.einsum("mij,jm->im", inverse, self._residual(y, solution))

    def _residual(self, y: Tensor, z: Tensor) -> Tensor:
        return z - y - self.h * self.field(self._at, 0.5 * (y + z))

    @property
    def _at(self) -> Scalar:
        return self.t if self.field.autonomous else self.t + 0.5 * self.h

    def _solve(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The stage equation by damped Newton; returns the solution and the inverse Newton matrices (M, n, n)."""
        eye, z, eps = identity_like(y), y.clone(), torch.finfo(y.dtype).eps
        for _ in range(MAX_NEWTON):
            residual = self._residual(y, z)
            A = self.h * self.field.jacobian(self._at, 0.5 * (y + z))
            inverse = torch.linalg.inv_ex(eye - 0.5 * A).inverse  # a singular one converges nowhere
            size, scale = residual.norm(dim=0), 1 + z.norm(dim=0)
            # rounding in the residual itself: a stiff field cannot do better than eps ||h A||
            floor = ROUNDINGS * eps * (1 + A.flatten(1).norm(dim=1))
            enough = torch.clamp(floor, min=self.tolerance) * scale
            if bool(((size <= enough) & enough.isfinite()).all()):  # an infinite floor verifies nothing
                return z, inverse
            z = self._line_search(y, z, torch.einsum("mij,jm->im", inverse, residual), size)
        raise JobFailed(
            f"implicit_midpoint: Newton did not converge in {MAX_NEWTON} iterations at h={value(self.h):.3g}; "
            "use a smaller step or integrator.tolerance"
        )

    def _line_search(self, y: Tensor, z: Tensor, move: Tensor, size: Tensor) -> Tensor:
        """Halve each column's Newton step until its residual does not grow: stiff steps overshoot otherwise."""
        scale = torch.ones_like(size)
        for _ in range(20):
            worse = self._residual(y, z - scale * move).norm(dim=0) > size
            if not bool(worse.any()):
                break
            scale = torch.where(worse, scale / 2, scale)
        return z - scale * move

    def jacobian(self, y: Tensor) -> Tensor:
        """(I - h/2 A)^-1 (I + h/2 A) with A = df/dy at the midpoint: that of the exact solution, at the one found."""
        with torch.no_grad():
            z, inverse = self._solve(y)
            return inverse @ (identity_like(y) + 0.5 * self.h * self.field.jacobian(self._at, 0.5 * (y + z)))

    def lipschitz(self) -> float:
        """1 if the field's log-norm is <= 0; (1 + h mu/2)/(1 - h mu/2) for a log-norm 0 < mu < 2/h; else none.

        Of the exact solution. What runs has the error of `ImplicitMidpoint` in addition, which jumps where the number
        of iterations changes: for two states at a distance d it can add both errors over d to the quotient, and no
        constant bounds that as d -> 0. Up to the tolerance CERTIFIED the error is neglected like float32's rounding,
        which does the same to every method; beyond it there is no certificate. Nor is there one where the rounding of
        residuals, which may be accepted, could leave more than `VERIFIED` of it in float32.
        """
        h, mu, L = value(self.h), self.field.lognorm(), self.field.lipschitz()
        if self.tolerance > CERTIFIED or not h * L <= LARGEST or not h * mu < 2:
            return math.inf
        rounding = ROUNDINGS * torch.finfo(torch.float32).eps * (1 + h * L)
        if rounding / (1 - 0.5 * h * mu) > VERIFIED:
            return math.inf
        if mu <= 0:
            # ||d+||^2 - ||d||^2 = 2 h <e, df> <= 2 h mu ||e||^2 and ||d|| <= (1 + h L / 2) ||e||.
            return float(max(1 + 2 * h * mu / (1 + 0.5 * h * L) ** 2, 0.0) ** 0.5)
        return (1 + 0.5 * h * mu) / (1 - 0.5 * h * mu)
