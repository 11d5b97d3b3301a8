"""Networks that answer like another one, with gradients of their own: what fools them is carried over to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from robode.attacks.problem import Model
from robode.corruptions.noise import BLOCK
from robode.data.batches import device_of, in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule, spread
from robode.foreign import speaks_of
from robode.integrators.reference import with_reference_solver
from robode.network import Network, Normalise

LEARNED_FROM, HIDDEN, LESSONS, LESSON, RATE = 2000, 128, 300, 64, 3e-3  # of a student: samples, width, steps, …
BACKBONES = ("backbone", "encoder", "features")  # names of the part of a network before its head, or before its flow
SEED = 0  # of the lessons

Given = Tensor | tuple[Tensor | None, ...]
"""What a part of a network gives: states, and perhaps what its fields are bound to."""


def substitutes(network: nn.Module, data: DataModule) -> dict[str, Model]:
    """Networks that answer like this one with gradients of their own, by their names in a sentence, in eval mode.

    A student, taught the network's logits on training samples; the network's backbone or encoder with a linear head
    that is taught likewise, without what follows it (a flow, a head), which may hide gradients; the network with the
    reference solver, where it solves an ODE. Costs one or two forward passes of LEARNED_FROM samples. Sources: Papernot
    et al., "Practical black-box attacks against machine learning", 2017; adversarials carried over from its backbone
    are what SODEF (Kang et al. 2021) fell to.
    """
    x = in_units(spread(data.split("train"), LEARNED_FROM).x).to(device_of(network))
    logits = _in_parts(network, x)
    found: dict[str, Model] = {"a student of its logits": _taught(partial(_student, data.info), x, logits)}
    if features := _backbone(network, x[:1]):
        learned = _in_parts(features, x)
        head = _taught(partial(nn.Linear, learned.shape[1], logits.shape[1]), learned, logits)
        found["its backbone"] = lambda x: head(features(x))
    reference = with_reference_solver(network)
    return found if reference is None else found | {"its reference solver": reference.eval()}


@torch.no_grad()
def _in_parts(model: Model, x: Tensor) -> Tensor:
    return torch.cat([model(part) for part in torch.split(x, 5 * BLOCK)])


def _student(info: DatasetInfo) -> nn.Module:
    """x (B, *shape) in data units -> (B, outputs). An MLP: what fools it fooled CNNs more often than a CNN's did."""
    normalise, hidden = Normalise(info.mean, info.std, len(info.shape)), nn.Linear(math.prod(info.shape), HIDDEN)
    return nn.Sequential(normalise, nn.Flatten(), hidden, nn.ReLU(), nn.Linear(HIDDEN, info.task.outputs))


def _taught(make: Callable[[], nn.Module], x: Tensor, logits: Tensor) -> nn.Module:
    """A new network from x (n, ...) to these logits (n, classes), divided by their deviation; in eval mode."""
    wanted = logits.nan_to_num()
    wanted = wanted / wanted.std().clamp_min(torch.finfo(wanted.dtype).tiny)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(SEED)
        pupil = make().to(x.device)
        optimizer = torch.optim.Adam(pupil.parameters(), RATE)
        for _ in range(LESSONS):
            rows = torch.randint(len(x), (LESSON,)).to(x.device)
            optimizer.zero_grad()
            nn.functional.mse_loss(pupil(x[rows]), wanted[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return pupil.eval().requires_grad_(False)


def _backbone(network: nn.Module, x: Tensor) -> Model | None:
    """What the network's encoder, or a part of such a name, gives when the network is asked, (B, d): of images 4 x 4
    means of each channel. None where that part is affine, and where there is none or it is not asked. x (1, *shape): to
    try it.
    """
    named = [part for name, part in network.named_modules() if name.rpartition(".")[2] in BACKBONES]
    parts = [part for part in named if not (getattr(part, "affine", False) and speaks_of(type(part), "affine"))]
    asked: list[Callable[[Tensor], Given | None]] = [partial(_given_by, part, network) for part in parts]
    if isinstance(network, Network):  # whose flow may start from more than the encoder's forward gives
        asked = [network.encode] if network.encoder in parts else []
    given = (each for each in asked if each(x) is not None)
    return next((partial(_as_vectors, each) for each in given), None)


def _given_by(part: nn.Module, network: nn.Module, x: Tensor) -> Given | None:
    """What a part of the network gives when the network is asked; None where the part is not."""
    seen: list[Given] = []
    handle = part.register_forward_hook(lambda _, __, found: seen.append(found))
    try:
        network(x)
    finally:
        handle.remove()
    return seen[-1] if seen else None


def _as_vectors(part: Callable[[Tensor], Given | None], x: Tensor) -> Tensor:
    given = part(x)
    tensors = [each for each in (given if isinstance(given, tuple) else (given,)) if isinstance(each, Tensor)]
    small = [nn.functional.adaptive_avg_pool2d(each, 4) if each.ndim == 4 else each for each in tensors]
    return torch.cat([each.flatten(1) for each in small], dim=1)
