"""What Table I costs, ours and the plain re-statement's: measured on part of it, scaled to the whole (extrapolated).

For every cell (family and depth): some batches of one epoch, and one noisy copy of the test set at the four levels,
both sides in turns in this process. One training of the table has ten epochs and ten copies, on either side.

    python bench/table1.py --data-root ../shared/data --batches 200
"""

from __future__ import annotations

import argparse
import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import _prepared  # noqa: F401
import restatement
import torch
from measure import machine
from parts import epoch, evaluation
from rich.console import Console
from rich.table import Table
from setting import Setting

DEPTHS = (4, 8, 12)
BATCHES = 600  # of an epoch


def cell(model: str, depth: int, args: Namespace) -> dict[str, Any]:
    """Seconds of one training and its noise evaluation, scaled from what was measured. ours, other: (train, noise)."""
    given = Namespace(**vars(args), model=model, depth=depth, segment=25, turns=1, workers=0)
    setting = Setting.choose(given, given.model)
    trained, noise = epoch(setting)[0], evaluation(setting)[0]
    scale = restatement.EPOCHS * BATCHES / min(args.batches or BATCHES, BATCHES)
    return {
        "model": model,
        "depth": depth,
        "ours": [scale * trained.ours[0], restatement.COPIES * noise.ours[0]],
        "other": [scale * trained.other[0], restatement.COPIES * noise.other[0]],
    }


def table(cells: list[dict[str, Any]]) -> Table:
    """One line a cell, and the sum over all of them."""
    names = ("cell", "robode: train + noise", "re-statement: train + noise", "ratio")
    result = Table(*names, title="one training of each cell, minutes, extrapolated")
    for each in cells:
        ours, other = ([f"{seconds / 60:.1f}" for seconds in each[side]] for side in ("ours", "other"))
        name = f"{each['model']} N={each['depth']}"
        result.add_row(name, " + ".join(ours), " + ".join(other), f"{sum(each['other']) / sum(each['ours']):.2f}")
    ours, other = (sum(sum(each[side]) for each in cells) for side in ("ours", "other"))
    result.add_row("all", f"{ours / 60:.0f}", f"{other / 60:.0f}", f"{other / ours:.2f}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default=os.environ.get("ROBODE_DATA", "../shared/data"))
    parser.add_argument("--batches", type=int, default=None, help="of the epoch (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/table1.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    console, facts, cells = Console(), machine(), []
    for depth in DEPTHS:
        for model in restatement.FAMILIES:
            with console.status(f"{model} N={depth} …"):
                cells.append(cell(model, depth, args))
    console.print(table(cells))
    facts["load_after"] = os.getloadavg()[0]
    console.print(f"{args.threads} thread, load {facts['load_before']:.1f} before and {facts['load_after']:.1f} after")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": facts, "batches": args.batches, "cells": cells}, indent=1) + "\n")


if __name__ == "__main__":
    main()
