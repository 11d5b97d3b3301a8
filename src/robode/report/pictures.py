"""The grid of clean and noisy samples with what the network says about them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from robode.report.style import INK, MARKERS, PALETTE, VERMILLION, panels, styled


def noise_grid(
    x: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Samples, one row per corruption: image tiles, or scatter panels for points in the plane.

    x: (R, k, H, W[, C]) images or (R, k, 2) points, in data units; labels: (k,); predictions: (R, k);
    names: R row names. Colours and tick marks tell right from wrong, in grey print too.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    x, labels, predictions = np.asarray(x), np.asarray(labels), np.asarray(predictions)
    rows, count = predictions.shape if predictions.ndim == 2 else (0, 0)
    fits = x.shape[:2] == (rows, count) and labels.shape == (count,) and len(names) == rows > 0
    if not fits or not (x.shape[2:] == (2,) or x.ndim == 4 or (x.ndim == 5 and x.shape[-1] in (1, 3, 4))):
        raise ValueError(
            "expected x (R,k,H,W[,C]) or (R,k,2), labels (k,), predictions (R,k) and R names, "
            f"got {x.shape}, {labels.shape}, {predictions.shape} and {len(names)}"
        )
    with styled():
        if x.ndim == 3:
            return _scatter_panels(x, labels, predictions, names, class_names)
        return _image_tiles(x, labels, predictions, names, class_names)


def _spoken(label: int, class_names: Sequence[str] | None) -> str:
    return str(class_names[label]) if class_names and 0 <= label < len(class_names) else str(label)


def _image_tiles(
    x: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str] | None,
) -> Figure:
    rows, count = predictions.shape
    tile = 0.78 if count <= 10 else 0.6
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.02, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(max(count * tile + 1.3, 4.0), rows * (tile + 0.24) + 0.35), layout=layout)
    axes = figure.subplots(rows, count, squeeze=False)
    for r in range(rows):
        shown = x[r, ..., 0] if x.ndim == 5 and x.shape[-1] == 1 else x[r]
        for k in range(count):
            ax = axes[r, k]
            # clipped for the screen only: unclipped noise may leave [0, 1]
            ax.imshow(np.clip(shown[k], 0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            right = predictions[r, k] == labels[k]
            said = _spoken(int(predictions[r, k]), class_names)
            _frame(ax, right)
            ax.set_xlabel(said if right else f"✗ {said}", fontsize=8, labelpad=2, color=INK if right else VERMILLION)
            if r == 0:
                ax.set_title(_spoken(int(labels[k]), class_names), loc="center", fontsize=9, pad=3)
        axes[r, 0].set_ylabel(
            names[r].replace(" · ", "\n"), rotation=0, ha="right", va="center", fontsize=8, labelpad=8
        )
    figure.suptitle("True class above each column, prediction below each image", x=0.01, ha="left", fontsize=8.5)
    return figure


def _frame(ax: Axes, right: bool) -> None:
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color="#C8C8C8" if right else VERMILLION, linewidth=0.6 if right else 1.6)


def _scatter_panels(
    x: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str] | None,
) -> Figure:
    figure, axes = panels(len(names), columns=3, width=3.0, height=3.1)
    low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
    margin = 0.06 * max(float((high - low).max()), 1e-9)
    for r, ax in enumerate(axes):
        for index, label in enumerate(np.unique(labels)):
            mine = labels == label
            ax.plot(
                *x[r, mine].T,
                MARKERS[index % len(MARKERS)],
                color=PALETTE[(0, 4, 2, 3, 5)[index % 5]],
                markersize=3.5,
                markeredgewidth=0,
                alpha=0.8,
                label=f"class {_spoken(int(label), class_names)}",
            )
        wrong = predictions[r] != labels
        ax.plot(*x[r, wrong].T, "x", color=INK, markersize=5, markeredgewidth=1.1, label="wrong prediction")
        ax.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin))
        ax.set_aspect("equal")
        ax.set_title(names[r])
        ax.set_xlabel(f"{(~wrong).mean():.0%} of these right")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
