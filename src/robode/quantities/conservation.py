"""A flow map that was learned, applied again and again to many states: what of the invariants is left."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from robode.data.batches import in_units
from robode.data.dynamics import Dynamics
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.network import Network
from robode.quantities.quantity import Number, Quantity, row, write_arrays
from robode.quantities.trajectory import exact_path, known_or_inf, network_path, rms
from robode.runs.results import read_numbers
from robode.tasks.flow_map import FlowMap

FILE = "conservation.npz"
SHOWN = 3


class Conservation(Quantity):
    """y_(k+1) = network(y_k) from the first `states` test states, `iterates` times, in float64, beside the exact flow.
    Where states are constrained it begins at the nearest ones that are, without the rounding of the samples.

    invariants: names of what the exact solution keeps (`FlowMap`).
    Rows: next_rmse, iterated_rmse: the root of the mean square over states and numbers after one and after the last
    iterate, in the task's unit; for each invariant I, the largest |I(y_k) - I(y_0)| over the states, I_defect for k =
    1, I_defect_iterated over all k.

    conservation.npz, for the figure: time and error (K + 1,); by the name of each invariant (K + 1,) its largest defect
    over the states; network and exact (K + 1, 3, d), of the first three.
    """

    name = "conservation"
    gives = ("next_rmse", "iterated_rmse")

    def __init__(self, iterates: int = 100, states: int = 200, invariants: Sequence[str] = ("energy",)):
        for key, count in (("iterates", iterates), ("states", states)):
            if type(count) is not int or count < 1:
                raise BadInput(f"suite.conservation.{key}: expected a whole number >= 1, got {count}")
        self.iterates, self.states, self.invariants = iterates, states, tuple(invariants)

    def in_numbers(self) -> set[str]:
        return set(self.gives) | {f"{name}_defect{end}" for name in self.invariants for end in ("", "_iterated")}

    def misfit(self, info: DatasetInfo) -> str | None:
        task = info.task
        if not isinstance(task, FlowMap) or task.timed:
            return f"needs data that are flow maps of one time, such as sir, and this is a {task.name} task"
        if unknown := [name for name in self.invariants if name not in task.invariants]:
            return f"knows no invariant {unknown[0]} of these data; they have {', '.join(task.invariants) or 'none'}"
        return None

    def known(self, folder: Path, weights: str) -> bool:
        """Whether it is there for as many iterates."""
        if not (folder / FILE).is_file():
            return False
        numbers = read_numbers(folder / "numbers.csv")
        has = set(numbers[numbers["weights"] == weights]["quantity"])
        with np.load(folder / FILE) as arrays:
            return len(arrays["time"]) == self.iterates + 1 and self.in_numbers() <= has

    @torch.no_grad()
    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        system = data.source
        if not isinstance(system, Dynamics):
            raise BadInput(f"suite.conservation: expected data of a system (Dynamics), got {type(system).__name__}")
        double = copy.deepcopy(network).double().eval()
        start = system.nearest(in_units(data.split("test").x)[: self.states].double().cpu().numpy())
        shape = (self.iterates + 1, *start.shape)
        exact = exact_path(system, start, self.iterates).reshape(shape)
        found = network_path(double, system, start, self.iterates).reshape(shape)
        error = np.array([rms(difference) for difference in found - exact])
        arrays = {"time": system.dt * np.arange(len(found)), "error": error}
        rows = [row("next_rmse", error[1]), row("iterated_rmse", error[-1])]
        for name in self.invariants:
            with np.errstate(over="ignore", invalid="ignore"):
                values = np.stack([system.invariants[name](states) for states in found])
                arrays[name] = known_or_inf(np.abs(values - values[0])).max(axis=1)
            rows.append(row(f"{name}_defect", float(arrays[name][1])))
            rows.append(row(f"{name}_defect_iterated", float(arrays[name].max())))
        arrays |= {"network": found[:, :SHOWN], "exact": exact[:, :SHOWN]}
        write_arrays(folder / FILE, arrays)
        return rows
