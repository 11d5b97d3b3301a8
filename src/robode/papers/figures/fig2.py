"""Fig. 2 of the CH-NODE paper: corrupted test samples, as each protocol makes them."""

from __future__ import annotations

import numpy as np

from robode.report.figures import noise_grid
from robode.report.layout import Picture
from robode.report.values import Collected, read_arrays

FILE = "noise_samples.npz"
ABOUT = {
    "chnode_2022": "As the published script makes them: noise on the normalised image, then a clip to [−1, 1]. White "
    "falls from 1 to 0.44 in pixels, and pepper lies at −0.18, below the black of the image",
    "data_space": "Noise in pixels, then a clip to [0, 1]",
}


class Corrupted:
    """The corrupted samples of one network, one figure a protocol; reads noise_samples.npz (suite=noise_samples).

    seed: of the run, the first row's; another run where that has no such file.
    """

    def __init__(self, seed: int = 1):
        self.seed = seed

    def draw(self, collected: Collected) -> list[Picture]:
        """One figure a protocol."""
        for run in sorted(collected.folders(), key=lambda run: run.seed != self.seed):
            if arrays := read_arrays(run.folder / FILE):
                return _pictures(arrays, run.name, run.seed)
        return []


def _pictures(arrays: dict[str, np.ndarray], network: str, seed: int) -> list[Picture]:
    pictures = []
    for protocol in sorted(name.removeprefix("x/") for name in arrays if name.startswith("x/")):
        x = arrays[f"x/{protocol}"]
        black = min(0.0, float(x.min()))
        names = [str(name).replace("_", " ") for name in arrays[f"names/{protocol}"]]
        grid = noise_grid((x - black) / (1 - black), arrays["labels"], arrays[f"predictions/{protocol}"], names)
        caption = (
            f"{ABOUT.get(protocol, protocol)}. One grey scale for all rows: black is {black:.2g}, white 1 in pixels. "
            f"Below each image the answer of {network}, seed {seed}."
        )
        pictures.append(Picture(f"fig2_{protocol}", grid, f"Corrupted samples, protocol {protocol}", caption))
    return pictures
