"""Where the Lyapunov condition on the loss, dV/dt + kappa V <= 0, does not hold: at states drawn at random, as the
Monte Carlo loss asks for it, and at the states that inference visits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from robode.config.levels import check_count
from robode.data.info import Samples
from robode.data.module import DataModule, spread
from robode.errors import BadInput, JobFailed
from robode.network import Network
from robode.objectives.lyapunov import Shared, along_fields
from robode.quantities.quantity import Number, Quantity, row
from robode.quantities.visited import Fall, along_layers, along_path, asked_of, batches, exact_copy

logger = logging.getLogger(__name__)

SPLITS = ("train", "test")


class Violations(Quantity):
    """Shares of states, and of samples with any such state, that violate dV/dt + kappa V <= 0 (LyaNet, Eq. 10).

    kappa, and where states are drawn, are those of the run's loss (`asked_of`); all in float64. Rows, each for
    `samples` of the train and of the test set, spread evenly:

    violated_sampled_…: of `states` random states, which all samples of a batch share; for fields bound to the sample.
    violated_visited_…: of the states on the path of the ODE, `refine` a layer, by the reference solver, and its end.
    violated_layers_…: of the states at the ends of the layers of the network that runs.
    …_any_…: of the samples, instead of pairs of a sample and a state.
    late_visited_…, late_layers_…: of those states but the first, V > V(0) e^(-kappa t).
    violations_kappa: kappa, in units of 1/horizon, for every network. gain: that of fields that have one, as trained.

    Layers that solve no ODE have no dV/dt: late_layers alone, of the states that the head can read.
    """

    name = "violations"
    gives = ("violations_kappa", "gain", *(
        f"{what}_{split}" for split in SPLITS for what in (
            "violated_sampled", "violated_sampled_any", "violated_visited", "violated_visited_any", "violated_layers",
            "violated_layers_any", "late_visited", "late_layers",
        )
    ))  # fmt: skip
    certain = ("violations_kappa",)
    needs_classes = True

    def __init__(self, samples: int = 500, states: int = 512, refine: int = 4, seed: int = 0):
        for key, count in {"samples": samples, "states": states, "refine": refine}.items():
            check_count(key, count)
        self.samples, self.states, self.refine, self.seed = samples, states, refine, seed

    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        kappa, shared = asked_of(network, folder)
        exact = exact_copy(network)
        rows = [row("violations_kappa", kappa, "exact")]
        if not (solves := network.flow.solves_an_ode):
            name = type(network.flow).__name__
            logger.warning("violations: the layers of %s solve no ODE, so there is no dV/dt: left out", name)
        if isinstance(gain := getattr(network.flow, "gain", None), Tensor):
            rows.append(row("gain", float(gain), "exact"))
        for split in SPLITS:
            samples = spread(data.split(split), self.samples)
            shares = (self._visited if solves else self._read_out)(exact, samples, kappa)
            if network.flow.controlled:
                shares |= self._sampled(exact, samples, shared, kappa / network.flow.horizon)
            rows += [row(f"{name}_{split}", value) for name, value in shares.items()]
        return rows

    @torch.no_grad()
    def _sampled(self, network: Network, samples: Samples, shared: Shared, kappa: float) -> dict[str, float]:
        found = []
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for x, labels in batches(network, samples):
                eta = replace(shared, samples=self.states).draw(network.flow.width, x)
                fall = along_fields(network, x, labels, eta)
                found.append(~(fall.rate + kappa * fall.value <= 0))
        return _shares("violated_sampled", torch.cat(found))

    def _visited(self, network: Network, samples: Samples, kappa: float) -> dict[str, float]:
        shares: dict[str, float] = {}
        for where, refine in {"visited": self.refine, "layers": 0}.items():
            try:
                falls = [along_path(network, x, labels, refine) for x, labels in batches(network, samples)]
            except JobFailed as error:  # the reference solver's; the network that runs has been scored before
                logger.warning("violations: the states at %s are left out: %s", where, error)
                continue
            violated = torch.cat([fall.violated(kappa) for fall in falls], 1)
            shares |= _shares(f"violated_{where}", violated.T) | {f"late_{where}": _late(falls, kappa)}
        return shares

    def _read_out(self, network: Network, samples: Samples, kappa: float) -> dict[str, float]:
        """Of layers that solve no ODE."""
        try:
            falls = [along_layers(network, x, labels) for x, labels in batches(network, samples)]
        except BadInput as error:
            logger.warning("violations: left out: %s", error)
            return {}
        return {"late_layers": _late(falls, kappa)}


def _late(falls: Sequence[Fall], kappa: float) -> float:
    return float(torch.cat([fall.late(kappa) for fall in falls], 1).double().mean())


def _shares(name: str, violated: Tensor) -> dict[str, float]:
    """Of pairs and of samples; violated: (samples, states)."""
    return {name: float(violated.double().mean()), f"{name}_any": float(violated.any(1).double().mean())}
