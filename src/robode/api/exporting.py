"""A trained network for other programs: weights as safetensors, certificate, configuration, and a program for torch
alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robode import __version__
from robode.api.certification import FILE, certificate
from robode.api.exported import DATA, LOADER, PROGRAM, README, SAMPLE, WEIGHTS, described
from robode.api.programs import Program, program_of
from robode.certificates.radius import constants
from robode.config.config import ExportConfig
from robode.config.jobs import Result
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.evaluation.target import EvaluationTarget, of_run
from robode.files import make_folder, read_json, replace_by_copy, write_bytes, write_json, write_text
from robode.runs.identity import files_of
from robode.runs.origin import check_data
from robode.runs.progress import new_console
from robode.runs.run import Run

MEASURED = ("split", "data_digest", "clean", "certified", "smoothing")  # of the run's own certificate


@dataclass(frozen=True, kw_only=True, repr=False)
class Exported(Result):
    """What an export leaves. to: the folder; program: its program.pt2, None where torch.export records none."""

    to: Path
    program: Path | None


def run_export(config: ExportConfig) -> Exported:
    """Write `config.run` into the folder `config.to`: model.safetensors, certificate.json, config.yaml, data.json and
    README.md;
    where torch.export can record the network, program.pt2, with sample.pt and load.py, which need torch alone. No place
    of this machine stands in them, and no sample of the data.

    The constants are worked out anew, in float64; the certified accuracy is that of `robode certify`, where it was run
    for these weights and by this code.

    Raises:
        BadInput: no such run or checkpoint, one that other code trained (unless `config.code` is "any"), or data that
            are not those of the run.
        JobFailed: the disk refuses.
    """
    from safetensors.torch import save  # an extra; robode.config.validate says so where it is absent

    found, to = of_run(config), Path(str(config.to))
    _check_data(found.run, found.data)
    content = _certificate(found)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in found.network.state_dict().items()}
    program = program_of(found.network, found.data.info)
    make_folder(to)
    about = {"robode": __version__, "weights": content["weights"]}
    write_bytes(to / WEIGHTS, save(tensors, metadata=about))
    write_json(to / FILE, content)
    write_text(to / "config.yaml", found.run.published_config())
    for file in files_of(found.run.config().plain()).values():
        replace_by_copy(file, to / file.name)
    (to / DATA).unlink(missing_ok=True)  # of an earlier export
    if (about_data := described(found.data.info)) is not None:
        write_json(to / DATA, about_data)
    _write_program(to, program)
    write_text(to / README, _readme(content, program))
    left_out = f"{PROGRAM} is left out: {program}" if isinstance(program, str) else ""
    for line in filter(None, [found.run.unfinished, found.note, left_out, f"exported: {to}"]):
        new_console().print(line, highlight=False, soft_wrap=True)
    written = to / PROGRAM if isinstance(program, Program) else None
    return Exported(run=found.run.folder, to=to, program=written, other_code=bool(found.note))


def _certificate(found: EvaluationTarget) -> dict[str, Any]:
    """The constants, and the accuracies that the run's own certificate has for these weights and this code."""
    content = certificate(found, constants(found.network, found.data.info.shape))
    known = read_json(found.run.folder / FILE)
    if all(known.get(name) == content[name] for name in ("weights", "code")):
        content |= {name: known[name] for name in MEASURED if name in known}
    return content


def _write_program(to: Path, program: Program | str) -> None:
    """What an earlier export left there would be another network's."""
    if isinstance(program, Program):
        write_bytes(to / PROGRAM, program.program)
        write_bytes(to / SAMPLE, program.sample)
        write_text(to / LOADER, program.loader)
        return
    for name in (PROGRAM, SAMPLE, LOADER):
        (to / name).unlink(missing_ok=True)


def _readme(content: Mapping[str, Any], program: Program | str) -> str:
    """For whoever gets the folder."""
    shape = ", ".join(map(str, content["shape"]))
    alone = (
        f"* With torch alone: `python {LOADER}` checks `{PROGRAM}` on the made-up samples of `{SAMPLE}`; "
        f"`from load import load` gives the network."
        if isinstance(program, Program)
        else f"* There is no program for torch alone: {program}."
    )
    return f"""# {content["network"]}

A network of robode {content["version"]} for `{content["data"]}`: x (B, {shape}) float32 in data units to outputs.
Weights {content["weights"]}; certified Lipschitz constant of x to outputs in the 2-norm: {content["end_to_end"]}.

* With robode: `robode.load("FOLDER")` gives the network of `config.yaml` with the weights in `{WEIGHTS}`.
{alone}
* `{FILE}`: every certified constant, what it holds for, and the certified accuracies where they were measured.
"""


def _check_data(run: Run, data: DataModule) -> None:
    """Weights are exported without their data, too; where there are data, they must be those of the run."""
    try:
        data.prepare()
    except BadInput:  # not on this machine
        return
    check_data(run, data.digest)
