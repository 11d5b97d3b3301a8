"""How long `robode runs` takes on a store of many runs, torch left alone: python bench/runs.py [NUMBER ...]."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from robode.config.compose import Request, compose_trainings
from robode.runs.code import training_code
from robode.runs.results import COLUMNS
from robode.runs.run import Run

NUMBERS = (100, 1_000, 10_000)
EPOCHS, ROWS, SCORES, FIGURES = 8, 11, 16, 8  # of each run; a default run has 11 rows and 12 pictures
NAMES = [f"flow/{name}" for name in range(24)] + ["train/loss", "validation/loss", "validation/accuracy"]
COMMAND = [
    sys.executable,
    "-c",
    "import sys; from robode.cli.main import main; main(['runs']); assert 'torch' not in sys.modules",
]


def make(outputs: Path, number: int) -> None:
    """Runs of a sweep over depth, seed and width, with as many files as trained ones, small ones."""
    config = compose_trainings(Request("train", ()))[0]
    Run(outputs).save_config(config)
    text = (outputs / "config.yaml").read_text()
    (outputs / "config.yaml").unlink()
    environment = json.dumps({"code_digest": training_code(config.plain())})
    log = [f"{epoch},{50 * epoch},{name},0.{500 + epoch}" for epoch in range(EPOCHS) for name in NAMES]
    for i in range(number):
        about = f"chnode-N{i % 10 + 1}-s{i // 10 % 100}-{i:08x}"
        run = outputs / "sweep" / about
        changed = text.replace("\ndepth: 8\n", f"\ndepth: {i % 10 + 1}\n").replace(
            "\nseed: 0\n", f"\nseed: {i // 10 % 100}\n"
        )
        changed = changed.replace("  width: 8\n", f"  width: {2 * (i // 1000) + 2}\n")
        files = {
            "config.yaml": changed,
            "status.json": json.dumps({"status": "done", "trained": True, "epoch": EPOCHS, "step": 400}),
            "environment.json": environment,
            "metrics.csv": "\n".join(["epoch,step,name,value", *log, ""]),
            "results.csv": "\n".join([",".join(COLUMNS), *(row(about, number) for number in range(ROWS)), ""]),
        }
        files |= dict.fromkeys(("best.ckpt", "last.ckpt", "report.html", "samples.npz", "bsm.csv", ".lock"), "")
        files |= {f"scores/{number}.npy": "" for number in range(SCORES)}
        files |= {f"figures/{number}.png": "" for number in range(FIGURES)}
        for name in ("scores", "figures"):
            (run / name).mkdir(parents=True)
        for name, content in files.items():
            (run / name).write_text(content)


def row(run: str, number: int) -> str:
    """A line of results.csv, the first of the clean test set."""
    said = {
        "run": run, "checkpoint": "best", "weights": run[-8:], "split": "test", "n": "500", "score": "0.9",
        "perturbation": "gaussian" if number else "clean", "task": "classification: accuracy (higher is better)",
    }  # fmt: skip
    return ",".join(said.get(name, "") for name in COLUMNS)


if __name__ == "__main__":
    before = 0.0
    for number in map(int, sys.argv[1:] or NUMBERS):
        with tempfile.TemporaryDirectory() as place:
            (outputs := Path(place) / "outputs").mkdir()
            make(outputs, number)
            began = time.perf_counter()
            done = subprocess.run(COMMAND, cwd=place, capture_output=True, text=True, check=True)
            seconds = time.perf_counter() - began
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu, before = used.ru_utime + used.ru_stime - before, used.ru_utime + used.ru_stime
            assert len(done.stdout.splitlines()) > number
            print(f"{number:6d} runs: {seconds:.2f} s from start to end, {cpu:.2f} s of CPU time")
