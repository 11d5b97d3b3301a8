"""What a family promises about its fields and steps, and how to look for a counterexample at given states.

A family names one (`guarantee`); `robode check` and the contract tests hold it against random weights and states. An
outside package may define its own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.linalg.skew import canonical
from robode.ode.field import GradientField

if TYPE_CHECKING:
    from robode.ode.flow import Flow


class Guarantee(ABC):
    """name: one word; says: the promise in one sentence."""

    name: ClassVar[str]
    says: ClassVar[str]

    @abstractmethod
    def violations(self, flow: Flow, y: Tensor) -> list[str]:
        """What breaks the promise, in words; empty where nothing does. flow: in float64 (`Flow.exact`); y: (B, n)
        or images (B, n, H, W), float64."""


def _norm(A: Tensor) -> float:
    return float(torch.linalg.matrix_norm(A, 2).max())


def _above(what: str, found: float, bound: float, rounding: float) -> list[str]:
    return [] if found <= bound + rounding else [f"{what} is {found:.6g}, above {bound:.6g}"]


class Bounded(Guarantee):
    """No more than the certified constants, which is what every family promises."""

    name = "bounded"
    says = "fields and steps stay below their certified constants"

    def violations(self, flow: Flow, y: Tensor) -> list[str]:
        if not flow.pixelwise:
            return []
        found, z = [], flow.enter(y)
        for j, field in enumerate(flow.fields() if flow.solves_an_ode else (), 1):
            A, L = field.jacobian(0.0, z), field.lipschitz()
            steepest = float(torch.linalg.eigvalsh(0.5 * (A + A.mT)).max())
            found += _above(f"the norm of a Jacobian of field {j}", _norm(A), L, 1e-9 * L)
            found += _above(f"the log-norm of field {j}", steepest, field.lognorm(), 1e-9 * (1 + _norm(A)))
        try:
            jacobians = flow.step_jacobians(y)
        except BadInput:  # steps that give none: the contracts hold pairs of states against the certificates
            return found
        for j, (A, step) in enumerate(zip(jacobians, flow.steps(), strict=True), 1):
            L = step.lipschitz()
            found += _above(f"the norm of a Jacobian of step {j}", _norm(A), L, 1e-6 * L)
        return found


class Contractive(Bounded):
    """CH-NODE paper, Theorem 1: no two solutions separate."""

    name = "contractive"
    says = "sym(df/dy) < 0 everywhere; every step is nonexpansive with the integrators that keep this"

    def violations(self, flow: Flow, y: Tensor) -> list[str]:
        found = super().violations(flow, y)
        found += [f"field {j} does not contract" for j, f in enumerate(flow.fields(), 1) if not f.lognorm() < 0]
        if flow.integrator.contracts:
            largest, certified = max(map(_norm, flow.step_jacobians(y))), flow.certificate()["flow_discrete"]
            if not (certified <= 1 and largest <= 1 + 1e-6):
                found.append(f"a step is not nonexpansive: {largest:.6g}, certified {certified:.6g}")
        return found


class Nonexpansive(Bounded):
    """Every step of the network that runs is 1-Lipschitz, whatever the weights became."""

    name = "nonexpansive"
    says = "every step is nonexpansive"

    def violations(self, flow: Flow, y: Tensor) -> list[str]:
        found = super().violations(flow, y)
        if not flow.certificate()["flow_discrete"] <= 1 + 1e-9:
            found.append(f"the flow is certified at {flow.certificate()['flow_discrete']:.6g} only")
        return found


class Hamiltonian(Bounded):
    """f = J grad H: energy and volume are kept by the field, the symplectic form by the steps of symplectic methods."""

    name = "hamiltonian"
    says = "f = J grad H conserves H and volume; steps of symplectic methods are symplectic"

    def violations(self, flow: Flow, y: Tensor) -> list[str]:
        found, z = super().violations(flow, y), flow.enter(y)
        for j, field in enumerate(flow.fields(), 1):
            assert isinstance(field, GradientField)
            power, size = (field(0.0, z) * field.gradient(z)).sum(0), field.gradient(z).square().sum(0)
            A = field.jacobian(0.0, z)
            divergence = A.diagonal(dim1=1, dim2=2).sum(1)
            if not float(power.abs().max()) <= 1e-10 * float(size.max()):
                found.append(f"field {j} changes the energy")
            if not float(divergence.abs().max()) <= 1e-10 * float(A.abs().max()):
                found.append(f"field {j} changes the volume")
            if flow.integrator.symplectic:
                J = field.skew.J
                for B in flow.step_jacobians(y):
                    if not float((B.mT @ J @ B - J).abs().max()) <= 1e-4 * float(B.square().sum((1, 2)).max()):
                        found.append(f"a step through field {j} is not symplectic")
        return found


class Expanding(Bounded):
    """No step shrinks volumes: |det| >= 1, so that no product of Jacobians has a norm below 1 (docs/theory.md, section
    25)."""

    name = "expanding"
    says = "no step shrinks volumes, so that sensitivities have norms of at least 1"

    def violations(self, flow: Flow, y: Tensor) -> list[str]:
        smallest = [float(torch.linalg.det(A).abs().min()) for A in flow.step_jacobians(y)]
        return super().violations(flow, y) + [
            f"step {j} shrinks volumes by {least:.6g}" for j, least in enumerate(smallest, 1) if not least >= 1 - 1e-9
        ]


class Symplectic(Bounded):
    """B^T J B = J for the Jacobian B of every step of the network that runs, and steps that can be undone."""

    name = "symplectic"
    says = "every step keeps the symplectic form, hence volume, whatever the weights are, and has an exact inverse"

    def violations(self, flow: Flow, y: Tensor) -> list[str]:
        found, z = super().violations(flow, y), flow.enter(y)
        J = canonical(len(z)).to(z)
        for j, step in enumerate(flow.steps(), 1):
            B, after = step.jacobian(z), step(z)
            if not float((B.mT @ J @ B - J).abs().max()) <= 1e-10 * float(B.square().sum((1, 2)).max()):
                found.append(f"step {j} is not symplectic")
            try:
                off = float((step.inverse(after) - z).abs().max())
            except BadInput:
                off = math.inf
            # The inverse of B has the norm of B, by which what rounding leaves of the state after the step grows.
            size = max(float(z.abs().max()), float(after.abs().max()))
            if not off <= 1e-12 * size * max(1.0, float(B.square().sum((1, 2)).max()) ** 0.5):
                found.append(f"step {j} cannot be undone")
            z = after
        return found


class Stabilised(Bounded):
    """De Marinis et al. (arXiv 2501.10740): the log-norm of every field is controlled."""

    name = "stabilised"
    says = "the log-norm of every field is proved to be at most delta, where weights are projected"

    def violations(self, flow: Flow, y: Tensor) -> list[str]:
        found, delta = super().violations(flow, y), flow.properties().get("delta", math.inf)
        return found + [
            f"the log-norm of field {j} is bounded by {field.lognorm():.6g} only, above delta = {delta:g}"
            for j, field in enumerate(flow.fields(), 1)
            if not field.lognorm() <= delta + 1e-9 * (1 + field.lipschitz())
        ]


BOUNDED, CONTRACTIVE, HAMILTONIAN = Bounded(), Contractive(), Hamiltonian()
NONEXPANSIVE, STABILISED, EXPANDING, SYMPLECTIC = Nonexpansive(), Stabilised(), Expanding(), Symplectic()
