"""What a command line would do: each job's run, its state, and what is left of its training by earlier runs' times."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from robode.config.instantiate import to_plain
from robode.config.seeds import one_each
from robode.files import read_json
from robode.runs.origin import FORCE, OTHER_CODE, START, check_code, check_data
from robode.runs.run import OUTPUTS, REPLACED, Run, create, find, locate
from robode.training.resume import resumed


@dataclass(frozen=True)
class Forecast:
    """One job. seconds: of training that are left, by the median of similar runs; None = there was none yet. other:
    whether other code has begun its run."""

    run: Run
    state: str
    seconds: float | None
    other: bool = False

    @property
    def shown(self) -> str:
        """The state, with † where other code has begun the run."""
        return self.state + OTHER_CODE * self.other


def forecast(verb: str, configs: Sequence[DictConfig], outputs: Path = OUTPUTS) -> list[Forecast]:
    """configs: composed and checked jobs of any verb. Reads data and run folders, writes nothing."""
    if verb != "train":
        runs = [find(cfg.run)[0] for cfg in configs]
        return [Forecast(run, run.state, 0.0, _other(run)) for run in runs]
    speeds = _speeds(outputs)
    found = []
    for cfg in (each for together in configs for each in one_each(together)):
        plain = to_plain(cfg)
        run = find(cfg.resume, key="resume")[0] if cfg.resume is not None else located(cfg, outputs)
        known = speeds.get(_kind(plain))
        left = 0.0 if run.trained and not cfg.force else _work(plain) - _done(run, plain)
        seconds = 0.0 if left <= 0 else None if known is None else left * statistics.median(known)
        found.append(Forecast(run, run.state, seconds, not cfg.force and _other(run)))
    return found


def check_runs(verb: str, configs: Sequence[DictConfig], words: Sequence[str] = ()) -> None:
    """What a dry run promises: data, networks and runs of all jobs work together as the command itself will find them.
    Reads data and run folders, writes nothing. words: the `key=value` that the user typed.

    Raises:
        BadInput: a job that cannot work, a run of other data, or of other code that `code` does not allow.
    """
    from robode.training.assembly import data_digest, try_jobs

    if verb != "train":
        for cfg in configs:
            run, config = _found(cfg)
            check_data(run, data_digest(config))
        return
    jobs = [cfg for together in configs for cfg in one_each(together)]
    try_jobs([cfg for cfg in jobs if cfg.resume is None])
    for cfg in jobs:
        if cfg.resume is not None:
            config, run = resumed(cfg, words)
            check_data(run, data_digest(config))
            check_code(run, cfg.code, START)
        elif not cfg.force and (run := located(cfg)).exists:
            check_data(run, data_digest(cfg))
            check_code(run, cfg.code, FORCE)


def _found(cfg: DictConfig) -> tuple[Run, DictConfig]:
    """A run and its configuration, with its data where `data.root` says that they are now."""
    run = find(cfg.run)[0]
    config, root = run.config(), (cfg.get("data") or {}).get("root")
    for node in (config.data, config.data.source) if root is not None else ():
        if "root" in node:
            node.root = root
    return run, config


def _other(run: Run) -> bool:
    return run.exists and run.of_other_code(to_plain(run.config()))


def located(cfg: DictConfig, outputs: Path = OUTPUTS, anew: bool = False) -> Run:
    """The folder that the training of a composed configuration has or will have (`runs.locate`). Loads the data once a
    process."""
    from robode.training.assembly import data_digest

    return locate(cfg, data_digest(cfg), outputs, anew)


def _speeds(outputs: Path) -> dict[tuple[str, ...], list[float]]:
    """Seconds per layer and epoch of every finished training under `outputs`, by kind of network and data."""
    speeds: dict[tuple[str, ...], list[float]] = {}
    for file in outputs.glob("**/environment.json"):
        run = Run(file.parent)
        if REPLACED in file.parts or not run.trained:
            continue
        record, plain = read_json(file), to_plain(run.config())
        sessions = [record, *record.get("earlier", {}).values()]
        seconds = sum(session.get("wall_seconds") or 0.0 for session in sessions)
        if seconds and _work(plain):
            speeds.setdefault(_kind(plain), []).append(seconds / _work(plain))
    return speeds


def _kind(plain: Mapping[str, Any]) -> tuple[str, ...]:
    data, model = plain["data"], plain["model"]
    parts = (model["name"], model.get("width"), data["name"], data.get("limit_train"), plain["trainer"]["name"])
    return tuple(map(str, (*parts, plain["batch_size"])))


def _work(plain: Mapping[str, Any]) -> float:
    """Layers times epochs."""
    return float(plain["depth"] * plain["epochs"])


def _done(run: Run, plain: Mapping[str, Any]) -> float:
    return float(plain["depth"] * run.status().get("epoch", 0))


def show(jobs: Sequence[Forecast]) -> None:
    """Print the jobs as a table, and the sum of what is known."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("job", "run", "state", "training left"):
        table.add_column(name, overflow="fold", justify="right" if name in ("job", "training left") else "left")
    for number, job in enumerate(jobs):
        table.add_row(str(number), str(job.run.folder), job.shown, duration(job.seconds))
    console = Console()
    console.print(table)
    if any(job.other for job in jobs):
        console.print(f"{OTHER_CODE} trained by other code than this; code=any uses it all the same", highlight=False)
    known = [job.seconds for job in jobs if job.seconds is not None]
    unknown = len(jobs) - len(known)
    about = [f"about {duration(sum(known))} of training left"] if known else []
    about += [f"{unknown} without an earlier run to judge by"] if unknown else []
    console.print(f"{len(jobs)} jobs: {', '.join(about)}", highlight=False)


def duration(seconds: float | None) -> str:
    """2 h 05 min, 40 s, or ? for None."""
    if seconds is None:
        return "?"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"


def queue(configs: Sequence[DictConfig]) -> None:
    """Give every training of a sweep its folder before the first one starts, so that others see what is planned; none,
    where one of them cannot work.

    Raises:
        BadInput: data or a network of one of the jobs that cannot work.
    """
    from robode.training.assembly import try_jobs

    jobs = [cfg for together in configs for cfg in one_each(together) if cfg.resume is None]
    try_jobs(jobs)
    for run, cfg in [(located(cfg), cfg) for cfg in jobs]:
        create(run, cfg)
