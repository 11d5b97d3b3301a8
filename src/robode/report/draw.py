"""Which figures a run folder can give, and drawing them from its files."""

import logging
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from robode.errors import JobFailed
from robode.report import attack_curve, figures, noise_curve, pictures, tables
from robode.report.style import save
from robode.runs import results
from robode.runs.table import BSM_NORMS, METRICS
from robode.tasks.measure import CLASSIFICATION, Measure

log = logging.getLogger(__name__)


def draw_figures(folder: Path | str) -> list[Path]:
    """Draw every figure whose file lies in the run folder into folder/figures (PNG and PDF); the PNGs.

    A file that is missing, empty or damaged costs its own figure only; damage is logged in one line.

    Raises:
        JobFailed: the figures cannot be written.
    """
    folder = Path(folder)
    drawn = []
    score = _measure(folder).score_name
    for stem, (name, build) in _SOURCES.items():
        if not (folder / name).is_file():
            continue
        try:
            figure = build(folder / name)
        except (JobFailed, ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            log.warning("no figure %s: %s: %s", stem, name, error)
            continue
        if figure is not None:
            drawn.append(save(figure, folder / "figures", stem.format(score=score))[0])
    return drawn


def _measure(folder: Path) -> Measure:
    """Of the task that the run is about; classification's where nothing was measured, or the file is damaged."""
    for name in ("results.csv", "robustness_sweep.csv"):
        with suppress(JobFailed, ValueError):
            if len(rows := results.read_rows(folder / name)):
                return tables.measure_of(rows)
    return CLASSIFICATION


def _training_curves(path: Path) -> Figure | None:
    figure = figures.training_curves(METRICS.read(path), _measure(path.parent))
    return figure if figure.axes else None


def _score_against_noise(path: Path) -> Figure | None:
    rows = results.current(path)
    rows = rows[~rows["norm"].isin(list(attack_curve.NORMS))]  # they have a figure of their own
    noisy = ~rows["perturbation"].isin(("clean", "clip_only"))
    return noise_curve.score_against_noise(results.summarise(rows)) if noisy.any() else None


def _score_against_attacks(path: Path) -> Figure | None:
    rows = results.current(path)
    return attack_curve.score_against_attacks(results.summarise(rows))


def _score_by_epoch(path: Path) -> Figure | None:
    rows = results.current(path)
    return noise_curve.score_by_epoch(results.summarise(rows)) if len(rows) else None


def _bsm_norms(path: Path) -> Figure | None:
    bsm = BSM_NORMS.read(path)
    return figures.bsm_norms(bsm) if len(bsm) else None


def _noise_grid(path: Path) -> Figure:
    with np.load(path, allow_pickle=False) as file:
        names = [str(name) for name in file["names"]]
        classes = [str(name) for name in file["class_names"]] if "class_names" in file else None
        return pictures.noise_grid(file["x"], file["labels"], file["predictions"], names, classes)


# {score}: what the task calls its score
_SOURCES: dict[str, tuple[str, Callable[[Path], Figure | None]]] = {
    "{score}_against_noise": ("results.csv", _score_against_noise),
    "{score}_against_attacks": ("results.csv", _score_against_attacks),
    "noise_grid": ("samples.npz", _noise_grid),
    "training_curves": ("metrics.csv", _training_curves),
    "bsm_norms": ("bsm.csv", _bsm_norms),
    "{score}_by_epoch": ("robustness_sweep.csv", _score_by_epoch),
}
