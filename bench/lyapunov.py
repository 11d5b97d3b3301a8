"""LyaNet's Monte Carlo loss next to its materialised form, and training by it next to training through the solver; on
one thread.

The materialised form gives every pair of a sample and a state its own copy of W(x), as fields without `on_all` get it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from adjoint import Held
from measure import Row, in_turns
from setting import Setting
from torch import Tensor

from robode.data.info import DatasetInfo
from robode.encoders import ResNet18Control
from robode.families.data_node import DataNode
from robode.heads import Identity
from robode.integrators.runge_kutta import RK38
from robode.network import Network, states_of
from robode.objectives.cross_entropy import CrossEntropy
from robode.objectives.lyapunov import rates
from robode.objectives.lyapunov_mc import LyapunovMC
from robode.tasks.classification import Classification

CLASSES, STATES, BATCH, HIDDEN = 100, 512, 64, 128
KAPPA = 5.0


def lyapunov(setting: Setting) -> list[Row]:
    """The loss with its gradient, given W(x), at the published size; then whole steps, small and at the published
    size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = [
            whole_step(base, hidden, classes, setting.turns) for base, hidden, classes in ((16, 32, 10), (64, 128, 10))
        ]
        return [given_context(max(2, setting.turns)), *steps]
    finally:
        torch.set_num_threads(threads)


def given_context(turns: int) -> Row:
    torch.manual_seed(0)
    flow = DataNode(CLASSES, 10, RK38(), hidden=HIDDEN, dropout=0.0)
    W = torch.randn(BATCH, HIDDEN**2, requires_grad=True)
    labels, eta = torch.randint(CLASSES, (BATCH,)), 10 * torch.randn(CLASSES, STATES)
    head = Identity(CLASSES, CLASSES)

    def loss(f: Tensor) -> None:
        flow.zero_grad()
        W.grad = None
        found = rates(head, eta, f, labels)
        (found.rate + KAPPA * found.value).clamp_min(0).mean().backward()

    def closed() -> None:
        loss(flow.fields(W)[0].on_all(0.0, eta))

    def materialised() -> None:
        field = flow.fields(W.repeat_interleave(STATES, 0))[0]
        loss(field(0.0, eta.repeat(1, BATCH)).view(CLASSES, BATCH, STATES).movedim(1, 0))

    closed()
    mine = W.grad
    materialised()
    assert mine is not None and W.grad is not None
    off = float((mine - W.grad).norm() / W.grad.norm())
    ours, other = in_turns(closed, materialised, turns)
    kept = [peak(each) for each in (closed, materialised)]
    notes = {
        "peak of what autograd keeps": f"{kept[0] / 1e6:.3g} MB",
        "the same, materialised": f"{kept[1] / 1e6:.4g} MB, {kept[1] / kept[0]:.1f} times",
        "gradients differ by": f"{off:.1e} of their norm",
    }
    size = f"n={CLASSES}, S={STATES}, B={BATCH}, W(x) {HIDDEN}x{HIDDEN}"
    return Row("lyapunov: loss and gradient, given W(x)", size, ours, other, "10 times, a tenth of the bytes", notes)


def whole_step(base: int, hidden: int, turns: int, classes: int = 10) -> Row:
    """LyaNet's training step next to that of the same network through ten steps of the 3/8 rule; the rest of it is the
    encoder's."""
    torch.manual_seed(0)
    info = DatasetInfo((1, 28, 28), (0.5,), (0.5,), (0.0, 1.0), Classification(tuple(map(str, range(classes)))))
    flow = DataNode(classes, 10, RK38(), hidden=hidden)
    encoder = ResNet18Control(info.shape, states_of(flow), base=base)
    network = Network(info, flow, encoder, Identity(classes, classes))
    x, labels = torch.rand(BATCH, *info.shape), torch.randint(classes, (BATCH,))

    def step(objective: LyapunovMC | CrossEntropy) -> Callable[[], None]:
        def run() -> None:
            network.zero_grad()
            sum(objective(network, x, labels).values()).backward()  # type: ignore[union-attr]

        return run

    def alone() -> None:
        network.zero_grad()
        network.encode(x)[1].sum().backward()  # type: ignore[union-attr]

    ours, other = in_turns(step(LyapunovMC()), step(CrossEntropy()), 3 * turns)
    encoding, _ = in_turns(alone, alone, turns)
    notes = {
        "the encoder alone": f"{sorted(encoding)[len(encoding) // 2]:.3g} s",
        "peak of what autograd keeps, Monte Carlo": f"{peak(step(LyapunovMC())) / 1e6:.3g} MB",
        "the same, through the solver": f"{peak(step(CrossEntropy())) / 1e6:.3g} MB",
    }
    return Row(
        "lyapunov: a step, Monte Carlo over solver", f"base {base}, W(x) {hidden}x{hidden}", ours, other, notes=notes
    )


def peak(action: Callable[[], None]) -> int:
    held = Held()
    with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda kept: kept()):
        action()
    return held.peak
