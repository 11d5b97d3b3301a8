"""Bad input: exit code 2, one line, nothing written, and no job started (so torch was not needed)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import Answer, Jobs
from omegaconf import OmegaConf

from robode.config.config import TrainConfig
from robode.errors import BadInput

CASES = {
    # misspelt
    "dept=3": "unknown key 'dept': did you mean 'depth'?",
    "modle=chnode": "did you mean 'model'?",
    "gamma=x": "did you mean 'model.gamma'?",
    "model.gama=1": "did you mean 'model.gamma'?",
    "batchsize=5": "did you mean 'batch_size'?",
    "hello=1": "robode train takes model, data, depth",
    "+hello=1": "unknown key 'hello'",
    "suite=clean suite.gaussian.var=0.1": "'suite' has suite.clean",
    "depth": "expected key=value",
    "depth='": "depth=': cannot be read as key=value; are all quotes and brackets closed?",
    "depth=[3": "depth=[3: cannot be read as key=value; are all quotes and brackets closed?",
    "depth=3=4": """depth=3=4: expected one value of depth; a text with = in it is quoted twice: "depth='3=4'\"""",
    "=3": "=3: expected key=value, for example depth=8",
    "+model.foo": "+model.foo: expected key=value",
    "suite=[]": "suite=[]: expected at least one of: adversarial_samples, ",
    "suite.gaussian.var={a:1}": "suite.gaussian.var={a:1}: expected a value of suite.gaussian.var, which has no keys",
    "suite.gaussian.std=0.1": "unknown key 'suite.gaussian.std': did you mean 'suite.gaussian.var'?",
    "--dept 3": "unrecognized arguments: --dept",
    # keys that nobody reads
    "+data.typo=1": "unknown key 'data.typo': data has name, root, validation, limit_train, source",
    "+data.validaton=1": "unknown key 'data.validaton': did you mean 'data.validation'?",
    "+optimizer.typo=1": "unknown key 'optimizer.typo': optimizer has optimizer, scheduler, interval",
    "+model.typo=1": "model.typo: model=chnode has no such key",
    "+model.gama=1": "model.gama: model=chnode has no such key; did you mean model.gamma?",
    "+encoder.typo=1": "encoder.typo: encoder=auto has no such key",
    "model.name=foo": "model.name: describes what was chosen and cannot be set; choose with model=…",
    "data.name=mine": "data.name: describes what was chosen",
    "~model.allowed": "model.allowed: describes what was chosen",
    # wrong type
    "depth=abc": "depth must be an integer, got 'abc'",
    "depth=2.5": "depth must be an integer, got '2.5'",
    "lr=abc": "lr must be a number, got 'abc'",
    "horizon=long": "horizon must be a number",
    "lr=${nothing}": "Interpolation key 'nothing' not found",
    # unknown choices
    "model=chnod": "unknown model; did you mean 'chnode'? choose one of: chnode, chnode_dense, chnode_lipschitz",
    "data=cats": "unknown data; choose one of: advection, arrays",
    "data=moons": "unknown data; did you mean 'double_moons'?",
    "data=MNIST": "unknown data; did you mean 'mnist'?",
    "suite=masking": "unknown suite; did you mean 'gradient_masking'?",
    "integrator=leapfrog": "unknown integrator; choose one of: dopri5, etd, euler",
    "suite=nois": "did you mean 'noise'?",
    "experiment=nothing": "unknown experiment; choose one of:",
    "model=3": "model=3: unknown model; choose one of: chnode",
    "data=[mnist,mnist5k]": "expected one data",
    "~lr": "~lr: lr is needed and cannot be removed",
    "~model": "~model: model is needed and cannot be removed",
    # numbers out of range
    "depth=0": "depth=0: expected a number above 0",
    "depth=-1": "depth=-1: expected a number above 0",
    "epochs=0": "epochs=0",
    "batch_size=-5": "batch_size=-5",
    "lr=0": "lr=0.0: expected a number above 0",
    "lr=nan": "lr=nan",
    "repeats=0": "repeats=0",
    "seed=-1": "seed=-1: expected an integer from 0",
    "suite.gaussian.var=-0.1": "suite.gaussian.var=-0.1: expected a number",
    "suite.salt_and_pepper.amount=1.5": "suite.salt_and_pepper.amount=1.5",
    # combinations
    "model.width=7": "model.width=7: expected auto or even integer >= 2",
    "step=0.1 horizon=1": "give one of them",
    "step=0": "step=0: expected 'auto' or a number above 0",
    "horizon=-1": "horizon=-1.0: expected a number above 0",
    "integrator=symplectic_euler": "makes no sense for model=chnode; choose one of: etd, imex, euler",
    "model.activation=swish": "choose one of: tanh, relu, leaky_relu, sigmoid, softplus",
    "model.J=j3": "choose one of: canonical, j2, file",
    "model.J=file": "model.J_file=null: expected a file",
    "model.J=file model.J_file=nowhere.npy": "model.J_file=nowhere.npy: expected a file",
    "model.shared=maybe": "model.shared=maybe: choose one of: true, false",
    "model.shared=1": "model.shared=1: choose one of: true, false",
    "model.trainable_L=0": "model.trainable_L=0: choose one of: true, false",
    "model=hdnn model.separable=some": "model.separable=some: choose one of: true, false",
    "model.init_std=-1": "model.init_std=-1: expected number >= 0",
    "model.init_std=inf": "model.init_std=inf",
    "model.init_std=nan": "model.init_std=nan",
    "model.init_std=small": "model.init_std=small",
    "model.init_std=true": "model.init_std=true",
    "model.width=true": "model.width=true: expected auto or even integer >= 2",
    "model=node model.hidden=64": "model.hidden=64: expected list of integer >= 1",
    "model=node model.hidden=[64,0]": "model.hidden=[64, 0]",
    "model=node model.hidden=[2.5]": "model.hidden=[2.5]",
    "model=node model.hidden=[true]": "model.hidden=[True]",
    "seeds=0": "seeds=0: expected how many (seeds=3: 1, 2, 3) or which (seeds=[1,5]), or null for one",
    "seeds=[1,5,1]": "seeds=[1, 5, 1]: names a seed twice, which would be one run; leave one out",
    "suite=[clean,noise,clean]": "suite=[clean,noise,clean]: names one of them twice; leave it out",
    "objective=[cross_entropy,cross_entropy]": "names one of them twice",
    "callbacks=early_stopping callbacks.early_stopping.monitor=train/loss": "expected validation/loss, ",
    "lr=1e300": "lr=1e+300: expected a number of at most 3.4e+38, the largest of float32",
    "model.norm_bound=1e300": "model.norm_bound=1e+300: expected a number of at most 3.4e+38",
    "++trainer.x=1": "trainer.x: lightning.Trainer has no such key; it has accumulate_grad_batches, ",
    "seeds=[1.5]": "seeds=[1.5]: expected how many",
    "seed=5 seeds=3": "seed=5 and seeds=3: give one of them",
    "-m seed=5,6 seeds=2": "seed=5 and seeds=2: give one of them",
    "-m lr=0.1,0.1": "lr=0.1: is asked for twice in this sweep",
    "-m seeds=1,2": "seed=1: is asked for twice in this sweep",
    "seeds=2 run=mine": "run=mine: names one run, and seeds=2 asks for several; leave one out",
    "code=other": "code=other: choose one of: same, any",
    "trainer.threads=0": "trainer.threads=0: expected a whole number from 1 to 1024, or null",
    "trainer.devices=0": "trainer.devices=0: expected a whole number >= 1",
    "trainer.precision=bf16-true": "rounds gamma and h",
    "trainer=[cpu,gpu]": "expected one trainer",
    "logger.csv=5": "logger.csv=5: expected a node with a _target_, or null to switch it off",
    "+logger.mine.x=5": "logger.mine={'x': 5}: expected a node with a _target_",
    "callbacks.bsm=off": "callbacks.bsm=off: expected a node with a _target_",
    "optimizer.interval=foo": "optimizer.interval=foo: choose one of: epoch, step",
    "data.limit_train=abc": "data.limit_train=abc: expected a whole number of samples above 0, or null",
    "data.limit_train=2.5": "data.limit_train=2.5: expected a whole number",
    "data.limit_train=0": "data.limit_train=0: expected a whole number",
    "data.limit_train=true": "data.limit_train=True: expected a whole number",
    "callbacks=[default,early_stopping] data.validation=0": "callbacks=early_stopping: watches validation/accuracy, "
    "and data.validation=0 holds nothing out",
    "callbacks=[default,early_stopping] data=six_points": "data.validation=0 holds nothing out",
    # what no machine can do
    "depth=1000000000": "depth=1000000000: the network takes at least 1.51e+03 GB, and this machine has 16; choose a",
    "model.width=100000": "model.width=100000: the network takes at least 640 GB, and this machine has 16; choose a",
    "model=lyanet model.hidden=100000": "model.hidden=100000: the network takes at least 80 GB",
    "model=node model.hidden=[64,1000000]": "model.hidden=1000000: the network takes at least 8e+03 GB",
    "seeds=1000000000": "seeds=1000000000: expected at most 10000 of one command",
    "-m seed=range(0,1000000000)": "seed=range(0,1000000000): expected at most 10000 jobs of one sweep",
    "-m seed=range(0,1000) lr=0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0,1.1": "expected at most 10000 jobs of one sweep",
    "epochs=10000000000000000000000": "epochs=10000000000000000000000: expected a whole number below 2**63",
    "batch_size=9223372036854775808": "batch_size=9223372036854775808: expected a whole number below 2**63",
    "suite.gaussian.var=[1,9223372036854775808]": "suite.gaussian.var=9223372036854775808: expected a whole number",
    f"run={'a' * 201}": "run: expected a name of at most 200 letters, got 201",
    f"run={'a' * 300}": "run: expected names of at most 255 letters, got one of 300",
    f"data=mnist data.root={'a' * 300}": "data.root: expected names of at most 255 letters",
    f"model.J=file model.J_file={'a' * 300}": ": expected a file with a matrix",
    f"experiment={'a' * 300}": "unknown experiment; choose one of",
    # texts as they were typed
    "run=${nothing}": "Interpolation key 'nothing' not found",
    "run=a,b": """run=a,b: several values need -m (a sweep); a text with a comma is quoted twice: "run='a,b'\"""",
    "run=2026=11": "run: expected a name of letters, digits, '.', '_' and '-', got '2026=11'",
    "model=3e2": "model=3e2: unknown model; choose one of: chnode",
    "resume=1_000": "resume=1_000: expected a run folder",
    # what the class of a part does not take
    "suite=attacks_quick suite.pgd_linf.loss=foo": "suite.pgd_linf.loss=foo: choose one of: null, ce, margin, dlr",
    "suite=smoothing suite.smoothing.sigma=0": "suite.smoothing.sigma=0: expected number > 0",
    "objective=trades objective.trades.norm=l1": "objective.trades.norm=l1: choose one of: linf, l2",
    "callbacks.bsm.every=0": "callbacks.bsm.every=0: expected integer >= 1",
    "optimizer.optimizer.weight_decay=-1": "optimizer.optimizer.weight_decay=-1: expected number >= 0",
    "+protocol.foo=1": "protocol.foo: robode.corruptions.protocols.DataSpace has no such key; it has no keys",
    "trainer.precision=17": "trainer.precision=17: choose one of: 32-true, 64-true, bf16-mixed",
    "trainer.accelerator=tpu": "trainer.accelerator=tpu: choose one of: cpu, gpu",
    # what is no perturbation, no term and no key
    "+suite.typo=1": "suite.typo=1: expected a node with a _target_, or null to switch it off",
    "+suite.typo.x=1": "suite.typo={'x': 1}: expected a node with a _target_",
    "suite.gaussian=5": "suite.gaussian=5: expected a node with a _target_",
    "+objective.typo=1": "objective.typo=1: expected a node with a _target_, or null to switch it off",
    "+objective.typo.x=1": "objective.typo={'x': 1}: expected a node with a _target_",
    "+head.typo=1": "head.typo: head=linear has no such key; it has no keys of its own",
    "+data.limit_trian=100": "unknown key 'data.limit_trian': did you mean 'data.limit_train'?",
    "+data.source.m=8 data=double_moons": "data.source.m: data.source=double_moons has no such key; it has n",
    "data=pendulum data.source.time=1e9": "data.source.time=1000000000.0: expected number in (0, 100)",
    "data=pendulum data.source.train=0": "data.source.train=0: expected integer in [1, 1000000]",
    "data=oscillator data.source.dt=0": "data.source.dt=0: expected number in (0, 100)",
    "data=oscillator +data.source.time=1": "data.source.time: data.source=oscillator has no such key",
    "data=henon_heiles data.source.side=0.3": "data.source.side=0.3: expected number in (0, 0.25]",
    "data=sir data.source.infection=0": "data.source.infection=0: expected number in (0, 1000)",
    "data=advection data.source.modes=16": "data.source.modes=16: expected integer in [1, 15]",
    "data=spherical_pendulum data.source.energy=0": "data.source.energy=0: expected number in [1, 1000)",
    "data=sir suite=conservation suite.conservation.iterates=0": "suite.conservation.iterates=0: expected integer >= 1",
    "data=circle_map data.source.target=fould": "data.source.target=fould: choose one of: fold, rotation",
    "data=pendulum data.task=regression": "data.task=regression: expected flow_map, the task of data=pendulum",
    "task=regression": "unknown key 'task': robode train takes model, data, depth",
    "data.task=flow_map": "unknown key 'data.task': 'data' has data.root, ",
    "data=oscillator task=regression": "unknown key 'task': did you mean 'data.task'?",
    "data=oscillator data.task=classification": "data.task=classification: expected flow_map, the task of data=",
    "model=sympnet data=oscillator model.width=3": "model.width=3: expected outputs or auto or even integer >= 2",
    "model=sympflow data=oscillator_paths model.width=1": "model.width=1: expected outputs or even integer >= 2",
    "model=sympnet data=oscillator model.modules=ga": "model.modules=ga: choose one of: gradient, la",
    "model=sympnet data=oscillator integrator=rk4": "integrator=rk4: makes no sense for model=sympnet; choose",
    "data=oscillator_paths data.source.times=0": "data.source.times=0: expected integer in [1, 1000000]",
    "data=oscillator objective=cross_entropy": "expected data with classes, and these are for flow_map",
    "data=oscillator objective=jacobian_penalty": "add one: objective=[mean_squared_error,jacobian_penalty]",
    "data=photographs data.task=classification": "expected denoising, the task of data=photographs; leave it out",
    "data=photographs objective=cross_entropy": "expected data with classes, and these are for denoising",
    "data=photographs data.size=4": "data.size=4: expected integer in [8, 4096]",
    "data=bsds500": "data.root=null: expected a folder",
    "model=denoiser data=double_moons": "model=denoiser and data=double_moons: the model takes images",
    "model=denoiser model.theta=0": "model.theta=0: expected number in (0, 1]",
    "data.source=5": "data.source=5: expected a node with a _target_",
    # what describes a choice is none
    "encoder.name=foo": "encoder.name: describes what was chosen and cannot be set; choose with encoder=…",
    "model.name=resnet": "model.name: describes what was chosen",
    "model.integrators=[rk4]": "model.integrators: describes what was chosen",
    "model.allowed.width=anything": "model.allowed.width: describes what was chosen",
    "data.info.outputs=3": "data.info.outputs: describes what was chosen",
    "objective.cross_entropy.task=regression": "objective.cross_entropy.task: describes what was chosen and",
    "~encoder.fits": "encoder.fits: describes what was chosen",
    # parts that do not go together
    "encoder=conv data=double_moons": "encoder=conv and data=double_moons: the encoder takes images",
    "encoder=augment": "encoder=augment and data=mnist5k: the encoder takes vectors, the data",
    "augment=crop_flip data=double_moons": "augment=crop_flip and data=double_moons: the augmentation takes "
    "images, the data are vectors; choose augment=none",
    "augment=crop": "unknown augment; did you mean 'crop_flip'? choose one of: autoaugment, crop_flip, motion, none",
    "augment=null": "augment=null: unknown augment; choose one of: autoaugment",
    "augment=crop_flip augment.pad=-1": "augment.pad=-1: expected integer >= 0",
    "augment=autoaugment augment.policy=mnist": "augment.policy=mnist: choose one of: cifar10, imagenet, svhn",
    "augment=motion augment.zoom=1": "augment.zoom=1: expected number in [0, 1)",
    "data.augment=crop_flip": "unknown key 'data.augment': did you mean 'augment'?",
    "model.depth=3": "unknown key 'model.depth': did you mean 'depth'?",
    "augment.pad=3": "unknown key 'augment.pad'",
    "optimizer=nero optimizer.optimizer.beta=1": "optimizer.optimizer.beta=1: expected number in [0, 1)",
    "optimizer=nero optimizer.optimizer.constrained=all": "optimizer.optimizer.constrained=all: choose one of: kernels",
    "optimizer=nero optimizer.scheduler.shares=[1]": "shares=[1]: expected list of number in (0, 1)",
    "model=gradient_flow encoder=conv": "encoder=conv and model=gradient_flow: the encoder makes",
    "model=chnode_dense encoder=conv": "encoder=conv and model=chnode_dense: the encoder makes",
    "model.images=vectors encoder=conv": "encoder=conv and model=chnode: the encoder makes",
    "model=gradient_flow_conv data=double_moons": "model=gradient_flow_conv and data=double_moons: the model takes",
    "model=conv_stable_node data=double_moons": "model=conv_stable_node and data=double_moons: the model takes",
    "model=conv_stable_node model.kernel=2": "model.kernel=2: choose one of: 1, 3, 5, 7, 9",
    "model=gradient_flow_conv encoder=dense": "model=gradient_flow_conv and encoder=dense: the model takes images, and",
    "model=resnet model.width=1 data=double_moons": "model.width: expected at least the 2 numbers of a sample with",
    "model=gradient_flow encoder=identity": "model.width: expected at least the 784 numbers of a sample",
    "head=identity data=pendulum": "head=identity: expected a state of 2 numbers, as many as a target of data=pendulum "
    "has, got 8; set model.width=2 or choose head=linear",
    "-m encoder=auto,conv data=double_moons": "encoder=conv and data=double_moons: the encoder takes images",
    # sweeps
    "suite.gaussian.var=0.1,0.2": "several values need -m",
    "hydra/launcher=joblib": "hydra/launcher=joblib: says who runs the jobs of a sweep; write robode train -m",
    "hydra.launcher.n_jobs=2": "hydra.launcher.n_jobs=2: says who runs the jobs of a sweep; write robode train -m",
    "-m depth=4,0": "depth=0: expected a number above 0",
    "-m model=chnode,foo": "model=foo: unknown model",
    "-m run=same seed=0,1": "run=same: 2 jobs of this sweep would be the run default/same",
    "-m run=a,b,a": "run=a: 2 jobs of this sweep",
    # runs
    "run=a/b": "run: expected a name of letters, digits, '.', '_' and '-', got 'a/b'",
    "run=.hidden": "got '.hidden'",
    "run=''": "got ''",
    "resume=nothing": "resume=nothing: expected a run folder",
    "resume=nothing model.gain=3": "model.gain: a resumed run keeps its own configuration except epochs",
    "--config-dir nowhere": "nowhere' is not a folder",
}


