"""How far generated samples are from true ones: what the critic that they were trained against proves, and exactly."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor

from robode.certificates.radius import pair_lipschitz
from robode.data.batches import device_of, in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.encoders import FlatPad, Generator
from robode.errors import BadInput, JobFailed
from robode.network import Network, states_of
from robode.quantities.quantity import Number, Quantity, row, write_arrays
from robode.quantities.wasserstein import ROUNDING, potential_of, w1
from robode.tasks.classification import Classification

FILE = "generator.npz"
GRID, REACH = 121, 3.0

Distances = tuple[float, float]
"""Proven from below, exact."""


class Generated(Quantity):
    """W1 between what the generator (`encoder=generator`) makes of the test set's noise and its true samples.

    w1_proven (certified_lower): by the network behind the generator, whose certified constant L counts; w1_generated
    (exact): by optimal assignment; w1_noise (exact): of the noise itself; w1_two_samples (exact): between the true
    samples and as many of the training set, below which nobody can tell. generator.npz, for the figure: noise,
    generated, true (n, 2); x, y (G,), potential (G, G) = f/L (row = y).

    Raises:
        BadInput: another encoder.
        JobFailed: more was proven than is true.
    """

    name = "generator"
    gives = ("w1_proven", "w1_generated", "w1_noise", "w1_two_samples")

    def misfit(self, info: DatasetInfo) -> str | None:
        right = info.shape == (3,) and isinstance(info.task, Classification) and info.task.outputs == 2
        return None if right else "is for noise and samples of the plane (data=noise_and_samples)"

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    @torch.no_grad()
    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        device = device_of(network)
        x, labels = (each.to(device) for each in data.split("test"))
        proven, exact = distances(network, x, labels)
        noise, generated, true = parts(network, x, labels)
        others, other_labels = (each.to(device) for each in data.split("train"))
        another = in_units(others)[other_labels == 1, :2].double()[: len(true)]
        ticks = torch.linspace(-REACH, REACH, GRID, dtype=torch.float64, device=device)
        f = potential(network, torch.cartesian_prod(ticks, ticks).flip(1)).reshape(GRID, GRID)
        arrays = {"noise": noise, "generated": generated, "true": true, "x": ticks, "y": ticks, "potential": f}
        write_arrays(folder / FILE, {name: each.cpu().numpy() for name, each in arrays.items()})
        return [
            row("w1_proven", proven, "certified_lower"),
            row("w1_generated", exact, "exact"),
            row("w1_noise", w1(noise, true), "exact"),
            row("w1_two_samples", w1(another, true[: len(another)]), "exact"),
        ]


@torch.no_grad()
def distances(network: Network, x: Tensor, labels: Tensor) -> Distances:
    """x (n, 3), labels (n,): noise is class 0, and as much of it as there are samples of class 1. Raises `JobFailed`
    where the critic proves more than is true."""
    _, generated, true = parts(network, x, labels)
    proven = float(potential(network, true).mean() - potential(network, generated).mean())
    exact = w1(generated, true)
    if proven > exact * ROUNDING:
        raise JobFailed(f"suite=generator: {proven} proven below an exact distance of {exact}: a certificate is wrong")
    return proven, exact


@torch.no_grad()
def parts(network: Network, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, what the generator makes of it, and true samples, (k, 2) float64 each. Raises `BadInput` where the network
    has no generator."""
    if not isinstance(network.encoder, Generator):
        raise BadInput(f"suite=generator: expected encoder=generator, got {type(network.encoder).__name__}")
    points = in_units(x).double()
    noise, true = points[labels == 0, :2], points[labels == 1, :2]
    return noise, copy.deepcopy(network.encoder).double().eval().generate(noise), true


def critic(network: Network) -> Network:
    """What is behind the generator, as a network of points of the plane, in float64: (n, 2) -> logits (n, 2)."""
    plane = DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, network.info.task)
    flow, head = copy.deepcopy(network.flow), copy.deepcopy(network.head)
    return Network(plane, flow, FlatPad((2,), states_of(flow)), head).double().eval()


@torch.no_grad()
def potential(network: Network, points: Tensor) -> Tensor:
    """(logit 1 - logit 0)/L of the critic at (n, 2) points, L certified: a 1-Lipschitz function, (n,)."""
    behind = critic(network)
    return potential_of(behind, points, float(pair_lipschitz(behind)[1, 0]))
