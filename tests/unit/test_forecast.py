"""What a dry run says of a run that says that it is running."""

import time
from pathlib import Path

import pytest

from robode.files import write_json
from robode.runs.lock import held, machine, state_now
from robode.runs.run import Run


@pytest.mark.parametrize("here", [True, False])
def test_a_killed_run_is_not_running(here: bool, tmp_path: Path) -> None:
    owner = {"machine": machine() if here else "another", "pid": 1}
    write_json(tmp_path / "status.json", {"status": "running", "heartbeat": time.time(), "owner": owner})
    run = Run(tmp_path)
    assert state_now(run) == run.state == "running"  # no lock: an earlier version has it
    with held(tmp_path / ".lock"):
        assert state_now(run) == "running"
    (tmp_path / ".lock").touch()
    assert state_now(run) == ("interrupted" if here else "running")
    assert run.status()["status"] == "running"  # looked at, not touched
