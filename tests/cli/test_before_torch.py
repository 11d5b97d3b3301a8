"""What needs no torch to be refused is refused without it: the import alone takes seconds."""

import os
import subprocess
import sys
from pathlib import Path

import composed_once
import numpy as np
import pytest
from small_runs import composed

import robode
from robode.runs.run import OUTPUTS, Run

# All in one process, and torch is looked for after each: a line of what was refused, or a list of what was not.
EACH = """
import sys
from composed_once import composed_once
from robode.cli.main import main
with composed_once():
    for line in sys.stdin.read().splitlines():
        code = main(line.split())
        if code != 2 or "torch" in sys.modules:
            sys.exit(f"{line}: {code}, torch is {'there' if 'torch' in sys.modules else 'not there'}")
"""
REFUSED = """
train depth=0
train dept=3
train model.kappa=-1
train model.width=100000000
train model.J=file model.J_file=J.npy
train data.validation=-1
train data=mnist data.root=.
train model=node integrator=dopri5 integrator.rtol=-1
train model=node integrator.gradient=forward
train model=node integrator=euler integrator.gradient=adjoint
train trainer.precision=17
train trainer.accelerator=tpu
train trainer.devices=0
train suite.gaussian.std=0.1
train suite=attacks_quick suite.pgd_linf.norm=l3
train suite=attacks_quick suite.pgd_linf.loss=foo
train suite=attacks_quick suite.pgd_linf.steps=0
train suite=attacks_quick suite.pgd_linf.eps=8/x
train suite=attacks_quick +suite.pgd_linf.stepz=3
train suite=smoothing suite.smoothing.sigma=-1
train suite=corruptions suite.blur.sigma=-1
train objective=adversarial objective.adversarial.norm=l7
train objective=adversarial data=pendulum
train objective=jacobian_penalty
train augment=crop_flip data=double_moons
train augment=crop_flip augment.pad=-1
train optimizer=nero optimizer.optimizer.beta=1
train model=continuous_lyanet objective.lyapunov_path.kappa=0
train model=lyanet objective.lyapunov_mc.kappa=0
train model=lyanet objective.lyapunov_mc.samples=0
train model=lyanet objective.lyapunov_mc.domain=ball
train model=lyanet model.gain=0
train model=lyanet encoder=auto encoder.bounded=maybe
train model=lyanet data=double_moons
train model=lyanet callbacks.gain_schedule.factor=2
train model=node objective=lyapunov_mc
train model=chnode objective=barrier
train model=data_node objective=barrier objective.barrier.alpha=0
train model=lyanet data=cifar10 data.root=.
train objective=lyapunov_path objective.lyapunov_path.resolution=0
train objective=lyapunov_path data=pendulum
train model=resnet18 data=double_moons
train model=continuous integrator=etd
train +callbacks.bsm.foo=0
train optimizer.optimizer.weight_decay=-1
train seed=5 seeds=3
train seeds=[1,1]
train suite=[clean,clean]
train callbacks=early_stopping callbacks.early_stopping.monitor=train/loss
train lr=1e300
train optimizer.optimizer.lr=1e300
train step=1e308
train horizon=1e300
train model.norm_bound=1e300
train suite=attacks_quick suite.pgd_linf.eps=[0.1,1e300]
train +optimizer.optimizer.typo=3
train +optimizer.scheduler.typo=3
train optimizer=sgd optimizer.optimizer.nesterov=true optimizer.optimizer.momentum=0
train objective=mean_squared_error
train +logger.csv.typo=3
train +trainer.typo=1
train +trainer.max_epochs=1
train +trainer.gradient_clip_val=-1
train data=photographs objective=cross_entropy
train data=photographs data.size=4
train data=bsds500
train model=denoiser model.theta=0
train data=arrays data.file=x.txt
train data=arrays data.file=x.npz data.label=foo
train data=arrays data.file=x.npz data.bounds=[1,0]
train data=arrays data.file=x.npz data.bounds=[0]
train resume=trained code=any model=resnet
train resume=trained code=any lr=3
train resume=trained code=any epochs=1
train resume=begun code=any
train run=a/b
train epochs=0
train start=nowhere
train start=. resume=.
stabilise
stabilise run=.
stabilise run=. delta=nan
stabilise run=. delta=0 to=a/b
stabilise run=nowhere delta=0
evaluate
evaluate run=.
evaluate run=. verdicts=-1
evaluate run=. device=tpu
evaluate run=. suite=attacks_quick suite.pgd_l2.norm=l3
evaluate run=trained code=any suite=attacks_quick suite.pgd_linf.loss=foo
evaluate module=x:y data=mnist5k checkpoint=x.npz
certify run=. norm=l1
certify run=. radii=-1
export run=. to=
export run=. to=J.npy
report nowhere
report to=J.npy
list nothing
reproduce nothing/here
reproduce chnode_2022/table1 size=huge
"""


def test_refused_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "J.npy", np.eye(8))
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "MNIST" / "raw" / f"{name}-ubyte").write_bytes(bytes(100))
    for name in ("x.txt", "x.npz"):
        (tmp_path / name).touch()
    for name, epoch in (("trained", 2), ("begun", 0)):
        run = Run(tmp_path / OUTPUTS / "default" / name)
        run.folder.mkdir(parents=True)
        run.save_config(composed("epochs=2"))
        run.update(status="done", epoch=epoch)
    (tmp_path / OUTPUTS / "default" / "trained" / "last.ckpt").touch()
    lines = REFUSED.strip()
    sources = os.pathsep.join((str(Path(robode.__file__).parents[1]), str(Path(composed_once.__file__).parent)))
    done = subprocess.run([sys.executable, "-c", EACH], input=lines, capture_output=True, text=True, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": sources}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line[:8] for line in done.stderr.splitlines()] == ["robode: "] * len(lines.splitlines())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["J.npy", "MNIST", "outputs", "x.npz", "x.txt"]
    assert len(list((tmp_path / OUTPUTS).rglob("*"))) == 8
