"""Suites on a network, as complete rows of results.csv."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from robode.certificates.radius import Certified, constants
from robode.config.instantiate import build, build_each, to_plain
from robode.corruptions.perturbation import Perturbation
from robode.corruptions.protocols import EvaluationProtocol
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.evaluation.suite import Known, Progress, evaluate_suite, plan, refusals, sample_grid
from robode.network import Network
from robode.quantities.quantity import Quantity
from robode.report.style import write_whole
from robode.runs.code import canonical, measuring_codes
from robode.runs.environment import git_state
from robode.runs.records import append_numbers, read_numbers
from robode.runs.run import Run
from robode.tasks.classification import Classification
from robode.tasks.task import Task

SHOWN_IMAGES, SHOWN_POINTS = 10, 500
EVALUATION_BATCH = 200  # states of this size stay in a CPU's cache; 1000 took half as long again
FLOW = ("flow_ode", "flow_discrete")


@dataclass(frozen=True)
class About:
    """The data that rows are about, and the columns that they have in common."""

    data_digest: str
    columns: dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """Which perturbations are measured how. seed: of the noise. config: the run's, with the training's seed.

    quantities: the entries of the suite that give numbers and not scores of samples. codes: of each entry, the digest
    of the code that measures it; under "" that of what the protocol measures besides.
    left_out: one line for each perturbation or quantity that makes no sense for these data.
    """

    config: Mapping[str, Any]
    info: DatasetInfo
    suite: Mapping[str, Perturbation]
    quantities: Mapping[str, Quantity]
    left_out: list[str]
    protocol: EvaluationProtocol
    repeats: int
    seed: int
    batch_size: int
    codes: Mapping[str, str]

    def about(self, run: Run, network: nn.Module, *, split: str, checkpoint: str, digest: str) -> About:
        """What all rows of a network have in common. digest: of the data (`DataModule.digest`)."""
        return About(
            digest,
            {
                "run": run.id,
                "checkpoint": checkpoint,
                "weights": weights_digest(network),
                "experiment": self.config.get("experiment") or "",
                "model": self.config["model"]["name"],
                "data": self.config["data"]["name"],
                "split": split,
                "depth": self.config["depth"],
                "integrator": self.config["integrator"]["name"],
                "seed": self.config["seed"],
                "noise_seed": self.seed,
                "solver": "",
            },
        )

    def check(self, network: nn.Module) -> None:
        """Raises `BadInput` where the suite asks for certificates or quantities that the network cannot have."""
        if any(isinstance(each, Certified) for each in self.suite.values()):
            constants(network, self.info.shape)
        if others := [name for name, each in self.quantities.items() if not each.suits(network)]:
            raise BadInput(f"suite: {', '.join(others)}: cannot be measured of this network; leave it out")

    def asked(self, about: About, n: int) -> list[dict[str, Any]]:
        """The rows that are asked for, without what is found, in the order of the suite. n: samples of the split."""
        return [about.columns | row | {"n": n} for row in self.planned(about.data_digest)]

    def planned(self, data_digest: str) -> list[dict[str, Any]]:
        """Every row without its answer and without what all rows of a network have in common."""
        rows = plan(self.suite, self.protocol, self.info, self.repeats, data_digest)
        return [row | {"code": self.code_of(level.perturbation)} for level, row in rows]

    def code_of(self, perturbation: Perturbation) -> str:
        """The digest of the code that measures a perturbation of the suite, or of the protocol."""
        return self.codes[next((name for name, each in self.suite.items() if each is perturbation), "")]

    def rows(
        self,
        about: About,
        network: nn.Module,
        x: Tensor,
        target: Tensor,
        *,
        progress: Progress = lambda done, total: None,
        known: Known = lambda row: False,
        finished: Callable[[list[dict[str, Any]], list[np.ndarray]], None] = lambda rows, scores: None,
    ) -> list[dict[str, Any]]:
        """Rows with every column of records.COLUMNS. x: (n, *shape), uint8 or data units; target: (n, ...).

        known: rows that `asked` gives and that are not wanted again. finished: gets rows as soon as a noisy copy of the
        data is done, and the score of each sample, (n,) for each row.
        """
        same = about.columns | {
            "params": parameter_count(network), "commit": git_state()["commit"], **self.certificates(network)
        }  # fmt: skip

        codes = {row["evaluation"]: row["code"] for row in self.planned(about.data_digest)}

        def coded(row: dict[str, Any]) -> dict[str, Any]:
            return row | {"code": codes[row["evaluation"]]}

        complete: dict[tuple[Any, ...], dict[str, Any]] = {}

        def add(rows: list[dict[str, Any]], scores: list[Tensor]) -> None:
            each = [np.asarray(score, dtype=np.float32) for score in scores]
            pairs = zip(map(coded, rows), each, strict=True)
            new = [same | _with_interval(*pair, self.info.task) for pair in pairs]
            complete.update((_question(row), row) for row in new)
            finished(new, each)

        found = evaluate_suite(
            network, x, target, suite=self.suite, protocol=self.protocol, info=self.info, repeats=self.repeats,
            seed=self.seed, data_digest=about.data_digest, batch_size=self.batch_size, progress=progress,
            known=lambda row: known(about.columns | coded(row) | {"n": len(target)}), finished=add,
        )  # fmt: skip
        return [complete[_question(row)] for row in found]

    def certificates(self, network: nn.Module) -> dict[str, float]:
        """flow_ode, flow_discrete (nan without a flow) and end_to_end; inf where nothing is certified."""
        flow = network.flow.certificate() if isinstance(network, Network) else dict.fromkeys(FLOW, math.nan)
        try:
            return flow | {"end_to_end": constants(network, self.info.shape).end_to_end}
        except BadInput:  # a part without a certified constant
            return flow | {"end_to_end": math.inf}

    def numbers(self, about: About, run: Run, network: nn.Module, data: DataModule) -> list[dict[str, Any]]:
        """Append the quantities that numbers.csv lacks for this network; the new rows."""
        found = []
        for name, quantity in self.quantities.items():
            if not self.knows(name, run.folder, about.columns["weights"]):
                same = {name: about.columns[name] for name in ("run", "checkpoint", "weights", "seed")}
                same |= {"commit": git_state()["commit"], "code": self.codes[name]}
                found += [same | row for row in quantity.measure(network, data, run.folder)]
        if found:
            append_numbers(run.folder / "numbers.csv", found)
        return found

    def knows(self, name: str, folder: Path, weights: str) -> bool:
        """Whether a run's folder has the quantity of this name for these weights, and this code measured it."""
        numbers = read_numbers(folder / "numbers.csv")
        mine = numbers["weights"].isin([weights, ""]) & numbers["quantity"].isin(self.quantities[name].in_numbers())
        others = numbers[mine].drop_duplicates("quantity", keep="last")["code"].map(canonical) != self.codes[name]
        return not others.any() and self.quantities[name].known(folder, weights)

    def save_samples(self, run: Run, network: nn.Module, x: Tensor, target: Tensor) -> None:
        """samples.npz: a few samples under every perturbation with the predicted classes, for the grid figure.

        Raises:
            JobFailed: the file cannot be written.
        """
        image, task = len(self.info.shape) == 3, self.info.task
        if not isinstance(task, Classification) or not image and self.info.shape != (2,):
            return
        count = SHOWN_IMAGES if image else SHOWN_POINTS
        grid = sample_grid(
            network, x[:count], target[:count], suite=self.suite, protocol=self.protocol, info=self.info,
            seed=self.seed,
        )  # fmt: skip
        shown = np.stack([moved.numpy() for _, moved, _ in grid])
        arrays: dict[str, Any] = {
            "x": np.moveaxis(shown, 2, -1) if image else shown,
            "labels": target[:count].cpu().numpy(),
            "predictions": np.stack([predictions.numpy() for _, _, predictions in grid]),
            "names": np.array([name for name, _, _ in grid]),
            "class_names": np.array(task.class_names),
        }

        def write(path: Any) -> None:
            with path.open("wb") as file:
                np.savez_compressed(file, **arrays)

        write_whole(run.folder / "samples.npz", write)


