"""Adaptive Dormand-Prince 5(4) of torchdiffeq (Dormand, Prince, A family of embedded Runge-Kutta formulae, 1980)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torchdiffeq import odeint

from robode.errors import BadInput, JobFailed
from robode.integrators.adjoint import Augmented, WithAdjoint
from robode.integrators.integrator import Integrator, SolverStep
from robode.ode.bounds import Scalar
from robode.ode.field import VectorField

MAX_STEPS = 1000  # in one layer; those of a field that is worth training are some tens
MOST_MEMORY = 0.5  # of the machine's, for what gradients need of one step object
Made = TypeVar("Made")
Keys = Mapping[str, object]
TIGHTER = 0.01  # the tolerances of a reference solver, as a share of those of the method


class Memory(TorchFunctionMode):
    """How many bytes gradients keep of the evaluations of a field: what one of them computes, times their number."""

    def __init__(self) -> None:
        self.each, self.used = 0, 0

    def __torch_function__(
        self, func: Callable[..., Made], types: Sequence[type], args: Sequence[object] = (), kwargs: Keys | None = None
    ) -> Made:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor):
            self.each += found.numel() * found.element_size()
        return found

    def charged(self, evaluation: Callable[[], Tensor]) -> Tensor:
        """The slope that the evaluation gives. Raises `JobFailed` beyond the limit."""
        if not self.each:
            with self:
                return evaluation()
        slope = evaluation()
        if slope.requires_grad and slope.device.type == "cpu":
            self.used += self.each
            if self.used > MOST_MEMORY * machine_memory():
                raise failed(f"its steps need over {self.used / 2**30:.1f} GB for their gradients")
        return slope


def machine_memory() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def failed(what: str) -> JobFailed:
    """The failure of a solver whose steps came to nothing, in one line. what: which of its limits was met."""
    return JobFailed(
        f"integrator=dopri5: {what} within one layer, so its field has become too steep or stiff (a training that "
        "diverges does that); try a smaller lr, step or horizon, or larger integrator.rtol and integrator.atol"
    )


class Dopri5(WithAdjoint):
    """Adaptive Dormand-Prince 5(4) of torchdiffeq over each layer's interval. rtol, atol: its tolerances.

    The steps depend on the batch, so there is no certificate for the network that runs. They depend on values that are
    read on the host, so a training step is no graph that could be compiled or captured.

    A step raises `JobFailed` where a layer takes more than `MAX_STEPS` steps, where no step is short enough, where
    states are not finite, and, on a CPU, before gradients take more than `MOST_MEMORY` of the machine.
    """

    name, order, adaptive = "dopri5", 5, True

    def __init__(self, rtol: float = 1e-5, atol: float = 1e-6, gradient: str = "backprop"):
        super().__init__(gradient)
        if not (rtol > 0 and atol > 0):
            raise BadInput(f"integrator.rtol, integrator.atol: expected positive tolerances, got {rtol} and {atol}")
        self.rtol, self.atol = rtol, atol

    def solver_step(self, field: VectorField, t: Scalar, h: Scalar) -> AdaptiveStep:
        return AdaptiveStep(field, t, h, self.rtol, self.atol)

    def refined(self) -> Integrator:
        """Tolerances times `TIGHTER`."""
        return Dopri5(TIGHTER * self.rtol, TIGHTER * self.atol, self.gradient)


@dataclass(frozen=True)
class AdaptiveStep(SolverStep):
    """The solution at t + h to within tolerances."""

    rtol: float
    atol: float

    memory: Memory = dataclasses.field(default_factory=Memory, compare=False)

    def __call__(self, y: Tensor) -> Tensor:
        return self._solve(y, self.memory)

    def _solve(self, y: Tensor, memory: Memory) -> Tensor:
        field = self.field

        # h multiplies the field, so that its gradient flows where it has one
        def slope(share: Tensor, z: Tensor) -> Tensor:
            return memory.charged(lambda: self.h * field(self._at(share), z))

        times = torch.tensor([0.0, 1.0], dtype=y.dtype, device=y.device)
        options = {"max_num_steps": MAX_STEPS} | ({"norm": field.norm} if isinstance(field, Augmented) else {})
        try:
            return odeint(slope, y, times, method="dopri5", rtol=self.rtol, atol=self.atol, options=options)[-1]
        except AssertionError as error:  # torchdiffeq's; its text may hold a whole state
            if str(error).startswith("max_num_steps"):
                raise failed(f"over {MAX_STEPS} steps") from error
            finite = bool(y.isfinite().all()) and str(error).startswith("underflow")
            raise failed("no step is short enough" if finite else "states are not finite") from error

    def _at(self, share: Tensor) -> Scalar:
        return self.t if self.field.autonomous else self.t + share * self.h

    def jacobian(self, y: Tensor) -> Tensor:
        """By n reverse-mode products (the adaptive loop has no forward mode)."""
        with torch.enable_grad():
            z = y.detach().requires_grad_()
            out = self._solve(z, Memory())
            rows = [torch.autograd.grad(out[i].sum(), z, retain_graph=True)[0].T for i in range(y.shape[0])]
        return torch.stack(rows, dim=1)