@pytest.mark.parametrize("words", CASES)
def test_train_refuses(
    words: str, robode: Callable[..., Answer], folder: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robode.config.combinations.memory", lambda: 16e9)
    answer = robode("train", *words.split())
    assert CASES[words] in answer.line
    assert answer.code == 2
    assert answer.out == ""
    assert list(folder.iterdir()) == []
    assert jobs.configs == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "expected the run to evaluate"),
        ("run=nothing", "run=nothing: expected a run folder"),
        ("run=.", "there is no config.yaml"),
        ("run=. checkpoint=newest", "choose one of: best, last"),
        ("run=. split=all", "split=all: choose one of: test, validation, train"),
        ("run=. device=gpu", "device=gpu: choose one of: auto, cpu, cuda"),
        ("run=. model=chnode", "unknown key 'model'"),
        ("run=. objective=cross_entropy", "unknown key 'objective'"),
        ("run=. +objective.mine.x=1", "unknown key 'objective"),
        ("run=. suite.gaussian.var=-1", "expected a number"),
    ],
)
def test_evaluate_refuses(words: str, expected: str, robode: Callable[..., Answer], folder: Path, jobs: Jobs) -> None:
    answer = robode("evaluate", *words.split())
    assert expected in answer.line
    assert answer.code == 2
    assert list(folder.iterdir()) == []
    assert jobs.configs == []


