"""A GPU beside the CPU and beside a plain re-statement of the published code on the same card: seconds, ratios, and
whether the numbers are the same. It prints a table, and writes JSON with every turn.

    python bench/gpu.py --data-root DIR            # --quick: 5 000 digits and one batch size

Rows: a copy of memory (what the card can do); forward and backward of the network and of the flow alone, by each
engine, at batches of 100, 1 000 and 10 000; the same in a CUDA graph; an epoch, by a plain loop and by robode's own;
the noise suite, PGD-40, APGD-100, certificates; drawing the noise alone. Without a GPU it says so, and runs what it can
on the CPU with --cpu.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import lightning
import restatement
import torch
from measure import machine
from torch import Tensor, nn

from robode.attacks.apgd import APGD
from robode.attacks.pgd import PGD
from robode.certificates.radius import Certified
from robode.config.compose import Request, compose_jobs
from robode.config.config import TrainConfig
from robode.corruptions.noise import Clean, Gaussian, SaltAndPepper
from robode.corruptions.protocols import DataSpace
from robode.data.batches import in_units
from robode.data.info import DatasetInfo
from robode.data.vision import MNIST, MNIST5k
from robode.evaluation.measure import evaluate_suite
from robode.evaluation.suite import Plan, Suite
from robode.families.chnode import CHNode
from robode.integrators.etd import ETD
from robode.network import Network
from robode.ode import chain
from robode.runs.run import Run
from robode.training.assembly import assemble
from robode.training.captured import WARM, beside, recorded
from robode.training.trainer import fit

DEPTH, WIDTH = 8, 8
CLOSE = 1e-3  # of logits, between devices and engines, in float32
NOISE: Suite = {"gaussian": Gaussian([0.05, 0.2]), "salt_and_pepper": SaltAndPepper([0.05, 0.2])}
# suite, copies, images
SUITES: dict[str, tuple[Suite, int, int]] = {
    "noise suite, 4 levels": (NOISE, 10, 10_000),
    "PGD-40": ({"pgd_linf": PGD([0.1], steps=40)}, 1, 1000),
    "APGD-100": ({"apgd_linf": APGD([0.1], steps=100)}, 1, 1000),
    "certificates": ({"clean": Clean(), "certified": Certified([0.1, 0.3])}, 1, 10_000),
}  # fmt: skip


@dataclass
class Timing:
    """Seconds of each turn, and what else is known: bytes moved, what it is compared with, whether numbers agree."""

    what: str
    seconds: list[float]
    notes: dict[str, float | str | bool] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Bench:
    """Measures on one device, and waits for it."""

    def __init__(self, device: torch.device, turns: int) -> None:
        self.device, self.turns = device, turns
        self.found: list[Timing] = []

    def clock(self, action: Callable[[], object]) -> float:
        self.wait()
        begin = time.perf_counter()
        action()
        self.wait()
        return time.perf_counter() - begin

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def measure(self, what: str, action: Callable[[], object], turns: int | None = None) -> Timing:
        """The first call, which compiles and allocates, is not counted. Several calls a turn where one is short."""
        first = self.clock(action)
        calls = max(1, min(50, int(0.02 / max(self.clock(action), 1e-6))))
        seconds = [self.clock(lambda: [action() for _ in range(calls)]) / calls for _ in range(turns or self.turns)]
        timing = Timing(what, seconds, {"first call": round(first, 3)})
        self.found.append(timing)
        print(f"{what:62} {1e3 * timing.median:10.3f} ms", flush=True)
        return timing


def step_of(network: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], None]:
    def run() -> None:
        network.zero_grad()
        nn.functional.cross_entropy(network(x), labels).backward()  # type: ignore[no-untyped-call]

    return run


def in_a_graph(action: Callable[[], None]) -> Callable[[], None]:
    """The same recorded once and replayed. Raises `RuntimeError` where something looks at a value."""
    device = torch.device("cuda")
    with beside(device):
        for _ in range(WARM):
            action()
    return recorded(action, device)


def engines_of(flow: CHNode) -> Iterator[str]:
    """Those that take the flow where it is, torch's layers in turn last."""
    for name in (*chain.ENGINES, chain.REFERENCE):
        os.environ[chain.CHOICE] = name
        if flow.engine() == name:
            yield name
    os.environ[chain.CHOICE] = "auto"


