"""Where a training step's time goes: CPU time of the forward pass with its loss, the backward pass, the optimiser and
the projection, for any model, on one thread. CPU time says nearly the same beside other work; wall time does not.

    python bench/steps.py model=chnode model=lyanet "model=stable_node depth=10"
"""

from __future__ import annotations

import sys
import time
from statistics import median

import _prepared  # noqa: F401
import torch

from robode.config.compose import Request, compose_trainings
from robode.training.assembly import assemble
from robode.training.callbacks import constrained

DEFAULT = (
    "model=chnode depth=8", "model=hdnn depth=8", "model=resnet depth=8", "model=node", "model=gradient_flow depth=4",
    "model=gradient_flow_conv depth=6", "model=stable_node", "model=lyanet", "model=continuous",
    "data=oscillator model=sympnet",
)  # fmt: skip
PARTS = ("forward", "backward", "optimiser", "projection")
STEPS = 12  # the first two are not counted


def measured(words: str) -> dict[str, float]:
    """Median milliseconds of each part, batches as the defaults have them."""
    data = [] if "data=" in words else ["data=mnist5k", "data.limit_train=1000"]
    (config,) = compose_trainings(Request("train", (*data, *words.split())))
    parts = assemble(config)
    network, optimizer, found = parts.network, parts.module.optimizer, []
    batches = list(parts.data.train_dataloader())
    for k in range(STEPS):
        x, target = batches[k % len(batches)]
        optimizer.zero_grad()
        times = [time.process_time()]
        loss, _ = parts.module.loss_of(x, target)
        times.append(time.process_time())
        loss.backward()  # type: ignore[no-untyped-call]
        times.append(time.process_time())
        optimizer.step()
        times.append(time.process_time())
        for module in constrained(network):
            module.project_()
        times.append(time.process_time())
        found.append([1e3 * (b - a) for a, b in zip(times, times[1:], strict=False)])
    return dict(zip(PARTS, (median(column) for column in zip(*found[2:], strict=True)), strict=True))


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'ms of CPU time a step':34} {'  '.join(f'{part:>10}' for part in PARTS)}       total")
    for words in sys.argv[1:] or DEFAULT:
        found = measured(words)
        cells = "  ".join(f"{found[part]:10.2f}" for part in PARTS)
        print(f"{words:34} {cells}  {sum(found.values()):10.2f}", flush=True)


if __name__ == "__main__":
    main()
