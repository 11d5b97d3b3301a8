"""What the continuous adjoint costs, and what it saves: a training step of a neural ODE with gradient=adjoint next to
one with gradient=backprop, at several depths, on one thread."""

from __future__ import annotations

from collections.abc import Callable
from weakref import finalize

import torch
from measure import Row, in_turns
from setting import Setting
from torch import Tensor

from robode.families.node import Node
from robode.integrators.adaptive import Dopri5
from robode.integrators.adjoint import WithAdjoint
from robode.integrators.runge_kutta import RK4, RK38

WIDTH, HIDDEN, BATCH, HORIZON = 16, (64, 64), 128, 1.0
DEPTHS = (10, 40, 160)
METHODS: dict[str, Callable[[str], WithAdjoint]] = {
    "rk4": RK4,
    "rk38": RK38,
    "dopri5": lambda way: Dopri5(gradient=way),
}


class Held:
    """Bytes that autograd keeps for gradients, forwards and backwards: each storage once, as long as any graph has it.

    peak: the largest number so far.
    """

    def __init__(self) -> None:
        self.peak = self.now = 0
        self.users: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> Callable[[], Tensor]:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if not self.users.get(key):
            self.now += size
            self.peak = max(self.peak, self.now)
        self.users[key] = self.users.get(key, 0) + 1

        def kept() -> Tensor:
            return tensor

        finalize(kept, self.released, key, size)
        return kept

    def released(self, key: int, size: int) -> None:
        self.users[key] -= 1
        self.now -= 0 if self.users[key] else size


def step(flow: Node, y: Tensor) -> None:
    """Forwards and backwards."""
    flow.zero_grad()
    flow(y).square().mean().backward()


def peak(flow: Node, y: Tensor) -> int:
    held = Held()
    with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda kept: kept()):
        step(flow, y)
    return held.peak


def made(method: WithAdjoint, depth: int) -> Node:
    torch.manual_seed(0)
    return Node(WIDTH, depth, method, horizon=HORIZON, hidden=HIDDEN)


def adjoint(setting: Setting) -> list[Row]:
    """A row for each method and depth; the ratio is that of the seconds, backprop over adjoint."""
    threads, y = torch.get_num_threads(), torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(0))
    torch.set_num_threads(1)
    try:
        return [row(name, depth, y, 5 * setting.turns) for name in METHODS for depth in DEPTHS]
    finally:
        torch.set_num_threads(threads)


def row(name: str, depth: int, y: Tensor, turns: int) -> Row:
    flows = [made(METHODS[name](way), depth) for way in ("adjoint", "backprop")]
    for flow in flows:
        step(flow, y)
    a, b = ([p.grad for p in flow.parameters()] for flow in flows)
    off = sum(float((x - z).square().sum()) for x, z in zip(a, b, strict=True)) ** 0.5
    size = sum(float(z.square().sum()) for z in b) ** 0.5
    ours, other = in_turns(lambda: step(flows[0], y), lambda: step(flows[1], y), turns)
    bytes_ = [peak(flow, y) for flow in flows]
    notes = {
        "peak of what autograd keeps, adjoint": f"{bytes_[0] / 1e6:.3g} MB",
        "the same, backprop": f"{bytes_[1] / 1e6:.3g} MB, {bytes_[1] / bytes_[0]:.1f} times",
        "gradients differ by": f"{off / size:.1e} of their norm",
    }
    return Row(f"adjoint: {name}, N={depth}", f"batch of {BATCH}", ours, other, notes=notes)
