"""How large a network's logits are, what float32 leaves of its gradients, and what PGD finds at an equal scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from robode.attacks.balls import SMOOTH, check_norm, length
from robode.config.levels import check_count, one_level
from robode.data.batches import device_of, evaluating, in_units
from robode.data.module import DataModule, spread
from robode.errors import BadInput
from robode.masking import checks
from robode.masking.reference_attacks import Trial
from robode.quantities.quantity import Number, Quantity, row
from robode.tasks.classification import margin, misclassified

SMALL = 1e-8
"""2-norm below which an input gradient, of the loss of one sample, is counted as small."""


class LogitScale(Quantity):
    """Of `samples` images spread evenly over the test set: the distribution of the margins z_y - max z_j, and PGD on
    the cross-entropy of the logits as they are and divided by their own scale.

    The cross-entropy vanishes with its gradient where margins are large (`checks.saturated_at`), so PGD compares
    networks by the size of their logits before it compares them by their robustness; divided by the root mean square
    of its margins every network has logits of one size, and the accuracies that are left can be compared.

    eps (data units), norm (linf or l2), steps: of PGD, from one start; seed: of the start. Rows: logit_scale/…
    margin_median, margin_95 (quantiles), scale (root mean square of the margins), saturated (share whose cross-entropy
    is exactly 0 in float32), zero_gradients and small_gradients (shares whose input gradient of the cross-entropy is
    exactly 0 or not finite, and shorter than `SMALL`), and with norm, eps and steps behind them the accuracies pgd and
    pgd_rescaled.
    """

    name = "logit_scale"
    gives = (
        "logit_scale/margin_median", "logit_scale/margin_95", "logit_scale/scale", "logit_scale/saturated",
        "logit_scale/zero_gradients", "logit_scale/small_gradients", "logit_scale/pgd", "logit_scale/pgd_rescaled",
    )  # fmt: skip
    needs_classes = True

    def __init__(
        self, eps: float | str = 8 / 255, norm: str = "linf", samples: int = 500, steps: int = 40, seed: int = 0
    ) -> None:
        check_norm(norm, SMOOTH)
        self.eps, self.norm, self.samples, self.steps, self.seed = one_level("eps", eps), norm, samples, steps, seed
        for key, count in {"samples": samples, "steps": steps}.items():
            check_count(key, count)
        if not self.eps:
            raise BadInput(f"eps={eps}: expected a number above 0")

    def suits(self, network: nn.Module) -> bool:
        """Anyone's: all that is asked is logits and their gradients."""
        return True

    def in_numbers(self) -> set[str]:
        return {self._row_name(name) for name in self.gives}

    def _row_name(self, name: str) -> str:
        attacked = name.rpartition("/")[2].startswith("pgd")
        return f"{name} {self.norm} {self.eps:g} {self.steps} steps" if attacked else name

    def measure(self, network: nn.Module, data: DataModule, folder: Path) -> list[Number]:
        device = device_of(network)
        x, labels = (each.to(device) for each in spread(data.split("test"), self.samples))
        trial = Trial(
            network, in_units(x), labels, eps=self.eps, norm=self.norm, bounds=data.info.bounds, steps=self.steps,
            restarts=1, queries=1, seed=self.seed,
        )  # fmt: skip
        with evaluating(network):
            found = _found(trial)
        return [row(self._row_name(f"{self.name}/{name}"), value) for name, value in found.items()]


@torch.no_grad()
def _found(trial: Trial) -> Mapping[str, float]:
    """The values of all rows, by their names."""
    gradients, logits = trial.gradients()
    saturated, (median, far) = checks.saturated_at(logits, trial.labels)
    clean = ~misclassified(logits, trial.labels)
    shares = {
        "saturated": saturated,
        "zero_gradients": checks.dead(gradients),
        "small_gradients": ~(length(gradients, "l2") >= SMALL),
        "pgd": trial.right("pgd", trial.pgd, clean),
        "pgd_rescaled": trial.right("pgd", trial.attacks({}, logits)["rescaled"], clean),
    }
    scale = checks.size_of(margin(logits, trial.labels))
    sizes = {"margin_median": median, "margin_95": far, "scale": scale}
    return sizes | {name: float(each.double().mean()) for name, each in shares.items()}
