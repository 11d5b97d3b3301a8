"""A run is a folder: who makes it, how it is named, found again and described.

outputs/<experiment>/<run>/{config.yaml, status.json, environment.json, best.ckpt, last.ckpt, metrics.csv,
                            bsm.csv, results.csv, questions.json, samples.npz, figures/, report.html}
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypedDict, Unpack, cast

import yaml
from omegaconf import OmegaConf

from robode.config.allowed import HINTS
from robode.config.config import Node, TrainConfig, Value
from robode.config.explain import nearest
from robode.config.instantiate import check_targets
from robode.config.parse import parse
from robode.config.validate import check_name
from robode.errors import BadInput, JobFailed
from robode.files import make_folder, read_entries, replace_by_copy, write_json, write_text
from robode.runs import code as code_digest
from robode.runs.earlier import in_todays_words
from robode.runs.identity import ENDING, differences, files_of, run_id

OUTPUTS = Path("outputs")
REPLACED = ".replaced"  # where `force=true` moves what it trains anew
SILENCE = 60.0  # seconds without a heartbeat after which a run that says "running" is not
_changing = threading.RLock()  # the heartbeat changes status.json from a thread of its own


class Owner(TypedDict):
    """The process that has a run."""

    machine: str
    pid: int


class Status(TypedDict, total=False):
    """status.json. status: queued, running, done, failed or interrupted; trained: whether the training has come to its
    end; epoch, step: how many were done; heartbeat (seconds since 1970) and owner of the process that has the run."""

    status: str
    trained: bool
    epoch: int
    step: int
    warnings: list[str]
    error: str | None
    heartbeat: float
    owner: Owner


_KINDS = {
    "status": str, "trained": bool, "epoch": int, "step": int, "warnings": list, "error": str | None,
    "heartbeat": int | float, "owner": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """The folder of one training, and the files in it that are not tables."""

    folder: Path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def last(self) -> Path:
        """The checkpoint of the last finished epoch."""
        return self.folder / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint of the best score on validation data, where there are such data."""
        return self.folder / "best.ckpt"

    @property
    def exists(self) -> bool:
        """Whether the folder is a run's."""
        return (self.folder / "config.yaml").is_file()

    def config(self) -> TrainConfig:
        """The configuration of its training. Raises `BadInput` if it is damaged or not safe."""
        path = self.folder / "config.yaml"
        written = read_plain(path)
        try:
            check_targets(written)
            plain = in_todays_words(written)
            for key, file in files_of(plain).items():
                if (copied := self.folder / _copied(key, file)).is_file():
                    plain["model"] = {**cast(Node, plain["model"]), key: str(copied)}
            return parse(TrainConfig, plain)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from error

    def save_config(self, config: TrainConfig) -> None:
        """Write config.yaml, without what its values may be. Raises `JobFailed` if the disk refuses."""
        plain = config.plain()
        for group in plain.values():
            if isinstance(group, dict):
                for key in HINTS:
                    group.pop(key, None)
        write_text(self.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain)))

    def published_config(self) -> str:
        """config.yaml for others: of a place of this machine only its last name is left. Raises `BadInput`."""
        plain = read_plain(self.folder / "config.yaml")
        return OmegaConf.to_yaml({key: _without_places(value) for key, value in plain.items()})

    def status(self) -> Status:
        """status.json, without entries of another type than they should have."""
        found = read_entries(self.folder / "status.json", _KINDS)
        if not {"machine", "pid"} <= found.get("owner", {}).keys():
            found.pop("owner", None)
        return cast(Status, found)

    @property
    def state(self) -> str:
        """`state_of` its status.json."""
        return state_of(self.status())

    @property
    def damage(self) -> str:
        """One line where status.json is there and says no state; else empty."""
        path = self.folder / "status.json"
        return "" if self.status().get("status") or not path.exists() else f"{path}: is damaged, it says no state"

    @property
    def begun(self) -> bool:
        """Whether there are weights: of a finished training, or of one that can go on."""
        return self.last.is_file() or self.trained

    def of_other_code(self, plain: Node) -> bool:
        """Whether other code than this has made its weights. plain: the configuration of its training."""
        return self.begun and not code_digest.same(code_digest.recorded(self.folder), code_digest.training_code(plain))

    @property
    def trained(self) -> bool:
        """Whether the training has come to its end; what is still missing then are measurements. Where
        `robode clean` has taken last.ckpt away it cannot go on."""
        return bool(self.status().get("trained")) and (self.last.is_file() or self.best.is_file())

    @property
    def unfinished(self) -> str:
        """One line where the training has not come to its end, as numbers about its weights need it; else empty."""
        if self.trained or not self.exists:
            return ""
        status = self.status()
        place = ", ".join(f"{name} {status[name]}" for name in ("step", "epoch") if name in status)
        return f"run {self.id} is {self.state}{f' at {place}' if place else ''}: the numbers may not be final"

    def update(self, **changes: Unpack[Status]) -> None:
        """Change entries of status.json. Raises `JobFailed` if the disk refuses."""
        with _changing:
            write_json(self.folder / "status.json", {**self.status(), **changes})

    def warn(self, text: str) -> bool:
        """Remember a warning; False if it was there already."""
        warnings = self.status().get("warnings", [])
        if text in warnings:
            return False
        self.update(warnings=[*warnings, text])
        return True


