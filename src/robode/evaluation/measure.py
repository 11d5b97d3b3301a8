"""From a network and data to rows in the store: plan, minus what is known, is the work; work gives rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from robode.certificates.radius import Certified, constants
from robode.config.config import Part, plain
from robode.config.instantiate import keyed
from robode.corruptions.perturbation import Perturbation
from robode.corruptions.protocols import EvaluationProtocol
from robode.data.batches import evaluating
from robode.data.info import DatasetInfo, Samples
from robode.data.module import DataModule, part, part_digest
from robode.errors import BadInput, Busy
from robode.evaluation.consistency import check_order, make_monotone
from robode.evaluation.copies import Copies, Found, sample_grid
from robode.evaluation.request import Described, Scope, SuiteRequest
from robode.evaluation.suite import Level, Plan, Row, levels, refusals, settings_digest
from robode.integrators.reference import with_reference_solver
from robode.masking.verdict import Judging, lines
from robode.network import Network, engine_of, parameter_count, weights_digest
from robode.quantities.quantity import Quantity, write_arrays
from robode.runs import lock
from robode.runs.code import canonical, measuring_codes, network_code
from robode.runs.origin import git_state
from robode.runs.progress import counted
from robode.runs.results import Store, append_numbers, read_numbers
from robode.runs.run import Run
from robode.tasks.classification import Classification

if TYPE_CHECKING:  # how a network is found changes no answer
    from robode.evaluation.target import EvaluationTarget

SHOWN_IMAGES, SHOWN_POINTS = 10, 500
FLOW = ("flow_ode", "flow_discrete")

Work = Sequence[tuple[Level, Row]]
Progress = Callable[[int, int], None]
Answers = dict[int, tuple[Row, Tensor]]
"""By place in the work: a row with its answer, and the score of each sample, (n,) float32 on the CPU."""


def measure(measurement: Measurement, found: EvaluationTarget, console: Console, scope: Scope) -> list[Row]:
    """All rows that the measurement asks for, in its order: those that results.csv has, and the others measured now.

    They are appended after each noisy copy of the split, with the score of each sample (runs.results), so a kill costs
    one copy at most. Another process that measures the same run is waited for, and its rows are known then. Quantities
    of the suite go to numbers.csv, and whether robust accuracies pass gradient-masking checks to masking.json.

    Raises:
        BadInput: the data have no such split, or results.csv is damaged.
        Busy: another process measures the run, and asked.wait is false.
        JobFailed: the disk refuses, or a certificate is broken (`check_order`).
    """
    run, network, data = found.run, found.network, found.data
    device = scope.device or _device(measurement.described)
    network.to(device)
    samples = part(data.split(scope.split, device), scope.limit, data.source)
    if measurement.described.fast:
        samples = part(samples, data.batch_size, data.source)
    digest = part_digest(data.digest, scope.limit, data.source)
    about = measurement.about(run, network, split=scope.split, checkpoint=found.checkpoint.stem, digest=digest)
    with held(run, console, scope.wait):
        rows = _rows(measurement, about, found, samples, console)
        check_order(run.folder, about.columns["weights"], scope.split, network_code(measurement.described.nodes))
        judging = Judging(run.folder, network, samples, data, digest, min(scope.verdicts, len(samples.target)))
        for line in lines(judging.judged(rows, console)):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        for row in measurement.numbers(about, run, network, data):
            console.print(f"{row['quantity']}: {row['value']:.4g} ({row['kind']})", highlight=False, soft_wrap=True)
        return rows


def _rows(
    measurement: Measurement, about: About, found: EvaluationTarget, samples: Samples, console: Console
) -> list[Row]:
    """The rows asked for; what results.csv lacks is measured now. Samples for the grid figure are of the test set."""
    folder = found.run.folder
    store = Store(folder)
    asked = measurement.asked(about, len(samples.target))
    work = [(level, row) for level, row in asked if row not in store]
    rest = [name for name in measurement.quantities if not measurement.knows(name, folder, about.columns["weights"])]
    _say(console, len(asked), len(work), rest)
    if about.columns["split"] == "test" and (work or not (folder / "samples.npz").is_file()):
        measurement.save_samples(found.run, found.network, *samples)
    if work:
        with counted(console, "evaluation") as progress:
            for answers in measurement.answers(found.network, *samples, work, progress):
                store.add([row for row, _ in answers.values()], [scores.numpy() for _, scores in answers.values()])
    # not only after a measurement: the process that measured may have been killed before it
    make_monotone(store, measurement.plan.info.task)
    return store.rows(row for _, row in asked)


def held(run: Run, console: Console, wait: bool = True) -> AbstractContextManager[None]:
    """One process at a time measures a run. Raises `Busy` where another one does and `wait` is false."""

    @cache
    def say_once() -> None:
        if not wait:
            raise Busy(f"run {run.id} is being evaluated by another process; wait for it or stop it")
        console.print(f"waiting for the process that evaluates {run.id}", highlight=False, soft_wrap=True)

    return lock.held(run.folder / ".evaluation.lock", say_once)


def _say(console: Console, asked: int, missing: int, rest: list[str]) -> None:
    """What need not be measured any more. rest: the quantities that have to be."""
    rows = f"{asked} {'row' if asked == 1 else 'rows'}"
    if not missing and rest:
        line = f"evaluation: results.csv has all {rows}; what is left: {', '.join(rest)}"
    elif not missing:
        line = f"nothing to evaluate: results.csv has what was asked for ({rows})"
    elif missing < asked:
        line = f"evaluation: results.csv has {asked - missing} of {asked} rows"
    else:
        return
    console.print(line, highlight=False, soft_wrap=True)


def _device(network: Described) -> torch.device:
    """Where the run was trained, if that is here."""
    gpu = network.on_gpu and torch.cuda.is_available()
    return torch.device("cuda:0" if gpu else "cpu")


def evaluate_suite(network: nn.Module, x: Tensor, targets: Tensor, plan: Plan, batch_size: int = 500) -> list[Row]:
    """Every row of the plan with its answer, in its order; see `answered`."""
    work, found = plan.rows(), Answers()
    for answers in answered(network, x, targets, plan, work, batch_size):
        found |= answers
    return [found[place][0] for place in range(len(work))]


def answered(
    network: nn.Module,
    x: Tensor,
    targets: Tensor,
    plan: Plan,
    work: Work,
    batch_size: int = 500,
    progress: Progress = lambda done, total: None,
) -> Iterator[Answers]:
    """The answers to some rows of the plan, one noisy copy of the data after the other: the mean score on perturbed
    copies of x (n, *shape; uint8 images or data units) with targets (n, ...).

    Outputs that are not finite have the task's worst score. Noise is a function of (seed, repeat, image index), shared
    by all severities: rows of different networks or severities are paired, and neither `batch_size` (rounded up to
    whole noise blocks) nor what is not in `work` changes it. Everything runs on the network's device; x may lie there
    already. progress: gets (images done, images to do).
    """
    attacked = work and any(level.perturbation.attacks for level in levels(plan.suite, plan.protocol, plan.info))
    copies = Copies(network, plan.protocol, plan.info, plan.seed, with_reference_solver(network) if attacked else None)
    done, total = 0, len(targets) * len(work)

    def add(images: int) -> None:
        nonlocal done
        done += images
        progress(done, total)

    with evaluating(network), evaluating(copies.reference or network):
        copies.prepare(list(_wanted(work)))
        for repeat in sorted({row["repeat"] for _, row in work}):
            places = [place for place, (_, row) in enumerate(work) if row["repeat"] == repeat]
            chosen = [work[place] for place in places]
            found = copies.measure(_wanted(chosen), repeat, x, targets, batch_size, add)
            rows = [row | answer for (_, row), answer in zip(chosen, _answers(found), strict=True)]
            yield dict(zip(places, zip(rows, found.scores, strict=True), strict=True))


def _wanted(work: Work) -> dict[Perturbation, list[float]]:
    """The levels of the work by perturbation, in its order, which keeps each one's rows together."""
    found: dict[Perturbation, list[float]] = {}
    for level, _ in work:
        found.setdefault(level.perturbation, []).append(level.severity)
    return found


