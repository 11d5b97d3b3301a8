"""What verdicts need besides results.csv: other attacks on a few samples, measured once, as entries of masking.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from robode.attacks.problem import Model
from robode.masking.checks import Check, dead, random_gradients, saturated_at
from robode.masking.rows import Climb, Panel
from robode.masking.trial import Trial
from robode.tasks.classification import misclassified

STEPS, RESTARTS, QUERIES, SEED = 20, 1, 100, 0
STEPS_FAR = 40  # of PGD that may go everywhere; ten times as far as the eps that are usual
SETTINGS: Mapping[str, Any] = {"steps": STEPS, "queries": QUERIES, "steps_far": STEPS_FAR}
"""Part of every entry: what other settings found is not taken for what these would find."""


def measure_panel(trial: Trial, baseline: Model, standing: Tensor) -> dict[str, Any]:
    """The entry of a `Panel`, without what it is about. standing: whom the strong attacks try, (m,) bool.

    The others count as right, which says nothing against any row: samples that every recorded gradient attack fells
    are counted there already, and those that are certified cannot fall. Samples that are wrong from the beginning
    are right nowhere.
    """
    _, logits = trial.gradients()
    clean = ~misclassified(logits, trial.labels)
    right = trial.weak(clean)
    for name, each in trial.other(baseline, logits, standing & clean).items():
        right[name] = each | (clean & ~standing)
    return {"bits": {name: to_text(each) for name, each in right.items()}}


def measure_climb(trial: Trial, loss: str) -> dict[str, Any]:
    """The entry of a `Climb`, without what it is about. loss: ce, margin or dlr."""
    gradients, logits = trial.gradients(loss)
    zero, margins = saturated_at(logits, trial.labels)
    checks = [random_gradients(gradients, trial.gradients(loss)[0]), trial.far(logits, loss)]
    return {
        "bits": {"dead": to_text(dead(gradients)), "zero": to_text(zero)},
        "margins": list(margins),
        "checks": [asdict(check) for check in checks],
    }


def read(entry: Mapping[str, Any]) -> Panel | Climb | None:
    """Back from masking.json; None for an entry that neither function above makes: it is measured anew."""
    try:
        bits = {str(name): to_bits(text, entry["samples"]) for name, text in entry["bits"].items()}
        if "eps" in entry:
            return Panel(float(entry["eps"]), bits)
        middle, far = entry["margins"]
        checks = tuple(Check(**each) for each in entry["checks"])
        return Climb(bits["dead"], bits["zero"], (float(middle), float(far)), checks)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def to_text(bits: Tensor) -> str:
    """(m,) bool -> "0110…"."""
    return "".join("1" if each else "0" for each in bits.tolist())


def to_bits(text: str, count: int) -> Tensor:
    """Back. Raises ValueError for anything but so many letters 0 and 1."""
    if set(text) - {"0", "1"} or len(text) != count:
        raise ValueError(f"expected {count} letters 0 and 1, got {text[:20]}")
    return torch.tensor([letter == "1" for letter in text])
