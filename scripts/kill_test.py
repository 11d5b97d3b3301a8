"""Kill a sweep with SIGKILL at random moments until it is done, and count what was lost: `python scripts/kill_test.py`.

Several processes run the same small sweep at once. After each kill every file of every run is read: none may be
half-written, no training that was finished may be missing or begin again, no measured row may vanish. At the end
the results must be those of a sweep that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd
import torch
import yaml

import robode.api  # noqa: F401  what a forked process need not import any more
from robode.cli.main import main as main_of_robode

SWEEP = (
    "train", "-m", "data=double_moons", "data.limit_train=400", "model.width=4", "depth=2,3", "seed=0,1", "epochs=4",
    "batch_size=10", "suite=[clean,noise]", "suite.gaussian.var=0.05,0.2", "~suite.salt_and_pepper", "repeats=3",
    "trainer.threads=1",
)  # fmt: skip
RUNS = 4
SAME = ["weights", "perturbation", "severity", "repeat", "score", "n"]


def start(folder: Path) -> BaseProcess:
    """One process that works on the sweep in `folder`; forked, to be killed at work and not while it imports."""
    process = multiprocessing.get_context("fork").Process(target=work, args=(folder,))
    process.start()
    return process


def work(folder: Path) -> None:
    """What `robode train -m …` does in a process of its own. Exits with its code."""
    os.chdir(folder)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os._exit(main_of_robode(SWEEP))


def runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("outputs/default/*/config.yaml"))


def state(folder: Path) -> dict[str, tuple[bool, int, set[tuple[str, ...]]]]:
    """Of each run: is it trained, after how many epochs is last.ckpt, which rows has it. Reads every file whole."""
    found = {}
    for run in runs(folder):
        yaml.safe_load((run / "config.yaml").read_text())["depth"]
        status = json.loads((run / "status.json").read_text())
        for path in run.glob("*.json"):
            json.loads(path.read_text())
        epochs = [torch.load(path, weights_only=True)["epoch"] + 1 for path in run.glob("*.ckpt")]
        rows: set[tuple[str, ...]] = set()
        if (run / "results.csv").is_file():
            complete = (run / "results.csv").read_text().rpartition("\n")[0].splitlines()
            columns = complete[0].split(",") if complete else []
            chosen = [columns.index(name) for name in SAME] if columns else []
            rows = {tuple(line.split(",")[i] for i in chosen) for line in complete[1:]}
        found[run.name] = (bool(status.get("trained")), max(epochs, default=0), rows)
    return found


def lost(before: dict, after: dict) -> list[str]:  # type: ignore[type-arg]
    """What was there before and is not there after."""
    found = []
    for name, (trained, epoch, rows) in before.items():
        now = after.get(name, (False, 0, set()))
        found += [f"{name}: was trained"] if trained and not now[0] else []
        found += [f"{name}: had {epoch} epochs, has {now[1]}"] if now[1] < epoch else []
        found += [f"{name}: lost {len(rows - now[2])} rows"] if rows - now[2] else []
    return found


def finish(folder: Path) -> None:
    """Let one process end the sweep, undisturbed. Raises RuntimeError if it cannot."""
    process = start(folder)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the sweep ended with exit code {process.exitcode}")


def results(folder: Path) -> pd.DataFrame:
    frames = [pd.read_csv(run / "results.csv").assign(run=run.name) for run in runs(folder)]
    return pd.concat(frames)[["run", *SAME]].sort_values(["run", *SAME], ignore_index=True)


def disturb(folder: Path, kills: int, processes: int, longest: float, rng: random.Random) -> list[str]:
    """Kill `kills` working processes of the sweep; where it gets done, begin it anew. Returns what was lost."""
    complaints: list[str] = []
    working: list[BaseProcess] = []
    seen = state(folder)
    number = 0
    while number < kills:
        working = [process for process in working if process.is_alive()]
        if not working and len(seen) == RUNS and all(trained for trained, _, _ in seen.values()):
            finish(folder)  # says so if it cannot
            shutil.rmtree(folder / "outputs")
            seen = {}
        working += [start(folder) for _ in range(processes - len(working))]
        time.sleep(rng.uniform(0.1, longest))
        victim = rng.choice(working)
        if not victim.is_alive():
            seen = state(folder)
            continue
        victim.kill()
        victim.join()
        number += 1
        now = state(folder)
        complaints += lost(seen, now)
        seen = now
        trained = sum(1 for done, _, _ in now.values() if done)
        epochs, rows = sum(epoch for _, epoch, _ in now.values()), sum(len(found) for _, _, found in now.values())
        print(
            f"kill {number}: {trained} runs trained, {epochs} epochs and {rows} rows saved, {len(complaints)} lost",
            flush=True,
        )
    for process in working:
        process.join()
    return complaints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--longest", type=float, default=6.0, help="seconds between two kills, at most")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)  # forked threads would be missing
    with tempfile.TemporaryDirectory() as name:
        quiet, disturbed = Path(name) / "quiet", Path(name) / "disturbed"
        for folder in (quiet, disturbed):
            folder.mkdir()
        complaints = disturb(disturbed, given.kills, given.processes, given.longest, random.Random(given.seed))
        finish(disturbed)
        finish(quiet)
        expected, found = results(quiet), results(disturbed)
        doubled = int(found.duplicated(["run", *SAME]).sum())
        equal = expected.equals(found)
    print(f"{given.kills} kills: {len(complaints)} lost, {doubled} rows twice, results equal: {equal}")
    sys.exit(bool(complaints or doubled or not equal))


if __name__ == "__main__":
    main()