def state_of(status: Status) -> str:
    """status, as far as it can be believed: a killed process cannot say any more that it was interrupted."""
    if status.get("status") == "running" and not time.time() - status.get("heartbeat", 0) <= SILENCE:
        return "interrupted"
    return str(status.get("status", "not started"))


def read_plain(path: Path) -> dict[str, Value]:
    """`plain_of` the config.yaml of a run. Raises `BadInput` naming the file."""
    try:
        return plain_of(path.read_text(encoding="utf-8"))
    except (BadInput, OSError, UnicodeError) as error:
        why = str(error) if isinstance(error, BadInput) else f"cannot be read ({type(error).__name__})"
        raise BadInput(f"{path}: {why}") from error


def plain_of(text: str) -> dict[str, Value]:
    """What a run's config.yaml says, whoever made it: as it stands, since robode writes what is resolved, and a
    reference could read this machine's environment or, to what is in the file already, fill its memory.

    Raises:
        BadInput: no YAML of a run, or one with references.
    """
    try:
        aliases = "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
        plain = {} if aliases else deepcopy(_read_once(text))
    except Exception as error:  # OmegaConf and YAML raise their own
        raise BadInput(f"expected the YAML of a run ({type(error).__name__}); is the file damaged?") from error
    if aliases or "${" in str(plain):
        raise BadInput("expected plain values, got references (${…}, &…, *…); write what they stand for")
    if not isinstance(plain, dict):
        raise BadInput(f"expected the YAML of a run, got a {type(plain).__name__}")
    return cast(dict[str, Value], plain)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads what OmegaConf writes: 1e-3 is a number, and nothing is a date."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@lru_cache(maxsize=10_000)
def _read_once(text: str) -> Value:
    """A report asks for the configuration of each run again and again. OmegaConf's own way takes ten times as long."""
    return cast(Value, yaml.load(text, _Loader))


def _without_places(node: Value) -> Value:
    if isinstance(node, dict):
        return {key: _without_places(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_places(value) for value in node]
    return Path(node).name if isinstance(node, str) and (os.path.isabs(node) or node.startswith("~")) else node


def locate(config: TrainConfig, data_digest: str, outputs: Path = OUTPUTS, anew: bool = False) -> Run:
    """The folder that this training has or will have; nothing is written.

    A folder of the right name may hold another training, because `resume=RUN epochs=…` changes what a run is.
    Such folders are passed over, except where the user chose the name. A run of this code goes before one of other
    code; anew: where there is none, the folder for a new one beside it.

    Raises:
        BadInput: the name in `run` is none, or belongs to another training.
    """
    plain, parent = config.plain(), outputs / config.experiment
    check_name(config.run)
    if config.run is not None:
        check_free(parent / config.run, config)
        return Run(parent / config.run)
    other: Run | None = None
    for each in _numbered(run_id(plain, data_digest)):
        run = Run(parent / each)
        if _difference(run.folder, plain):
            continue
        if not run.of_other_code(plain):
            return run if anew or run.exists or other is None else other
        other = other or run
    raise AssertionError("numbers do not end")


def check_free(folder: Path, config: TrainConfig) -> None:
    """Raises `BadInput` if the folder holds another training than `config` describes."""
    if differing := _difference(folder, config.plain()):
        key, there, asked = differing[0]
        raise BadInput(
            f"run={folder.name}: {folder} is there already and has {key}={there}, not {asked}; "
            f"choose another name or resume={folder.name}"
        )


def _difference(folder: Path, plain: Node) -> list[tuple[str, Value, Value]]:
    return differences(Run(folder).config().plain(), plain) if Run(folder).exists else []


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def create(run: Run, config: TrainConfig) -> Run:
    """The run's folder with config.yaml, if it is not there yet: queued, nothing done.

    Raises:
        JobFailed: the folder cannot be written.
    """
    make_folder(run.folder)
    for key, file in files_of(config.plain()).items():  # the original may move or change
        copied = run.folder / _copied(key, file)
        if file.is_file() and not (run.exists and copied.is_file()):
            replace_by_copy(file, copied)
    if not run.exists:
        run.update(status="queued", trained=False, epoch=0, step=0, warnings=[])
        run.save_config(config)  # last: a folder with this file is a run
    return run


def set_aside(run: Run) -> None:
    """Empty a run's folder for `force=true`: what was in it moves below REPLACED. Raises `JobFailed`."""
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime())
    shelf = run.folder.parent / REPLACED / f"{run.id}_{stamp}_{os.getpid()}"
    if shelf.parent.is_symlink():
        raise BadInput(f"{shelf.parent}: is a link, and nothing is moved to where it leads; remove it")
    try:
        shelf.mkdir(parents=True)
        for path in run.folder.iterdir():
            if path.name != ".lock":  # it is held
                path.rename(shelf / path.name)
    except OSError as error:
        raise JobFailed(f"cannot move {run.folder} aside: {error.strerror}") from error


