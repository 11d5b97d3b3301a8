"""How a training step grows with depth, width and batch, in time and in memory, with an engine and without."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from adjoint import Held
from measure import Row, in_turns
from setting import Setting

from robode.config.compose import Request, compose_trainings
from robode.ode import chain
from robode.training.assembly import assemble
from robode.training.callbacks import constrained

BASE = {"depth": 8, "model.width": 8, "batch_size": 100}
GROWS = {"depth": (4, 16, 32), "model.width": (4, 16), "batch_size": (25, 400)}


def step_of(model: str, sizes: dict[str, int]) -> Callable[[], None]:
    """One optimiser step with its projection on embedded digits, always the same batch."""
    words = [f"model={model}", "data=mnist5k", "data.limit_train=1000", *(f"{key}={n}" for key, n in sizes.items())]
    (config,) = compose_trainings(Request("train", tuple(words)))
    parts = assemble(config)
    module, (x, target) = parts.module, next(iter(parts.data.train_dataloader()))
    kept = constrained(parts.network)

    def step() -> None:
        module.optimizer.zero_grad()
        module.loss_of(x, target)[0].backward()
        module.optimizer.step()
        for each in kept:
            each.project_()

    return step


def kept_bytes(step: Callable[[], None]) -> int:
    """What autograd keeps at most."""
    held = Held()
    with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda kept: kept()):
        step()
    return held.peak


def peak(model: str, sizes: dict[str, int], engine: str) -> float:
    """MB by which the peak of five steps is above what a fresh process held before the first. Linux only."""
    words = [model, *(f"{key}={n}" for key, n in sizes.items())]
    done = subprocess.run(
        [sys.executable, __file__, *words],
        env=os.environ | {chain.CHOICE: engine},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def growth(setting: Setting) -> list[Row]:
    """A row for each size. other: the step of N=8, width 8, batch 100: a ratio below 1 says how much longer it got."""
    rows = []
    for engine in ("auto", chain.REFERENCE):
        os.environ[chain.CHOICE] = engine
        base = step_of(setting.model, BASE)
        base()
        for key, n in [("depth", BASE["depth"]), *((key, n) for key, values in GROWS.items() for n in values)]:
            sizes = BASE | {key: n}
            step = step_of(setting.model, sizes)
            step()
            ours, other = in_turns(step, base, 5 * setting.turns)
            notes = {
                "autograd keeps": f"{kept_bytes(step) / 1e6:.1f} MB",
                "peak grows by": f"{peak(setting.model, sizes, engine):.0f} MB",
            }
            rows.append(Row(f"{setting.model} {key}={n}, engine {engine}", "step", ours, other, notes=notes))
    os.environ[chain.CHOICE] = "auto"
    return rows


def main() -> None:
    """In a process of its own: MODEL key=value …, prints by how many MB its peak has grown."""
    model, *words = sys.argv[1:]
    sizes = {key: int(n) for key, _, n in (word.partition("=") for word in words)}
    step_of(model, sizes | {"batch_size": 2})()  # loads and compiles what every size needs
    step = step_of(model, sizes)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far, of imports, is forgotten
    before = memory("VmRSS")
    for _ in range(5):
        step()
    print((memory("VmHWM") - before) / 1e3)


def memory(name: str) -> int:
    """kB, as Linux counts them for this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