def copying(bench: Bench) -> float:
    """Bytes a second of a copy that is too large for any cache, read and written."""
    source = torch.empty(2**28 if bench.device.type == "cuda" else 2**25, device=bench.device)
    target = torch.empty_like(source)
    timing = bench.measure("copy of memory", lambda: target.copy_(source))
    timing.notes["GB/s"] = round(2 * source.numel() * 4 / timing.median / 1e9, 1)
    return 2 * source.numel() * 4 / timing.median


def flows(bench: Bench, bandwidth: float, batches: tuple[int, ...]) -> None:
    """The flow alone, forwards and backwards, by each engine, eager and in a graph.

    "of a copy": bytes that any implementation has to move (the state in and out, its gradient in and out) over the
    time, as a share of the copy's.
    """
    for batch in batches:
        torch.manual_seed(0)
        flow = CHNode(WIDTH, DEPTH, ETD(), step=0.1).to(bench.device)
        y = torch.randn(batch, WIDTH, 28, 28, device=bench.device)
        least = 4 * y.numel() * 4

        def both(flow: CHNode = flow, y: Tensor = y) -> None:
            flow.zero_grad(set_to_none=False)
            flow(y).square().sum().backward()

        last: dict[str, Tensor] = {}
        for name in engines_of(flow):
            with torch.no_grad():
                last[name] = flow(y)
            timing = bench.measure(f"flow, batch {batch}, {name}", both)
            timing.notes["of a copy"] = round(least / timing.median / bandwidth, 3)
            timing.notes["same"] = bool((last[name] - next(iter(last.values()))).abs().max() < CLOSE)
            if bench.device.type == "cuda":
                try:
                    bench.measure(f"flow, batch {batch}, {name}, in a graph", in_a_graph(both))
                except RuntimeError as error:
                    print(f"flow, batch {batch}, {name}: no graph ({str(error).splitlines()[0]})")
        if len(last) > 1:
            gap = max(float((each - last[chain.REFERENCE]).abs().max()) for each in last.values())
            assert gap < CLOSE, f"engines differ by {gap}"


def networks(bench: Bench, info: DatasetInfo, x: Tensor, labels: Tensor) -> None:
    """A whole step's forward and backward pass, robode's network and the re-statement's, batch 100."""
    x, labels = x[:100].to(bench.device), labels[:100].to(bench.device)
    torch.manual_seed(0)
    ours = Network(info, CHNode(WIDTH, DEPTH, ETD(), step=0.1)).to(bench.device)
    plain, _, _ = restatement.set_up("chnode", DEPTH)
    plain = plain.to(bench.device)
    other = bench.measure("network, batch 100, re-statement", step_of(plain, x, labels))
    mine = bench.measure("network, batch 100, robode", step_of(ours, x, labels))
    mine.notes["ratio to the re-statement"] = round(other.median / mine.median, 2)


def epoch(bench: Bench, info: DatasetInfo, x: Tensor, labels: Tensor) -> Network:
    """One epoch, batch 100, Adam and the projection; a plain loop, data on the device."""
    torch.manual_seed(0)
    network = Network(info, CHNode(WIDTH, DEPTH, ETD(), step=0.1)).to(bench.device)
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    x, labels = x.to(bench.device), labels.to(bench.device)

    def run() -> None:
        for rows in torch.randperm(len(labels), device=bench.device).split(100):
            adam.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            adam.step()
            network.flow.project_()  # type: ignore[operator]

    bench.measure(f"epoch of {len(labels)} images, batch 100", run, turns=1)
    return network.eval()


