"""Fifteen small runs, every family and kind of data: are weights and results those of an earlier version, bit by bit?

    python scripts/bit_equality.py record FILE      train and measure with this version, write what was found
    python scripts/bit_equality.py compare A B      say what differs between two such files, run by run

One thread, float32. Bits depend on the processor and on torch, so both files must come from one machine.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

SMALL = ("epochs=2", "repeats=2", "trainer.threads=1")
IMAGES = ("data.limit_train=400", "data.validation=100", "depth=3")
TOY = ("data.limit_train=200", "data.validation=40", "depth=4")
SIX = ("data=six_points", "epochs=4", "depth=4")
ATTACKS = "suite=[noise,attacks_quick,certified]"
RUNS: dict[str, tuple[str, ...]] = {
    "chnode-etd-images": ("model=chnode", *IMAGES, ATTACKS),
    "chnode-published-images": (
        "model=chnode", "integrator=euler", "step=0.5", "model.gamma=script_mnist", "model.gamma_start=zero",
        "model.kappa=4e-4", "model.init_std=1", "objective=[cross_entropy,weight_smoothness]", *IMAGES,
        "protocol=chnode_2022", "callbacks=[default,robustness_sweep]",
    ),
    "chnode-imex-differentiable-circles": (
        "model=chnode", "integrator=imex", "model.gamma=differentiable", "data=double_circles", *TOY, ATTACKS,
    ),
    "chnode-euler-substeps-swissroll": (
        "model=chnode", "integrator=euler", "integrator.substeps=auto", "step=0.5", "data=swiss_roll", *TOY,
    ),
    "chnode-implicit-trainable-L-moons": (
        "model=chnode", "integrator=implicit_midpoint", "model.trainable_L=true", "model.width=4", "data=double_moons",
        *TOY,
    ),
    "chnode_dense-images": ("model=chnode_dense", "model.width=32", *IMAGES, ATTACKS),
    "chnode_lipschitz-images": ("model=chnode_lipschitz", "integrator=rk4", *IMAGES, "suite=[noise,certified]"),
    "hdnn-j2-images": ("model=hdnn", "model.J=j2", *IMAGES, "suite=[noise,corruptions]"),
    "hdnn-separable-moons": (
        "model=hdnn", "model.separable=true", "integrator=symplectic_euler", "model.width=4", "data=double_moons", *TOY,
        ATTACKS,
    ),
    "resnet-noisy-images": ("model=resnet", "objective=noisy_cross_entropy", "model.norm_bound=1.5", *IMAGES),
    "node-rk4-six": ("model=node", "model.width=2", *SIX, "suite=[clean,eps_r]"),
    "node-dopri5-circles": ("model=node", "integrator=dopri5", "model.hidden=[]", "data=double_circles", *TOY, ATTACKS),
    "gradient_flow-images": (
        "model=gradient_flow", "model.width=32", "objective=margin_cross_entropy", *IMAGES,
        "suite=[noise,attacks_quick,certified,smoothing]", "suite.smoothing.n=200", "suite.smoothing.radii=[0,0.1]",
    ),
    "gradient_flow_conv-adversarial-images": (
        "model=gradient_flow_conv", "model.width=4", "objective=adversarial", *IMAGES, "data.limit_train=200", ATTACKS,
    ),
    "lipschitz_mlp-two-samples": (
        "model=lipschitz_mlp", "model.width=8", "objective=margin_hinge", "data=two_samples", *TOY, ATTACKS,
    ),
}  # fmt: skip
# What a row says about the machine, the commit or the name of things, and not about a measurement.
LEFT_OUT = {"run", "weights", "evaluation", "seconds", "commit", "code", "task", "experiment"}

# Beginnings of words of earlier versions.
RENAMED = {
    "sound": "data_space", "score_finer": "score_reference", "standard_": "ensemble_", "minimal_": "fmn_",
    "masking/believable": "masking/passes",
}  # fmt: skip


def record(target: Path) -> None:
    """Run everything in a folder of its own and write weights and rows of each run. Raises where a run fails."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, words in RUNS.items():
            command = [sys.executable, "-m", "robode", "train", *SMALL, *words, f"run={name}", f"seed={len(name)}"]
            source = str(Path(__file__).resolve().parents[1] / "src")
            env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source}
            subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
            (run,) = Path(folder, "outputs").glob(f"*/{name}")
            found[name] = {"weights": weights(run / "last.ckpt"), "rows": rows(run)}
            print(name, flush=True)
    about = {"torch": torch.__version__, "processor": torch.backends.cpu.get_cpu_capability()}
    target.write_text(json.dumps({"about": about, "runs": found}, indent=1) + "\n")


