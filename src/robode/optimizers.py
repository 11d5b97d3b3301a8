"""Optimisers that torch does not have, and a schedule that goes by shares of the training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR
from torch.optim.optimizer import ParamsT

from robode.errors import BadInput

LEAST = {"kernels": 4, "matrices": 2, "none": math.inf}
"""From how many dimensions on a tensor is constrained."""
USUAL = 0.01
"""The scale of a tensor that begins at 0."""


class Nero(Optimizer):
    """Every neuron moves by a share of its tensor's size, whatever the length of its gradient (Liu, Bernstein, Meister,
    Yue 2021, "Learning by turning: neural architecture aware optimisation", algorithm 1).

    A neuron is a slice p[i] of a tensor of at least two dimensions, and a single number of one that has fewer. With the
    gradient g_i of neuron i, in step k,

        v_i <- beta v_i + (1 - beta) ||g_i||^2,     p_i <- p_i - lr sigma g_i / sqrt(v_i / (1 - beta^k)),

    where what is not finite counts as 0, sigma = 1 for a constrained tensor, and for any other the mean norm of its
    neurons when training begins (0.01 if that is 0). The neurons of a constrained tensor get mean 0 and norm 1 when the
    optimiser is built and after each step. No momentum, no weight decay.

    lr: about the angle, in radians, by which a constrained neuron turns in a step. beta: in [0, 1); 0.999 as published,
    0.9 in LyaNet (Jimenez Rodriguez, Ames, Yue 2022).
    constrained: `kernels`, tensors of four dimensions or more; `matrices`, of two or more, as published; `none`. LyaNet
    constrains all but one- and two-dimensional tensors and those whose names end in "bias"; its biases have at most two
    dimensions and its kernels four or five, so that `kernels` is the same without names. It leaves alone the stacks
    (layers, width, width) of matrices and (layers, width, 1) of biases that robode's families have; of a stack of
    kernels a neuron is a whole layer. Neurons of one number are never constrained, since nothing is left of them
    without their mean, nor are tensors that do not learn.

    A family that projects its weights (`ode.flow.Constrained`) does so after the optimiser's step: what it guarantees
    holds, and of weights that both constrain Nero's mean and norm hold only until then.

    Raises:
        BadInput: a number or a word that is none of these, or a neuron of a constrained tensor whose numbers are equal.
    """

    def __init__(self, params: ParamsT, lr: float = 0.01, beta: float = 0.999, constrained: str = "kernels") -> None:
        for key, value, fits in (("lr", lr, 0 < lr < math.inf), ("beta", beta, 0 <= beta < 1)):
            if not fits:
                raise BadInput(f"optimizer.optimizer.{key}={value}: expected {'> 0' if key == 'lr' else 'in [0, 1)'}")
        if constrained not in LEAST:
            raise BadInput(f"optimizer.optimizer.constrained={constrained}: choose one of: {', '.join(LEAST)}")
        super().__init__(params, {"lr": lr, "beta": beta, "constrained": constrained})
        for group in self.param_groups:
            names = group.get("param_names") or [f"tensor {number}" for number in range(len(group["params"]))]
            for name, p in zip(names, group["params"], strict=True):
                if p.requires_grad:
                    self._start(name, p, group["constrained"])

    @torch.no_grad()
    def _start(self, name: str, p: Tensor, constrained: str) -> None:
        """Project a tensor and note its scale. name: to say which one cannot be."""
        bound = _bound(p, constrained)
        if bound:
            center_(p)
            if len(still := (norms(p).flatten() == 0).nonzero()):
                raise BadInput(
                    f"optimizer=nero: all numbers of {name}[{int(still[0])}] (shape {tuple(p.shape)}) are equal, and "
                    "without their mean it has no norm to divide by; begin with other weights, or choose "
                    "optimizer.optimizer.constrained=none"
                )
            normalise_(p)
        self.state[p] = {"step": 0, "scale": 1.0 if bound else float(norms(p).mean()) or USUAL}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """closure: makes the gradients and returns the loss, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, group["lr"], group["beta"], group["constrained"])
        return loss

    def _move(self, p: Tensor, gradient: Tensor, lr: float, beta: float, constrained: str) -> None:
        if p not in self.state:  # of a group that was added later
            self._start("a new tensor", p, constrained)
        state, size = self.state[p], norms(gradient)
        if state["step"] == 0:
            state["v"] = torch.zeros_like(size)
        state["step"] += 1
        v = state["v"].mul_(beta).addcmul_(size, size, value=1 - beta)
        turn = gradient / (v / (1 - beta ** state["step"])).sqrt_()
        p.sub_(turn.nan_to_num_(0.0, 0.0, 0.0), alpha=lr * state["scale"])
        if _bound(p, constrained):
            center_(p)
            normalise_(p)


def _bound(p: Tensor, constrained: str) -> bool:
    return p.dim() >= LEAST[constrained] and p[0].numel() > 1


def norms(p: Tensor) -> Tensor:
    """Of each neuron, in a shape that broadcasts against p: (n, 1, …), or that of p where it has no two dimensions."""
    return torch.linalg.vector_norm(p, dim=tuple(range(1, p.dim())), keepdim=True) if p.dim() > 1 else p.abs()


def center_(p: Tensor) -> None:
    """Each neuron without its mean."""
    p.sub_(p.mean(dim=tuple(range(1, p.dim())), keepdim=True))


def normalise_(p: Tensor) -> None:
    """Each neuron with norm 1; one that is 0 stays 0."""
    p.div_(norms(p).clamp_min_(torch.finfo(p.dtype).tiny))


class StepAt(MultiStepLR):
    """The learning rate times gamma after each of these shares of the epochs: shares [0.5] of 120 epochs are the first
    60. A share that ends within an epoch counts to its end.

    epochs: how many there are; moves once an epoch. shares: in (0, 1). gamma > 0. Raises `BadInput` for others.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        epochs: int,
        shares: Sequence[float] = (0.5,),
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        if not all(0 < share < 1 for share in shares):
            raise BadInput(f"optimizer.scheduler.shares={list(shares)}: expected shares of the epochs between 0 and 1")
        super().__init__(optimizer, [math.ceil(share * epochs) for share in sorted(shares)], gamma, last_epoch)
