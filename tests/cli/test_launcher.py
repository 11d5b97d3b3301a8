"""A launcher of the user's: Hydra runs the sweep, perhaps elsewhere, and each job is typed where it runs."""

import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = '''
import pickle
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict


@dataclass
class Node:
    _target_: str = "hydra_plugins.elsewhere.Elsewhere"


ConfigStore.instance().store(group="hydra/launcher", name="elsewhere", node=Node)


class Elsewhere(Launcher):
    """Pickles the task as launchers of other processes do."""

    def setup(self, *, hydra_context, task_function, config):
        self.context, self.config, self.task = hydra_context, config, pickle.loads(pickle.dumps(task_function))

    def launch(self, job_overrides, initial_job_idx):
        found = []
        for number, words in enumerate(job_overrides):
            cfg = self.context.config_loader.load_sweep_config(self.config, list(words))
            with open_dict(cfg):
                cfg.hydra.job.id, cfg.hydra.job.num = str(number), number
            done = run_job(hydra_context=self.context, task_function=self.task, config=cfg,
                           job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir")
            found.append(pickle.loads(pickle.dumps(done)))
        return found
'''
PROGRAM = """
import sys
from pathlib import Path

import pytest
from types import ModuleType

from hydra.core.hydra_config import HydraConfig

from robode.cli.main import main
from robode.config.jobs import Result
from robode.errors import Busy, JobFailed
import robode.training.plan

tried = []


def work(job, wait=True):
    config = job.config
    tried.append(config.depth)
    print("job", config.depth, config.seed, config.experiment, sys.argv[1:], HydraConfig.initialized(), wait)
    if config.depth == 3:
        raise JobFailed("NaN loss")
    if config.depth == 4 and tried.count(4) == 1:
        raise Busy("another process has it")
    return Result(run=Path("nowhere"))


robode.training.plan.queue = lambda configs: None
fake = ModuleType("robode.api")
fake.work = work
sys.modules["robode.api"] = fake
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_jobs_of_a_launcher_are_typed_where_they_run(tmp_path: Path) -> None:
    (tmp_path / "plugins" / "hydra_plugins").mkdir(parents=True)
    (tmp_path / "plugins" / "hydra_plugins" / "elsewhere.py").write_text(PLUGIN)
    (tmp_path / "program.py").write_text(PROGRAM)
    words = ["train", "-m", "hydra/launcher=elsewhere", "experiment=smoke", "depth=2,3,4", "seed=7"]
    command = [sys.executable, str(tmp_path / "program.py"), *words]
    path = f"{tmp_path / 'plugins'}:{':'.join(sys.path)}"
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    jobs = [line for line in done.stdout.splitlines() if line.startswith("job ") and line[4].isdigit()]
    alone = ["train", "experiment=smoke", "depth=2", "seed=7"]
    assert jobs[0] == f"job 2 7 smoke {alone} False False", done.stderr
    assert [line.split()[1] for line in jobs] == ["2", "3", "4", "4"] and jobs[-1].endswith("True")
    assert "sweep: 3 jobs, 0 reused, 1 failed" in done.stdout
    assert (done.returncode, done.stderr.splitlines()[-1].endswith("NaN loss")) == (1, True)