def _answers(found: Found) -> Iterator[Row]:
    """What completes each row. Sums in float64 are exact where scores are 0 or 1."""
    n = found.scores.shape[1]
    for scores, reference, seconds in zip(found.scores, found.score_reference.tolist(), found.seconds, strict=True):
        yield {
            "n": n,
            "score": float(scores.double().sum()) / n,
            "score_reference": None if math.isnan(reference) else reference,
            "seconds": seconds,
        }


@dataclass(frozen=True)
class About:
    """The data that rows are about, and the columns that they have in common."""

    data_digest: str
    columns: Row


@dataclass(frozen=True)
class Measurement:
    """What a suite asks for. described: what rows say of the network.

    quantities: the entries of the suite that give numbers and not scores of samples. codes: of each entry, the digest
    of the code that measures it; under "" that of what the protocol measures besides.
    notes: one line for each perturbation that is left out, because it makes no sense for these data, and for each
    setting that looks like a mistake.
    """

    described: Described
    plan: Plan
    quantities: Mapping[str, Quantity]
    notes: list[str]
    batch_size: int
    codes: Mapping[str, str]

    def check(self, network: nn.Module) -> None:
        """Raises `BadInput` where the suite asks for certificates or quantities that the network cannot have."""
        if any(isinstance(each, Certified) for each in self.plan.suite.values()):
            constants(network, self.plan.info.shape)
        if others := [name for name, each in self.quantities.items() if not each.suits(network)]:
            raise BadInput(f"suite: {', '.join(others)}: cannot be measured of this network; leave it out")

    def about(self, run: Run, network: nn.Module, *, split: str, checkpoint: str, digest: str) -> About:
        """What all rows of a network have in common. digest: of the data (`DataModule.digest`)."""
        described = self.described
        columns = {
            "run": run.id,
            "checkpoint": checkpoint,
            "weights": weights_digest(network),
            "experiment": described.experiment,
            "model": described.model,
            "data": described.data,
            "split": split,
            "depth": described.depth,
            "integrator": described.integrator,
            "seed": described.seed,
            "noise_seed": self.plan.seed,
            "solver": "",
            "engine": engine_of(network),
        }
        return About(digest, columns)

    def planned(self, data_digest: str) -> Work:
        """Every row without its answer and without what all rows of a network have in common."""
        names = {each: name for name, each in self.plan.suite.items()}
        return [
            (level, row | {"code": self.codes[names.get(level.perturbation, "")]})
            for level, row in self.plan.rows(data_digest)
        ]

    def asked(self, about: About, n: int) -> Work:
        """The rows that are asked for, without what is found, in the order of the suite. n: samples of the split."""
        return [(level, about.columns | row | {"n": n}) for level, row in self.planned(about.data_digest)]

    def answers(
        self, network: nn.Module, x: Tensor, target: Tensor, work: Work, progress: Progress = lambda done, total: None
    ) -> Iterator[Answers]:
        """What `answered` gives, with every column of results.COLUMNS. work: of `asked`."""
        task = self.plan.info.task
        same = {"params": parameter_count(network), "commit": git_state()["commit"], "task": str(task.measure)}
        same |= self.certificates(network)
        for answers in answered(network, x, target, self.plan, work, self.batch_size, progress):
            complete = {}
            for place, (row, scores) in answers.items():
                low, high = task.interval(scores.numpy())
                complete[place] = same | row | {"score_low": low, "score_high": high}, scores
            yield complete

    def rows(self, about: About, network: nn.Module, x: Tensor, target: Tensor) -> list[Row]:
        """All rows that are asked for, measured now; for a store of other rows than results.csv."""
        work, found = self.asked(about, len(target)), Answers()
        for answers in self.answers(network, x, target, work):
            found |= answers
        return [found[place][0] for place in range(len(work))]

    def certificates(self, network: nn.Module) -> dict[str, float]:
        """flow_ode, flow_discrete (nan without a flow) and end_to_end; inf where nothing is certified."""
        flow = network.flow.certificate() if isinstance(network, Network) else dict.fromkeys(FLOW, math.nan)
        try:
            return flow | {"end_to_end": constants(network, self.plan.info.shape).end_to_end}
        except BadInput:  # a part without a certified constant
            return flow | {"end_to_end": math.inf}

    def numbers(self, about: About, run: Run, network: nn.Module, data: DataModule) -> list[Row]:
        """Append the quantities that numbers.csv lacks for this network; the new rows."""
        found = []
        for name, quantity in self.quantities.items():
            if not self.knows(name, run.folder, about.columns["weights"]):
                same = {name: about.columns[name] for name in ("run", "checkpoint", "weights", "seed")}
                same |= {
                    "commit": git_state()["commit"],
                    "code": self.codes[name],
                    "settings": settings_digest(quantity),
                }
                found += [same | row for row in quantity.measure(network, data, run.folder)]
        if found:
            append_numbers(run.folder / "numbers.csv", found)
        return found

    def knows(self, name: str, folder: Path, weights: str, *, any_code: bool = False) -> bool:
        """Whether a run's folder has the quantity of this name for these weights, measured with these settings and by
        this code. any_code: or by any, even one that did not write down its settings."""
        quantity, numbers = self.quantities[name], read_numbers(folder / "numbers.csv")
        names = set(quantity.certain) or quantity.in_numbers()
        mine = numbers["weights"].isin([weights, ""]) & numbers["quantity"].isin(names)
        newest = numbers[mine].drop_duplicates("quantity", keep="last")
        settings, code = newest["settings"], newest["code"].map(canonical)
        same = settings == settings_digest(quantity)
        same = (same | (settings == "")) if any_code else (same & (code == self.codes[name]))
        return bool(same.all()) and quantity.known(folder, weights)

    def save_samples(self, run: Run, network: nn.Module, x: Tensor, target: Tensor) -> None:
        """samples.npz: a few samples under every perturbation with the predicted classes, for the grid figure; what the
        file shows of other perturbations of the same network and samples stays.

        Raises:
            JobFailed: the file cannot be written.
        """
        plan = self.plan
        image, task = len(plan.info.shape) == 3, plan.info.task
        if not isinstance(task, Classification) or not image and plan.info.shape != (2,):
            return
        count = SHOWN_IMAGES if image else SHOWN_POINTS
        grid = sample_grid(network, x[:count], target[:count], plan)
        shown = np.stack([moved.numpy() for _, moved, _ in grid])
        arrays = {
            "x": np.moveaxis(shown, 2, -1) if image else shown,
            "labels": target[:count].cpu().numpy(),
            "predictions": np.stack([predictions.numpy() for _, _, predictions in grid]),
            "names": np.array([name for name, _, _ in grid]),
            "class_names": np.array(task.class_names),
            "about": np.array(f"{weights_digest(network)} {plan.protocol.name} {plan.seed}"),
        }
        write_arrays(run.folder / "samples.npz", arrays | _with_earlier(run.folder / "samples.npz", arrays))


