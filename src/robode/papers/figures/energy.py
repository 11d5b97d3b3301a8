"""What becomes of the energy inside the layers: of the ODE, and of the network that runs, a panel each."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.quantities.energy import FILE
from robode.report.layout import Picture
from robode.report.style import BLUE, INK, MUTED, PURPLE, styled
from robode.report.values import Collected, read_arrays


class EnergyPaths:
    """A column for each row of the item that has energy.npz (suite=energy), of one seed: the ODE above, the network
    below. seed: whose networks are drawn."""

    def __init__(self, seed: int = 1):
        self.seed = seed

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run has the file."""
        runs = [run for run in collected.folders() if run.seed == self.seed]
        found = [(run.label, arrays) for run in runs if (arrays := read_arrays(run.folder / FILE))]
        if not found:
            return []
        with styled():
            figure = Figure(figsize=(3.3 * len(found) + 0.4, 5.2), layout="constrained")
            for column, (label, arrays) in zip(figure.subplots(2, len(found), squeeze=False).T, found, strict=True):
                for ax, name, time, colour in (
                    (column[0], "ode", arrays["time"], BLUE), (column[1], "network", arrays["layers"], PURPLE),
                ):  # fmt: skip
                    _paths(ax, time / arrays["layers"][1], arrays[name], colour)
                    ax.set_title(f"{label}: {'ODE' if name == 'ode' else 'network'}")
                    ax.set(xlabel="t/h, in layers", ylabel="change of energy" if column[0] is figure.axes[0] else "")
        caption = (
            f"Networks of seed {self.seed}: H of each layer along its states, less what it was where the layer began, "
            "added up over the layers; a line for each test sample, black: the median. Above the ODE, solved by a "
            "reference solver: damping lets no line rise, and without it all of them stay at 0. Below the network "
            "that runs, of which the theorem says nothing."
        )
        return [Picture("energy", figure, "Energy along the states", caption)]


def _paths(ax: Axes, time: np.ndarray, changes: np.ndarray, colour: str) -> None:
    ax.plot(time, changes, color=colour, linewidth=0.6, alpha=0.4)
    ax.plot(time, np.median(changes, axis=1), color=INK, linewidth=1.4)
    ax.axhline(0, color=MUTED, linewidth=0.8, linestyle="--")
    reach = max(float(abs(changes).max()), 1e-3)
    if changes.max() - changes.min() < 1e-3:  # rounding is not to be blown up
        ax.set_ylim(-reach, reach)
