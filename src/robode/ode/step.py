"""A step y -> phi(y): what one layer of the network that runs does to its state.

A flow is a list of steps, whatever made them: an integrator from a vector field, or a family whose layers solve no ODE.
Forward passes, trajectories, sensitivities, certificates and enclosures are folds over that list.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.foreign import speaks_of
from robode.ode.enclosure import Enclosure

Thing = TypeVar("Thing")
Found = TypeVar("Found")


class Step(ABC):
    """States are columns, y: (n, M), in flows whose states are vectors or single pixels; else images (B, c, H, W).

    between_stages: whether it makes states of another stage (other channels, another resolution, their mean), so that
    states in front of it reach the head only through it.
    """

    between_stages: bool = False

    @abstractmethod
    def __call__(self, y: Tensor) -> Tensor:
        """y: (n, M) -> (n, M), or images (B, c, H, W) -> (B, c', H', W')."""

    def jacobian(self, y: Tensor) -> Tensor:
        """Exact d phi / d y at each column. y: (n, M) -> (M, n, n). Raises `BadInput` for steps that have none."""
        raise BadInput(f"expected steps with small Jacobians, but {type(self).__name__} gives none")

    def inverse(self, y: Tensor) -> Tensor:
        """The state that the step maps to y, exact up to rounding. y: (n, M) -> (n, M). Raises `BadInput` for steps
        that know none."""
        raise BadInput(f"expected steps that can be inverted, but {type(self).__name__} knows no inverse")

    def lipschitz(self) -> float:
        """Certified Lipschitz constant of the step over all states (2-norm); inf where nothing is proved."""
        return math.inf

    def enclose(self, z: Enclosure) -> Enclosure:
        """The step on every box. Raises `BadInput` for steps without a certified enclosure."""
        raise BadInput(f"expected steps with a certified enclosure, but {type(self).__name__} has none")


class Chain(Step):
    """Steps one after the other, which count as one."""

    def __init__(self, steps: Sequence[Step]):
        self.steps = steps

    def __call__(self, y: Tensor) -> Tensor:
        for step in self.steps:
            y = step(y)
        return y

    def jacobian(self, y: Tensor) -> Tensor:
        product = self.steps[0].jacobian(y)
        y = self.steps[0](y)
        for step in self.steps[1:]:
            product = step.jacobian(y) @ product
            y = step(y)
        return product

    def inverse(self, y: Tensor) -> Tensor:
        for step in reversed(self.steps):
            y = step.inverse(y)
        return y

    def lipschitz(self) -> float:
        return math.prod(once(own_lipschitz, self.steps))

    def enclose(self, z: Enclosure) -> Enclosure:
        for step in self.steps:
            if not speaks_of(type(step), "enclose"):
                raise BadInput(
                    f"expected steps with a certified enclosure; that of {type(step).__name__} is of another"
                )
            z = step.enclose(z)
        return z


def own_lipschitz(step: Step) -> float:
    """The certified Lipschitz constant of a step; inf where its class inherits that from one that computes something
    else."""
    return step.lipschitz() if speaks_of(type(step), "lipschitz") else math.inf


def once(f: Callable[[Thing], Found], things: Sequence[Thing]) -> list[Found]:
    """f of each; of one that comes several times it is worked out once."""
    known = {key: f(thing) for key, thing in {id(thing): thing for thing in things}.items()}
    return [known[id(thing)] for thing in things]


def identity_like(y: Tensor) -> Tensor:
    """The unit matrix (n, n) for columns y (n, M)."""
    return torch.eye(y.shape[-2], dtype=y.dtype, device=y.device)
