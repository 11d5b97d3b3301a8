"""Attacks in data units: pure functions (model, x, labels) -> x' within eps of x and inside the bounds."""

from robode.attacks.apgd import apgd
from robode.attacks.fgsm import fgsm
from robode.attacks.fmn import minimal_norm
from robode.attacks.losses import LOSSES
from robode.attacks.pgd import pgd
from robode.attacks.square import square

__all__ = ["LOSSES", "apgd", "fgsm", "minimal_norm", "pgd", "square"]
