"""Can a robust accuracy be believed? The signs of hidden gradients, measured once for each network."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robode.attacks.perturbations import SMOOTH
from robode.config.levels import check_count
from robode.data.batches import in_units
from robode.data.module import DataModule, spread
from robode.errors import BadInput
from robode.evaluation.copies import device_of, evaluating
from robode.evaluation.measure import weights_digest
from robode.masking.checks import verdict
from robode.masking.file import read_part, write_part
from robode.masking.trial import Trial
from robode.network import Normalise, build_network
from robode.quantities.quantity import Quantity, row
from robode.runs.run import checkpoint_path, find
from robode.training.checkpoints import load_weights

LEARNED_FROM, DECAY, ITERATIONS = 2000, 1e-3, 50  # of the linear baseline


class Believable(Quantity):
    """Signs of hidden gradients (masking_checks) in a network, on `samples` images spread evenly over the test set.

    The accuracy in question is that under PGD on the cross-entropy with `steps` steps from `restarts` starts within
    `eps`, data units, in `norm`, linf or l2. Square gets `queries`. Adversarials are carried over from `baseline`,
    another run on the same data, or from a linear classifier trained for the purpose. seed: of the noise and the
    random starts.

    Rows: "masking/<check> <norm> <eps>", the share of samples that the check found, and "masking/believable …", 1 or 0.
    masking.json in the run's folder has them with what was allowed and a sentence, for every network and setting.
    """

    name = "believable"
    gives = (
        "masking/zero_gradients", "masking/random_gradients", "masking/saturation", "masking/ordering",
        "masking/black_box", "masking/large_eps", "masking/logit_rescaling", "masking/transfer", "masking/believable",
    )  # fmt: skip
    needs_classes = True

    def __init__(
        self,
        eps: float = 0.1,
        norm: str = "linf",
        samples: int = 500,
        steps: int = 40,
        restarts: int = 2,
        queries: int = 200,
        baseline: str | None = None,
        seed: int = 0,
    ):
        if norm not in SMOOTH:  # Square knows no other
            raise BadInput(f"suite.believable.norm: expected one of {', '.join(SMOOTH)}, got {norm}")
        if not 0 < eps < math.inf:
            raise BadInput(f"suite.believable.eps: expected a number > 0, got {eps}")
        counts = {"samples": samples, "steps": steps, "restarts": restarts, "queries": queries}
        for key, value in counts.items():
            check_count(f"suite.believable.{key}", value)
        self.eps, self.norm, self.samples, self.baseline = float(eps), norm, samples, baseline
        self.steps, self.restarts, self.queries, self.seed = steps, restarts, queries, seed

    def known(self, folder: Path, weights: str) -> bool:
        return super().known(folder, weights) and any(self._is_mine(each, weights) for each in read_records(folder))

    def in_numbers(self) -> set[str]:
        return {self._row_name(name) for name in self.gives}

    def suits(self, network: nn.Module) -> bool:
        """Anyone's: all that is asked is logits and their gradients."""
        return True

    def measure(self, network: nn.Module, data: DataModule, folder: Path) -> list[dict[str, Any]]:
        device = device_of(network)
        title, baseline = self._baseline(data, device)
        x, labels = (each.to(device) for each in spread(data.split("test"), self.samples))
        trial = Trial(
            network, in_units(x), labels, eps=self.eps, norm=self.norm, bounds=data.info.bounds, steps=self.steps,
            restarts=self.restarts, queries=self.queries, seed=self.seed,
        )  # fmt: skip
        with evaluating(network):
            checks, right = trial.findings(baseline.to(device).eval(), title)
        record: dict[str, Any] = {
            "weights": weights_digest(network),
            "settings": self._settings(),
            "samples": len(labels),
            "accuracy": {name: float(right[name].double().mean()) for name in ("clean", "noise", "fgsm", "pgd")},
            "verdict": verdict(checks),
            "checks": [asdict(check) | {"passed": check.passed} for check in checks],
        }
        others = [each for each in read_records(folder) if not self._is_mine(each, record["weights"])]
        write_part(folder, "records", [*others, record])
        values = {f"masking/{check.name}": check.value for check in checks}
        values["masking/believable"] = float(all(check.passed for check in checks))
        return [row(self._row_name(name), value) for name, value in values.items()]

    def _row_name(self, name: str) -> str:
        return f"{name} {self.norm} {self.eps:g}"

    def _settings(self) -> dict[str, Any]:
        return dict(vars(self))

    def _is_mine(self, record: Any, weights: str) -> bool:
        return (record.get("weights"), record.get("settings")) == (weights, self._settings())

    def _baseline(self, data: DataModule, device: torch.device) -> tuple[str, nn.Module]:
        """Its name in a sentence and the network, which never saw the one in question."""
        if self.baseline is None:
            return "a linear classifier", linear_classifier(data, device)
        run, checkpoint = find(self.baseline, key="suite.believable.baseline")
        config = run.config()
        network = build_network(config, data.info)
        load_weights(checkpoint_path(run, checkpoint or "best"), network)
        return f"the run {run.id}", network


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of masking.json in a run's folder; nothing where it is missing or damaged."""
    return read_part(folder, "records")


def linear_classifier(data: DataModule, device: torch.device | str = "cpu") -> nn.Module:
    """x (B, *shape) in data units -> logits of a multinomial logistic regression on some of the training samples, on
    `device`.

    Its training is a convex problem from zero, so that no seed is involved.
    """
    info = data.info
    x, labels = (each.to(device) for each in spread(data.split("train"), LEARNED_FROM))
    features = nn.Sequential(Normalise(info.mean, info.std, len(info.shape)), nn.Flatten()).to(device)
    readout = nn.Linear(math.prod(info.shape), info.task.outputs, device="meta")  # draws nothing
    readout = readout.to_empty(device=device)
    with torch.no_grad():
        inputs = features(in_units(x))
        for parameter in readout.parameters():
            parameter.zero_()
    optimizer = torch.optim.LBFGS(readout.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        decay = DECAY * readout.weight.square().sum()
        loss = nn.functional.cross_entropy(readout(inputs), labels) + decay
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return nn.Sequential(features, readout)
