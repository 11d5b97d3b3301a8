"""Baselines whose layers solve no ODE: there is no step h, and no method."""

from __future__ import annotations

from robode.errors import BadInput
from robode.integrators.euler import Euler
from robode.integrators.integrator import Integrator
from robode.ode.flow import Flow


class LayersAlone(Flow):
    """N layers one after the other. step=auto and integrator=euler, which say nothing here, are all it takes.

    Raises:
        BadInput: a step, a horizon, another method, or substeps.
    """

    solves_an_ode = False
    pixelwise = False  # layers have no small Jacobians: nothing for bsm.csv

    def __init__(
        self, width: int, depth: int, integrator: Integrator, step: float | str = "auto", horizon: float | None = None
    ):
        expect_no_step(type(self).__name__, integrator, step, horizon)
        super().__init__(width, depth, integrator)

    def properties(self) -> dict[str, float]:
        """Neither h nor a horizon."""
        return {}


def expect_no_step(name: str, integrator: Integrator, step: float | str, horizon: float | None) -> None:
    """Raises `BadInput` for what a flow whose layers solve no ODE cannot take; name: of its class."""
    if step != "auto" or horizon is not None:
        key, got = ("step", step) if horizon is None else ("horizon", horizon)
        raise BadInput(f"{key}: the layers of {name} solve no ODE and have none; expected step=auto, got {got}")
    if not isinstance(integrator, Euler):
        raise BadInput(f"integrator={integrator.name}: the layers of {name} solve no ODE; choose euler")
    if integrator.auto_substeps or integrator.substeps != 1:
        raise BadInput(f"integrator.substeps: the layers of {name} solve no ODE; expected 1")
