"""How jobs elsewhere ended: a file for each, so that a launcher which fails with one job loses none of the others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from robode.config.jobs import Job, Outcome, Result, State
from robode.files import make_folder, read_json, write_json

Do = Callable[[Job], None]
"""What is done for a job elsewhere. It can be pickled."""


@dataclass(frozen=True)
class Board:
    """A folder that every machine sees, with a file for each job of one command line that has begun."""

    folder: Path

    def begin(self, job: Job) -> None:
        """Say that somebody has begun with a job. Raises `JobFailed` if the disk refuses."""
        make_folder(self.folder)
        write_json(self._file(job), {"overrides": job.overrides})

    def begun(self, job: Job) -> bool:
        """Whether somebody has begun with a job."""
        return self._file(job).is_file()

    def tell(self, job: Job, outcome: Outcome) -> None:
        """Say how a job ended. Raises `JobFailed` if the disk refuses."""
        said: dict[str, Any] = {"overrides": job.overrides, "state": outcome.state}
        said |= {"code": outcome.code, "error": outcome.error}
        if (found := outcome.result) is not None:
            said |= {"run": str(found.run), "task": found.task, "score": found.score}
            said |= {"reused": found.reused, "other_code": found.other_code}
        make_folder(self.folder)
        if outcome.state == "failed":
            self._failed.touch()
        write_json(self._file(job), said)

    @property
    def failed(self) -> bool:
        """Whether a job has failed."""
        return self._failed.is_file()

    def told(self, job: Job) -> Outcome | None:
        """How a job ended; None where nobody has said."""
        said = read_json(self._file(job))
        if said.get("state") not in get_args(State):
            return None
        of_result = {key: said[key] for key in ("task", "score", "reused", "other_code") if key in said}
        result = Result(run=Path(said["run"]), **of_result) if "run" in said else None
        return Outcome(job.overrides, said["code"], said["error"], result, said["state"])

    def forget(self, job: Job) -> None:
        """As if nobody had begun with a job."""
        self._file(job).unlink(missing_ok=True)

    @property
    def _failed(self) -> Path:
        return self.folder / "failed"

    def _file(self, job: Job) -> Path:
        return self.folder / f"{hashlib.sha256(repr(job.overrides).encode()).hexdigest()[:16]}.json"
