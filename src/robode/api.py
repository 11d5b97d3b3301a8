"""What people import: train a network and load one, from Python. The verbs of the command line use the same functions.

from robode.api import load, train

trained = train(model="chnode", depth=4, epochs=1)
network = load(trained.run)            # x in data units -> outputs
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robode.cli.jobs import run_all
from robode.device import chosen_device
from robode.errors import BadInput, JobFailed
from robode.evaluation.target import trained as trained_network
from robode.network import Network


@dataclass(frozen=True)
class Trained:
    """What a training leaves: run and report (the folder and its page); score on the clean test set (None where the
    suite has no clean row); flow_ode and flow_discrete, the certified bounds; reused: whether an earlier training was
    found again; other_code: whether other code than this made it (code="any"); rows: what was measured, as in
    results.csv.
    """

    run: Path
    report: Path
    score: float | None
    flow_ode: float
    flow_discrete: float
    reused: bool
    other_code: bool
    rows: Sequence[dict[str, Any]]


def train(**overrides: Any) -> Trained:
    """What `robode train key=value …` does: find the run or make it, train what is missing, measure, write the page.

    overrides: the words of the command line; a key with a dot goes through a dictionary: train(model="chnode",
    **{"model.width": 16}). None is null, a list chooses several files of a group (suite=["noise", "clean"]).

    Raises:
        BadInput: what the command line refuses with exit code 2.
        JobFailed: a loss that is not finite, a disk that refuses.
    """
    if overrides.get("seeds") is not None:
        raise BadInput(f"seeds={overrides['seeds']}: expected one run at a time; call train once for each seed=…")
    words = [f"{key}={_word(value)}" for key, value in overrides.items()]
    (outcome,) = run_all("train", [words])
    if outcome.code:
        raise (BadInput if outcome.code == 2 else JobFailed)(outcome.error)
    found = outcome.result
    return Trained(
        run=Path(found["run"]), report=Path(found["report"]), score=found["score"], flow_ode=found["flow_ode"],
        flow_discrete=found["flow_discrete"], reused=not found["trained"], other_code=found["other_code"],
        rows=found["rows"],
    )  # fmt: skip


def load(run: str | Path, *, checkpoint: str = "best", device: str = "auto", code: str = "same") -> Network:
    """The network of a run, ready to be called: x (B, *shape) float in data units (images in [0, 1]) -> (B, outputs).

    run: its folder, its name, or a checkpoint in it. checkpoint: best or last. device: auto (a GPU where there is one),
    cpu or cuda. code: "any" takes a run that other code has trained, with a
    warning.

    Raises:
        BadInput: no such run, checkpoint or device, or other code trained the run. When it is called: x that is no
            floating-point tensor (bytes that were not scaled).
    """
    found = trained_network(run, checkpoint, code)
    if found.note:
        warnings.warn(found.note, stacklevel=2)
    network = found.network.to(chosen_device(device)).eval()
    assert isinstance(network, Network)
    return network


def _word(value: object) -> str:
    """A Python value as the command line says it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_word, value))}]"
    plain = isinstance(value, int | float) or str(value).replace("/", "").replace("_", "").replace(".", "").isalnum()
    return str(value) if plain else "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
