"""A trained network for other programs: weights as safetensors, certificate, configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robode import __version__
from robode.api.certification import FILE, certificate
from robode.certificates.radius import constants
from robode.config.config import ExportConfig
from robode.config.jobs import Result
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.evaluation.target import of_run
from robode.files import make_folder, read_json, write_bytes, write_json, write_text
from robode.runs.origin import check_data
from robode.runs.progress import new_console
from robode.runs.run import Run

MEASURED = ("split", "data_digest", "clean", "certified", "smoothing")  # of the run's own certificate


@dataclass(frozen=True, kw_only=True)
class Exported(Result):
    """What an export leaves. to: the folder."""

    to: Path


def run_export(config: ExportConfig) -> Exported:
    """Write model.safetensors, certificate.json and config.yaml of `config.run` into the folder `config.to`; no place
    of this machine stands in them.

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
    content = certificate(found, constants(found.network, found.data.info.shape))
    known = read_json(found.run.folder / FILE)
    if all(known.get(name) == content[name] for name in ("weights", "code")):
        content |= {name: known[name] for name in MEASURED if name in known}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in found.network.state_dict().items()}
    make_folder(to)
    about = {"robode": __version__, "weights": content["weights"]}
    write_bytes(to / "model.safetensors", save(tensors, metadata=about))
    write_json(to / FILE, content)
    write_text(to / "config.yaml", found.run.published_config())
    for line in filter(None, [found.run.unfinished, found.note, f"exported: {to}"]):
        new_console().print(line, highlight=False, soft_wrap=True)
    return Exported(run=found.run.folder, to=to, other_code=bool(found.note))


def _check_data(run: Run, data: DataModule) -> None:
    """Weights are exported without their data, too; where there are data, they must be those of the run."""
    try:
        data.prepare()
    except BadInput:  # not on this machine
        return
    check_data(run, data.digest)
