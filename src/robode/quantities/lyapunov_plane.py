"""Where in a plane of states the loss falls as fast as LyaNet asks: numbers, and arrays for its figures."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robode.config.levels import check_count
from robode.data.batches import device_of, in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule, spread
from robode.families.data_node import positive, rate_of
from robode.network import Network
from robode.objectives.lyapunov import Potential, rates
from robode.ode.controlled import ControlledField
from robode.quantities.quantity import Number, Quantity, row, write_arrays

FILE = "lyapunov_plane.npz"
GRID, ARROWS = 201, 21
SAMPLES = 12  # training samples, at equal distances where there are more
START_SEED = 0  # the initial states are part of the picture: they do not move with the user's seed


class LyapunovPlane(Quantity):
    """dV/dt + kappa V <= 0 on the square [-scale, scale]^2 of states, V the cross-entropy of the head (Jimenez
    Rodriguez, Ames, Yue 2022, Eq. 10 and 11), for networks with states of two numbers and fields bound to the sample.

    lyapunov_kappa: the rate. violated_on_grid: share of the states of a grid at which the condition does not hold,
    mean over (at most 12) training samples. violated_on_paths: the same on `paths` solutions of each, from initial
    states drawn from N(0, spread^2), at every step of the network that runs; paths_right: the share of these that end
    where the head says the sample's class. lyapunov_plane.npz, of the first sample: x (G,), value and rate (G, G), V
    and dV/dt (row = second number), classes (G, G), at and field (A, A, 2), states (N + 1, paths, 2), path (N + 1, 2)
    from the network's own initial state with path_value (N + 1,), V on it, label, kappa, horizon.

    scale: half the side. kappa: "auto" = log(scale sqrt 2). spread: None = scale/5.

    Raises:
        BadInput: values that make no sense.
    """

    name = "lyapunov_plane"
    gives = ("lyapunov_kappa", "violated_on_grid", "violated_on_paths", "paths_right")
    needs_classes = True

    def __init__(self, scale: float = 5.0, kappa: float | str = "auto", paths: int = 100, spread: float | None = None):
        self.scale = positive("suite.lyapunov_plane.scale", scale)
        self.kappa = rate_of(kappa, 2, self.scale, "suite.lyapunov_plane.kappa")
        check_count("suite.lyapunov_plane.paths", paths)
        self.paths = paths
        self.spread = scale / 5 if spread is None else positive("suite.lyapunov_plane.spread", spread)

    def misfit(self, info: DatasetInfo) -> str | None:
        return None if info.task.outputs == 2 else f"is for two classes, not for {info.task.outputs}"

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    def suits(self, network: nn.Module) -> bool:
        """Networks whose states are two numbers, with fields that know all samples at once."""
        if not isinstance(network, Network) or not network.flow.controlled or network.flow.width != 2:
            return False
        _, context = network.encode(torch.zeros(1, *network.info.shape, device=device_of(network)))
        return isinstance(network.flow.fields(context)[0], ControlledField)

    @torch.no_grad()
    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        split = spread(data.split("train"), SAMPLES)
        x, labels = in_units(split.x).double().to(device_of(network)), split.target.to(device_of(network))
        double = copy.deepcopy(network).double().eval()
        starts = torch.from_numpy(np.random.default_rng(START_SEED).normal(0, self.spread, (self.paths, 2))).to(
            x.device
        )
        planes = [_Plane(double, x[k : k + 1], labels[k : k + 1], self.kappa) for k in range(len(labels))]
        grid = _square(self.scale, GRID, x.device)
        states = [plane.states(starts) for plane in planes]
        shares = [
            [plane.violated(grid.flatten(0, 1)), plane.violated(along.flatten(0, 1)), plane.right(along[-1])]
            for plane, along in zip(planes, states, strict=True)
        ]
        on_grid, on_paths, right = torch.tensor(shares).mean(0).tolist()
        write_arrays(folder / FILE, self._arrays(planes[0], states[0], grid))
        return [
            row("lyapunov_kappa", self.kappa, "exact"),
            row("violated_on_grid", on_grid),
            row("violated_on_paths", on_paths),
            row("paths_right", right),
        ]

    def _arrays(self, plane: _Plane, states: Tensor, grid: Tensor) -> dict[str, np.ndarray]:
        coarse = _square(self.scale, ARROWS, grid.device)
        found = plane.potential(grid.flatten(0, 1))
        path = plane.states(plane.network.embed(plane.x))[:, 0]
        tensors = {
            "x": grid[0, :, 0],
            "value": found.value.view(GRID, GRID),
            "rate": found.rate.view(GRID, GRID),
            "classes": plane.network.head(grid).argmax(2),
            "at": coarse,
            "field": plane.field(coarse.flatten(0, 1)).view_as(coarse),
            "states": states,
            "path": path,
            "path_value": plane.potential(path).value[0],
            "label": plane.label[0],
        }
        scalars = {"kappa": self.kappa, "horizon": plane.network.flow.horizon}
        return {name: np.asarray(each.cpu()) for name, each in tensors.items()} | {
            name: np.array(each) for name, each in scalars.items()
        }


@dataclass(frozen=True)
class _Plane:
    """The states of one sample, x (1, *shape) with label (1,), as rows (S, 2)."""

    network: Network
    x: Tensor
    label: Tensor
    kappa: float

    def field(self, states: Tensor) -> Tensor:
        """f(0, .; x), (S, 2)."""
        _, context = self.network.encode(self.x)
        field = self.network.flow.fields(context)[0]
        assert isinstance(field, ControlledField), "see suits"
        return field.on_all(0.0, states.T)[0].T

    def potential(self, states: Tensor) -> Potential:
        """V and dV/dt, each (1, S)."""
        return rates(self.network.head, states.T, self.field(states).T[None], self.label)

    def violated(self, states: Tensor) -> float:
        """A state that is not finite violates the condition."""
        found = self.potential(states)
        return float((~(found.rate + self.kappa * found.value <= 0)).double().mean())

    def states(self, starts: Tensor) -> Tensor:
        """(N + 1, S, 2), from starts (S, 2)."""
        _, context = self.network.encode(self.x)
        assert context is not None, "see suits"
        return torch.stack(self.network.flow.states(starts, context.expand(len(starts), *context.shape[1:])))

    def right(self, ends: Tensor) -> float:
        return float((self.network.head(ends).argmax(1) == self.label).double().mean())


def _square(scale: float, count: int, device: torch.device) -> Tensor:
    """(count, count, 2), row = second number."""
    ticks = torch.linspace(-scale, scale, count, dtype=torch.float64, device=device)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack([x, y], dim=2)
