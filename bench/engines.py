"""The flow alone, forwards and backwards, by the engine that robode chooses and by torch layer by layer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch
from measure import Row, in_turns
from setting import Setting
from torch import Tensor

from robode.families.chnode import CHNode
from robode.integrators.etd import ETD
from robode.ode import chain

# width, depth, batch: the main job, and what grows
SIZES = ((8, 8, 100), (8, 4, 100), (8, 16, 100), (4, 8, 100), (8, 8, 10), (8, 8, 1000))


def by(engine: str, action: Callable[[], None]) -> Callable[[], None]:
    """The action with this engine, which may be "auto"."""

    def run() -> None:
        os.environ[chain.CHOICE] = engine
        action()

    return run


def both_ways(flow: CHNode, y: Tensor) -> Callable[[], None]:
    def run() -> None:
        flow.zero_grad()
        flow(y).square().sum().backward()

    return run


def forwards(flow: CHNode, y: Tensor) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        flow(y)

    return run


def engines(setting: Setting) -> list[Row]:
    before, rows = os.environ.get(chain.CHOICE, "auto"), []
    try:
        for width, depth, batch in SIZES:
            torch.manual_seed(0)
            flow, y = CHNode(width, depth, ETD(), step=0.1), torch.randn(batch, width, 28, 28)
            os.environ[chain.CHOICE] = "auto"
            engine = flow.engine()
            for what, action in (("forwards and backwards", both_ways(flow, y)), ("forwards", forwards(flow, y))):
                begin = time.perf_counter()
                by("auto", action)()
                first = time.perf_counter() - begin
                ours, other = in_turns(by("auto", action), by("reference", action), 5 * setting.turns)
                name = f"flow, {what}: width {width}, N={depth}"
                notes = {"engine": engine, "first call": f"{first:.2f} s"}
                rows.append(Row(name, f"batch of {batch}", ours, other, notes=notes))
    finally:
        os.environ[chain.CHOICE] = before
    return rows
