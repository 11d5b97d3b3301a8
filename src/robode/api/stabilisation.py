"""A trained network stabilised afterwards: a new run, and what the projection did to weights and score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robode.api.evaluation import Row
from robode.api.training import Trained, run_training
from robode.config.config import StabiliseConfig
from robode.evaluation.target import EvaluationTarget, trained
from robode.families.conv_stable_node import ConvLayerField
from robode.network import Network, weights_digest
from robode.quantities.log_norms import Layered, both_sides, layered_fields
from robode.runs import results
from robode.runs.progress import new_console
from robode.tasks.measure import measure_named
from robode.training.stabilise import stabilising
from robode.training.start import finished

SAMPLES = ("perturbation", "split", "n", "protocol")  # where two rows agree, they are about the same samples


@dataclass(frozen=True, kw_only=True, repr=False)
class Stabilised(Trained):
    """What a stabilisation leaves. delta_before, delta_after: (certified from below, certified from above) of the
    largest log-norm over slopes and layers; distance: ||A' - A||_F over all layers, of kernels where A is a
    convolution; relative: that over ||A||_F; score_before: of the run that was stabilised, on the same clean data
    (None where that was not measured)."""

    delta_before: tuple[float, float]
    delta_after: tuple[float, float]
    distance: float
    relative: float
    score_before: float | None


def run_stabilise(config: StabiliseConfig, wait: bool = True) -> Stabilised:
    """Make the run with the weights of `config.run`, projected (and, with epochs, trained on), unless it is there
    already; measure what is missing, and say what the projection did.

    Raises:
        BadInput: `stabilising`; weights that are not finite; a delta that their type does not reach; nothing is
            written.
        JobFailed: like `run_training`.
    """
    done = run_training(stabilising(config), wait=wait)
    _, checkpoint = finished(str(config.run), "run")
    before, after = (trained(where, code=config.code) for where in (checkpoint, done.run))
    fields = [_fields(each.network) for each in (before, after)]
    A, B = ([_weights(field) for field in {id(each): each for each in layers}.values()] for layers in fields)
    distance, size = _norm([b - a for a, b in zip(A, B, strict=True)]), _norm(A)
    found = Stabilised(
        **vars(done), delta_before=both_sides(fields[0]), delta_after=both_sides(fields[1]), distance=distance,
        relative=distance / size if size else 0.0, score_before=_clean(before, done.rows),
    )  # fmt: skip
    for line in _lines(found):
        new_console().print(line, highlight=False, markup=False, soft_wrap=True)
    return found


@torch.no_grad()
def _fields(network: torch.nn.Module) -> list[Layered]:
    """In float64."""
    assert isinstance(network, Network)
    return layered_fields(network, "stabilise")


def _weights(field: Layered) -> Tensor:
    """A of sigma(A u + b): a matrix, or the kernel of a convolution."""
    return field.A.kernel if isinstance(field, ConvLayerField) else field.jacobians().K


def _norm(matrices: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(each.detach().square().sum()) for each in matrices))


def _clean(target: EvaluationTarget, after: Sequence[Row]) -> float | None:
    """The score that the run's own table has for these weights on the clean samples of the rows `after`."""
    clean = next((row for row in after if row["perturbation"] == "clean"), None)
    known = results.read_rows(target.run.folder / "results.csv")
    if clean is None or not len(known):
        return None
    for name in SAMPLES:
        known = known[known[name] == clean[name]]
    known = known[known["weights"] == weights_digest(target.network)]
    return float(known["score"].iloc[-1]) if len(known) else None


def _lines(found: Stabilised) -> list[str]:
    """What was done, for people."""
    measure = measure_named(found.task)
    scores = ["not measured" if each is None else measure.text(each, 2) for each in (found.score_before, found.score)]
    sides = ["{:.6g} … {:.6g}".format(*each) for each in (found.delta_before, found.delta_after)]
    stay = "; the weights stay as they are" if not found.distance else ""
    return [
        f"delta (from below … from above): {sides[0]} before, {sides[1]} after",
        f"change of the weights A: {found.distance:.6g} in the Frobenius norm, {100 * found.relative:.3g} %{stay}",
        f"clean {measure.score_name}: {scores[0]} before, {scores[1]} after",
        f"stabilised: {found.run}",
    ]