CLOSED = {
    "+data.typo=1": "unknown key 'data.typo'",
    "+model.typo=1": "model.typo: model=chnode has no such key",
    "+suite.gaussian.vra=0.1": "suite.gaussian.vra: robode.corruptions.noise.Gaussian has no such key; "
    "did you mean suite.gaussian.var?",
    "+optimizer.optimizer.momentums=1": "optimizer.optimizer.momentums: torch.optim.Adam has no such key; it has lr, ",
    "+protocol.typo=1": "protocol.typo: robode.corruptions.protocols.DataSpace has no such key",
    "experiment=typo": "unknown key 'data.validaton': did you mean 'data.validation'?",
}


@pytest.mark.parametrize("words", CLOSED)
def test_a_dry_run_refuses_a_key_that_nobody_reads(words: str, robode: Callable[..., Answer], folder: Path) -> None:
    (folder / "conf" / "experiment").mkdir(parents=True)
    (folder / "conf" / "experiment" / "typo.yaml").write_text("# @package _global_\n# mine\ndata:\n  validaton: 0\n")
    answer = robode("train", "--dry-run", "data=six_points", "model.width=2", *words.split())
    assert CLOSED[words] in answer.line
    assert (answer.code, answer.out) == (2, "")
    assert [path.name for path in folder.iterdir()] == ["conf"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trian", "unknown verb 'trian'"),
        ("list foo", "choose from models, data, suites"),
        ("completion tcsh", "expected one of bash, zsh, fish"),
    ],
)
def test_other_verbs_refuse(words: str, expected: str, robode: Callable[..., Answer]) -> None:
    answer = robode(*words.split())
    assert expected in answer.line
    assert answer.code == 2