def _with_earlier(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """x, predictions and names of samples.npz with the rows of the file itself that are not there anew."""
    with suppress(OSError, KeyError, ValueError, EOFError, BadZipFile), np.load(path, allow_pickle=False) as before:
        same = all(np.array_equal(before[name], arrays[name]) for name in ("about", "labels"))
        kept = ~np.isin(before["names"], arrays["names"]) & same
        rows = ("x", "predictions", "names")
        return {name: np.concatenate([arrays[name], before[name][kept]]) for name in rows} if kept.any() else {}
    return {}


def build_measurement(network: Described, request: SuiteRequest, info: DatasetInfo) -> Measurement:
    """What is asked of a network, for data of this kind.

    Raises:
        BadInput: perturbations or a protocol that cannot be built, or that do not fit the data.
    """
    protocol: EvaluationProtocol = request.protocol.build()
    built = _built(request.suite)
    quantities = {name: each for name, each in built.items() if isinstance(each, Quantity)}
    suite = {name: each for name, each in built.items() if name not in quantities}
    if not suite:
        raise BadInput("suite: expected something to score the network under, for example suite=[clean,eps_r]")
    reasons = refusals(suite, protocol, info) | {
        name: reason for name, each in quantities.items() if (reason := each.refusal(info))
    }
    for name, reason in reasons.items():
        if name in quantities or not suite[name].optional or len(suite) == 1:
            way = f"leave it out (suite.{name}=null), or choose a suite for all data, such as attacks_quick"
            raise BadInput(f"suite.{name}: {reason}; {way}")
    fitting = {name: each for name, each in suite.items() if name not in reasons}
    warnings = {name: each.warning(info.bounds) for name, each in fitting.items()}
    notes = [f"{name} is left out: {reason}" for name, reason in reasons.items()]
    notes += [f"suite.{name}.{warning}" for name, warning in warnings.items() if warning]
    return Measurement(
        described=network,
        plan=Plan(fitting, protocol, info, request.repeats, request.seed),
        quantities=quantities,
        notes=notes,
        batch_size=request.batch_size,
        codes=measuring_codes(network.nodes, plain(request.suite), plain(request.protocol)),
    )


def _built(suite: Mapping[str, Part]) -> dict[str, Any]:
    """The entries of a suite. Raises `BadInput` with the key of the entry that is wrong."""
    found = {}
    for name, entry in suite.items():
        with keyed(f"suite.{name}"):
            found[name] = entry.build()
    return found


def warnings_about(network: Network) -> list[str]:
    """One line for each thing that a user of these settings should know."""
    return network.flow.warnings()


def precision_warnings(network: Described) -> list[str]:
    """One line where the numbers are of another arithmetic than the training's: measurements are in float32."""
    known = network.precision in ("32", "32-true")
    return [] if known else [f"trained in {network.precision}, measured in float32"]
