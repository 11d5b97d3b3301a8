"""A few test images under the noise of each protocol, saved for the figure that shows them (the paper's Fig. 2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robode.config.levels import check_count
from robode.corruptions.noise import Gaussian, SaltAndPepper, base_noise
from robode.corruptions.perturbation import Corruption
from robode.corruptions.protocols import ChNode2022, DataSpace, EvaluationProtocol
from robode.data.batches import device_of, evaluating, in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.network import Network
from robode.quantities.quantity import Number, Quantity, row, write_arrays

FILE = "noise_samples.npz"
LEVELS = (0.05, 0.2)


class NoiseSamples(Quantity):
    """The first `count` test images as chnode_2022 and data_space corrupt them, with the network's answers.

    noise_samples.npz, for each protocol p: x/p (R, k, H, W, C) in data units, predictions/p (R, k), names/p (R,); and
    labels (k,). The noise is that of seed 0, copy 0. One row of numbers.csv: how many images.
    """

    name = "noise_samples"
    gives = ("noise_samples",)
    needs_classes = True

    def __init__(self, count: int = 10):
        check_count("suite.noise_samples.count", count)
        self.count = count

    def misfit(self, info: DatasetInfo) -> str | None:
        return None if len(info.shape) == 3 else f"is for images, not for shape {info.shape}"

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        device, info = device_of(network), data.info
        x, labels = (each[: self.count].to(device) for each in data.split("test"))
        arrays: dict[str, np.ndarray] = {"labels": labels.cpu().numpy()}
        for protocol in (ChNode2022(), DataSpace()):
            shown = _shown(protocol, in_units(x), labels, info)
            with torch.no_grad(), evaluating(network):
                answers = [network(moved).argmax(dim=1) for _, moved in shown]
            arrays |= {
                f"names/{protocol.name}": np.array([name for name, _ in shown]),
                f"x/{protocol.name}": np.stack([moved.permute(0, 2, 3, 1).cpu().numpy() for _, moved in shown]),
                f"predictions/{protocol.name}": np.stack([each.cpu().numpy() for each in answers]),
            }
        write_arrays(folder / FILE, arrays)
        return [row("noise_samples", float(len(labels)), "exact")]


def _shown(protocol: EvaluationProtocol, x: Tensor, labels: Tensor, info: DatasetInfo) -> list[tuple[str, Tensor]]:
    """Title and x' like x (k, *shape), in data units, of clean images, both noises and what the protocol adds."""
    found = [("clean", x)]
    for each in (Gaussian(LEVELS), SaltAndPepper(LEVELS), *protocol.extras):
        assert isinstance(each, Corruption)
        noise = each.noise and base_noise(each.noise, 0, 0, 0, len(x), info.shape).to(x.device)
        for level in each.severities:
            batch = protocol.batch(x, labels, noise, info)
            title = each.name if each.severity_unit == "none" else f"{each.name} {level:g}"
            found.append((title, batch.decode(each.perturb(batch, level))))
    return found