def _copied(key: str, file: Path) -> str:
    """The name that a file of the model has in the run's folder: J.npy for model.J_file=anything.npy."""
    return key.removesuffix(ENDING) + file.suffix


def folders(outputs: Path) -> Iterator[str]:
    """Those with a config.yaml, without what `force=true` has set aside."""
    waiting = [str(outputs)]
    while waiting:
        folder = waiting.pop()
        if os.path.isfile(os.path.join(folder, "config.yaml")):
            yield folder
            continue
        with suppress(OSError), os.scandir(folder) as entries:  # gone meanwhile, or somebody else's
            waiting += [each.path for each in entries if each.name != REPLACED and each.is_dir(follow_symlinks=False)]


def digest_of(some: Iterable[Path]) -> str:
    """Six letters for these folders in this order, however each is written."""
    places = [os.path.relpath(folder.resolve(), Path.cwd()) for folder in some]
    return hashlib.sha256(" ".join(places).encode()).hexdigest()[:6]


def find(where: str | Path, key: str = "run", outputs: Path = OUTPUTS) -> tuple[Run, str | None]:
    """The run that `where` means (folder, run id under outputs/ or checkpoint) and the checkpoint's name. What is no
    run itself may have the name of one.

    key: the configuration key to name in a complaint.

    Raises:
        BadInput: there is no such run (the nearest name that there is), several, or the folder is not one.
    """
    path = Path(where).expanduser()
    folder, checkpoint = (path.parent, path.name) if path.is_file() else (path, None)
    if Run(folder).exists:
        return Run(folder), checkpoint
    name = str(path)
    below = path.parts and not path.is_absolute() and ".." not in path.parts and "\0" not in name
    known = outputs.glob(f"**/{glob.escape(name)}/config.yaml") if below else ()
    matches = sorted(path.parent for path in known if REPLACED not in path.parts)
    if len(matches) > 1:
        raise BadInput(f"{key}={name}: several runs have this name: {', '.join(map(str, matches))}; give the folder")
    if matches:
        return Run(matches[0]), None
    if path.exists():
        raise BadInput(f"{key}={name}: expected the folder of a run, but there is no config.yaml in {folder}")
    near = nearest(name, [_as_in(folder, name, outputs) for folder in folders(outputs)])
    hint = f"; did you mean '{near}'?" if near else ""
    raise BadInput(f"{key}={name}: expected a run folder, the name of a run under {outputs}/ or a .ckpt file{hint}")


def _as_in(folder: str, like: str, outputs: Path) -> str:
    """What a run is called by somebody who writes names like this one: alone, behind its experiment, or as a path."""
    if os.sep not in like:
        return os.path.basename(folder)
    return folder if like.startswith(str(outputs)) else os.path.relpath(folder, outputs)


def checkpoint_path(run: Run, name: str) -> Path:
    """best.ckpt, last.ckpt or another file of the run. best falls back to last: no validation data, no best.

    Raises:
        BadInput: the run has no such checkpoint.
    """
    path = run.folder / (name if name.endswith(".ckpt") else f"{name}.ckpt")
    if path == run.best and not path.is_file():
        path = run.last
    if not path.is_file():
        saved = ", ".join(sorted(p.name for p in run.folder.glob("*.ckpt"))) or "none yet: finish its first epoch"
        raise BadInput(f"checkpoint={name}: run {run.id} has no such checkpoint (it has {saved})")
    return path
