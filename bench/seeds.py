"""Ten seeds together (`robode train seeds=10`) beside one run and beside ten: where does it pay?

Training alone, without data loading, evaluation and figures. One separate run and one batch in turns in this process;
ten separate runs are ten times one (they share nothing). Peak memory is that of a fresh process each.

    python bench/seeds.py            # toy sets and image models
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from measure import machine
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from robode.composition import Request, compose_jobs, hydra_session
from robode.runs import Run, create
from robode.training.assembly import assemble, build_loggers
from robode.training.batched import train_batched
from robode.training.trainer import fit

SETTINGS = {
    "fig1, CH-NODE, 6 points": ["experiment=chnode_2022/fig1", "model=chnode", "epochs=300"],
    "fig3, 16 layers, 4 000 points": ["experiment=chnode_2022/fig3", "model=chnode", "epochs=10"],
    "double moons, N=8": ["data=double_moons", "callbacks=default", "epochs=5"],
    "mnist5k, chnode N=4": ["data=mnist5k", "depth=4", "callbacks=default", "epochs=1"],
    "mnist5k, hdnn N=4": ["data=mnist5k", "model=hdnn", "depth=4", "callbacks=default", "epochs=1"],
    "mnist5k, resnet N=4": ["data=mnist5k", "model=resnet", "depth=4", "callbacks=default", "epochs=1"],
}
QUIET = Console(file=io.StringIO())


def compose(words: Sequence[str], seeds: Sequence[int]) -> list[DictConfig]:
    with hydra_session("train") as session:
        return [compose_jobs(session, Request("train", (*words, f"seed={seed}")))[0] for seed in seeds]


def alone(config: DictConfig, folder: Path) -> float:
    """Seconds of one separate training."""
    parts = assemble(config, QUIET)
    parts.module.run = create(Run(folder / "alone"), config)
    parts.trainer.loggers = build_loggers(config.logger, parts.module.run)
    start = time.perf_counter()
    fit(parts.trainer, parts.module, parts.data)
    return time.perf_counter() - start


def together(configs: Sequence[DictConfig], folder: Path) -> float:
    """Seconds of all of them in one batch."""
    runs = [create(Run(folder / f"seed{config.seed}"), config) for config in configs]
    parts = assemble(configs[0], QUIET)
    start = time.perf_counter()
    failures = train_batched(configs, runs, QUIET, parts)
    assert not any(failures), failures
    return time.perf_counter() - start


def peak(name: str, seeds: int, threads: int) -> float:
    """Peak resident memory in GiB of a fresh process that trains so many seeds together (1: separately)."""
    command = [sys.executable, __file__, "--peak-of", name, "--seeds", str(seeds), "--threads", str(threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def trained_once(words: Sequence[str], seeds: int) -> float:
    configs = compose(words, range(1, seeds + 1))
    with TemporaryDirectory() as folder:
        together(configs, Path(folder)) if seeds > 1 else alone(configs[0], Path(folder))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compared(name: str, args: argparse.Namespace) -> list[str]:
    """The cells of one line of the table."""
    configs = compose(SETTINGS[name], range(1, args.seeds + 1))
    one, many = [], []
    for _ in range(args.turns):
        with TemporaryDirectory() as folder:
            one.append(alone(configs[0], Path(folder)))
            many.append(together(configs, Path(folder)))
    ratio = statistics.median(b / a for a, b in zip(one, many, strict=True))
    memory = f"{peak(name, 1, args.threads):.1f} and {peak(name, args.seeds, args.threads):.1f}"
    seconds = [f"{statistics.median(each):.1f} s" for each in (one, many)]
    return [*seconds, f"{ratio:.2f}", f"{args.seeds / ratio:.2f}", memory]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=tuple(SETTINGS), default=tuple(SETTINGS))
    parser.add_argument("--peak-of", choices=tuple(SETTINGS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak_of:
        print(trained_once(SETTINGS[args.peak_of], args.seeds))
        return
    facts, console = machine(), Console(width=120)
    names = ("what", "one run", f"{args.seeds} together", "together / one", f"{args.seeds} runs / together", "peak GiB")
    table = Table(*names, title=f"training alone, {args.threads} threads, median of {args.turns} turns")
    for name in args.only:
        table.add_row(name, *compared(name, args))
    console.print(table)
    console.print(f"load {facts['load_before']:.1f} before, {os.getloadavg()[0]:.1f} after; {facts['cores']} cores")


if __name__ == "__main__":
    main()
