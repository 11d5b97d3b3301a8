"""Exponential fall of the loss along the network's own trajectories, from each state to the next."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from robode.data.batches import evaluating
from robode.data.motion import number
from robode.errors import BadInput
from robode.foreign import refused
from robode.network import Network
from robode.objectives.lyapunov import potential
from robode.objectives.objective import Objective

KEY = "objective.lyapunov_path"


class LyapunovPath(Objective):
    """mean over transitions and samples of max(0, V_(i+1) - (1 - alpha_i) V_i), alpha_i = 1 - e^(-kappa Delta_i), V_i
    the cross-entropy of the state i as the head reads it (`Network.read_outs`).

    Path-integral LyaNet: Jimenez Rodriguez, Ames, Yue 2022, Algorithm 2 with Eq. (16) and (17), a mean in place of the
    sum. The condition V_(i+1) <= (1 - alpha) V_i of Eq. (16) needs a discrete rate in (0, 1]; alpha is the one that a
    fall like e^(-kappa t) comes to. Where the loss is 0, V_N <= e^(-kappa) V_0: nothing else asks for a small V_N.

    kappa: the rate, in units of 1/horizon: the whole flow lasts from 0 to 1, transition i a share Delta_i of it, so
    that a number means the same for every depth. 10 is what the published training of three blocks takes, 10/3 in each.
    resolution: how many transitions between equally spaced states; None: one for each that can be read out.
    stop_gradient: V_i is a number where it bounds V_(i+1), as published; else it has a gradient, which raises it.
    truncate: gamma, max(0, CE - gamma) takes the place of the cross-entropy.
    Logs path_violated, the share of transitions at which the condition does not hold, and the accuracy.

    Raises:
        BadInput: values that make no sense; a network whose states cannot be read out or are fewer than the resolution
            asks for, and an adaptive method (`check`).
    """

    def __init__(
        self,
        kappa: float = 10.0,
        resolution: int | None = None,
        stop_gradient: bool = True,
        truncate: float = 0.0,
    ):
        if resolution is not None and (type(resolution) is not int or resolution < 1):
            raise BadInput(f"{KEY}.resolution: expected null or a whole number >= 1, got {resolution}")
        self.kappa, self.resolution = number(f"{KEY}.kappa", kappa, above=True), resolution
        self.stop_gradient, self.truncate = stop_gradient, number(f"{KEY}.truncate", truncate, above=False)
        self._notes: dict[str, Tensor] = {}

    def check(self, network: Network) -> None:
        if network.flow.method.adaptive:
            name = network.flow.method.name
            raise BadInput(
                f"objective=lyapunov_path: expected an integrator of fixed steps, got integrator={name}, whose steps "
                "depend on the batch and give the condition no grid"
            )
        x = torch.zeros(2, *network.info.shape)
        what = f"objective=lyapunov_path: the states of {type(network.flow).__name__} cannot be read out"
        with torch.no_grad(), evaluating(network), refused(what):
            self.grid(len(network.read_outs(x)) - 1)

    def grid(self, transitions: int) -> list[int]:
        """Which of the states 0, ..., transitions are compared. Raises `BadInput` for fewer than the resolution."""
        if not transitions:
            raise BadInput(
                "objective=lyapunov_path: expected at least two states along the flow; choose a larger depth"
            )
        wanted = self.resolution or transitions
        if wanted > transitions:
            raise BadInput(
                f"{KEY}.resolution: expected null or at most the {transitions} transitions between states that can be "
                f"read out, got {self.resolution}"
            )
        return [place * transitions // wanted for place in range(wanted + 1)]

    def __call__(self, network: Network, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; labels: (B,) int64."""
        outputs = network.read_outs(x)
        last = len(outputs) - 1
        grid = self.grid(last)
        V = [potential(outputs[place], labels, self.truncate) for place in grid]
        excess = []
        for (i, before), (j, after) in pairwise(zip(grid, V, strict=True)):
            bound = math.exp(-self.kappa * (j - i) / last) * (before.detach() if self.stop_gradient else before)
            excess.append((after - bound).clamp_min(0))
        all_of_them = torch.stack(excess)
        task = network.info.task
        with torch.no_grad():
            score = task.score(outputs[-1], labels).mean()
            self._notes = {"path_violated": (all_of_them > 0).to(score).mean(), task.score_name: score}
        return {"lyapunov_path": all_of_them.mean()}

    def notes(self) -> dict[str, Tensor]:
        return self._notes
