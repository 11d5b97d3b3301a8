"""The least that the main step can take on this machine: its operations counted, over what one core does a second.

The flow of CH-NODE, hdnn, resnet and residual is, per column and layer, y -> A y + B tanh(K y + b). Forwards that is
2 n k + n^2 multiplications (with additions) and k tanh (resnet, whose A = 1 and B = h are matrices here too, counts the
same: an engine does them). Backwards the products with A^T, B^T and K^T are as many; those of dB and dK are 2 n k (A
learns nothing); an engine that keeps nothing computes the states a second time. Bytes: the state in and out, its
gradient in and out, 4 bytes each; layer by layer every state goes through memory.

Rates are measured here: multiplications by the fastest product that is at hand, torch's of two matrices inside the
cache or the engine's g y^T of a tile (on some machines the first does not use the widest registers), bytes by a copy
that no cache holds. A tanh counts as the ten multiplications of the shortest rational function that float32 asks for
(scripts/fit_tanh.py); its division comes for free here. The floor is the time of the multiplications, or that of the
bytes if it is longer: an estimate, since nothing proves that no product is faster.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from engines import both_ways, by
from measure import Row, seconds
from setting import Setting

from robode.families.chnode import CHNode
from robode.integrators.etd import ETD
from robode.ode import chain

WIDTH, DEPTH, BATCH, PIXELS = 8, 8, 100, 784
OF_TANH = 10  # multiplications


@dataclass(frozen=True)
class Work:
    """What a forward and backward pass of a flow has to do. products: multiplications with an addition each."""

    products: int
    tanh: int
    bytes: int

    @classmethod
    def of(cls, width: int, depth: int, columns: int, again: bool) -> Work:
        """again: whether the backward pass computes the states a second time instead of keeping them."""
        forward, learned = 3 * width * width, 2 * width * width
        kept = 0 if again else 2 * 2 * depth * width  # states and hidden units, written and read
        return cls(
            products=((3 if again else 2) * forward + learned) * depth * columns,
            tanh=(2 if again else 1) * width * depth * columns,
            bytes=4 * columns * (4 * width + kept),
        )


@dataclass(frozen=True)
class Rates:
    """A second of one core: products, bytes."""

    products: float
    bytes: float

    @classmethod
    def here(cls) -> Rates:
        a, b = torch.randn(256, 256), torch.randn(256, 256)
        source = torch.empty(2**25)
        target = torch.empty_like(source)
        return cls(
            products=max(256**3 / best(lambda: torch.mm(a, b)), of_the_engine()),
            bytes=8 * source.numel() / best(lambda: target.copy_(source), 9),
        )

    def least(self, work: Work) -> float:
        """Seconds."""
        return max((work.products + OF_TANH * work.tanh) / self.products, work.bytes / self.bytes)


def of_the_engine() -> float:
    """Multiplications a second of numba's g y^T, 1 000 times on one tile; 0 where numba is not installed."""
    if "numba" not in chain.available():
        return 0.0
    from numba import njit

    from robode.ode.fused_numba import TILE, _products

    @njit
    def many(g, y, out):  # type: ignore[no-untyped-def]
        for _ in range(1000):
            _products(g, y, out, WIDTH, WIDTH)

    g, y = (torch.randn(WIDTH, TILE).numpy() for _ in range(2))
    out = torch.zeros(WIDTH, WIDTH).numpy()
    many(g, y, out)
    return float(1000 * WIDTH * WIDTH * TILE / best(lambda: many(g, y, out), 20))


def best(action: Callable[[], object], turns: int = 200) -> float:
    """Seconds of the fastest call, which nothing disturbed."""
    return min(seconds(action) for _ in range(turns))


def floor(setting: Setting) -> list[Row]:
    """A row for each way to compute. ours: the flow forwards and backwards, on one thread; other: its floor, so that
    the ratio is the share of the floor in it (1 = nothing to gain)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rates = Rates.here()
        torch.manual_seed(0)
        flow, y = CHNode(WIDTH, DEPTH, ETD(), step=0.1), torch.randn(BATCH, WIDTH, 28, 28)
        rows = []
        for engine in ("auto", chain.REFERENCE):
            os.environ[chain.CHOICE] = engine
            name, action = flow.engine(), by(engine, both_ways(flow, y))
            action()
            ours = [seconds(action) for _ in range(10 * setting.turns)]
            work = Work.of(WIDTH, DEPTH, BATCH * PIXELS, again=name != chain.REFERENCE)
            least = rates.least(work)
            notes = {
                "10^6 products": round(work.products / 1e6),
                "10^6 tanh": round(work.tanh / 1e6, 1),
                "MB": round(work.bytes / 1e6),
                "10^9 products, bytes a second": f"{rates.products / 1e9:.0f}, {rates.bytes / 1e9:.0f}",
                "floor": f"{1e3 * least:.2f} ms of {1e3 * statistics.median(ours):.2f}",
            }
            rows.append(Row(f"floor of the flow, N=8, engine {name}", "pass", ours, [least] * len(ours), notes=notes))
        return rows
    finally:
        torch.set_num_threads(threads)
        os.environ[chain.CHOICE] = "auto"
