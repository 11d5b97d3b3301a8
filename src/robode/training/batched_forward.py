"""Loss, gradient and logits of S networks, each on its own batch: side by side, or one after the other.

Side by side, S networks of a toy set cost little more than one, because calling the operations is what takes the
time. States that no longer fit into a cache gain nothing on a CPU (they lose: see bench/seeds.py), so there, and for
whatever has no joint form, the networks take turns; then only one of them needs memory for its states at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from robode.fields.joined import JoinedFlow, joinable
from robode.network import Augment, ConvLift, Network
from robode.objectives.cross_entropy import CrossEntropy
from robode.objectives.objective import Objective
from robode.objectives.weight_smoothness import WeightSmoothness
from robode.ode.sensitivity import BSM, bsm_of_steps

CACHE = 2**15
"""Numbers in one network's state (width * batch * pixels) up to which a CPU computes them side by side."""


@dataclass
class Found:
    """One training step of S networks. loss, terms: (S,) without gradients; correct: (S,), right answers."""

    loss: Tensor
    terms: Mapping[str, Tensor]
    correct: Tensor

    def keep(self, chosen: list[int]) -> Found:
        return Found(self.loss[chosen], {k: v[chosen] for k, v in self.terms.items()}, self.correct[chosen])


class Learner(Protocol):
    """A network with what it learns from. rng: the state of torch's generators, for objectives that draw."""

    network: Network
    objectives: Mapping[str, Objective]
    rng: dict[str, Any]


class InTurns:
    """One network after the other, exactly as each would compute alone."""

    def __init__(self, learners: Sequence[Learner]):
        self.learners = learners

    def backward(self, x: Tensor, labels: Tensor, stacked: Mapping[str, nn.Parameter]) -> Found:
        """x: (S, B, *shape) in data units, labels: (S, B). Gradients go to `stacked`, zeros for an infinite loss."""
        found = [self._one(learner, *batch) for learner, *batch in zip(self.learners, x, labels, strict=True)]
        for name, parameter in stacked.items():
            own = [learner.network.get_parameter(name) for learner in self.learners]
            if any(each.grad is not None for each in own):
                parameter.grad = torch.stack([torch.zeros_like(p) if p.grad is None else p.grad for p in own])
            for each in own:
                each.grad = None
        terms = {name: torch.stack([each.terms[name] for each in found]) for name in found[0].terms}
        return Found(torch.stack([f.loss for f in found]), terms, torch.stack([f.correct for f in found]))

    @staticmethod
    def _one(learner: Learner, x: Tensor, labels: Tensor) -> Found:
        set_rng(learner.rng)
        logits: list[Tensor] = []
        hook = learner.network.register_forward_hook(lambda network, inputs, output: logits.append(output.detach()))
        terms: dict[str, Tensor] = {}
        for objective in learner.objectives.values():
            terms |= objective(learner.network, x, labels)
        hook.remove()
        learner.rng = get_rng()
        loss = torch.stack(list(terms.values())).sum() if len(terms) > 1 else next(iter(terms.values()))
        if loss.device.type != "cpu" or math.isfinite(loss.item()):
            loss.backward()  # type: ignore[no-untyped-call]
        correct = (logits[-1].argmax(1) == labels).sum()  # of the last forward pass that the objectives made
        return Found(loss.detach(), {name: term.detach() for name, term in terms.items()}, correct)

    def logits(self, x: Tensor) -> Tensor:
        """x: (B, *shape), the same for all -> (S, B, classes), in evaluation mode."""
        networks = [learner.network for learner in self.learners]
        for network in networks:
            network.eval()
        logits = torch.stack([network(x) for network in networks])
        for network in networks:
            network.train()
        return logits


