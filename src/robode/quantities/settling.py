"""Whether gamma settles while a network is trained, from the training log. Needs no torch."""

import numpy as np
import pandas as pd

SETTLED = 0.01
"""Largest relative change of gamma over the last tenth of the training that counts as settled."""


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
