"""Twenty small trainings through a SLURM cluster that this script starts: does each finish exactly once?

    python scripts/slurm_trial.py            one Markdown table; exit code 1 where something is not as it should be

Two nodes of one core each (two slurmd on this machine). While the sweep runs, one task gets the signal that SLURM sends
before it preempts or its time is up, one is killed (kill -9), and one node is drained and its task put into the queue
again. Needs Debian's slurmctld, slurmd, slurm-client and slurm-wlm-basic-plugins; without them it says so and ends.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from robode.files import read_json
from robode.runs.results import read_rows
from robode.runs.run import Run
from robode.runs.table import METRICS

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
NODES = {"n1": 16821, "n2": 16822}
EPOCHS, JOBS, PATIENCE, DRAINED = 20, 20, 2400.0, 120.0
SWEEP = ["train", "-m", "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem=null",
         "data=double_moons", "data.validation=0.25", "data.limit_train=300", "model.width=4", "depth=2", "suite=clean",
         "repeats=1", "callbacks=none", "batch_size=10", f"epochs={EPOCHS}", f"seeds={JOBS}"]  # fmt: skip
CONFIGURATION = """\
ClusterName=trial
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=16817
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
KillWait=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
"""


def main() -> int:
    """Exit code 0 where everything held, or where there is no SLURM."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        print(f"skipped: {', '.join(missing)} not installed")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the cluster ends with this process
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name, cluster(Path(name) / "slurm"):
        work = Path(name) / "work"
        work.mkdir()
        os.chdir(work)
        began = time.monotonic()
        with (work / "log").open("w") as log:
            sweep = subprocess.Popen([sys.executable, "-m", "robode", *SWEEP], stdout=log, stderr=subprocess.STDOUT)
        try:
            disturbed = disturb(sweep)
            code = sweep.wait(PATIENCE)
        finally:
            sweep.kill()
        seconds = time.monotonic() - began
        print("\n".join((work / "log").read_text().splitlines()[-JOBS - 4 :]) + "\n")
        print(f"exit code {code} after {seconds:.0f} s\n")
        return int(code != 0) | judged(disturbed)


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """A controller and the nodes, until the body ends."""
    for name in ("state", *NODES):
        (folder / name).mkdir(parents=True)
    lines = [f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000\n"
             for name, port in NODES.items()]  # fmt: skip
    lines.append("PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=INFINITE\n")
    text = CONFIGURATION.format(user=getpass.getuser(), folder=folder)
    (folder / "slurm.conf").write_text(text + "".join(lines))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        subprocess.run(["slurmctld", "-c"], check=True)
        for name in NODES:
            subprocess.run(["slurmd", "-N", name], check=True)
        wait_for(lambda: said("sinfo", "-h", "-o", "%T").split() == ["idle"], 60, "idle nodes")
        yield
    finally:
        subprocess.run(["scancel", "--user", getpass.getuser()], check=False)
        for name in (*NODES, "slurmctld"):
            with suppress(OSError, ValueError):
                os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGTERM)
        time.sleep(2)


def said(*command: str) -> str:
    """What a program prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def wait_for(true: Callable[[], object], seconds: float, what: str) -> None:
    """Until something is so. Raises `TimeoutError`."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} after {seconds:.0f} s")
        time.sleep(0.2)


def disturb(sweep: subprocess.Popen[bytes]) -> dict[str, str]:
    """Cut off three trainings in their middle. Returns what was done to which run."""
    done: dict[str, str] = {}

    def training(node: str = "") -> tuple[Run, int, dict[str, str]] | None:
        for run in map(Run, Path("outputs").glob("*/chnode-*")):
            status = run.status()
            if run.id in done or run.state != "running" or not 2 <= status.get("epoch", 0) <= EPOCHS // 2:
                continue
            about = environment(status["owner"]["pid"])
            if about.get("SLURMD_NODENAME", "") == node or (about and not node):
                return run, status["owner"]["pid"], about
        return None

    def next_one(node: str = "") -> tuple[Run, int, str]:
        wait_for(lambda: training(node) or sweep.poll() is not None, PATIENCE, "training")
        found = training(node)
        assert found is not None, "the sweep has ended"
        run, process, about = found
        return run, process, f"{about['SLURM_ARRAY_JOB_ID']}_{about['SLURM_ARRAY_TASK_ID']}"

    run, process, task = next_one()
    warning = subprocess.Popen(["scancel", "--signal=USR2", task], stderr=subprocess.DEVNULL)
    wait_for(lambda: not environment(process), 120, "task that ends")
    warning.kill()  # it would ask again and again, since the task is in the queue now
    done[run.id] = f"warned with SIGUSR2 in epoch {run.status()['epoch'] + 1}"
    run, process, _ = next_one()
    os.kill(process, signal.SIGKILL)
    done[run.id] = f"killed with SIGKILL in epoch {run.status()['epoch'] + 1}"
    run, _, task = next_one("n2")
    subprocess.run(["scontrol", "update", "nodename=n2", "state=drain", "reason=trial"], check=True)
    subprocess.run(["scontrol", "requeue", task], check=True)
    done[run.id] = f"its node drained and requeued in epoch {run.status()['epoch'] + 1}"
    time.sleep(DRAINED)
    subprocess.run(["scontrol", "update", "nodename=n2", "state=resume"], check=False)
    return done


def environment(process: int) -> dict[str, str]:
    """The variables of a process; none where it has ended."""
    with suppress(OSError):
        text = Path(f"/proc/{process}/environ").read_text(errors="replace")
        return dict(part.split("=", 1) for part in text.split("\0") if "=" in part)
    return {}


def judged(disturbed: dict[str, str]) -> int:
    """Print a table of the runs. Returns 1 where one did not finish exactly once."""
    runs = sorted(map(Run, Path("outputs").glob("*/chnode-*")), key=lambda run: run.config().seed)
    wrong = [] if len(runs) == JOBS else [f"{len(runs)} runs instead of {JOBS}"]
    print("| run | state | epochs in metrics.csv | rows | sessions | what happened |\n|---|---|---|---|---|---|")
    for run in runs:
        losses = METRICS.read(run.folder / "metrics.csv").query("name == 'validation/loss'")["epoch"]
        rows, sessions = len(read_rows(run.folder / "results.csv")), 1 + len(earlier(run))
        what = disturbed.get(run.id, "")
        print(f"| {run.id} | {run.state} | {len(losses)} | {rows} | {sessions} | {what} |")
        once = run.state == "done" and run.trained and sorted(losses) == list(range(EPOCHS)) and rows == 1
        if not once or (sessions > 1) != bool(what):
            wrong.append(f"{run.id} did not finish exactly once")
    print(f"\n{'; '.join(wrong) or f'all {JOBS} finished exactly once'}")
    return int(bool(wrong))


def earlier(run: Run) -> dict[str, object]:
    """The sessions of a training before its last."""
    found = read_json(run.folder / "environment.json").get("earlier", {})
    assert isinstance(found, dict)
    return found


if __name__ == "__main__":
    sys.exit(main())
