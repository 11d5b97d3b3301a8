"""`robode train seeds=10`: several seeds of one configuration in one process, each with a run folder of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from omegaconf import DictConfig
from rich.console import Console

from robode import environment
from robode.errors import JobFailed
from robode.instantiate import to_plain
from robode.job import job, turn
from robode.measurement import warnings_about
from robode.runs import Run, create, locate, set_aside
from robode.training.assembly import Parts, assemble, build_data
from robode.training.batched import train_batched
from robode.training.batched_checks import check_batch


def train_together(configs: Sequence[DictConfig], console: Console, wait: bool = True) -> list[JobFailed | None]:
    """Train those of the runs that are not trained yet, in one batch. The data are loaded once.

    Returns:
        For each configuration None, or why its run failed; the others are trained then all the same.

    Raises:
        BadInput: what cannot be trained in a batch; nothing has been written then.
        Busy: another process has one of the runs, and `wait` is false.
    """
    check_batch(configs)
    data = build_data(configs[0])
    runs = [locate(cfg, data.digest) for cfg in configs]
    parts = assemble(configs[0], console, environment.threads_of(runs[0]), data)
    failures: dict[Run, JobFailed | None] = {}
    with ExitStack() as turns:
        for run, cfg in sorted(zip(runs, configs, strict=True), key=lambda pair: str(pair[0].folder)):
            turns.enter_context(turn(run, console, wait))  # always in this order: two batches cannot wait in a circle
            if cfg.force and (run.folder / "config.yaml").is_file():
                set_aside(run)
            create(run, cfg)
        todo = [(run, cfg) for run, cfg in zip(runs, configs, strict=True) if not run.trained]
        if todo:
            failures = _train(todo, parts, console)
    return [failures.get(run) for run in runs]


def _train(todo: Sequence[tuple[Run, DictConfig]], parts: Parts, console: Console) -> dict[Run, JobFailed | None]:
    runs, configs = [run for run, _ in todo], [cfg for _, cfg in todo]
    console.print(f"training {len(runs)} seeds together: {', '.join(run.id for run in runs)}", highlight=False)
    began = time.monotonic()
    with ExitStack() as hearts:
        for run, cfg in todo:
            hearts.enter_context(job(run, console))
            plain = to_plain(cfg)
            run.save_config(plain)
            environment.record(run, plain, parts.data.digest)
        for text in warnings_about(parts.network):
            runs[0].warn(text)
            console.print(f"warning: {text}", style="yellow", highlight=False, soft_wrap=True)
        failures = dict(zip(runs, train_batched(configs, runs, console, parts), strict=True))
        for run in runs:
            environment.finish(run, began)
            run.update(trained=failures[run] is None)
    for run, failure in failures.items():
        if failure is not None:
            run.update(status="failed", error=str(failure))
    return failures