def weights(checkpoint: Path) -> list[list[str]]:
    """[shape and type, digest] of every tensor of the network, in its order; names are left out, they may change."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")["state_dict"]
    return [[f"{tuple(v.shape)} {v.dtype}", digest(v)] for v in state.values()]


def digest(value: torch.Tensor) -> str:
    return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()[:16]


def rows(run: Path) -> list[list[Any]]:
    """[file, what was measured, value] for every number in the tables of a run."""
    found: list[list[Any]] = []
    for name in ("results.csv", "robustness_sweep.csv", "numbers.csv", "metrics.csv", "bsm.csv"):
        if not (run / name).is_file():
            continue
        with (run / name).open(newline="") as file:
            for row in csv.DictReader(file):
                if row.get("score"):
                    row |= counted(row)
                kept = {key: value for key, value in row.items() if key not in LEFT_OUT}
                values = {key: kept.pop(key) for key in list(kept) if is_value(name, key)}
                about = " ".join(f"{value}" for value in kept.values() if value)
                found += [[name, f"{about} {key}", value] for key, value in values.items()]
    return found


def counted(row: dict[str, str]) -> dict[str, str]:
    """The columns of results.csv from when all scores were right answers, so that older records can be compared."""
    n, finer = int(row["n"]), row["score_reference"]
    found = {"correct": str(round(float(row["score"]) * n)), "accuracy": row["score"]}
    found["correct_finer"] = str(round(float(finer) * n)) if finer else ""
    return found | {"accuracy_low": row["score_low"], "accuracy_high": row["score_high"]}


def is_value(file: str, column: str) -> bool:
    """Whether a column holds what was found, and not what was asked."""
    if file in ("results.csv", "robustness_sweep.csv"):
        return column.startswith(("correct", "accuracy", "score", "flow_", "end_to_end"))
    return column in ("value", "low", "high") or column.startswith(("bsm_", "step_"))


def compare(before: Path, after: Path) -> int:
    """Print a table, one line a run. Returns how many runs differ."""
    one, two = (json.loads(path.read_text()) for path in (before, after))
    if one["about"] != two["about"]:
        print(f"not comparable: {one['about']} and {two['about']}")
        return 1
    differing = 0
    for name in one["runs"]:
        a, b = one["runs"][name], two["runs"].get(name, {"weights": [], "rows": []})
        missing = [each for each in a["weights"] if each not in b["weights"]]
        values = {(file, renamed(about)): value for file, about, value in b["rows"]}
        other = [(f, q, v, values.get((f, renamed(q)))) for f, q, v in a["rows"]]
        other = [each for each in other if each[2] != each[3]]
        differing += bool(missing or other)
        counts = f"{len(a['weights'])} tensors, {len(missing)} differ; {len(a['rows'])} values, {len(other)} differ"
        print(f"{name:42} {counts}{largest(other)}")
    return differing


def renamed(about: str) -> str:
    """What a record of an earlier version says of a value, in today's words."""
    for then, today in RENAMED.items():
        about = re.sub(rf"\b{then}", today, about)
    return about


def largest(differing: list[tuple[str, str, str, str | None]]) -> str:
    """The largest relative difference of each quantity that differs."""
    found: dict[str, float] = {}
    for _, about, value, now in differing:
        quantity = about.split()[-2] if about.endswith(" value") else about.split()[-1]
        gone = now in (None, "") or value == ""
        apart = float("inf") if gone else abs(float(now or "nan") / (float(value) or 1e-300) - 1)
        found[quantity] = max(found.get(quantity, 0.0), apart)
    return "".join(f"; {quantity} by {apart:.1e}" for quantity, apart in sorted(found.items()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["record"] and len(sys.argv) == 3:
        record(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["compare"] and len(sys.argv) == 4:
        sys.exit(compare(Path(sys.argv[2]), Path(sys.argv[3])) > 0)
    else:
        sys.exit(__doc__)
