"""How long a store of many rows takes to be listed and reported: python bench/store.py [--runs 100] [--rows 1000]

One training is done for real, two layers on 40 points. Its folder is copied with other seeds and depths, and its rows
with other noise levels and copies, to 10^5 rows by default. Then `robode runs` and `robode report` read all of it.
"""

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from pathlib import Path

TRAINING = ["train", "data=double_moons", "data.validation=0.25", "data.limit_train=40", "model.width=4", "depth=2",
            "epochs=2", "suite=noise", "repeats=1", "callbacks=none", "run=first"]  # fmt: skip
COPIED = ("status.json", "environment.json", "questions.json", "metrics.csv")


def simulated(outputs: Path, runs: int, rows: int) -> int:
    """Fill outputs/ with copies of the run outputs/default/first. Returns how many rows there are."""
    from robode.runs.results import RESULTS, read_rows
    from robode.runs.table import records

    first = outputs / "default" / "first"
    known = records(read_rows(first / "results.csv"))
    clean, noisy = known[0], known[1]
    levels = max(1, rows // 20)
    config = (first / "config.yaml").read_text()
    contents = {name: (first / name).read_bytes() for name in COPIED}
    for number in range(runs):
        depth, seed = 2 + number // 50, number % 50
        folder = outputs / "default" / f"chnode-N{depth}-s{seed}-{number:08x}"
        folder.mkdir()
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        text = config.replace("depth: 2\n", f"depth: {depth}\n").replace("seed: 0\n", f"seed: {seed}\n")
        (folder / "config.yaml").write_text(text.replace("run: first\n", "run: null\n"))
        own = {"run": folder.name, "depth": depth, "seed": seed}
        copies = [noisy | own | {"severity": 0.01 * (1 + i % levels), "repeat": i // levels} for i in range(rows - 1)]
        RESULTS.append(folder / "results.csv", [clean | own, *copies])
    return runs * rows


def seconds(*words: str) -> float:
    """The CPU time that a command takes, without starting Python: it says nearly the same beside other work."""
    from robode.cli.main import main

    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = main(words)
    assert code == 0 and len(said.getvalue().splitlines()) > 10, said.getvalue()[-500:]
    return time.process_time() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        seconds(*TRAINING)
        count = simulated(Path("outputs"), given.runs, given.rows)
        found = {"runs": given.runs, "rows": count}
        for verb in ("runs", "report"):
            found[f"CPU seconds of robode {verb}"] = round(seconds(verb), 2)
        print(json.dumps(found))