def test_missing_files_without_a_network(
    robode: Callable[..., Answer], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robode.data.validation.reachable", lambda url: False)
    answer = robode("train", "data=mnist")
    assert "MNIST/raw/train-images-idx3-ubyte (and 3 more) not found" in answer.line
    assert answer.code == 2
    assert list(folder.iterdir()) == []


def test_truncated_file(robode: Callable[..., Answer], folder: Path) -> None:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    header = b"\0\0\x08\x03" + (60000).to_bytes(4, "big") + (28).to_bytes(4, "big") * 2
    (raw / "train-images-idx3-ubyte").write_bytes(header + bytes(1000))
    answer = robode("train", "data=mnist", "data.root=.")
    assert "1016 bytes where 47040016 were expected" in answer.line
    assert answer.code == 2
    assert [path.name for path in folder.iterdir()] == ["MNIST"]


def test_a_taken_run_name(robode: Callable[..., Answer], folder: Path, jobs: Jobs) -> None:
    mine = folder / "outputs" / "default" / "mine"
    mine.mkdir(parents=True)
    (mine / "config.yaml").write_text(
        OmegaConf.to_yaml(OmegaConf.create(robode("train", "--cfg", "depth=3").out), resolve=True)
    )
    answer = robode("train", "-m", "run=yours,mine")
    assert "run=mine: outputs/default/mine is there already and has depth=3, not 8" in answer.line
    assert (answer.code, jobs.configs) == (2, [])
    assert robode("train", "run=mine", "depth=3", "repeats=2").code == 0  # the same training, measured again
    assert robode("train", "run=mine", "experiment=smoke").code == 0  # another experiment's folder
    assert [path.name for path in folder.rglob("*")] == ["outputs", "default", "mine", "config.yaml"]


def test_runs_of_a_sweep_with_names_of_their_own(robode: Callable[..., Answer], folder: Path, jobs: Jobs) -> None:
    (folder / "conf" / "experiment").mkdir(parents=True)
    (folder / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\n# mine\ndepth: 2\n")
    assert robode("train", "-m", "run=a,b", "seed=0").code == 0
    assert robode("train", "-m", "run=same", "experiment=smoke,mine").code == 0
    assert [cfg.run for cfg in jobs.configs] == ["a", "b", "same", "same"]


@pytest.mark.parametrize("installed", [(), ("tensorboard",), ("tensorboardX",)], ids=str)
def test_a_logger_needs_its_package(
    installed: tuple[str, ...],
    robode: Callable[..., Answer],
    folder: Path,
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("robode.config.validate.find_spec", lambda name: True if name in installed else None)
    answer = robode("train", "logger=[csv,tensorboard]")
    if installed:
        assert (answer.code, answer.err, len(jobs.configs)) == (0, "", 1)
        return
    assert answer.line.startswith("logger=tensorboard: needs the package tensorboard, which is not installed")
    assert (answer.code, jobs.configs) == (2, [])
    assert list(folder.iterdir()) == []


def test_what_is_not_refused(robode: Callable[..., Answer], folder: Path, jobs: Jobs) -> None:
    np.save(folder / "J.npy", np.kron(np.eye(4), [[0.0, 1.0], [-1.0, 0.0]]))
    for words in (
        "model.J=file model.J_file=J.npy model.width=auto",
        "model.init_std=0 model.shared=true model.J=file model.J_file=J.npy data.limit_train=null",
        "model=node model.hidden=[]",
        "logger.csv=null callbacks.bsm=null",
        "optimizer.interval=step data.limit_train=7 model.init_std=2",
        "callbacks=[default,early_stopping] data.validation=0.1",
    ):
        assert robode("train", *words.split()).code == 0, words


@pytest.mark.parametrize(
    ("typed", "run"),
    [("2026_11_28", "2026_11_28"), ("1e3", "1e3"), ("true", "true"), (".5", None), ("'1_0'", "1_0"), ("nan", "nan")],
)
def test_a_name_is_what_was_typed(typed: str, run: str | None, robode: Callable[..., Answer], jobs: Jobs) -> None:
    answer = robode("train", f"run={typed}")
    assert answer.line.endswith("got '.5'") if run is None else [cfg.run for cfg in jobs.configs] == [run]


def test_files_and_columns_of_parts_are_what_was_typed(robode: Callable[..., Answer], jobs: Jobs, folder: Path) -> None:
    np.savetxt(folder / "2026_11", np.kron(np.eye(4), [[0, 1], [-1, 0]]))
    assert robode("train", "model.J=file", "model.J_file=2026_11").code == 0
    assert jobs.configs[0].model.arguments["J_file"] == "2026_11"
    (folder / "1e3.csv").write_text("2024,b\n1,2\n")
    assert robode("train", "data=arrays", "data.file=1e3.csv", "data.label=2024").code == 0
    assert jobs.configs[1].data.source.arguments["label"] == "2024"


def test_names_in_a_sweep(robode: Callable[..., Answer], jobs: Jobs) -> None:
    assert robode("train", "-m", "run=1e3,2e3", "seed=1").code == 0
    assert [cfg.run for cfg in jobs.configs] == ["1e3", "2e3"]
    assert jobs.argv[0][2:] == ["run='1e3'", "seed=1"]


@pytest.mark.parametrize("typed", ["~/a b", "~/a=b", "~", "2024", "a=b", "é", '"a,b"', "it's", "[a", "a(b"])
def test_a_path_is_what_was_typed_and_begins_at_home(
    typed: str, robode: Callable[..., Answer], folder: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    answer = robode("train", f"data.root={typed}")
    if typed in ("[a", "it's", "a(b"):
        assert answer.line.startswith(f"data.root={typed}: cannot be read as key=value; are all quotes and")
        return
    assert jobs.configs[0].data.root == typed.replace("~", "/home/me").strip('"')


def test_every_path_may_begin_at_home(
    robode: Callable[..., Answer], folder: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / "mine" / "experiment").mkdir(parents=True)
    (folder / "mine" / "experiment" / "own.yaml").write_text("# @package _global_\n# mine\ndepth: 2\n")
    np.save(folder / "J.npy", np.kron(np.eye(4), [[0.0, 1.0], [-1.0, 0.0]]))
    monkeypatch.setenv("ROBODE_CONFIG_PATH", "~/mine")
    monkeypatch.setenv("ROBODE_DATA", "~/data")
    answer = robode("train", "experiment=own", "model.J=file", "model.J_file=~/J.npy")
    assert answer.code == 0, answer.err
    assert jobs.configs[0].model.arguments["J_file"] == str(folder / "J.npy")
    assert jobs.configs[0].data.root == str(folder / "data")
    assert robode("train", "--config-dir", "~/mine", "experiment=own").code == 0
    assert "resume=" + str(folder / "gone") in robode("train", "resume=~/gone").line
    assert "run=" + str(folder / "gone") in robode("evaluate", "run=~/gone").line
    assert str(folder / "gone") in robode("report", "~/gone").line


@pytest.mark.parametrize(("content", "says"), [
    (np.array([["a", "b"], ["c", "d"]]), "expected a readable matrix of numbers, got 'J.npy' ("),
    (np.eye(8), "expected a skew-symmetric matrix, got max |J + J^T| = 2"),
    (np.zeros((3, 3)), "expected a 8x8 matrix (model.width), got (3, 3)"),
    (np.full((8, 8), np.nan), "expected finite numbers, got infinity or NaN in 'J.npy'"),
    (np.eye(8) * 1j, "expected a readable matrix of numbers"),
])  # fmt: skip
def test_a_matrix_in_a_file(content: np.ndarray, says: str, robode: Callable[..., Answer], folder: Path) -> None:
    np.save(folder / "J.npy", content)
    answer = robode("train", "model.J=file", "model.J_file=J.npy")
    assert answer.code == 2 and answer.line.startswith(f"model.J_file: {says}")


@pytest.mark.parametrize("words", ["--dry-run trainer=gpu", "trainer=ddp", "-m trainer=gpu seed=1,2"])
def test_a_gpu_that_is_not_there(
    words: str, robode: Callable[..., Answer], folder: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    answer = robode("train", *words.split())
    assert answer.code == 2 and answer.line.endswith("torch sees no GPU; use trainer=cpu, or ddp_sim for two processes")
    assert (list(folder.iterdir()), jobs.configs) == ([], [])


@pytest.mark.parametrize("good", [0, 1])
def test_a_sweep_in_which_every_job_is_refused_leaves_nothing(
    good: int, robode: Callable[..., Answer], folder: Path, jobs: Jobs
) -> None:
    def effect(config: TrainConfig) -> None:
        if config.seed >= good:
            raise BadInput("cannot work")

    jobs.effect = effect
    assert robode("train", "-m", "seed=0,1").code == 1
    assert [path.name for path in folder.rglob("*.yaml")] == ["multirun.yaml"] * good
    assert bool(list(folder.rglob("sweeps"))) == bool(good)


@pytest.mark.parametrize(
    "words", ["report to=file", "report to=file/below", "report to=", "export run=. to=file/below"]
)
def test_a_folder_to_write_that_is_none(words: str, robode: Callable[..., Answer], folder: Path) -> None:
    (folder / "file").touch()
    answer = robode(*words.split())
    what = "the folder to write" if words.endswith("=") else "a folder, and "
    assert answer.code == 2 and f": expected {what}" in answer.line
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("word", ["epochs=0", "batch_size=9223372036854775808", "suite=nothing"])
def test_a_reproduction_that_cannot_work_leaves_nothing(
    word: str, robode: Callable[..., Answer], folder: Path, jobs: Jobs
) -> None:
    answer = robode("reproduce", "chnode_2022/table1", "size=smoke", word)
    assert (answer.code, answer.out) == (2, "") and answer.line.startswith(word.partition("=")[0])
    assert (list(folder.iterdir()), jobs.configs) == ([], [])


def test_traceback_only_on_request(robode: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBODE_DEBUG", "1")
    answer = robode("train", "depth=0")
    assert "Traceback" in answer.err
    assert answer.code == 2


SMALL_TRAINING = ["train", "data=double_moons", "data.limit_train=60", "depth=2", "suite=clean"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model=resnet", "objective=[cross_entropy,lognorm_penalty]"], "penalty: expected model=stable_node "),
        (["model=stable_node", "objective=[cross_entropy,lognorm_penalty]"], "got model.stabilise=projection"),
        (["model=stable_node", "model.stabilise=penalty"], "needs a term of the loss: objective="),
        (["model=conv_stable_node", "data=mnist5k", "model.stabilise=penalty"], "needs a term of the loss: objective="),
        (["model=conv_stable_node", "data=mnist5k", "model.width=20000"], "model.width=20000: the network takes"),
        (["model=stable_node", "model.width=20000"], "model.width=20000: the network takes at least"),
        (["repeats=100000000000"], "repeats=100000000000: expected at most 10000"),
        (["trainer.threads=1000000"], "trainer.threads=1000000: expected a whole number from 1 to 1024"),
        (["data=arrays", "data.file=a,b.npz"], "quoted twice"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)  # fmt: skip
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry"])
def test_what_cannot_work_is_refused_before_anything_is_written(
    words: list[str], says: str, dry: list[str], robode: Callable[..., Answer], folder: Path
) -> None:
    answer = robode(*SMALL_TRAINING, *words, *dry)
    assert answer.code == 2 and says in answer.line, answer.line
    assert not (folder / "outputs").exists()
