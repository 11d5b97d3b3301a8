"""Inference that is stopped early: what the head makes of the state at time t, and what it cost to get there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from robode.config.levels import check_count
from robode.data.batches import device_of, evaluating, in_units
from robode.data.info import Samples
from robode.data.module import DataModule, spread
from robode.errors import JobFailed
from robode.integrators.evaluations import counted
from robode.network import Network
from robode.ode.flow import Flow
from robode.ode.step import Chain
from robode.quantities.quantity import Number, Quantity, row, write_arrays
from robode.quantities.visited import Parts, along_path, batches, exact_copy

logger = logging.getLogger(__name__)

FILE = "early_stopping.npz"
QUARTERS = (0.25, 0.5, 0.75, 1.0)


class EarlyStopping(Quantity):
    """Accuracy and mean cross-entropy of `samples` test images if the network that runs is stopped at time t (in units
    of the horizon), against the evaluations of the field until then.

    t: the ends of the layers; for an adaptive method, which may stop anywhere, `points` equal intervals of [0, 1]. A
    state goes through the later changes of stage alone to the head (`Network.read_outs`). Rows at a quarter, a half,
    three quarters and the end, of the last such t until then: accuracy_at_…, loss_at_…, calls_at_… (of all images at
    once; layers, where they solve no ODE).

    early_stopping.npz, for the figures: time (P,), calls (P,), loss (P, n) and right (P, n), of each image; where
    layers solve an ODE, ode_time (R,) and ode_loss (R, n), of its solution by the reference solver, `refine` states a
    layer.
    """

    name = "early_stopping"
    gives = tuple(f"{what}_at_{t:g}" for t in QUARTERS for what in ("accuracy", "loss", "calls"))
    certain = gives[-3:]
    needs_classes = True

    def __init__(self, samples: int = 500, points: int = 20, refine: int = 4):
        for key, count in {"samples": samples, "points": points, "refine": refine}.items():
            check_count(key, count)
        self.samples, self.points, self.refine = samples, points, refine

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    @torch.no_grad()
    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        chosen, device = spread(data.split("test"), self.samples), device_of(network)
        x, labels = (each.to(device) for each in chosen)
        with evaluating(network):
            stops = stopped(network, in_units(x), self.points)
        losses = torch.stack([cross_entropy(each.logits.double(), labels, reduction="none") for each in stops])
        right = torch.stack([each.logits.argmax(1) == labels for each in stops])
        time, calls = ([getattr(each, name) for each in stops] for name in ("time", "calls"))
        arrays = {
            "time": torch.tensor(time, dtype=torch.float64),
            "calls": torch.tensor(calls),
            "loss": losses.float(),
            "right": right,
        }
        arrays |= self._of_the_ode(network, chosen)
        write_arrays(folder / FILE, {name: each.cpu().numpy() for name, each in arrays.items()})
        rows = []
        for t in (each for each in QUARTERS if each >= time[0]):
            last = max(place for place, each in enumerate(time) if each <= t + 1e-9)
            rows.append(row(f"accuracy_at_{t:g}", float(right[last].double().mean())))
            rows.append(row(f"loss_at_{t:g}", float(losses[last].mean())))
            rows.append(row(f"calls_at_{t:g}", float(calls[last]), "exact"))
        return rows

    def _of_the_ode(self, network: Network, samples: Samples) -> dict[str, Tensor]:
        if not network.flow.solves_an_ode:
            return {}
        exact = exact_copy(network)
        try:
            falls = [along_path(exact, x, labels, self.refine) for x, labels in batches(exact, samples)]
        except JobFailed as error:  # the reference solver's; the network that runs has been measured
            logger.warning("early_stopping: the solution of the ODE is left out: %s", error)
            return {}
        return {"ode_time": falls[0].time, "ode_loss": torch.cat([fall.V for fall in falls], 1).float()}


@dataclass(frozen=True)
class Stop:
    """What is known at a time (a share of the horizon): the logits (B, classes), and how many evaluations they took."""

    time: float
    calls: int
    logits: Tensor


def stopped(network: Network, x: Tensor, points: int) -> list[Stop]:
    """At each time at which inference may stop, from 0 to 1. x: (B, *shape) in data units; points: see `EarlyStopping`.

    States of another shape than the last one, which no change of stage leads there, cannot be read: they are left out.
    """
    y, context = network.encode(x)
    found = [
        (time, calls, network.flow.leave(rest(state), y.shape).flatten(1))
        for time, calls, state, rest in _states(network.flow, y, context, points)
    ]
    last = found[-1][2].shape
    if others := sum(state.shape != last for _, _, state in found):
        name = type(network.flow).__name__
        logger.warning("early_stopping: %d states of %s that the head cannot read: left out", others, name)
    return [Stop(time, calls, network.head(state)) for time, calls, state in found if state.shape == last]


def _states(flow: Flow, y: Tensor, context: Tensor | None, points: int) -> Iterator[tuple[float, int, Tensor, Chain]]:
    """Time, evaluations until then, the state, and what leads it to the head."""
    layers, N = Parts.of_all(flow.steps(context)), flow.depth
    anywhere = flow.solves_an_ode and flow.method.adaptive
    fields, h = flow.bind(context) if anywhere else ([], 0.0)
    state, calls = flow.enter(y), 0
    yield 0.0, 0, state, Chain([layers[0].before, layers[0].rest])
    for j, layer in enumerate(layers):
        state = layer.before(state)
        for k in (k for k in range(points) if anywhere and j * points < k * N < (j + 1) * points):
            z, more = counted(flow.method.step(fields[j], j * h, (k * N / points - j) * h), state)
            yield k / points, calls + more, z, layer.rest
        state, more = counted(layer.inside, state) if flow.solves_an_ode else (layer.inside(state), 1)
        calls += more
        if not anywhere or (j + 1) * points % N == 0:
            yield (j + 1) / N, calls, state, layer.rest
        state = layer.after(state)
