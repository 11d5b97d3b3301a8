"""The states along a flow, each made into what the head can read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robode.errors import BadInput
from robode.ode.field import VectorField
from robode.ode.flow import Flow
from robode.ode.step import Chain, Step


def read_out_states(flow: Flow, y: Tensor, context: Tensor | None = None) -> list[Tensor]:
    """The N + 1 states, each through those parts of later layers alone that lead into another stage
    (`Step.between_stages`): all have the shape of the last one, which is that of the forward pass.

    Left out is the state behind a layer that does nothing else than to lead into another stage: it is the one in front
    of it, read out. In training mode the parts of a layer run as in the forward pass, batch normalisation with the
    statistics of the states that it is given; the running statistics, which belong to the forward pass, gather nothing
    of what is only read out.

    y: as for `flow`. Raises `BadInput` for states of another shape than the last one that no part leads there.
    """
    steps = flow.steps(context)
    parts, states = [parts_of(step) for step in steps], [flow.enter(y)]
    for step in steps:
        states.append(step(states[-1]))
    found = []
    with frozen_statistics(flow):
        for j, state in enumerate(states):
            if j and all(part.between_stages for part in parts[j - 1]):
                continue
            for part in (part for layer in parts[j:] for part in layer if part.between_stages):
                state = part(state)
            found.append(flow.leave(state, y.shape))
    for j, state in enumerate(found):
        if state.shape != found[-1].shape:
            raise BadInput(
                f"model: the states of {type(flow).__name__} cannot be read out: one after {j} of {len(found) - 1} "
                f"layers has the shape {tuple(state.shape[1:])}, the last one {tuple(found[-1].shape[1:])}"
            )
    return found


def fields_at(flow: Flow, y: Tensor, context: Tensor | None = None) -> list[tuple[VectorField, Tensor]]:
    """The field of each layer, and where it sets out: the state in front of the layer, as steps map it (`Flow.enter`),
    through the change of stage that the layer begins with. None where layers solve no ODE. y: as for `flow`."""
    found, z = [], flow.enter(y)
    for field, step in zip(flow.fields(context), flow.steps(context), strict=True) if flow.solves_an_ode else ():
        start = z
        for part in takewhile(lambda part: part.between_stages, parts_of(step)):
            start = part(start)
        found.append((field, start))
        z = step(z)
    return found


def parts_of(step: Step) -> list[Step]:
    """The steps that one is a chain of; itself, where it is none."""
    return [part for each in step.steps for part in parts_of(each)] if isinstance(step, Chain) else [step]


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Batch normalisation as in each module's mode, but running statistics stay as they are."""
    norms = [each for each in module.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
