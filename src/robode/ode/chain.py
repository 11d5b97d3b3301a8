"""Layers y -> A y + B tanh(K y + b), one after the other: all of them at once where an engine does that, else in turn.

An engine computes in float32 what the layers compute in turn, up to rounding, and its gradients. What it cannot do is
left to the layers: other activations, widths and numbers, gradients of gradients, and whatever looks on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Protocol, TypeGuard, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from robode.errors import BadInput
from robode.linalg.activations import ACTIVATIONS
from robode.ode.layer import Layer
from robode.ode.step import Chain, Step

Kind = TypeVar("Kind", bound=Step)
REFERENCE = "reference"  # the layers in turn, by torch
ENGINES = ("numba", "triton")  # named like the package that each needs
CHOICE = "ROBODE_ENGINE"  # environment variable: auto, reference or one of the engines
AT_ONCE = 64  # layers: what a backward pass keeps of a tile, 1 MiB (docs/measurements/2026-11-29-substeps.md)
TANH = ACTIVATIONS["tanh"]
_CALLS = {Layer: Layer.__call__, Chain: Chain.__call__}


class Engine(Protocol):
    """A module with these. y: (n, M); weights: A (N, n, n), B (N, n, k), K (N, k, n), b (N, k)."""

    def suits(self, y: Tensor, n: int, k: int) -> bool:
        """Whether it can take y through layers of width n with k slopes each."""
        ...

    def forward(self, y: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """The last state, (n, M)."""
        ...

    def backward(
        self, y: Tensor, weights: Sequence[Tensor], slope: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, ...]:
        """The gradients at y, A, B, K and b from that at the last state, `slope` (n, M). Those at weights that are not
        wanted may be anything."""


def run(steps: Sequence[Step], y: Tensor) -> Tensor:
    """y: (n, M), or what the steps take -> the last state."""
    parts = flattened(steps)
    if (name := engine(parts, y)) == REFERENCE:
        for step in steps:
            y = step(y)
        return y
    for first in range(0, len(parts), AT_ONCE):
        layers = parts[first : first + AT_ONCE]
        A, B, K, b = (torch.stack([getattr(layer, part) for layer in layers]) for part in ("A", "B", "K", "b"))
        y = ByEngine.apply(name, y, A, B, K, b[..., 0])
    return y


def flattened(steps: Sequence[Step]) -> list[Step]:
    """The steps, and in place of a `Chain` its own."""
    return [part for step in steps for part in (flattened(step.steps) if _is(step, Chain) else [step])]


def engine(steps: Sequence[Step], y: Tensor) -> str:
    """The name of the engine that takes y through these steps; `REFERENCE` for the steps in turn."""
    steps = flattened(steps)
    if not steps or not _plain(y) or not all(_is(step, Layer) and step.activation == TANH for step in steps):
        return REFERENCE
    layers = cast(Sequence[Layer], steps)
    k, n = layers[0].K.shape
    shapes = {"A": (n, n), "B": (n, k), "K": (k, n), "b": (k, 1)}  # b of (k, M) is bound to the data
    for layer in {id(layer): layer for layer in layers}.values():
        parts = [(getattr(layer, name), shape) for name, shape in shapes.items()]
        if any(part.shape != shape or part.dtype != y.dtype for part, shape in parts):
            return REFERENCE
    return next((name for name in available() if loaded(name).suits(y, n, k)), REFERENCE)


def _is(step: Step, kind: type[Kind]) -> TypeGuard[Kind]:
    """Whether it is of that kind and computes what that computes."""
    return isinstance(step, kind) and type(step).__call__ is _CALLS[kind]


def _plain(y: Tensor) -> bool:
    """Whether y is columns of numbers, and nothing looks on: no transform, dual numbers, compiler, trace or cast."""
    return (
        type(y) is Tensor and y.dim() == 2 and y.dtype == torch.float32 and y.numel() > 0
        and not torch.compiler.is_compiling() and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch.is_autocast_enabled(y.device.type)
        and not torch._C._functorch.maybe_current_level() and forward_ad._current_level < 0
    )  # fmt: skip


def available() -> list[str]:
    """Names of the engines whose package is installed, as far as the environment allows them. Raises `BadInput`."""
    chosen = os.environ.get(CHOICE, "auto")
    if chosen not in ("auto", REFERENCE, *ENGINES):
        raise BadInput(f"{CHOICE}: expected auto, {REFERENCE} or one of {', '.join(ENGINES)}, got '{chosen}'")
    return [name for name in ENGINES if chosen in ("auto", name) and _installed(name)]


@lru_cache
def _installed(name: str) -> bool:
    return find_spec(name) is not None


@lru_cache
def loaded(name: str) -> Engine:
    """The engine of that name. Importing takes a second; the first call on a machine compiles it, which takes ten."""
    if name == "numba":
        from robode.ode import fused_numba

        return fused_numba
    from robode.ode import fused_triton

    return fused_triton


class ByEngine(torch.autograd.Function):
    """All layers by an engine. (name, y, A, B, K, b) -> the last state (n, M)."""

    @staticmethod
    def forward(ctx: Any, name: str, y: Tensor, *weights: Tensor) -> Tensor:
        """The last state, (n, M)."""
        ctx.engine = name
        ctx.save_for_backward(y, *weights)
        return loaded(name).forward(y.detach(), weights)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients at y, A, B, K and b from that at the last state, `slope` (n, M)."""
        y, *weights = ctx.saved_tensors
        many = torch._C._functorch.is_legacy_batchedtensor(slope)  # torch.autograd.grad(..., is_grads_batched=True)
        if not torch.is_grad_enabled() and not many:
            return None, *loaded(ctx.engine).backward(y.detach(), weights, slope, ctx.needs_input_grad[2:])
        wanted = [each for each, needed in zip((y, *weights), ctx.needs_input_grad[1:], strict=True) if needed]
        with torch.enable_grad():
            last = in_turn(y, *weights)
        found = iter(torch.autograd.grad(last, wanted, slope, create_graph=torch.is_grad_enabled()))
        return None, *(next(found) if needed else None for needed in ctx.needs_input_grad[1:])


def in_turn(y: Tensor, A: Tensor, B: Tensor, K: Tensor, b: Tensor) -> Tensor:
    """The layers in turn, for gradients of gradients and for tests: any dtype. b: (N, k)."""
    for layer in zip(A, B, K, b[..., None], strict=True):
        y = Layer(*layer, TANH)(y)
    return y
