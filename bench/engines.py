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
from robode.integrators.euler import Euler
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


def all_at_once(action: Callable[[], None], layers: int) -> Callable[[], None]:
    """The action with so many layers in one operation of the engine."""

    def run() -> None:
        before, chain.AT_ONCE = chain.AT_ONCE, layers
        try:
            action()
        finally:
            chain.AT_ONCE = before

    return run


def substeps(setting: Setting) -> list[Row]:
    """Layers of 64 Euler steps, the most that rows of table1_discrete have: by the engine or by torch in turn, and
    `chain.AT_ONCE` layers in one operation or all of them."""
    torch.manual_seed(0)
    flow, longer = CHNode(8, 4, Euler(64), step=0.5), CHNode(8, 16, Euler(64), step=0.5)
    short, long = (both_ways(each, torch.randn(batch, 8, 28, 28)) for each, batch in ((flow, 100), (longer, 25)))
    name = "flow, forwards and backwards: width 8, N={} of 64 substeps"
    in_parts = in_turns(by("auto", short), by("reference", short), 3 * setting.turns)
    at_once = in_turns(by("auto", long), by("auto", all_at_once(long, 16 * 64)), 5 * setting.turns)
    notes = {"engine": flow.engine()}
    return [
        Row(name.format(4), "batch of 100", *in_parts, notes=notes),
        Row(f"{name.format(16)}: {chain.AT_ONCE} layers or all at once", "batch of 25", *at_once, notes=notes),
    ]


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
        rows += substeps(setting)
    finally:
        os.environ[chain.CHOICE] = before
    return rows