class EpochSeconds(lightning.Callback):
    """How long each epoch took, validation and callbacks included."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.seconds = bench, [0.0]

    def on_train_epoch_start(self, *given: object) -> None:
        self.bench.wait()
        self.began = time.perf_counter()

    def on_train_epoch_end(self, *given: object) -> None:
        self.bench.wait()
        self.seconds.append(time.perf_counter() - self.began)


def trainings(bench: Bench, data: str, root: str) -> None:
    """Three epochs by `robode train`'s own loop, step by step and in blocks of replayed steps: the last one's time, and
    whether the weights are the same."""
    weights: dict[str, Tensor] = {}
    on = "gpu" if bench.device.type == "cuda" else "cpu"
    for trainer in (on, "captured"):
        words = ("model=chnode", f"depth={DEPTH}", f"data={data}", f"data.root={root}", "epochs=3")
        words += (f"trainer={trainer}", f"trainer.accelerator={on}")
        (job,) = compose_jobs(Request("train", words))
        assert isinstance(job.config, TrainConfig)
        parts, seconds = assemble(job.config), EpochSeconds(bench)
        parts.trainer.callbacks.append(seconds)  # type: ignore[attr-defined]
        with tempfile.TemporaryDirectory() as folder:
            parts.module.run = Run(Path(folder))
            fit(parts.trainer, parts.module, parts.data)
        weights[trainer] = torch.cat([each.detach().flatten() for each in parts.network.parameters()]).cpu()
        timing = Timing(
            f"epoch by robode train, trainer={trainer}", seconds.seconds[-1:], {"batches": parts.data.block or 1}
        )
        timing.notes["weights differ by"] = float((weights[trainer] - weights[on]).norm() / weights[on].norm())
        bench.found.append(timing)
        print(f"{timing.what:62} {1e3 * timing.median:10.1f} ms  {timing.notes}", flush=True)


def suites(bench: Bench, network: Network, x: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """Every suite on the device: seconds, and the scores, which another device has to give too."""
    scores = {}
    for name, (suite, repeats, count) in SUITES.items():
        plan = Plan(suite, DataSpace(), network.info, repeats=repeats)
        part, target = x[:count].to(bench.device), labels[:count].to(bench.device)
        bench.wait()
        begin = time.perf_counter()
        rows = evaluate_suite(network, part, target, plan, 1000)
        bench.wait()
        seconds = time.perf_counter() - begin
        scores[name] = [row["score"] for row in rows]
        bench.found.append(Timing(f"{name}, {min(count, len(x))} images", [seconds]))
        print(f"{name + f', {min(count, len(x))} images':62} {1e3 * seconds:10.1f} ms", flush=True)
    return scores


class NoForwardPass(nn.Module):
    """Logits for nothing, so that only the noise is timed."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 10)


def drawing(x: Tensor) -> Callable[[], object]:
    """Four levels of noise on the CPU, where it is drawn whatever the device."""
    labels = torch.zeros(len(x), dtype=torch.int64)
    return lambda: evaluate_suite(NoForwardPass(), x, labels, Plan(NOISE, DataSpace(), MNIST5k().info, repeats=1), 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default=os.environ.get("ROBODE_DATA", "../shared/data"))
    parser.add_argument("--quick", action="store_true", help="5 000 digits, small batches, three turns")
    parser.add_argument("--cpu", action="store_true", help="run on the CPU where there is no GPU")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/gpu.json"))
    args = parser.parse_args()
    if not torch.cuda.is_available() and not args.cpu:
        raise SystemExit("no GPU: nothing is measured (--cpu runs the same on the CPU)")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    full = not args.quick and (Path(args.data_root) / "MNIST/raw/train-images-idx3-ubyte").exists()
    source = MNIST(args.data_root) if full else MNIST5k()
    train, test = source.load()
    x, test_x = in_units(train.x), in_units(test.x)
    bench = Bench(device, 3 if args.quick else 7)
    bandwidth = copying(bench)
    flows(bench, bandwidth, (100,) if args.quick else (100, 1000, 10_000))
    networks(bench, source.info, x, train.target)
    network = epoch(bench, source.info, x, train.target)
    trainings(bench, "mnist" if full else "mnist5k", args.data_root)
    scores = suites(bench, network, test_x, test.target)
    bench.measure("drawing the noise alone, one copy", drawing(test_x[:10_000]), turns=1)
    facts = {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", **machine()}
    content = {"machine": facts, "rows": [asdict(each) for each in bench.found], "scores": scores}
    if device.type == "cuda":
        print("the same weights on either side, 200 images:")
        sides = (("gpu", bench), ("cpu", Bench(torch.device("cpu"), 1)))
        content["scores_of_200"] = {
            side: suites(each, copy.deepcopy(network).to(each.device), test_x[:200], test.target[:200])
            for side, each in sides
        }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
