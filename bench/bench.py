"""Speed of robode next to the plain re-statement of the published script (restatement.py): `make bench`.

Both sides run in this process with the same number of threads, in turns. Quote the ratios; the seconds belong
to one machine on one day. What is compared:

engines     the flow alone by its engine next to torch's layers in turn (the ratio), at several widths, depths, batches
floor       the flow next to the least that its operations and bytes take on this machine, with an engine and without,
            one thread; the ratio is how much of the time that is
growth      a training step at other depths, widths and batch sizes next to the usual one, with an engine and without:
            the ratio, what autograd keeps, and by how much the peak of a process grows
epoch       one epoch of training by the published recipe (euler, h = 0.5, kappa = 4e-4, the script's gamma):
            robode's own loop, with its callbacks and its log, against the plain loop
loading     test images -> noisy batches, one copy of the test set for each of Table I's four noise levels
evaluation  the same with forward passes and accuracies
bsm         one BSM log next to one training step
norms       a step of gradient_flow_conv with cheap norms next to one with exact norms
slopes      bounds of the logarithmic norm of sigma(A y + b) and projections of A, one thread, CPU time
stabilise   epochs of the stabilised NODE by each way, and with the log of its log-norm, over unconstrained ones (the
            ratio), on synthetic images, one thread, CPU time
adjoint     a training step with integrator.gradient=adjoint next to one with backprop (the ratio), and what autograd
            keeps for either, one thread
lyapunov    LyaNet's Monte Carlo loss next to its materialised form, with the bytes of both, and a training step by it
            next to one through the solver, one thread
cli         wall time of the help pages, each in a fresh process

    python bench/bench.py --data-root ../shared/data
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import _prepared  # noqa: F401
import torch
from adjoint import adjoint
from engines import engines
from floor import floor
from growth import growth
from lyapunov import lyapunov
from measure import Row, machine
from parts import bsm, cli, epoch, evaluation, loading, norms
from rich.console import Console
from rich.table import Table
from setting import Setting
from slopes import slopes
from stabilising import stabilise

PARTS: dict[str, Callable[[Setting], Iterable[Row]]] = {
    "engines": engines,
    "floor": floor,
    "growth": growth,
    "epoch": epoch,
    "loading": loading,
    "evaluation": evaluation,
    "bsm": bsm,
    "norms": norms,
    "slopes": lambda setting: slopes(setting.turns),
    "stabilise": stabilise,
    "adjoint": adjoint,
    "lyapunov": lyapunov,
    "cli": cli,
}

MODELS = ("chnode", "hdnn", "resnet")  # those of the re-statement
OF_ONE = (
    "engines",
    "floor",
    "slopes",
    "stabilise",
    "adjoint",
    "lyapunov",
    "norms",
    "loading",
    "cli",
)  # whatever --model says
TABLE_WIDTH = 100


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default=os.environ.get("ROBODE_DATA", "../shared/data"))
    parser.add_argument("--model", choices=(*MODELS, "all"), default="chnode")
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--batches", type=int, default=None, help="of the epoch (default: all)")
    parser.add_argument("--segment", type=int, default=25, help="batches before the other side's turn")
    parser.add_argument("--turns", type=int, default=3, help="repetitions of the other parts")
    parser.add_argument("--workers", type=int, default=0, help="DataLoader workers of the re-statement")
    parser.add_argument("--threads", type=int, default=None, help="torch threads (default: torch's choice)")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    return parser.parse_args()


def table(rows: list[Row], setting: Setting) -> Table:
    """One line a comparison; ratios above 1 mean that robode was faster."""
    title = f"{setting.model}, N={setting.depth}, {setting.label}, {torch.get_num_threads()} threads"
    names = ("what", "robode", "re-statement", "ratio", "lowest-highest", "turns", "target")
    result = Table(*names, title=title)
    for row in rows:
        ours, facts = statistics.median(row.ours), row.summary()
        cells = [row.what, duration(ours), "", "", "", str(len(row.ours)), row.target]
        if row.other:
            spread = f"{facts['ratio_lowest']:.2f}-{facts['ratio_highest']:.2f}"
            cells[2:4] = [duration(facts["other_median"]), f"{facts['ratio']:.2f}"]
            cells[4] = spread if len(row.ours) > 1 else ""
        result.add_row(*cells)
    return result


def duration(seconds: float) -> str:
    """Seconds for people."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1e3 * seconds:.2f} ms"


def write(rows: list[Row], setting: Setting, facts: dict[str, Any], folder: Path) -> Path:
    """All raw seconds and the machine's facts as JSON; the file name is the time of day in UTC."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    path = folder / f"{now:%Y-%m-%dT%H%M%SZ}.json"
    content = {
        "date": now.isoformat(timespec="seconds"),
        "machine": facts,
        "setting": setting.facts(),
        "rows": [row.summary() for row in rows],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def main() -> None:
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    facts = machine()
    rows: list[Row] = []
    for model in MODELS if args.model == "all" else (args.model,):
        setting, parts = Setting.choose(args, model), [name for name in args.only if not rows or name not in OF_ONE]
        found: list[Row] = []
        for name in parts:
            with console.status(f"{name} …"):
                found += PARTS[name](setting)
        console.print(table(found, setting))
        rows += [replace(row, what=f"{model}: {row.what}") for row in found]
    console.print("ratio: re-statement over robode, median of pairs; the seconds are this machine's today")
    for row in rows:
        for note, value in row.notes.items():
            console.print(f"{row.what}: {note}: {value}")
    facts["load_after"] = os.getloadavg()[0]
    console.print(f"load average before {facts['load_before']:.1f}, after {facts['load_after']:.1f}")
    console.print(f"written to {write(rows, setting, facts, args.out)}")


if __name__ == "__main__":
    main()
