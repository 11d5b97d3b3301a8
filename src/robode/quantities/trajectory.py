"""A flow map that was learned, applied again and again: where that leads, and what of the exact solution it keeps."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robode.data.batches import device_of, in_units
from robode.data.dynamics import Dynamics, States
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.network import Network
from robode.quantities.quantity import Number, Quantity, row, write_arrays
from robode.runs.results import read_numbers
from robode.tasks.flow_map import FlowMap

FILE = "trajectory.npz"
WHOLE = 1e-6  # of a step: how far `time` may be from a multiple of dt


class Trajectory(Quantity):
    """The states y_(k+1) = network(y_k) until `time`, in float64, beside the exact solution.

    start: the first state; None: that of the system. invariants: names of what the exact solution keeps (`FlowMap`).
    Rows: one_step_rmse, of the test set, and trajectory_rmse, of the states of the trajectory, both the root of the
    mean square over states and numbers, in the task's unit; for each invariant I, relative to I at the start, I_drift
    at the end, I_lowest and I_highest on the way; for states (q, p) of the plane phase_error, the angle at the end,
    clockwise and with all turns, less that of the exact solution, in rad.

    trajectory.npz, for the figure: time (K + 1,), network and exact (K + 1, d), phase (K + 1,) the error where there is
    one, and by the name of each invariant (K + 1,) its values along the network's states.
    """

    name = "trajectory"
    gives = ("one_step_rmse", "trajectory_rmse", "phase_error")

    def __init__(
        self, time: float = 100.0, start: Sequence[float] | None = None, invariants: Sequence[str] = ("energy",)
    ):
        if not (isinstance(time, int | float) and 0 < time < math.inf):
            raise BadInput(f"suite.trajectory.time: expected a number > 0, got {time}")
        self.time, self.invariants = time, tuple(invariants)
        self.start = None if start is None else list(map(float, start))

    def in_numbers(self) -> set[str]:
        return set(self.gives) | {
            f"{name}_{what}" for name in self.invariants for what in ("drift", "lowest", "highest")
        }

    def misfit(self, info: DatasetInfo) -> str | None:
        task = info.task
        if not isinstance(task, FlowMap):
            return f"needs data that are flow maps, such as oscillator, and this is a {task.name} task"
        if unknown := [name for name in self.invariants if name not in task.invariants]:
            return f"knows no invariant {unknown[0]} of these data; they have {', '.join(task.invariants) or 'none'}"
        steps = self.time / task.dt
        if abs(steps - round(steps)) > WHOLE or round(steps) < 1:
            return f"expects a time that is a multiple of dt = {task.dt:g}, got {self.time:g}"
        if self.start is not None and len(self.start) != task.size:
            return f"expects a start of {task.size} numbers, got {len(self.start)}"
        return None

    def known(self, folder: Path, weights: str) -> bool:
        """Whether it is there until this time, from this start."""
        if not (folder / FILE).is_file():
            return False
        numbers = read_numbers(folder / "numbers.csv")
        has = set(numbers[numbers["weights"] == weights]["quantity"])
        with np.load(folder / FILE) as arrays:
            end, first = float(arrays["time"][-1]), arrays["network"][0].tolist()
        alike = math.isclose(end, self.time, rel_tol=WHOLE) and self.start in (None, first)
        return alike and self.in_numbers() - {"phase_error"} <= has

    @torch.no_grad()
    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        system = data.source
        if not isinstance(system, Dynamics):
            raise BadInput(f"suite.trajectory: expected data of a system (Dynamics), got {type(system).__name__}")
        double = copy.deepcopy(network).double().eval()
        x, target = (each.to(device_of(network)) for each in data.split("test"))
        rows = [row("one_step_rmse", rms((double(in_units(x).double()) - target).cpu().numpy()))]
        start = np.array([system.start if self.start is None else self.start], dtype=np.float64)
        count = round(self.time / system.dt)
        exact, found = exact_path(system, start, count), network_path(double, system, start, count)
        arrays = {"time": system.dt * np.arange(count + 1), "network": found, "exact": exact}
        rows.append(row("trajectory_rmse", rms(found - exact)))
        for name in self.invariants:
            with np.errstate(over="ignore", invalid="ignore"):
                values = arrays[name] = known_or_inf(system.invariants[name](found))
            change = values / values[0] - 1
            rows.append(row(f"{name}_drift", float(change[-1])))
            rows += [row(f"{name}_lowest", float(change.min())), row(f"{name}_highest", float(change.max()))]
        if system.size == 2:
            arrays["phase"] = angle(found) - angle(exact)
            rows.append(row("phase_error", float(arrays["phase"][-1])))
        write_arrays(folder / FILE, arrays)
        return rows


def exact_path(system: Dynamics, start: States, count: int) -> States:
    """((count + 1) n, d): the solutions at multiples of dt, one time after the other. start: (n, d)."""
    states = [start]
    for _ in range(count):
        states.append(system.flow(states[-1], system.dt))
    return np.concatenate(states)


def network_path(network: Network, system: Dynamics, start: States, count: int) -> States:
    """((count + 1) n, d): the network, in float64, applied again and again to start (n, d). Where samples say their
    time it is given dt."""
    y = torch.from_numpy(start).to(device_of(network))
    more = y.new_full((len(y), 1 if system.times else 0), system.dt)
    states: list[Tensor] = [y]
    for _ in range(count):
        states.append(network(torch.cat([states[-1], more], dim=1)))
    return torch.cat(states).cpu().numpy()


def angle(path: States) -> States:
    """Clockwise from the axis of q, with all turns: states (K, 2) at times that are less than half a turn apart."""
    return known_or_inf(np.unwrap(np.arctan2(-path[:, 1], path[:, 0])))


def rms(difference: States) -> float:
    """Root of the mean square; inf where something is no number."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(known_or_inf(np.sqrt(np.mean(np.square(difference)))))


def known_or_inf(values: States) -> States:
    """inf in place of what is no number, for trajectories that leave all bounds."""
    found: States = np.where(np.isnan(values), np.inf, values)
    return found
