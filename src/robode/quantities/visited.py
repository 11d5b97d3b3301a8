"""What the loss of a sample does along its own path: V and dV/dt at the states that inference visits.

V_y(eta) = CE(psi(eta), y), as in docs/theory.md, section 23; the condition is dV/dt + kappa V <= 0 (LyaNet, Eq. 10).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from robode.data.batches import device_of, in_units
from robode.data.info import Samples
from robode.families.data_node import rate_of
from robode.network import Network
from robode.objectives.barrier import Barrier
from robode.objectives.lyapunov import Shared
from robode.objectives.lyapunov_mc import LyapunovMC
from robode.objectives.lyapunov_path import LyapunovPath
from robode.ode.bounds import value
from robode.ode.read_outs import parts_of
from robode.ode.step import Chain, Step
from robode.runs.run import Run

BATCH = 100


@dataclass(frozen=True)
class Fall:
    """The loss V of P states of each of B samples, and its rate; rates and kappa are in units of 1/horizon.

    time: (P,), from 0 to 1; V, rate: (P, B); right: (B,), whether the last state is classified correctly. reach: the
    largest 2-norm of a state (of a pixel, where those flow one by one).
    """

    time: Tensor
    V: Tensor
    rate: Tensor
    right: Tensor
    reach: float

    def violated(self, kappa: float) -> Tensor:
        """(P, B), where dV/dt + kappa V > 0; a state that is not finite violates it."""
        return ~(self.rate + kappa * self.V <= 0)

    def late(self, kappa: float) -> Tensor:
        """(P - 1, B), where V(t) > V(0) e^(-kappa t), t > 0."""
        return ~(self.V[1:] <= self.V[:1] * torch.exp(-kappa * self.time[1:, None]))


def cross_entropy_and_rate(logits: Tensor, slope: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """V and dV/dt of logits (B, classes) that change at the rates `slope`, with labels (B,): (B,) each.

    With a = log sum_(j != y) e^(z_j - z_y): V = log(1 + e^a) and dV/dt = da/dt / (1 + e^(-a)). Nothing cancels, so the
    sign of dV/dt + kappa V is right where V is far below the rounding of the logits, unlike with V = log sum e^z - z_y.
    """
    own = labels[:, None]
    others = functional.one_hot(labels, logits.shape[1]).bool()
    z = (logits - logits.gather(1, own)).masked_fill(others, -math.inf)
    a = z.logsumexp(1)
    speed = (z.softmax(1) * (slope - slope.gather(1, own))).sum(1)
    return torch.logaddexp(a, torch.zeros_like(a)), a.sigmoid() * speed


def exact_copy(network: Network) -> Network:
    """In float64 and eval mode: V and its rate are small differences, and their signs are counted."""
    return copy.deepcopy(network).double().eval()


def batches(network: Network, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
    """x in data units, float64, and labels, where the network lies."""
    device = device_of(network)
    for start in range(0, len(samples.target), BATCH):
        x, labels = (each[start : start + BATCH].to(device) for each in samples)
        yield in_units(x).double(), labels


@torch.no_grad()
def along_path(network: Network, x: Tensor, labels: Tensor, refine: int = 0) -> Fall:
    """V and its rate at the ends of the layers of the network that runs; with `refine`, at so many states a layer of
    the ODE's solution, found by the reference solver (`Integrator.refined`) from each to the next.

    A state goes through the later changes of stage alone to the head, as in `Network.read_outs`.
    network: `exact_copy`, whose layers solve an ODE; x: (B, *shape) in data units, float64; labels: (B,).
    """
    y, context = network.encode(x)
    flow, found, reach = network.flow, [], 0.0
    fields, h = flow.bind(context)
    state, count, finer = flow.enter(y), max(refine, 1), flow.method.refined()
    layers = Parts.of_all(flow.steps(context))
    part = value(h) / count
    for j, (field, layer) in enumerate(zip(fields, layers, strict=True)):
        state = layer.before(state)
        for k in range(count + (j + 1 == len(layers))):
            t = (j * count + k) * part
            reach = max(reach, float(state.norm(dim=0).max()))
            found.append(_fall_at(network, field(t, state), state, layer.rest, labels, y.shape))
            if k < count:
                state = finer.step(field, t, part)(state) if refine else layer.inside(state)
        state = layer.after(state)
    V, rate, logits = (torch.stack([each[i] for each in found]) for i in range(3))
    time = torch.linspace(0, 1, len(V), dtype=V.dtype, device=V.device)
    return Fall(time, V, rate * (value(h) * flow.depth), logits[-1].argmax(1) == labels, reach)


@dataclass(frozen=True)
class Parts:
    """A layer in its parts: changes of stage, what it does inside its stage, changes of stage; rest: those of this and
    of all later layers behind `inside`, which lead a state to the head."""

    before: Chain
    inside: Chain
    after: Chain
    rest: Chain

    @classmethod
    def of_all(cls, steps: Sequence[Step]) -> list[Parts]:
        """Of the layers of a flow, in their order."""
        found: list[Parts] = []
        rest: list[Step] = []
        for step in reversed(steps):
            parts = parts_of(step)
            inside = [place for place, part in enumerate(parts) if not part.between_stages]
            first, last = (inside[0], inside[-1] + 1) if inside else (len(parts), len(parts))
            before, after = parts[:first], parts[last:]
            found.append(cls(Chain(before), Chain(parts[first:last]), Chain(after), Chain([*after, *rest])))
            rest = [*before, *after, *rest]
        return found[::-1]


def _fall_at(
    network: Network, speed: Tensor, state: Tensor, rest: Step, labels: Tensor, shape: torch.Size
) -> tuple[Tensor, Tensor, Tensor]:
    """V, its rate and the logits at states as the steps of the flow map them, which move at `speed`."""

    def read(z: Tensor) -> Tensor:
        logits: Tensor = network.head(network.flow.leave(rest(z), shape).flatten(1))
        return logits

    logits, slope, *_ = torch.func.jvp(read, (state,), (speed,))
    V, rate = cross_entropy_and_rate(logits, slope, labels)
    return V, rate, logits


@torch.no_grad()
def along_layers(network: Network, x: Tensor, labels: Tensor) -> Fall:
    """V at the states that `Network.read_outs` gives, at equal distances of time; no rates (nan): for layers that solve
    no ODE. Raises `BadInput` where states cannot be read out."""
    logits = torch.stack(network.read_outs(x))
    V = torch.stack([cross_entropy_and_rate(each, torch.zeros_like(each), labels)[0] for each in logits])
    time = torch.linspace(0, 1, len(V), dtype=V.dtype, device=V.device)
    return Fall(time, V, torch.full_like(V, math.nan), logits[-1].argmax(1) == labels, math.nan)


def asked_of(network: Network, folder: Path) -> tuple[float, Shared]:
    """kappa, in units of 1/horizon, and the states that the loss of the run in this folder asked it at; where it asked
    for none, kappa = log(s sqrt n) of n outputs, and the states of objective=lyapunov_mc."""
    config = Run(folder).config() if (folder / "config.yaml").is_file() else None
    built = [part.build() for part in (config.objective.values() if config else ()) if part]
    states = LyapunovMC().states
    for objective in built:
        if isinstance(objective, LyapunovMC):
            return objective.states.rate(network) * network.flow.horizon, objective.states
        if isinstance(objective, LyapunovPath):
            return objective.kappa, states
        if isinstance(objective, Barrier):
            states = objective.states
    return rate_of("auto", network.info.task.outputs, states.scale, "kappa"), states
