"""The parameters of S networks in common tensors, and the one optimiser that moves them all."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robode.instantiate import build


@dataclass(frozen=True)
class Saved:
    """Copies of the stacked parameters, of the optimiser's state, and of the schedule's in a list of one or none."""

    parameters: dict[str, Tensor]
    optimizer: dict[str, Any]
    schedulers: list[dict[str, Any]]

    def optimizer_of(self, s: int) -> dict[str, Any]:
        """What a separate optimiser of network s would put into its checkpoint."""
        shapes = [parameter.shape for parameter in self.parameters.values()]
        state = {
            i: {key: _entry(value, shapes[i], s) for key, value in state.items()}
            for i, state in self.optimizer["state"].items()
        }
        return {"state": state, "param_groups": self.optimizer["param_groups"]}


class Weights:
    """stacked: name -> (S, *shape). Network s keeps its own parameters, which are views of entry s from now on.

    The optimiser and its schedule are the ones of the `optimizer` section. Its arithmetic is entry by entry
    (`batched_checks.ELEMENTWISE`), so a step on the common tensors is S separate steps.
    """

    def __init__(self, networks: Sequence[nn.Module], section: Mapping[str, Any]):
        own = [dict(network.named_parameters()) for network in networks]
        self.stacked = {name: _leaf(torch.stack([each[name].detach() for each in own])) for name in own[0]}
        self._share(networks)
        self.optimizer: torch.optim.Optimizer = build(section["optimizer"], params=list(self.stacked.values()))
        scheduler = section.get("scheduler")
        self.scheduler = build(scheduler, optimizer=self.optimizer) if scheduler else None
        self.every_step = section.get("interval", "epoch") == "step"

    def step(self, last_of_epoch: bool) -> None:
        """Move the weights, and the learning rate where it is due. Afterwards there are no gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scheduler is not None and (self.every_step or last_of_epoch):
            self.scheduler.step()

    @property
    def lr(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def saved(self) -> Saved:
        """A copy of everything."""
        return Saved(
            {name: parameter.detach().clone() for name, parameter in self.stacked.items()},
            copy.deepcopy(self.optimizer.state_dict()),
            [] if self.scheduler is None else [copy.deepcopy(self.scheduler.state_dict())],
        )

    def load(self, optimizers: Sequence[Mapping[str, Any]], schedulers: Sequence[Any]) -> None:
        """Continue from S separate states of the same step, as `Saved.optimizer_of` returns them."""
        shapes = [parameter.shape[1:] for parameter in self.stacked.values()]
        state = {
            i: {key: _joined([each["state"][i][key] for each in optimizers], shapes[i]) for key in first}
            for i, first in optimizers[0]["state"].items()
        }
        self.optimizer.load_state_dict({"state": state, "param_groups": optimizers[0]["param_groups"]})
        if self.scheduler is not None:
            self.scheduler.load_state_dict(schedulers[0])

    def keep(self, chosen: Sequence[int], networks: Sequence[nn.Module]) -> None:
        """Go on with some of the networks. networks: those that stay, in the order of `chosen`."""
        replaced = {}
        for name, old in self.stacked.items():
            new = replaced[old] = self.stacked[name] = _leaf(old.detach()[list(chosen)])
            new.grad = None if old.grad is None else old.grad[list(chosen)]
            state = self.optimizer.state.pop(old, {})
            if state:
                self.optimizer.state[new] = {
                    key: value[list(chosen)] if _stacked(value, old.shape) else value for key, value in state.items()
                }
        for group in self.optimizer.param_groups:
            group["params"] = [replaced[parameter] for parameter in group["params"]]
        self._share(networks)

    def _share(self, networks: Sequence[nn.Module]) -> None:
        for s, network in enumerate(networks):
            for name, parameter in network.named_parameters():
                parameter.data = self.stacked[name].data[s]


def _leaf(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values)


def _stacked(value: Any, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.shape == shape


def _entry(value: Any, shape: torch.Size, s: int) -> Any:
    """Of the optimiser's state tensors those shaped like the parameter have an entry for each network; a count of
    steps, say, has not."""
    if _stacked(value, shape):
        return value[s].clone()
    return value.clone() if isinstance(value, Tensor) else value


def _joined(values: Sequence[Any], shape: torch.Size) -> Any:
    return torch.stack(list(values)) if _stacked(values[0], shape) else values[0]
