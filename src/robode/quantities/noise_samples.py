"""A few test images under the noise of each protocol, saved for the figure that shows them (the paper's Fig. 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robode.config.levels import check_count
from robode.corruptions.perturbation import Clean, Gaussian, Perturbation, SaltAndPepper
from robode.corruptions.protocols import ChNode2022, Sound
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.evaluation.suite import sample_grid
from robode.network import Network
from robode.quantities.quantity import Quantity, row, write_arrays

FILE = "noise_samples.npz"


class NoiseSamples(Quantity):
    """The first `count` test images as the protocols chnode_2022 and sound corrupt them, with the network's answers.

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
        return None if len(info.shape) == 3 else f"suite=noise_samples: is for images, not for shape {info.shape}"

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    def measure(self, network: Network, data: DataModule, folder: Path) -> list[dict[str, Any]]:
        x, labels = (each[: self.count] for each in data.split("test"))
        suite: dict[str, Perturbation] = {
            "clean": Clean(suite="clean"),
            "gaussian": Gaussian([0.05, 0.2]),
            "salt_and_pepper": SaltAndPepper([0.05, 0.2]),
        }
        arrays: dict[str, Any] = {"labels": labels.cpu().numpy()}
        for protocol in (ChNode2022(), Sound()):
            grid = sample_grid(network, x, labels, suite=suite, protocol=protocol, info=data.info, seed=0)
            arrays |= {
                f"names/{protocol.name}": np.array([name for name, _, _ in grid]),
                f"x/{protocol.name}": np.stack([moved.permute(0, 2, 3, 1).numpy() for _, moved, _ in grid]),
                f"predictions/{protocol.name}": np.stack([answers.numpy() for _, _, answers in grid]),
            }
        write_arrays(folder / FILE, arrays)
        return [row("noise_samples", float(len(labels)), "exact")]
