"""What becomes of the energy H of F grad H along the states: of the ODE, and of the network that runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robode.config.levels import check_count
from robode.data.batches import device_of, in_units
from robode.data.module import DataModule, spread
from robode.integrators.adaptive import Dopri5
from robode.linalg.potentials import potential
from robode.network import Network
from robode.ode.bounds import value
from robode.ode.field import GradientField
from robode.ode.layer import affine
from robode.ode.step import Step
from robode.quantities.quantity import Number, Quantity, row, write_arrays

FILE = "energy.npz"
TOLERANCE = 1e-11  # relative and absolute, of the reference solver


class Energy(Quantity):
    """The energy H_j of each layer of fields (J - gamma I) grad H_j, at `samples` test samples, spread evenly, in
    float64. From layer to layer H_j is another function, so the changes inside the layers are added up, from 0 on; an
    image's energy is the sum over its pixels.

    Of the ODE, solved from the first state by a reference solver and looked at `times` times a layer: energy_ode, the
    change over all layers, median over the samples; energy_ode_rise and energy_ode_fall, the largest between two looks.
    The theorem: it never rises, and without gamma it stays (docs/theory.md, section 25). Of the network that runs,
    along its own states: energy_network, energy_network_rise and energy_network_fall, between the ends of a layer.
    energy_deviation: the largest difference between the two, over samples and layers.

    energy.npz, for the figure: time (N times + 1,), ode (N times + 1, B), layers (N + 1,) when layers end, network
    (N + 1, B).
    """

    name = "energy"
    gives = (
        "energy_ode", "energy_ode_rise", "energy_ode_fall", "energy_network", "energy_network_rise",
        "energy_network_fall", "energy_deviation",
    )  # fmt: skip

    def __init__(self, samples: int = 100, times: int = 8):
        for key, number in (("samples", samples), ("times", times)):
            check_count(key, number)
        self.samples, self.times = samples, times

    def suits(self, network: nn.Module) -> bool:
        """Of one whose fields are F grad H."""
        if not isinstance(network, Network) or not network.flow.solves_an_ode or network.flow.controlled:
            return False
        return all(isinstance(field, GradientField) for field in network.flow.fields())

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    @torch.no_grad()
    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        x = in_units(spread(data.split("test"), self.samples).x).to(device_of(network))
        y = network.encode(x.to(next(network.parameters()).dtype))[0].double()
        flow = network.flow.exact()
        bound, h = flow.bind()
        fields, start = [field for field in bound if isinstance(field, GradientField)], flow.enter(y)
        solver, part = Dopri5(TOLERANCE, TOLERANCE), value(h) / self.times
        solved = [[solver.step(field, 0.0, part)] * self.times for field in fields]
        parts = {"ode": solved, "network": [[step] for step in flow.steps()]}
        states = {name: along(start, fields, each) for name, each in parts.items()}
        found = {name: each.view(len(each), len(y), -1).sum(2).cpu().numpy() for name, each in states.items()}
        layers = value(h) * np.arange(flow.depth + 1)
        time = part * np.arange(flow.depth * self.times + 1)
        write_arrays(folder / FILE, {"time": time, "layers": layers, **found})
        rows = []
        for name, energy in found.items():
            changes = np.diff(energy, axis=0)
            rows += [
                row(f"energy_{name}", float(np.median(energy[-1]))),
                row(f"energy_{name}_rise", float(changes.max())),
                row(f"energy_{name}_fall", float(-changes.min())),
            ]
        apart = np.abs(found["network"] - found["ode"][:: self.times]).max()
        return [*rows, row("energy_deviation", float(apart))]


def along(y: Tensor, fields: Sequence[GradientField], parts: Sequence[Sequence[Step]]) -> Tensor:
    """The changes of energy inside the layers, added up, at columns y (n, M) and after each of the parts of each layer:
    (parts + 1, M)."""
    changed = [torch.zeros_like(y[0])]
    for field, steps in zip(fields, parts, strict=True):
        before, entered = energy(field, y), changed[-1]
        for step in steps:
            y = step(y)
            changed.append(entered + (energy(field, y) - before))
    return torch.stack(changed)


def energy(field: GradientField, y: Tensor) -> Tensor:
    """H(y) = 1^T sigma~(K y + b) + y^T Q y / 2 at each column, (n, M) -> (M,)  (CH-NODE paper, Eq. 8)."""
    return potential(field.activation, affine(field.b, field.K, y)).sum(0) + (y * (field.Q @ y)).sum(0) / 2
