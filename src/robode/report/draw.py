"""Which figures a run folder can give, and drawing them from its files."""

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from robode.errors import JobFailed
from robode.report import accuracy, attack_curve, figures, pictures, records
from robode.report.style import save

log = logging.getLogger(__name__)


def draw_figures(folder: Path | str) -> list[Path]:
    """Draw every figure whose file lies in the run folder into folder/figures (PNG and PDF); the PNGs.

    A file that is missing, empty or damaged costs its own figure only; damage is logged in one line.

    Raises:
        JobFailed: the figures cannot be written.
    """
    folder = Path(folder)
    drawn = []
    for stem, (name, build) in _SOURCES.items():
        if not (folder / name).is_file():
            continue
        try:
            figure = build(folder / name)
        except (JobFailed, ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            log.warning("no figure %s: %s: %s", stem, name, error)
            continue
        if figure is not None:
            drawn.append(save(figure, folder / "figures", stem)[0])
    return drawn


def _training_curves(path: Path) -> Figure | None:
    figure = figures.training_curves(records.read_metrics(path))
    return figure if figure.axes else None


def _accuracy_against_noise(path: Path) -> Figure | None:
    rows = records.newest(records.read_rows(path))
    rows = rows[~rows["norm"].isin(list(attack_curve.NORMS))]  # they have a figure of their own
    noisy = ~rows["perturbation"].isin(("clean", "clip_only"))
    return accuracy.accuracy_against_noise(records.summarise(rows)) if noisy.any() else None


def _accuracy_against_attacks(path: Path) -> Figure | None:
    rows = records.newest(records.read_rows(path))
    return attack_curve.accuracy_against_attacks(records.summarise(rows))


def _accuracy_by_epoch(path: Path) -> Figure | None:
    rows = records.newest(records.read_rows(path))
    return accuracy.accuracy_by_epoch(records.summarise(rows)) if len(rows) else None


def _bsm_norms(path: Path) -> Figure | None:
    bsm = records.read_bsm(path)
    return figures.bsm_norms(bsm) if len(bsm) else None


def _noise_grid(path: Path) -> Figure:
    with np.load(path, allow_pickle=False) as file:
        names = [str(name) for name in file["names"]]
        classes = [str(name) for name in file["class_names"]] if "class_names" in file else None
        return pictures.noise_grid(file["x"], file["labels"], file["predictions"], names, classes)


_SOURCES: dict[str, tuple[str, Callable[[Path], Figure | None]]] = {
    "accuracy_against_noise": ("results.csv", _accuracy_against_noise),
    "accuracy_against_attacks": ("results.csv", _accuracy_against_attacks),
    "noise_grid": ("samples.npz", _noise_grid),
    "training_curves": ("metrics.csv", _training_curves),
    "bsm_norms": ("bsm.csv", _bsm_norms),
    "accuracy_by_epoch": ("robustness_sweep.csv", _accuracy_by_epoch),
}
