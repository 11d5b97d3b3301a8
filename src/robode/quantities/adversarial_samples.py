"""A few test images, what a gradient attack adds to them, and what the network says of the sum: arrays for a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robode.attacks.pgd import fgsm
from robode.attacks.problem import make_problem
from robode.config.levels import check_count
from robode.data.batches import device_of, evaluating, in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.network import Network
from robode.quantities.quantity import Number, Quantity, row, write_arrays

FILE = "adversarial_samples.npz"


class AdversarialSamples(Quantity):
    """The first `count` test images and their fast-gradient-sign images of size eps (Goodfellow et al. 2015).

    adversarial_samples.npz: clean and attacked (k, H, W, C) in data units; labels, said and said_attacked (k,);
    share and share_attacked (k,), the softmax of what is said; eps. One row of numbers.csv: the share of these images
    whose right answer survives.
    eps: in the infinity norm, data units. The gradient is that of the margin: where softmax puts all of its weight on
    two classes, its sign is that of the cross-entropy's, which float32 rounds to 0 for networks with large logits
    (CH-NODE and H-DNN as Table I trains them).
    """

    name = "adversarial_samples"
    gives = ("samples_robust",)
    needs_classes = True

    def __init__(self, count: int = 6, eps: float = 0.1):
        check_count("suite.adversarial_samples.count", count)
        if not eps > 0:
            raise BadInput(f"suite.adversarial_samples.eps: expected a number > 0, got {eps}")
        self.count, self.eps = count, float(eps)

    def misfit(self, info: DatasetInfo) -> str | None:
        images = len(info.shape) == 3
        return None if images else f"is for images, not for shape {info.shape}"

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        device = device_of(network)
        x, labels = (each[: self.count].to(device) for each in data.split("test"))
        x = in_units(x)
        with evaluating(network):
            problem = make_problem(network, x, labels, eps=self.eps, bounds=data.info.bounds)
            attacked = fgsm(problem, loss="margin")
            said, share = _answers(network, x)
            said_attacked, share_attacked = _answers(network, attacked)
        arrays = {
            "clean": x.permute(0, 2, 3, 1), "attacked": attacked.permute(0, 2, 3, 1), "labels": labels,
            "said": said, "said_attacked": said_attacked, "share": share, "share_attacked": share_attacked,
        }  # fmt: skip
        write_arrays(
            folder / FILE, {key: each.cpu().numpy() for key, each in arrays.items()} | {"eps": np.array(self.eps)}
        )
        return [row("samples_robust", float(((said == labels) & (said_attacked == labels)).float().mean()))]


@torch.no_grad()
def _answers(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the network says of x (k, *shape), and the softmax of it: (k,) each."""
    share, said = network(x).softmax(dim=1).max(dim=1)
    return said, share
