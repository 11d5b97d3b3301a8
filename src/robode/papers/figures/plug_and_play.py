"""Pictures that were blurred and deblurred, and how the iterates of plug-and-play and of a denoiser alone settle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robode.quantities.plug_and_play import FILE
from robode.report.layout import Picture
from robode.report.style import BLUE, GREEN, VERMILLION, styled
from robode.report.values import Collected, read_arrays

Arrays = Mapping[str, NDArray[np.generic]]
FOUND = {"clean": "clean", "blurred": "blurred", "inverse": "naive inverse", "tv": "total variation"}
COLOURS = (BLUE, VERMILLION, GREEN)


class Deblurred:
    """Four pictures for the runs of one seed that have plug_and_play.npz (suite=plug_and_play): deblurred pictures,
    PSNR and steps of the iterates, and the denoisers alone, again and again.

    seed: whose runs are drawn. levels: the noises, for the titles. picture: which of the deblurred ones is shown.
    """

    def __init__(self, seed: int = 1, levels: Sequence[float] = (0.01, 0.05), picture: int = 3):
        self.seed, self.levels, self.picture = seed, tuple(levels), picture

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run has the file."""
        runs = [run for run in collected.folders() if run.seed == self.seed]
        of_rows = [(run.label, read_arrays(run.folder / FILE)) for run in runs]
        found = [(label, arrays) for label, arrays in of_rows if arrays]
        return [self._pictures(found), self._iterates(found), self._repeated(found)] if found else []

    def _pictures(self, found: Sequence[tuple[str, Arrays]]) -> Picture:
        columns = len(FOUND) + len(found)
        with styled():
            figure = Figure(figsize=(1.75 * columns, 1.95 * len(self.levels)), layout="constrained")
            grid = figure.subplots(len(self.levels), columns, squeeze=False)
            for place, level in enumerate(self.levels):
                shown = [(title, found[0][1][f"{name}_{place}"]) for name, title in FOUND.items()]
                shown += [(f"PnP, {label}", arrays[f"pnp_{place}"]) for label, arrays in found]
                clean = shown[0][1][self.picture]
                for ax, (title, pixels) in zip(grid[place], shown, strict=True):
                    _show(ax, pixels[self.picture])
                    quality = "" if title == "clean" else f"\n{_psnr(pixels[self.picture], clean):.1f} dB"
                    ax.set_title(title + quality, fontsize=8)
                grid[place][0].set_ylabel(f"noise {level:g}", fontsize=8)
        caption = (
            "One test picture, blurred along the diagonal, with noise, and what was made of it "
            f"(seed {self.seed}). PSNR of what is shown, in 256 steps."
        )
        return Picture("deblurred", figure, "Blurred pictures, and what was made of them", caption)

    def _iterates(self, found: Sequence[tuple[str, Arrays]]) -> Picture:
        with styled():
            figure = Figure(figsize=(3.6 * len(self.levels), 5.4), layout="constrained")
            grid = figure.subplots(2, len(self.levels), squeeze=False, sharex=True)
            for place, level in enumerate(self.levels):
                above, below = grid[:, place]
                for (label, arrays), colour in zip(found, COLOURS, strict=False):
                    above.plot(arrays[f"psnr_{place}"], color=colour, label=label)
                    steps, bound = arrays[f"steps_{place}"], arrays[f"bound_{place}"]
                    k = np.arange(1, len(steps) + 1)
                    below.plot(k, steps, color=colour, linewidth=0.8)
                    if np.isfinite(bound).all():
                        below.plot(k, bound[:, 0], color=colour, linestyle="--", linewidth=0.9)
                above.set(title=f"noise {level:g}")
                below.set(xlabel="k", yscale="log", xscale="log")
                above.title.set_fontsize(9)
            grid[0][0].set_ylabel("PSNR of x(k) (dB)")
            grid[1][0].set_ylabel("‖x(k+1) − x(k)‖")
            figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        caption = (
            "Above: PSNR of the iterates, the mean over the test pictures. Below: the lengths of their steps, a line "
            "for each picture. They are proven never to grow, so that none is longer than the first (dashed, of one "
            "picture), and to tend to 0. Nothing is proven of DnCNN."
        )
        return Picture("iterates", figure, "Plug-and-play: the iterates", caption)

    def _repeated(self, found: Sequence[tuple[str, Arrays]]) -> Picture:
        at = np.asarray(found[0][1]["repeated_at"])
        with styled():
            figure = Figure(figsize=(1.75 * (len(at) + 3), 1.95 * len(found) + 0.4), layout="constrained")
            halves: Any = figure.subfigures(1, 2, width_ratios=(len(at), 3))
            left, right = halves
            grid = left.subplots(len(found), len(at), squeeze=False)
            above, below = right.subplots(2, 1, sharex=True)
            for axes, (label, arrays), colour in zip(grid, found, COLOURS, strict=False):
                for ax, times, pixels in zip(axes, at, np.asarray(arrays["repeated_seen"]), strict=True):
                    _show(ax, pixels)
                    ax.set_title(f"x({times})", fontsize=8)
                axes[0].set_ylabel(label, fontsize=8)
                above.plot(arrays["repeated_psnr"], color=colour, label=label)
                steps = np.sqrt(np.square(arrays["repeated_steps"]).mean(axis=1))
                below.plot(np.arange(1, len(steps) + 1), steps, color=colour)
            above.set_ylabel("PSNR (dB)")
            below.set(xlabel="k", ylabel="‖x(k+1) − x(k)‖", yscale="log")
            above.legend(fontsize=7)
        caption = (
            "x ← N(x) from a noisy test sample. Right: PSNR, and the length of the steps (root mean square over 16 "
            "samples). The certified denoiser's steps never grow."
        )
        return Picture("repeated", figure, "A denoiser alone, again and again", caption)


def _show(ax: Axes, pixels: NDArray[np.generic]) -> None:
    """pixels: (C, H, W) bytes."""
    image = np.moveaxis(pixels, 0, -1)
    ax.imshow(image if image.shape[2] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])


def _psnr(pixels: NDArray[np.generic], clean: NDArray[np.generic]) -> float:
    error = np.square((pixels.astype(float) - clean.astype(float)) / 255).mean()
    return float(-10 * np.log10(error)) if error else float("inf")
