"""A training that begins with the weights of a finished run, and a network that is stabilised after its training."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, composed, train

from robode.api import evaluate
from robode.api.stabilisation import run_stabilise
from robode.api.training import run_training
from robode.errors import BadInput
from robode.evaluation.target import trained
from robode.files import read_json
from robode.ode.projection import stabilise
from robode.runs import origin
from robode.runs.identity import config_hash
from robode.runs.results import read_rows
from robode.runs.run import Run
from robode.runs.table import METRICS
from robode.training.checkpoints import Checkpoints
from robode.training.start import pinned

FREE = ("model=stable_node", "model.width=6", "encoder=augment", "lr=0.02")


@pytest.fixture(scope="module")
def free_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `free`, an unconstrained network, was trained for an epoch."""
    place = tmp_path_factory.mktemp("free")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
        train(*FREE, "model.stabilise=none", "epochs=1", "run=free")
    return place


@pytest.fixture
def free(free_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    shutil.copytree(free_once, tmp_path, dirs_exist_ok=True)
    return Run(Path("outputs/default/free"))


def runs() -> set[str]:
    return {path.parent.name for path in Path("outputs").glob("*/*/config.yaml")}


def weights(run: Run, name: str = "best") -> torch.Tensor:
    return trained(run.folder, name).network.flow.K.detach()


def from_free(*words: str, run: str = "free"):
    """A training, as it is composed, that begins with the weights of that run and makes no step."""
    return composed(*SMALL, *FREE, f"start={run}", "epochs=0", *words)


def projected(delta: float = 0.0, **changes):
    return replace(composed("run=free", f"delta={delta}", verb="stabilise"), **changes)


def test_a_training_that_begins_anew_keeps_the_name_that_it_had_before_there_was_a_start() -> None:
    config = composed(*SMALL)
    plain = config.plain()
    before = {key: value for key, value in plain.items() if key not in ("start", "start_weights")}
    assert plain["start"] is None and config_hash(plain) == config_hash(before)


def test_what_a_run_is_depends_on_the_weights_that_it_begins_with_and_not_on_where_they_lie(free: Run) -> None:
    shutil.copytree(free.folder, "outputs/default/copy")
    one, moved = (pinned(from_free(run=name)) for name in ("free", "copy"))
    assert config_hash(one.plain()) == config_hash(moved.plain()) != config_hash(composed(*SMALL, *FREE).plain())
    content = torch.load(free.best, weights_only=True)
    content["state_dict"]["network.flow.K"][0, 0, 0] += 1
    torch.save(content, "outputs/default/copy/best.ckpt")
    other = pinned(from_free(run="copy"))
    assert config_hash(other.plain()) != config_hash(one.plain())
    assert one.start_weights == read_rows(free.folder / "results.csv")["weights"].iloc[-1]


def test_no_epoch_leaves_the_projection_of_the_library_call_bit_by_bit_and_is_proved_as_loaded(free: Run) -> None:
    done = run_training(from_free("model.delta=0.1"))
    run = Run(done.run)
    A, alpha = weights(free)[0], 0.1
    expected = stabilise(A, 0.1, alpha)
    assert torch.equal(weights(run)[0], expected.W) and not torch.equal(A, expected.W)
    assert weights(run).dtype == torch.float32
    loaded = trained(run.folder).network.flow
    assert all(field.lognorm() <= 0.1 for field in loaded.exact().fields())
    assert read_json(run.folder / "environment.json")["start"] == {
        "run": "free", "weights": pinned(from_free()).start_weights,
    }  # fmt: skip
    logged = METRICS.read(run.folder / "metrics.csv").set_index("name")["value"]
    assert 0 <= logged["validation/accuracy"] <= 1 and logged["flow/flow_ode"] <= 1.1052
    assert run.config().start == "free" and done.score is not None and run.state == "done"


def test_other_keys_and_random_numbers_are_as_usual(free: Run) -> None:
    """Trained twice from the same weights: the same bits, which are not those that it began with, and near them."""
    begun = Run(run_training(replace(from_free("model.stabilise=none"), epochs=1)).run)
    again = Run(run_training(replace(from_free("model.stabilise=none", "run=again"), epochs=1)).run)
    assert torch.equal(weights(begun, "last"), weights(again, "last"))
    assert not torch.equal(weights(begun, "last"), weights(free, "last"))
    drift = (weights(begun, "last") - weights(free)).norm()
    assert drift < 0.5 * weights(free).norm(), "began there"


def test_the_same_command_finds_the_run_again_and_does_nothing_twice(free: Run) -> None:
    first = run_stabilise(projected())
    assert not first.reused
    before = {path: path.stat().st_mtime_ns for path in first.run.rglob("*") if path.name != "status.json"}
    again = run_stabilise(projected())
    assert again.reused and again.run == first.run and runs() == {"free", first.run.name}
    after = {path: path.stat().st_mtime_ns for path in first.run.rglob("*") if path.name != "status.json"}
    assert {path for path in after if path.suffix in (".ckpt", ".csv", ".yaml")} and all(
        after[path] == time for path, time in before.items() if path.suffix in (".ckpt", ".csv", ".yaml")
    )


@pytest.mark.slow
@pytest.mark.parametrize("where", ["before the checkpoint", "after it", "while it is measured"])
def test_a_kill_loses_nothing(where: str, free: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "before the checkpoint":
            patch.setattr(Checkpoints, "on_fit_end", interrupted)
        elif where == "after it":
            patch.setattr(origin, "finish", interrupted)
        else:
            patch.setattr("robode.api.training.measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_stabilise(projected())
    (name,) = runs() - {"free"}
    run = Run(Path("outputs/default", name))
    assert run.state == "interrupted" and run.begun == (where != "before the checkpoint")
    if run.begun:  # goes on without the run that it began with
        shutil.move(free.folder, "elsewhere")
        run_training(composed(f"resume={name}"), (f"resume={name}",))
        shutil.move("elsewhere", free.folder)
    found = run_stabilise(projected())
    assert found.run == run.folder and run.state == "done" and run.trained
    assert torch.equal(weights(run)[0], stabilise(weights(free)[0], 0.0, 0.1).W)


def test_what_was_done_is_said_in_numbers(free: Run, capsys: pytest.CaptureFixture[str]) -> None:
    score = trained_score(free)
    evaluate(free.folder, suite="clean", limit=7)  # of fewer samples: not to be compared with
    found = run_stabilise(projected(0.2))
    A, W = weights(free), weights(Run(found.run))
    assert found.distance == pytest.approx(float((W.double() - A.double()).norm()))
    assert found.relative == pytest.approx(found.distance / float(A.double().norm()))
    assert found.delta_before[0] <= found.delta_before[1] and found.delta_after[1] <= 0.2 < found.delta_before[0]
    assert found.score_before == score != trained_score(free)
    out = capsys.readouterr().out
    for text in ("before,", "Frobenius", "clean accuracy:", f"stabilised: {found.run}"):
        assert text in out
    stay = run_stabilise(projected(50.0))
    assert stay.distance == 0 and torch.equal(weights(Run(stay.run)), A)
    assert "the weights stay as they are" in capsys.readouterr().out


def trained_score(run: Run) -> float:
    rows = read_rows(run.folder / "results.csv")
    return float(rows[rows["perturbation"] == "clean"]["score"].iloc[-1])


@pytest.mark.slow
def test_a_network_that_paid_for_its_log_norm_is_projected_without_that_term(free: Run) -> None:
    words = ("model.stabilise=penalty", "objective=[cross_entropy,lognorm_penalty]", "epochs=1", "run=paid")
    train(*FREE, *words)
    found = Run(run_stabilise(projected(run="paid")).run).config()
    assert list(found.objective) == ["cross_entropy"] and found.model.arguments["stabilise"] == "projection"


@pytest.mark.slow
def test_epochs_after_the_projection_keep_it(free: Run) -> None:
    found = run_stabilise(projected(0.1, epochs=1))
    assert found.delta_after[1] <= 0.1 and Run(found.run).status()["epoch"] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("target", [-1e3, -1e16, -1e36])
def test_a_shift_reaches_every_target_that_the_type_holds(target: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    found = stabilise(torch.randn(8, 8, dtype=dtype), target, 0.1)
    assert found.bound <= target and found.certificate is not None
    assert found.certificate.bound(found.W, 0.1) <= target
    assert found.distance <= 1.01 * (abs(target) / 0.1 + 10) * 8**0.5


def test_a_key_of_the_network_that_differs_is_named(free: Run) -> None:
    from robode.training.start import check_start

    for word, line in {
        "depth=3": "depth=2 .not 3.",
        "step=0.25": "step=auto .not 0.25.",
        "model.activation=leaky_relu": "model.activation=smooth_leaky .not leaky_relu.",
        "integrator=rk4": "integrator=euler .not rk4.",
    }.items():
        with pytest.raises(BadInput, match=f"^start=free: expected the network of run free: {line}"):
            check_start(from_free(word))
    check_start(from_free("model.delta=3", "model.every=7", "model.init_std=0.1", "seed=5"))
