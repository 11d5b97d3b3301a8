"""A small item of a paper with runs that never ran: rows of results.csv, files of scores, configurations."""

import copy
import functools
import json

import numpy as np
import pandas as pd
import yaml
from small_runs import composed

from robode.papers.spec import Item
from robode.report.layout import About, Column, Difference, TableRow
from robode.report.values import NUMBERS, ROWS, RUNS, combine
from robode.runs import results
from robode.runs.scores import write_scores
from robode.tasks.measure import CLASSIFICATION

SAMPLES = 400
SEEDS = (1, 2, 3)
COLUMNS = {
    "test": Column("test", perturbation="clean"),
    "s&p .2": Column("s&p .2", perturbation="salt_and_pepper", severity=0.2, protocol="chnode_2022"),
    "ε_r": Column("ε_r", quantity="eps_r", unit=""),
}
DIFFERENCES = (
    Difference("step size", "h = 0.1", "h = 0.5 <b>", "as the script"),
    Difference("noise", "in [0, 1]", "after normalising", "protocol=chnode_2022"),
)
ROWS_OF_TABLE = (
    TableRow(
        "ResNet_1 & co", ("model=resnet", "depth=4"), SEEDS, "N = 4", {"test": 97.01, "s&p .2": 42.02, "ε_r": 0.21}
    ),
    TableRow("CH-NODE", ("model=chnode", "depth=4"), SEEDS, "N = 4", {"test": 60.0, "s&p .2": 99.9}),
    TableRow("CH-NODE", ("model=chnode", "depth=8"), SEEDS, "N = 8", {"test": 89.01}),
)
ITEM = Item(
    About("chnode_2022", "Robust classification", "Zakwan et al., 2023", DIFFERENCES),
    "table1", "Table I: accuracy under noise", COLUMNS, ROWS_OF_TABLE, experiment={"script": "chnode_2022/table1"},
)  # fmt: skip
MEAN = {(0, "test"): 0.97, (0, "s&p .2"): 0.5, (1, "test"): 0.9, (1, "s&p .2"): 0.6}
SPREAD = {(0, "s&p .2"): 0.1}  # over seeds: wide, undecided


def collected(outputs, with_bits=True):
    """Rows 0 and 1 of ITEM ran three times, row 2 never; the runs lie below `outputs`."""
    runs, rows, numbers = [], [], []
    for number, row in enumerate(ITEM.rows):
        for seed in row.seeds:
            about = {"row": number, "label": row.label, "group": row.group, "seed": seed}
            if number == 2:
                runs.append(about | {"status": "not started", "mark": False})
                continue
            folder = outputs / "chnode_2022" / "table1" / f"run-{number}-s{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.yaml").write_text(
                yaml.safe_dump({"model": {"name": row.label}, "depth": 4, "seed": seed})
            )
            runs.append(about | facts(folder, number, seed))
            rows += [line for column in ("test", "s&p .2") for line in copies(about, column, folder, with_bits)]
            if number == 0:
                bounds = (("certified_lower", 0.6 + seed / 100), ("attack_upper", 0.7 + seed / 100))
                numbers += [about | {"column": "ε_r", "kind": kind, "value": value} for kind, value in bounds]
    frames = ((runs, RUNS), (rows, ROWS), (numbers, NUMBERS))
    return combine(*(pd.DataFrame(lines, columns=list(names)) for lines, names in frames))


def facts(folder, number, seed):
    error = f"cannot write {folder}/last.ckpt: no space" if (number, seed) == (1, 3) else ""
    return {
        "run": folder.name, "folder": folder.as_posix(), "status": "done", "params": 63386, "train_seconds": 311.0,
        "flow_ode": 0.5 if number else float("inf"), "flow_discrete": 1060.0, "error": error,
        "mark": (number, seed) == (1, 2),
    }  # fmt: skip


def copies(about, column, folder, with_bits):
    """Rows of one cell: two noisy copies, or the clean set once; row 1 is right wherever row 0 is, and more often."""
    what, number, seed = COLUMNS[column], about["row"], about["seed"]
    share = MEAN[number, column] + SPREAD.get((number, column), 1 / SAMPLES) * (seed - 2)
    for repeat in range(1 if column == "test" else 2):
        order = np.random.default_rng((seed, repeat)).permutation(SAMPLES)
        right = order < round(SAMPLES * share) + 2 * repeat
        row = about | {
            "column": column, "checkpoint": "last", "weights": f"{number}{seed}", "split": "test", "noise_seed": seed,
            "protocol": "chnode_2022", "evaluation": f"e{len(column)}", "suite": "noise", "norm": "none",
            "perturbation": what.perturbation, "severity": what.severity or 0.0, "repeat": repeat, "n": SAMPLES,
            "task": str(CLASSIFICATION), "score": int(right.sum()) / SAMPLES,
        }  # fmt: skip
        if with_bits:
            write_scores(folder, row, right)
        yield row


def result_row(correct=80, **changes):
    """A row of results.csv as `robode train` writes it, of 100 samples or n, with these changes; correct: how many."""
    base = {
        "run": "r1", "checkpoint": "best", "weights": "0a1b2c3d4e5f", "experiment": None, "model": "chnode",
        "data": "mnist5k", "split": "test", "depth": 8, "integrator": "etd", "params": 10, "seed": 0,
        "protocol": "data_space", "noise_seed": 0,
        "evaluation": "89abcdef", "suite": "noise", "perturbation": "gaussian", "norm": "none", "severity": 0.05,
        "severity_unit": "variance", "space": "data", "solver": None, "repeat": 0, "n": 100,
        "flow_ode": 0.9, "flow_discrete": float("inf"), "seconds": 0.1, "commit": "abc",
    }  # fmt: skip
    row = base | changes
    return {"task": str(CLASSIFICATION), "score": correct / row["n"]} | row


def usual_config():
    """A whole config.yaml, which the tests change."""
    return copy.deepcopy(_composed().plain())


@functools.cache
def _composed():
    return composed("depth=4")


def run_folder(parent, seed, correct, **changes):
    """A run folder as `robode train` leaves it, as far as tables of runs read it; correct: of 100, under noise."""
    config = usual_config()
    for key, value in ({"data": {"name": "moons"}, "seed": seed, "lr": 0.1} | changes).items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    folder = parent / f"chnode-{seed}-{config['lr']}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "status.json").write_text(json.dumps({"status": "done", "trained": True}))
    (folder / "last.ckpt").touch()
    about = {
        "run": folder.name, "checkpoint": "last", "weights": "0a1b", "seed": seed, "noise_seed": seed, "split": "test",
        "protocol": "data_space", "evaluation": "e1", "n": 100, "model": "chnode", "data": "moons", "params": 10,
        "flow_ode": 0.9, "flow_discrete": 0.95, "task": str(CLASSIFICATION),
    }  # fmt: skip
    levels = (("clean", 0.0, 95), ("gaussian", 0.2, correct - 10), ("gaussian", 0.05, correct))
    rows = [
        dict.fromkeys(results.COLUMNS) | about | {"perturbation": name, "severity": severity, "score": right / 100}
        for name, severity, right in levels
    ]
    results.append_rows(folder / "results.csv", rows)
    return folder