class SideBySide:
    """All networks in the same operations. stacked: their common parameters, (S, *shape) each."""

    def __init__(self, learners: Sequence[Learner], stacked: Mapping[str, nn.Parameter]):
        self.first, self.objectives, self.stacked = learners[0].network, learners[0].objectives, stacked
        of_flow = {name.removeprefix("flow."): p for name, p in stacked.items() if name.startswith("flow.")}
        self.flow = JoinedFlow([learner.network.flow for learner in learners], of_flow)

    def backward(self, x: Tensor, labels: Tensor, stacked: Mapping[str, nn.Parameter]) -> Found:
        """As `InTurns.backward`. No operation mixes networks, so one that is not finite spoils no other."""
        logits = self._forward(x)
        terms: dict[str, Tensor] = {}
        for name, objective in self.objectives.items():
            if isinstance(objective, CrossEntropy):
                each = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
                terms["cross_entropy"] = each.view(labels.shape).mean(1)
            else:
                assert isinstance(objective, WeightSmoothness), name
                terms |= self._smoothness(objective)
        loss = torch.stack(list(terms.values())).sum(0) if len(terms) > 1 else next(iter(terms.values()))
        loss.sum().backward()  # type: ignore[no-untyped-call]
        correct = (logits.detach().argmax(2) == labels).sum(1)
        return Found(loss.detach(), {name: term.detach() for name, term in terms.items()}, correct)

    def logits(self, x: Tensor) -> Tensor:
        """As `InTurns.logits`."""
        return self._forward(x.expand(len(self.flow.flows), *x.shape))

    def bsm(self, probe: Tensor) -> BSM | None:
        """Sensitivity norms of all networks on the samples (B, *shape), with a dimension (S) after that of the layers;
        None where there is no joint form."""
        if not isinstance(self.first.lift, Augment):
            return None
        S, B = len(self.flow.flows), len(probe)
        with torch.no_grad():
            z = self._embed(self.first.normalise(probe.repeat(S, 1)), S, B)
            steps = self.flow.step_jacobians(z)
        return None if steps is None else bsm_of_steps(steps, B)

    def _smoothness(self, objective: WeightSmoothness) -> dict[str, Tensor]:
        parameters = self.flow.layer_parameters()
        if parameters is None:
            return {}
        differences = sum((p[:, 1:] - p[:, :-1]).square().sum((1, 2, 3)) for p in parameters)
        h = torch.stack([flow.h for flow in self.flow.flows])
        times = max(self.first.flow.depth - 1, 1) if objective.count == "script" else 1
        return {"weight_smoothness": (times * objective.alpha * h / 2).to(parameters[0].dtype) * differences}

    def _forward(self, x: Tensor) -> Tensor:
        """x: (S, B, *shape) -> (S, B, classes), as `Network.forward`."""
        S, B = x.shape[:2]
        z = self.flow(self._embed(self.first.normalise(x.flatten(0, 1)), S, B))
        features = z.view(S, z.shape[1], B, -1).transpose(1, 2).reshape(S, B, -1)
        W, b = self.stacked["readout.weight"], self.stacked["readout.bias"]
        return torch.baddbmm(b[:, None], features, W.mT)

    def _embed(self, x: Tensor, S: int, B: int) -> Tensor:
        """x: (S B, *shape) normalised -> columns (S, n, M)."""
        if isinstance(self.first.lift, Augment):
            return self.first.lift(x).view(S, B, -1).transpose(1, 2)
        W, b = self.stacked["lift.weight"], self.stacked["lift.bias"]
        width, (channels, *pixels) = W.shape[1], x.shape[1:]
        images = x.view(S, B, channels, *pixels).transpose(0, 1).flatten(1, 2)  # a group of channels for each network
        y = functional.conv2d(images, W.flatten(0, 1), b.flatten(), padding=1, groups=S)
        return y.view(B, S, width, -1).permute(1, 2, 0, 3).reshape(S, width, -1)


def choose(learners: Sequence[Learner], stacked: Mapping[str, nn.Parameter], batch: int) -> InTurns | SideBySide:
    """Side by side where that has been found faster and the parts have a joint form. batch: samples a step."""
    first, objectives = learners[0].network, learners[0].objectives.values()
    pixels = math.prod(first.facts.shape[1:])  # vectors have one
    known = type(first) is Network and type(first.lift) in (Augment, ConvLift) and joinable(first.flow)
    known = known and all(type(each) in (CrossEntropy, WeightSmoothness) for each in objectives)
    small = first.flow.width * batch * pixels <= CACHE or first.readout.weight.is_cuda
    if known and small:
        return SideBySide(learners, stacked)
    return InTurns(learners)


def get_rng() -> dict[str, Any]:
    """The state of torch's generators, as `Classifier` puts it into a checkpoint."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_rng(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])