def weights_digest(network: nn.Module) -> str:
    """12 hexadecimal digits of the SHA-256 of its state dict (names, types, values): the same on every device."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _question(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a row of a suite from the others."""
    return tuple(row[name] for name in ("evaluation", "perturbation", "norm", "severity", "repeat"))


def _with_interval(row: dict[str, Any], scores: np.ndarray, task: Task) -> dict[str, Any]:
    """A row of a suite with what its task says of it."""
    low, high = task.interval(scores)
    return row | {"task": str(task.measure), "score_low": low, "score_high": high}


def build_measurement(config: Mapping[str, Any], info: DatasetInfo, **choices: Any) -> Measurement:
    """What suite, protocol, repeats and seed of the config ask for; `choices` (and batch_size) go first.

    Raises:
        BadInput: perturbations or a protocol that cannot be built, or that do not fit the data.
    """
    chosen = {key: choices.get(key, config[key]) for key in ("suite", "protocol", "repeats", "seed")}
    protocol = build(chosen["protocol"], drop=("name",))
    built = build_each(chosen["suite"])
    quantities = {name: each for name, each in built.items() if isinstance(each, Quantity)}
    suite = {name: each for name, each in built.items() if name not in quantities}
    if not suite:
        raise BadInput("suite: expected something to score the network under, for example suite=[clean,eps_r]")
    of_perturbations = refusals(suite, protocol, info)
    reasons = {name: of_perturbations.get(each.name) for name, each in suite.items()}
    reasons |= {name: each.refusal(info) for name, each in quantities.items()}
    if all(reasons[name] for name in suite):
        raise BadInput(f"suite: nothing in it fits these data ({', '.join(map(str, reasons.values()))})")
    return Measurement(
        config=config,
        info=info,
        suite={name: each for name, each in suite.items() if not reasons[name]},
        quantities={name: each for name, each in quantities.items() if not reasons[name]},
        left_out=[f"{name} is left out: {refusal}" for name, refusal in reasons.items() if refusal],
        protocol=protocol,
        repeats=chosen["repeats"],
        seed=chosen["seed"],
        batch_size=choices.get("batch_size", EVALUATION_BATCH),
        codes=measuring_codes(config, to_plain(chosen["suite"]), to_plain(chosen["protocol"])),
    )


def warnings_about(network: Network) -> list[str]:
    """One line for each thing that a user of these settings should know."""
    return network.flow.warnings()


def precision_warnings(config: Mapping[str, Any]) -> list[str]:
    """One line where the numbers are of another arithmetic than the training's: measurements are in float32."""
    precision = config["trainer"]["precision"]
    return [] if str(precision) in ("32", "32-true") else [f"trained in {precision}, measured in float32"]
