"""The certified constants of a network, what they are made of, and its certified accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from robode import __version__
from robode.api.evaluation import Evaluated, measured
from robode.certificates.radius import Constants, constants
from robode.config.config import CertifyConfig
from robode.device import chosen_device
from robode.evaluation.target import EvaluationTarget, target_of
from robode.files import write_json
from robode.network import weights_digest
from robode.report.tables import verdict
from robode.runs.code import network_code
from robode.runs.progress import new_console

FILE = "certificate.json"


@dataclass(frozen=True, kw_only=True, repr=False)
class Certified(Evaluated):
    """What a certification leaves. certificate: the file."""

    certificate: Path


def run_certify(config: CertifyConfig, wait: bool = True) -> Certified:
    """Print the certified constants and measure `config.suite`, in which `config.radii` replace those of `certified`;
    write certificate.json into the folder of the run or module, rows into its results.csv.

    Raises:
        BadInput: a layer without a known constant, or what `run_evaluation` refuses; nothing is written.
        JobFailed: the disk refuses, or a certificate is broken.
    """
    console = new_console()
    device = chosen_device(config.device)
    found = target_of(config)
    bounds = constants(found.network.to(device), found.data.info.shape)
    certified = config.suite["certified"]
    if config.radii is not None and certified is not None:
        asked = replace(certified, arguments={**certified.arguments, "radii": config.radii})
        config = replace(config, suite={**config.suite, "certified": asked})
    done = measured(found, config, console, wait)
    console.print(constants_table(bounds, title=escape(found.run.id)))
    result = done.report(console, wait)
    for line in vacuous(bounds, done.rows, found.data.info.task.worst):
        console.print(line, style="yellow", highlight=False, soft_wrap=True)
    path = found.run.folder / FILE
    measured_on = {"split": config.split, "data_digest": found.data.digest}
    write_json(path, certificate(found, bounds) | measured_on | scores(done.rows))
    console.print(f"certificate: {path}", highlight=False, soft_wrap=True)
    return Certified(**vars(result), certificate=path)


def constants_table(bounds: Constants, title: str) -> Table:
    """Each factor's constant with what it does to distances, their product, and the largest of the pairs."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in ("part", "bound", "says"):
        table.add_column(name, justify="right" if name == "bound" else "left")
    for name, value in bounds.parts.items():
        table.add_row(escape(name), f"{value:.6g}", verdict(value))
    table.add_section()
    if not math.isnan(bounds.flow_discrete):
        table.add_row("flow_ode", f"{bounds.flow_ode:.6g}", "the flow of the ODE")
        table.add_row("flow_discrete", f"{bounds.flow_discrete:.6g}", "the flow of the network that runs")
    table.add_row("end_to_end", f"{bounds.end_to_end:.6g}", "x -> output, per data unit: product of the parts")
    table.add_row(
        "pairs_max", f"{float(bounds.pairs.max()):.6g}", "x -> output i - output j, the largest: gives the radii"
    )
    return table


def vacuous(bounds: Constants, rows: Sequence[Mapping[str, Any]], worst: float) -> list[str]:
    """Where the certificate says nothing, in one line each; and which part costs most there. worst: of the task."""
    certified = {row["severity"]: row["score"] for row in rows if row["perturbation"] == "certified"}
    empty = [radius for radius, score in sorted(certified.items()) if score == worst]
    if not empty:
        return []
    lines = [f"vacuous from radius {empty[0]:g} on: no sample is certified there"]
    largest, value = max(bounds.parts.items(), key=lambda part: part[1])
    if value > 1:
        lines.append(f"the largest factor of the bound {bounds.end_to_end:.4g} is that of {largest}: {value:.4g}")
    return lines


def certificate(found: EvaluationTarget, bounds: Constants) -> dict[str, Any]:
    """What certificate.json says about a network, whatever the samples: constants, and what they are constants of;
    other_code: whether other code than this has trained it (code=any)."""
    return {
        "version": __version__,
        "network": found.about.get("module", found.run.id),
        "checkpoint": found.checkpoint.name,
        "weights": weights_digest(found.network),
        "code": network_code(found.described.nodes),
        "other_code": bool(found.note),
        "data": found.data.name,
        "shape": list(found.data.info.shape),
        "norm": "l2",
        "arithmetic": "upper bounds in float64, for the weights in exact arithmetic, x in data units",
        "parts": {name: number(value) for name, value in bounds.parts.items()},
        "flow_ode": number(bounds.flow_ode),
        "flow_discrete": number(bounds.flow_discrete),
        "end_to_end": number(bounds.end_to_end),
        "pairs_max": number(float(bounds.pairs.max())),
        "pairs": [[number(value) for value in row] for row in bounds.pairs.tolist()],
    }


def scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What certificate.json says about the samples of a split: clean and certified scores."""
    names = ("severity", "severity_unit", "n", "task", "score", "score_low", "score_high")

    def those(perturbation: str) -> list[dict[str, Any]]:
        return [{name: plain(row[name]) for name in names} for row in rows if row["perturbation"] == perturbation]

    return {name: those(name) for name in ("clean", "certified", "smoothing") if those(name)}


def plain(value: Any) -> Any:
    """Of a row, for JSON."""
    return number(value) if isinstance(value, float) else value


def number(value: float) -> float | str | None:
    """For JSON, which has no words for them: inf is "inf", nan (there is none) null."""
    return None if math.isnan(value) else str(value) if math.isinf(value) else value
