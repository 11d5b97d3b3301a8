"""AutoAttack as its authors published it, from the package pyautoattack (the extra robode[attacks])."""

from __future__ import annotations

import importlib
import logging
from importlib.util import find_spec

import torch
from torch import Tensor

from robode.attacks.balls import check_norm
from robode.attacks.problem import Model, attacking
from robode.corruptions.perturbation import Bounds
from robode.errors import BadInput

CLASSES = 4
"""Its losses need as many logits."""
NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def check_installed(key: str) -> None:
    """Raises BadInput, naming `key`, where the package is missing."""
    if find_spec("pyautoattack") is None:
        raise BadInput(f"{key}: needs the package pyautoattack: pip install 'robode[attacks]'")


def why_not(bounds: Bounds | None) -> str | None:
    """Why it cannot work on data with these bounds, in one line, or None."""
    return None if bounds == (0.0, 1.0) else f"AutoAttack is for images in [0, 1], these data have bounds {bounds}"


def autoattack(
    model: Model,
    x: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    bounds: Bounds | None = (0.0, 1.0),
    seed: int = 0,
) -> Tensor:
    """x' (like x) of the standard version: APGD-CE, targeted APGD-DLR, targeted FAB, Square with 5 000 queries.

    x: (B, C, H, W) in [0, 1]; labels: (B,); eps: a number, in data units. Its random numbers belong to places in the
    batch; torch's global generator is left as it was.
    Raises BadInput without the package, for other bounds, fewer than 4 classes, or an unknown norm.
    """
    check_installed("suite=autoattack")
    check_norm(norm)
    reason = why_not(bounds)
    if reason:
        raise BadInput(f"suite=autoattack: {reason}")
    with attacking(model):
        classes = model(x[:1]).shape[1]
        if classes < CLASSES:
            raise BadInput(f"suite=autoattack: needs at least {CLASSES} classes, these data have {classes}")
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad():
            return _run(model, x.clone(), labels.clone(), eps, norm, seed, classes)


def _run(model: Model, x: Tensor, labels: Tensor, eps: float, norm: str, seed: int, classes: int) -> Tensor:
    package = importlib.import_module("pyautoattack")
    logging.getLogger("auto-attack").setLevel(logging.ERROR)  # it tells its progress as warnings
    adversary = package.AutoAttack(model, norm=NAMES[norm], eps=eps, seed=seed, version="standard", device=x.device)
    for attack in (adversary.apgd_targeted, adversary.fab):
        attack.n_target_classes = min(9, classes - 1)
    found = adversary.run_standard_evaluation(x, labels, batch_size=len(x))
    moved: Tensor = found[0] if isinstance(found, tuple) else found
    return moved.detach()
