"""`robode stabilise` and `start=`: what is refused, in one line and before anything is written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Answer, calling
from small_runs import SMALL, train

from robode.api import stabilise
from robode.cli.completion import candidates
from robode.runs.checkpoints import read_checkpoint
from robode.runs.run import find

STABLE = (*SMALL, "model=stable_node", "model.width=6", "encoder=augment")


@pytest.fixture(scope="module")
def runs_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """free: an unconstrained network; other: a CH-NODE; begun: one whose training has not come to its end."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
        train(*STABLE, "model.stabilise=none", "epochs=1", "run=free")
        train("epochs=1", "run=other")
        shutil.copytree("outputs/default/free", "outputs/default/begun")
        status = Path("outputs/default/begun/status.json")
        status.write_text(status.read_text().replace('"trained": true', '"trained": false'))
    return place


@pytest.fixture
def call(
    runs_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    shutil.copytree(runs_once, tmp_path, dirs_exist_ok=True)
    return calling(capsys)


def files() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.suffix != ".lock"}


START = {
    "start=nowhere": "start=nowhere: expected a run folder",
    "start=outputs": "start=outputs: expected the folder of a run",
    "start=begun": "start=begun: expected a finished training, and run begun is done; finish it first",
    "start=free resume=free": "start=free and resume=free: give one of them",
    "start=free run=free": "start=free: is the run free itself",
    "start=free run=free force=true": "start=free: is the run free itself",
    "start=free depth=3": "start=free: expected the network of run free: depth=2 (not 3)",
    "start=other": "start=other: expected the network of run other: model=chnode (not stable_node), integrator=etd",
    "start=free epochs=-1": "epochs=-1: expected a number above 0",
    "epochs=0": "epochs=0: expected a number above 0; only a training with start=RUN",
    "start=free model.delta=-1e38": "delta: expected a target of at least -1.7e+37, which torch.float32 reaches",
}
STABILISE = {
    "run=free": "delta: expected a number, the largest log-norm",
    "delta=0": "run: expected the run to stabilise",
    "run=free delta=nan": "delta=nan: expected a number",
    "run=free delta=inf": "delta=inf: expected a number",
    "run=free delta=x": "delta=x: delta must be a number",
    "run=nowhere delta=0": "run=nowhere: expected a run folder",
    "run=begun delta=0": "run=begun: expected a finished training",
    "run=other delta=0": "run=other: expected fields sigma(A u + b) with slopes in [alpha, 1], alpha > 0, as "
    "model=stable_node and model=conv_stable_node have them, got model=chnode",
    "run=free delta=0 stabilise=penalty": "unknown key 'stabilise'",
    "run=free delta=0 model.stabilise=penalty": "unknown key 'model.stabilise'",
    "run=free delta=0 epochs=-1": "epochs=-1: expected a number above 0",
    "run=free delta=0 to=free": "start=free: is the run free itself",
    "run=free delta=0 to=a/b": "run: expected a name of letters",
    "run=free delta=-1e38": "delta: expected a target of at least -1.7e+37, which torch.float32 reaches",
    "run=free delta=-1e37": "model: the outputs are not finite",
}


@pytest.mark.parametrize("words", START)
def test_a_start_that_cannot_be(words: str, call: Callable[..., Answer]) -> None:
    before = files()
    answer = call("train", *STABLE, *words.split())
    assert (answer.code, answer.line[: len(START[words])]) == (2, START[words])
    assert files() == before


@pytest.mark.parametrize("words", STABILISE)
def test_a_stabilisation_that_cannot_be(words: str, call: Callable[..., Answer]) -> None:
    before = files()
    answer = call("stabilise", *words.split())
    assert (answer.code, answer.line[: len(STABILISE[words])]) == (2, STABILISE[words])
    assert files() == before


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        ("nan", "start=free: its weights are not finite (flow.K); choose another run"),
        ("bytes", "start=free: outputs/default/free/best.ckpt: damaged, or not a checkpoint of robode"),
        ("config", "outputs/default/free/config.yaml: "),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_damaged_run(damage: str, line: str, dry: tuple[str, ...], call: Callable[..., Answer]) -> None:
    checkpoint, config = (Path("outputs/default/free") / name for name in ("best.ckpt", "config.yaml"))
    if damage == "nan":
        content = torch.load(checkpoint, weights_only=True)
        content["state_dict"]["network.flow.K"][0, 1, 1] = torch.nan
        torch.save(content, checkpoint)
    elif damage == "bytes":
        checkpoint.write_bytes(b"half")
    else:
        config.write_text("model: [")
    before = files()
    for words in (("stabilise", "run=free", "delta=0"), ("train", *STABLE, "start=free", "epochs=0")):
        answer = call(*words, *dry)
        assert answer.code == 2 and answer.line.startswith(line), answer.err
    assert files() == before


@pytest.mark.slow
def test_a_schedule_of_another_length_is_refused(call: Callable[..., Answer]) -> None:
    cosine = ("+optimizer.scheduler.T_max=1", "optimizer.scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR",
              "~optimizer.scheduler.gamma")  # fmt: skip
    train(*STABLE, "epochs=1", "run=laid_out", *cosine)
    answer = call("stabilise", "run=laid_out", "delta=0", "epochs=3")
    assert answer.code == 2 and "was laid out for 1 epochs (optimizer.scheduler.T_max)" in answer.line
    assert call("stabilise", "run=laid_out", "delta=0").code == 0


@pytest.mark.slow
def test_convolutions_are_stabilised_too(call: Callable[..., Answer]) -> None:
    images = ("model=conv_stable_node", "model.width=2", "data=mnist5k", "data.limit_train=40", "encoder=bounded")
    train(*images, "model.stabilise=none", "model.init_std=2", "epochs=1", "run=images", "suite=clean")
    found = stabilise("images", 0.5, to="calm")
    assert found.delta_before[0] > 0.5 >= found.delta_after[1] > 0 and 0 < found.relative < 1
    # and `start=` with the keys of a projection is the same run
    same = train(*images, "model.init_std=2", "model.delta=0.5", "start=images", "epochs=0", "suite=clean")
    one, two = (read_checkpoint(run.last)["state_dict"] for run in (same, find("calm")[0]))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.slow
def test_several_deltas_in_one_sweep_and_a_look_ahead(call: Callable[..., Answer]) -> None:
    before = files()
    ahead = call("stabilise", "-m", "run=free", "delta=0,0.5", "--dry-run")
    assert ahead.code == 0 and ahead.out.count("not started") == 2 and files() == before
    done = call("stabilise", "-m", "run=free", "delta=0,0.5")
    assert done.code == 0 and done.out.count("Frobenius norm") == 2 and "sweep: 2 jobs, 0 reused, 0 failed" in done.out
    again = call("stabilise", "-m", "run=free", "delta=0,0.5").out
    assert "2 jobs, 2 reused" in again and "best by validation: job" in again
    names = [path.parent.name for path in Path("outputs/default").glob("stable_node*/config.yaml")]
    assert len(names) == 2 and all(name in ahead.out for name in names)


def test_the_words_complete() -> None:
    assert candidates("robode stab") == ["stabilise"]
    assert candidates("robode stabilise run=x del") == ["delta="]
    assert candidates("robode train star") == ["start="]


def test_from_python(call: Callable[..., Answer]) -> None:
    found = stabilise("free", 0.3, suite="clean", to="calm")
    assert found.run == Path("outputs/default/calm") and found.delta_after[1] <= 0.3
