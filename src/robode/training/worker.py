"""`python -m robode.training.worker`: one of several processes that train together; see processes.py."""

import os
import sys
from pathlib import Path

from robode.errors import BadInput, JobFailed
from robode.runs.origin import threads_of
from robode.runs.run import Run
from robode.training.assembly import assemble
from robode.training.processes import RESUMED, RUN_DIR
from robode.training.trainer import fit


def main() -> None:
    """Train the run in $ROBODE_RUN_DIR as process $LOCAL_RANK and write nothing."""
    run = Run(Path(os.environ[RUN_DIR]))
    try:
        parts = assemble(run.config(), threads=threads_of(run))
        parts.module.run = run
        fit(parts.trainer, parts.module, parts.data, run.last if os.environ[RESUMED] == "1" else None)
    except (BadInput, JobFailed) as error:
        sys.exit(f"robode, process {os.environ['LOCAL_RANK']}: {error}")


if __name__ == "__main__":
    main()
