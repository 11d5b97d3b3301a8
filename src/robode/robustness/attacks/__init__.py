"""Attacks in data units: pure functions (model, x, labels) -> x' within eps of x and inside the bounds."""

from robode.robustness.attacks.apgd import apgd
from robode.robustness.attacks.fgsm import fgsm
from robode.robustness.attacks.losses import LOSSES
from robode.robustness.attacks.nearest import minimal_norm
from robode.robustness.attacks.pgd import pgd
from robode.robustness.attacks.square import square

__all__ = ["LOSSES", "apgd", "fgsm", "minimal_norm", "pgd", "square"]
