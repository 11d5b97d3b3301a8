"""A family whose layers solve no ODE: rotations by learned angles, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.ode.flow import Flow
from robode.ode.guarantees import NONEXPANSIVE
from robode.ode.step import Step


@dataclass(frozen=True)
class Turn(Step):
    """The first half of a state with the second, by an angle."""

    angle: Tensor

    def __call__(self, y: Tensor) -> Tensor:
        q, p = y.chunk(2)
        return torch.cat([self.angle.cos() * q - self.angle.sin() * p, self.angle.sin() * q + self.angle.cos() * p])

    def lipschitz(self) -> float:
        return 1.0


class Turns(Flow):
    guarantee = NONEXPANSIVE
    solves_an_ode = False

    def __init__(self, width: int, *args, **kwargs):
        super().__init__(width, *args, **kwargs)
        if width % 2:
            raise BadInput(f"model.width: expected an even number, got {width}")
        self.angles = nn.Parameter(torch.randn(self.depth))

    def steps(self, context: Tensor | None = None) -> list[Turn]:
        return [Turn(angle) for angle in self.angles]
