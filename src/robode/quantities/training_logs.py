"""What a finished training's own logs say: how large the backward sensitivities became, whether gamma settled, and what
it cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from robode.data.module import DataModule
from robode.errors import BadInput
from robode.network import Network
from robode.quantities.quantity import Number, Quantity, row
from robode.runs.code import RECORD
from robode.runs.origin import seconds_of
from robode.runs.table import BSM_NORMS, METRICS

SMALLEST = 1e-300
"""In place of a norm that is 0 in its precision, whose logarithm is no number."""
SETTLED = 0.01
"""Largest relative change of gamma over the last tenth of the training that counts as settled."""


class BSMExtremes(Quantity):
    """The smallest and largest norms of d y_N / d y_(j-1) over all layers j and all logged iterations, from bsm.csv.

    norm_of_mean is what the published Fig. 3 shows (the norm of the mean Jacobian of the samples); median and max are
    over single samples. Iteration 0 counts too, with the gamma that the recipe starts at.
    """

    name = "bsm_extremes"
    gives = (
        "bsm_norm_of_mean_min", "bsm_norm_of_mean_max", "bsm_median_min", "bsm_median_max", "bsm_sample_max",
    )  # fmt: skip

    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        bsm = BSM_NORMS.read(folder / "bsm.csv")
        if bsm.empty:
            raise BadInput(f"suite=bsm_extremes: {folder}/bsm.csv has no rows; train with callbacks=default")
        mean, median = bsm["bsm_norm_of_mean"], bsm["bsm_median"]
        values = (mean.min(), mean.max(), median.min(), median.max(), bsm["bsm_max"].max())
        return [row(name, float(value)) for name, value in zip(self.gives, values, strict=True)]


class GradientStability(Quantity):
    """How sensitivities and gradients of one test sample went over the training, from bsm.csv; decimal logarithms.

    point_min, point_max: of ||d y_N / d y_(j-1)|| over all layers and logged iterations; point_end_first,
    point_end_last: at the end, of the first and of the last layer. sample_min: the smallest of the training samples
    that were probed; mean_min: the smallest norm of their mean Jacobian. gradient_first: the median over iterations of
    ||dL/d theta_1|| / ||dL/d theta_N||. gradient_share (no logarithm): the largest share of its bound that a gradient
    reaches, at most 1 (docs/theory.md, section 25).
    """

    name = "gradient_stability"
    gives = (
        "point_min", "point_max", "point_end_first", "point_end_last", "sample_min", "mean_min", "gradient_first",
        "gradient_share",
    )  # fmt: skip

    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        bsm = BSM_NORMS.read(folder / "bsm.csv")
        if bsm.empty or bsm["bsm_point"].isna().all():
            raise BadInput(
                f"suite={self.name}: {folder}/bsm.csv has nothing of a test sample; train with callbacks=gradients"
            )
        point = bsm.pivot_table(index="step", columns="layer", values="bsm_point")
        gradient = bsm.pivot_table(index="step", columns="layer", values="gradient")
        first = (gradient.iloc[:, 0] / gradient.iloc[:, -1]).median()
        norms = (
            point.min(axis=None), point.max(axis=None), point.iloc[-1, 0], point.iloc[-1, -1], bsm["bsm_min"].min(),
            bsm["bsm_norm_of_mean"].min(), first,
        )  # fmt: skip
        share = float((bsm["gradient"] / bsm["gradient_bound"]).max())
        values = [*np.log10(np.maximum(np.array(norms, dtype=float), SMALLEST)).tolist(), share]
        return [row(name, value) for name, value in zip(self.gives, values, strict=True)]


class GammaSettles(Quantity):
    """Whether the iteration "step, then new gamma" has settled, from metrics.csv ("it never failed to converge").

    gamma_change: (max - min)/last of gamma over the last tenth of the training, at least its last epoch. gamma_settled:
    1 if that is below 1 %, else 0. gamma_failures: logged iterations after the first step whose gamma is not finite or
    too small for Theorem 1 (epsilon <= 0); an iteration without any solution ends the training, so a failed run has no
    such row.
    """

    name = "gamma_settles"
    gives = ("gamma_change", "gamma_settled", "gamma_failures")

    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        metrics = METRICS.read(folder / "metrics.csv")
        gamma, epsilon = gamma_of(metrics), metrics[metrics["name"] == "flow/epsilon"]
        if gamma.empty:
            raise BadInput(f"suite=gamma_settles: {folder}/metrics.csv has no flow/gamma; expected model=chnode")
        change = last_change(gamma)
        trained = epsilon[epsilon["step"] > 0]["value"].to_numpy(float)
        failures = int((~(trained > 0)).sum())
        return [
            row("gamma_change", change),
            row("gamma_settled", float(change < SETTLED), "exact"),
            row("gamma_failures", float(failures), "exact"),
        ]


class TrainingCost(Quantity):
    """Minutes of wall time that `robode train` took, over all sessions and with its own evaluation, on the machine of
    that run and beside whatever else ran there. From environment.json."""

    name = "training_cost"
    gives = ("training_minutes",)

    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        if not (seconds := seconds_of(folder)):
            raise BadInput(f"suite=training_cost: {folder / RECORD} says nothing of wall time")
        return [row("training_minutes", seconds / 60)]


def gamma_of(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of metrics.csv (METRICS.columns) about gamma, by step."""
    return metrics[metrics["name"] == "flow/gamma"].sort_values("step", kind="stable")


def last_change(gamma: pd.DataFrame) -> float:
    """(max - min)/last of gamma over the last tenth of the training, at least its last epoch; inf where gamma is not
    finite. gamma: `gamma_of`, at least one row.

    Not the last epoch alone: where an epoch is one step (six points), gamma may drift for ever at 1 % an epoch.
    """
    steps, epochs = gamma["step"].astype(float), gamma["epoch"]
    before = steps[epochs < epochs.max()]
    start = min(0.9 * steps.max(), before.max() if len(before) else 0.0)
    inside = gamma[(steps >= start) | (steps == steps[steps <= start].max())]
    values = inside["value"].to_numpy(float)
    return float(np.ptp(values) / abs(values[-1])) if np.isfinite(values).all() and values[-1] else float("inf")
