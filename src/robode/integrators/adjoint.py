"""Gradients by the continuous adjoint (Chen, Rubanova, Bettencourt, Duvenaud, Neural ordinary differential equations,
2018, Algorithm 1): a second ODE is solved backwards in time, and the stages of the forward pass are not kept.

A network keeps one state a layer and the evaluation at hand, whatever the number of stages or steps inside a layer.
What it gives is a gradient of the ODE, found by a numerical method, and not that of the network that runs: for a fixed
method of order p they differ by O(h^p), for an adaptive one by its tolerances; in training and in attacks alike.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx, once_differentiable

from robode.errors import BadInput
from robode.integrators.integrator import Integrator, SolverStep
from robode.ode.bounds import Scalar
from robode.ode.enclosure import Enclosure
from robode.ode.field import VectorField
from robode.ode.step import Chain, Step, own_lipschitz

WAYS = ("backprop", "adjoint")
Held = TypeVar("Held")


class WithAdjoint(Integrator):
    """A method with a choice of how gradients are worked out. gradient: "backprop", through the operations of the step
    (exact for the network that runs), or "adjoint"."""

    def __init__(self, gradient: str = "backprop"):
        if gradient not in WAYS:
            raise BadInput(f"integrator.gradient: expected one of {', '.join(WAYS)}, got '{gradient}'")
        self.gradient, self.twice_differentiable = gradient, gradient == "backprop"

    def check(self, field: VectorField) -> None:
        super().check(field)
        if self.gradient == "adjoint" and field.draws:
            raise BadInput(
                f"integrator.gradient=adjoint: {type(field).__name__} draws random numbers at every call, so the way "
                "back is through another field; set model.dropout=0 or integrator.gradient=backprop"
            )

    @abstractmethod
    def solver_step(self, field: VectorField, t: Scalar, h: Scalar) -> SolverStep:
        """The step itself, whose gradients are those of its operations."""

    def step(self, field: VectorField, t: Scalar, h: Scalar) -> Step:
        step = self.solver_step(field, t, h)
        return AdjointStep(step) if self.gradient == "adjoint" else step


@dataclass(frozen=True)
class AdjointStep(Step):
    """The same map as the inner step, bit by bit, with its Jacobian and certificates; gradients of it are those of the
    ODE. They reach the state, t, h, and the tensors that the dataclass of the field holds (in lists, tuples and
    dataclasses too). No graph of it can be compiled.

    Raises `BadInput` where the field needs gradients of something else.
    """

    inner: SolverStep

    def __call__(self, y: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.inner(y)
        held: list[Tensor] = []

        def noted(p: Tensor) -> Tensor:
            held.append(p)
            return p

        changed((self.inner.field, self.inner.t, self.inner.h), noted)
        return _Solve.apply(self.inner, y, *held)

    def jacobian(self, y: Tensor) -> Tensor:
        return self.inner.jacobian(y)

    def lipschitz(self) -> float:
        return own_lipschitz(self.inner)

    def enclose(self, z: Enclosure) -> Enclosure:
        return Chain([self.inner]).enclose(z)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, step: SolverStep, y: Tensor, *held: Tensor) -> Tensor:
        leaves = [tensor.detach().requires_grad_() for tensor in held]
        waiting = iter(leaves)
        problem = changed((step.field, step.t, step.h), lambda _: next(waiting))
        field, t, h = changed(problem, Tensor.detach)
        free = replace(step, field=field, t=t, h=h)
        with torch.enable_grad():  # so that there is a graph if anything was overlooked
            found = free(y.detach())
        if found.requires_grad:
            raise BadInput(
                f"integrator.gradient=adjoint: {type(field).__name__} holds what needs gradients outside the fields of "
                "its dataclass, where they would be lost; expected integrator.gradient=backprop"
            )
        ctx.step, ctx.problem, ctx.leaves = free, problem, leaves  # type: ignore[attr-defined]
        ctx.save_for_backward(found, *held)  # torch refuses what was changed in place since
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, a: Tensor) -> tuple[Tensor | None, ...]:
        y: Tensor = ctx.saved_tensors[0]
        leaves: list[Tensor] = ctx.leaves  # type: ignore[attr-defined]
        field, t, h = ctx.problem  # type: ignore[attr-defined]
        back = Augmented(field, t, h, y, leaves)
        size = a.abs().amax().clamp_min(torch.finfo(a.dtype).tiny)  # linear in a, so a tolerance is a share of it
        start = [y, a / size, *(torch.zeros_like(leaf) for leaf in leaves)]
        solved = replace(ctx.step, field=back, t=1.0, h=-1.0)(back.flat(start))  # type: ignore[attr-defined]
        parts = zip(back.parts(solved)[1:], start[1:], strict=True)
        return (None, *((size * part.view_as(of)).to(of) for part, of in parts))


@dataclass(frozen=True)
class Augmented(VectorField):
    """(y, a, g)' = (f, -a^T df/dy, -a^T df/dp) over unit time, as one flat vector, for h times a field in the place of
    f: t and h are parameters like others. like: a state; leaves: the parameters p."""

    field: VectorField
    t: Scalar
    h: Scalar
    like: Tensor
    leaves: Sequence[Tensor]
    autonomous = False

    def __call__(self, t: Scalar, z: Tensor) -> Tensor:
        y, a = (part.view_as(self.like) for part in self.parts(z)[:2])
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            slope = self.h * self.field(self.t if self.field.autonomous else self.t + t * self.h, y)
        if not slope.requires_grad:  # of a field that is a constant
            return self.flat([slope, *(torch.zeros_like(each) for each in (y, *self.leaves))])
        found = torch.autograd.grad(slope, (y, *self.leaves), -a, allow_unused=True, materialize_grads=True)
        return self.flat([slope.detach(), *found])

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """One vector (like the state that torchdiffeq solves for) of several tensors of any shape."""
        return torch.cat([tensor.reshape(-1).to(self.like) for tensor in tensors])

    def parts(self, z: Tensor) -> tuple[Tensor, ...]:
        """The flat state y, its adjoint and the gradients of the leaves, vectors, that `flat` made z of."""
        return torch.split_with_sizes(z, [each.numel() for each in (self.like, self.like, *self.leaves)])

    def norm(self, z: Tensor) -> Tensor:
        """The largest root mean square of a part: many parameters do not hide the error of a few states."""
        return torch.stack([part.square().mean().sqrt() for part in self.parts(z) if part.numel()]).amax()

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        raise NotImplementedError


def changed(held: Held, change: Callable[[Tensor], Tensor]) -> Held:
    """The same with every tensor in it that needs a gradient changed, in lists, tuples and dataclasses too."""
    if isinstance(held, Tensor):
        return change(held) if held.requires_grad else held  # type: ignore[return-value]
    if isinstance(held, list | tuple) and type(held) in (list, tuple):
        made = [changed(each, change) for each in held]
        same = all(new is old for new, old in zip(made, held, strict=True))
        return held if same else type(held)(made)
    if is_dataclass(held) and not isinstance(held, type):
        before = {each.name: getattr(held, each.name) for each in fields(held) if each.init}
        after = {name: changed(value, change) for name, value in before.items()}
        different = {name: value for name, value in after.items() if value is not before[name]}
        return replace(held, **different) if different else held
    return held
