"""Where a run comes from. environment.json says on what it ran, by which code and on which data: enough to repeat it,
nothing that names the machine. Where code or data are not today's, nothing is done with the run unasked.

Other code may be used all the same (`code=any`): the weights are what they are, and † says so. Other data may not: what
would be measured is no property of the run.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from robode.config.config import Code, TrainConfig
from robode.errors import BadInput
from robode.files import read_entries, read_json, write_json
from robode.runs.code import CODE, RECORD, packages, recorded, source_of, training_code
from robode.runs.identity import config_hash
from robode.runs.run import Run, find

OTHER_CODE = "†"  # beside whatever other code than today's has made
SAME: Literal["same"] = "same"
ANY: Literal["any"] = "any"
CODES: tuple[str, ...] = get_args(Code)  # what the word `code` may be
# What a user can do instead of code=any.
FORCE, START = "force=true trains it again (run=NAME beside it)", "leave resume out to train it anew"
PACKAGES = ("robode", "torch", "lightning", "hydra-core", "omegaconf", "numpy", "torchdiffeq")
_KINDS = {
    "started": str, "wall_seconds": int | float | None, "train_seconds": int | float, "argv": list, "commit": str,
    "dirty": bool | None, "packages": dict, CODE: str,
    "versions": dict, "platform": str, "threads": int, "device": str, "precision": str, "config_hash": str,
    "data_digest": str, "engine": str, "start": dict, "earlier": dict,
}  # fmt: skip
OF_A_SESSION = ("started", "wall_seconds", "argv", "threads", "device", "engine", "commit", "dirty", CODE)


def check_code(run: Run, code: str, *ways: str) -> str:
    """What to say of a run before it is used: one line with † if other code made it and that was allowed, else "".

    code: one of `CODES`. ways: what a user can do besides code=any, for a complaint: FORCE, START.

    Raises:
        BadInput: other code made the run, or a version of robode that kept no digest of it, and code is "same".
    """
    plain = run.config().plain()
    if not run.of_other_code(plain):
        return ""
    there, here = recorded(run.folder), training_code(plain)
    made = (
        f"run {run.id} was trained by other code (digest {there}, this code has {here})"
        if there
        else f"run {run.id} was made by a version of robode that kept no digest of this kind (this code has {here})"
    )
    if code == ANY:
        return f"{OTHER_CODE} {made}"
    raise BadInput(f"{made}; {', '.join(['code=any uses it all the same', *ways])}")


def check_data(run: Run, digest: str) -> None:
    """Refuse data that are not those of the run. digest: `DataModule.digest` of what is there now. A run that wrote
    down none, because nothing was trained yet or an early version made it, is let through.

    Raises:
        BadInput: with both digests.
    """
    there = data_of(run.folder) if run.begun else ""
    if there and there != digest:
        raise BadInput(
            f"run {run.id} was trained on other data (digest {there}, the files have {digest} now); "
            "put the files back, or train a run of another name"
        )


def recorded_of(folder: Path) -> dict[str, Any]:
    """environment.json of a run, without entries of another type than they should have."""
    return read_entries(folder / RECORD, _KINDS)


def data_of(folder: Path) -> str:
    """The digest of the data that a run was trained on; empty where it was not kept."""
    return str(recorded_of(folder).get("data_digest", ""))


def threads_of(run: Run) -> int | None:
    """How many threads the run's last session used; None where it is not known."""
    return recorded_of(run.folder).get("threads")


def seconds_of(folder: Path) -> float:
    """How long a run was trained, over all sessions; 0 where it is not known."""
    found = recorded_of(folder)
    sessions = [found, *(each for each in found.get("earlier", {}).values() if isinstance(each, dict))]
    seconds = [each.get("wall_seconds") for each in sessions]
    return float(sum(each for each in seconds if isinstance(each, int | float)))


def record(run: Run, config: TrainConfig, data_digest: str, engine: str) -> None:
    """Write environment.json: versions, commits, threads, device, engine (`network.engine_of`), command, digests.
    Earlier sessions are kept.

    A session that goes on from the weights of other code makes a run of both, which is nobody's own any more.

    Raises:
        JobFailed: the disk refuses.
    """
    import torch

    path, plain = run.folder / RECORD, config.plain()
    before = recorded_of(run.folder)
    start = before.get("start") or _start(config)
    code = training_code(plain)
    if run.of_other_code(plain):
        code = f"{before.get(CODE) or 'unknown'}+{code}"
    earlier = before.pop("earlier", {})
    if before:
        earlier[str(len(earlier) + 1)] = {key: before[key] for key in OF_A_SESSION if key in before}
    content = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "wall_seconds": None,
        "argv": relative_argv(sys.argv),
        **git_state(),
        **_packages(packages(plain)),
        CODE: code,
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if config.trainer.accelerator == "gpu" else "cpu",
        "engine": engine,
        "precision": str(config.trainer.precision),
        "config_hash": config_hash(plain),
        "data_digest": data_digest,
    }
    if start:
        content["start"] = start
    write_json(path, content | ({"earlier": earlier} if earlier else {}))


def _start(config: TrainConfig) -> dict[str, str | None] | None:
    """The run and the weights that a training begins with; None where they are random."""
    if config.start is None:
        return None
    return {"run": find(config.start, key="start")[0].id, "weights": config.start_weights}


def finish(run: Run, began: float) -> None:
    """Write down how long this session has trained. began: time.monotonic() at the start."""
    path = run.folder / RECORD
    write_json(path, read_json(path) | {"wall_seconds": round(time.monotonic() - began, 3)})


def relative_argv(argv: Sequence[str]) -> list[str]:
    """The command line with absolute paths made relative to the working folder; of others the last name is left."""
    return ["robode", *(_relative(word) for word in argv[1:])]


def _relative(word: str) -> str:
    key, separator, value = word.rpartition("=")
    if not os.path.isabs(value):
        return word
    inside = os.path.relpath(value)
    return f"{key}{separator}{f'…/{Path(value).name}' if inside.startswith(os.pardir) else inside}"


class GitState(TypedDict):
    """Of a checkout: its commit, and whether it has changes; "" and None where there is none."""

    commit: str
    dirty: bool | None


@cache
def git_state(file: Path = Path(__file__)) -> GitState:
    """commit and dirty of the checkout that a source file is tracked in; empty for an installed wheel. A new file that
    git does not know yet makes a checkout dirty, unless it is ignored."""
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return {"commit": "", "dirty": None}
    return {
        "commit": _git(file.parent, "rev-parse", "HEAD") or "",
        "dirty": bool(_git(file.parent, "status", "--porcelain", "--untracked-files=normal")),
    }


def _packages(names: Sequence[str]) -> dict[str, dict[str, GitState]]:
    """commit and dirty of the packages of others, where git has them: {"packages": …}, or nothing."""
    states = {name: git_state(file) for name in names if (file := source_of(name))}
    known = {name: state for name, state in states.items() if state["commit"]}
    return {"packages": known} if known else {}


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # robode itself, run from its source
            continue
    return found
