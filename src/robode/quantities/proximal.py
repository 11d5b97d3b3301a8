"""Proximal gradient methods on the equations of a data set, held against exact solutions. Looks at no network."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from torch import Tensor

from robode.data.batches import in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.iterations import Iteration, Map, clip, gradient_step, relaxed, soft_threshold
from robode.linalg.norms import largest_eigenvalue, smallest_eigenvalue
from robode.network import Network
from robode.quantities.quantity import Number, Quantity, row, write_arrays
from robode.tasks.regression import Regression

FILE = "proximal.npz"
METHODS = ("ridge", "box", "lasso")
OFF = {"ridge": "ridge_distance", "box": "box_excess", "lasso": "lasso_gap"}
TURN = 1.0  # rad, of the rotation
FLOOR = 1e-11  # of the first step: below it float64 rounds


class Proximal(Quantity):
    """min f(w) + g(w), f(w) = ||K w - y||^2/2 of the training set, by x_{k+1} = prox(x_k - grad f(x_k)/L) from 1.

    ridge: g = gamma ||w||^2/2, part of the gradient, a contraction; box: g = 0 on [0, 1]^d, projected gradient; lasso:
    g = gamma ||w||_1, ISTA. steps: of each, in float64.

    ridge_rate (certified_upper) is the factor q of the contraction and ridge_rate_seen that of its steps;
    ridge_distance is that of the last iterate from the closed form, in the 2-norm; box_excess is f there minus its
    exact minimum, and lasso_gap the duality gap, which f + g cannot exceed its minimum by. rotation,
    rotation_averaged: the length of the last step of a rotation of the plane by 1 rad and of half of it and half of
    the identity, from a point at distance 1. theta: averagedness constant of a step of ISTA. proximal.npz, for the
    figure: of each method steps (K,) and their bound (K,); turned, averaged (k, 2), the iterates of the rotations.

    Raises:
        BadInput: a gamma that is no number > 0, or fewer than 2 steps.
    """

    name = "proximal"
    gives = (
        "ridge_rate", "ridge_rate_seen", "proximal_theta", *OFF.values(), "rotation", "rotation_averaged",
    )  # fmt: skip

    def __init__(self, gamma: float = 0.05, steps: int = 2000):
        if not 0 < gamma < math.inf or steps < 2:
            raise BadInput(f"suite.proximal: expected gamma > 0 and steps >= 2, got gamma={gamma}, steps={steps}")
        self.gamma, self.steps = gamma, steps

    def misfit(self, info: DatasetInfo) -> str | None:
        right = len(info.shape) == 1 and isinstance(info.task, Regression) and info.task.outputs == 1
        return None if right else "is for equations, vectors with one number as a target (data=sparse_regression)"

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        x, target = data.split("train")
        K, y = in_units(x).cpu().double(), target.cpu().double()[:, 0]
        numbers, arrays = [], dict[str, NDArray[np.float64]]()
        for name, iteration in iterations(K, y, self.gamma).items():
            start = torch.ones(1, K.shape[1], dtype=torch.float64)
            found = iteration.proven().run(start, self.steps)
            w, steps = found.x[0], found.steps[:, 0]
            least = minimiser(name, K, y, self.gamma)
            # of lasso the last iterate stands for its limit
            far = float((start[0] - (w if least is None else least)).norm())
            arrays[f"{name}_steps"] = steps.numpy()
            arrays[f"{name}_bound"] = iteration.bound(torch.arange(self.steps), float(steps[0]), far).numpy()
            numbers.append(row(OFF[name], off_by(name, K, y, w, self.gamma)))
            if name == "ridge":
                numbers.append(row("ridge_rate", iteration.T.lipschitz, "certified_upper"))
                numbers.append(row("ridge_rate_seen", rate(steps)))
            if name == "lasso":
                numbers.append(row("proximal_theta", iteration.T.averaged, "certified_upper"))
        for name, array in rotations(60).items():
            arrays[name] = array
            last = float(np.linalg.norm(array[-1] - array[-2]))
            numbers.append(row({"turned": "rotation"}.get(name, "rotation_averaged"), last))
        write_arrays(folder / FILE, arrays)
        return numbers


def iterations(K: Tensor, y: Tensor, gamma: float) -> dict[str, Iteration]:
    """ridge, box and lasso with tau = 1/L. K: (n, d), y: (n,), float64; iterates (B, d)."""
    L = float(largest_eigenvalue(K))
    mu = float(smallest_eigenvalue(torch.linalg.qr(K).R)) if K.shape[0] >= K.shape[1] else 0.0

    def gradient(w: Tensor) -> Tensor:
        return (w @ K.mT - y) @ K

    ridge = gradient_step(lambda w: gradient(w) + gamma * w, 1 / (L + gamma), L + gamma, mu + gamma)
    step = gradient_step(gradient, 1 / L, L)
    return {
        "ridge": Iteration(ridge),
        "box": Iteration(step, clip(0.0, 1.0)),
        # f + g grows without bound, and is continuous: it has a minimiser
        "lasso": Iteration(step, soft_threshold(gamma / L), fixed_point=True),
    }


def minimiser(name: str, K: Tensor, y: Tensor, gamma: float) -> Tensor | None:
    """The exact one of ridge, by its linear equations, and of box, by an active-set method; None for lasso. (d,)"""
    if name == "ridge":
        system = K.mT @ K + gamma * torch.eye(K.shape[1], dtype=torch.float64)
        return torch.linalg.solve(system, K.mT @ y)
    if name == "box":
        return torch.from_numpy(lsq_linear(K.numpy(), y.numpy(), (0, 1), method="bvls", tol=1e-14).x)
    return None


def off_by(name: str, K: Tensor, y: Tensor, w: Tensor, gamma: float) -> float:
    """What the number OFF[name] says of w (d,): a distance, or by how much f or f + g is above its minimum."""
    least = minimiser(name, K, y, gamma)
    if least is None:
        return duality_gap(K, y, w, gamma)
    if name == "ridge":
        return float((w - least).norm())
    return float((K @ w - y).square().sum() - (K @ least - y).square().sum()) / 2


def duality_gap(K: Tensor, y: Tensor, w: Tensor, gamma: float) -> float:
    """||K w - y||^2/2 + gamma ||w||_1 minus the dual function ||y||^2/2 - ||y - u||^2/2 at the feasible multiple u of
    the residual, ||K^T u||_inf <= gamma: never below what w is above the minimum by."""
    residual = y - K @ w
    u = residual * (gamma / (K.mT @ residual).abs().max()).clamp_max(1.0)
    primal = residual.square().sum() / 2 + gamma * w.abs().sum()
    return float(primal - y.square().sum() / 2 + (y - u).square().sum() / 2)


def rate(steps: Tensor) -> float:
    """The geometric mean of ||x_{k+1} - x_k||/||x_k - x_{k-1}|| over the second half of the steps that rounding leaves.
    steps: (K,)."""
    count = int((steps > FLOOR * steps[0]).sum())
    first, last = count // 2, count - 1
    return float((steps[last] / steps[first]) ** (1 / (last - first))) if last > first else math.nan


def rotations(count: int) -> dict[str, NDArray[np.float64]]:
    """Iterates (count + 1, 2) from (1, 0) of a rotation, "turned", and of its average with the identity, "averaged"."""
    c, s = math.cos(TURN), math.sin(TURN)
    turn = torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
    rotation, found = Map("rotation", lambda x: x @ turn, averaged=1.0), {}
    for name, T in (("turned", rotation), ("averaged", relaxed(rotation, 0.5))):
        seen: list[Tensor] = []
        start = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        Iteration(T).run(start, count, lambda _, x, seen=seen: seen.append(x[0]))  # type: ignore[misc]
        found[name] = torch.stack(seen).numpy()
    return found
