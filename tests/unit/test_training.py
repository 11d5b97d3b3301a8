"""The training loop and its callbacks, on real runs of a tenth of a second."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from small_runs import SMALL, composed, train

from robode.api.evaluation import run_evaluation
from robode.errors import BadInput, JobFailed
from robode.evaluation.measure import warnings_about
from robode.network import build_network, weights_digest
from robode.runs.checkpoints import load_weights, read_checkpoint
from robode.runs.results import COLUMNS, read_rows
from robode.runs.run import Run, find
from robode.runs.table import BSM_NORMS, METRICS
from robode.training.assembly import assemble, build_data
from robode.training.module import Training


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    """Runs go into tmp_path; figures have tests of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])


def network_of(run: Run, checkpoint):
    config = run.config()
    network = build_network(config, build_data(config).info)
    load_weights(checkpoint, network)
    return network


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run with everything switched on, shared by the tests that only read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("finished"))
        words = ("epochs=3", "suite=[noise,clean]", "repeats=2", "callbacks=[default,robustness_sweep]")
        run = train(*words)
        return Run(run.folder.resolve())


def test_run_folder_is_complete(finished):
    names = {path.name for path in finished.folder.iterdir() if not path.name.startswith(".")}
    assert names == {
        "config.yaml", "status.json", "environment.json", "best.ckpt", "last.ckpt", "metrics.csv", "bsm.csv",
        "results.csv", "questions.json", "scores", "robustness_sweep.csv", "samples.npz", "figures", "report.html",
    }  # fmt: skip
    assert not [path for path in finished.folder.glob(".*") if not path.name.endswith("lock")]
    assert {path.name for path in (finished.folder / "figures").glob("*.png")} >= {
        "training_curves.png", "bsm_norms.png", "accuracy_against_noise.png", "noise_grid.png", "accuracy_by_epoch.png",
    }  # fmt: skip


def test_rows_carry_every_column_and_the_certificates(finished):
    rows = read_rows(finished.folder / "results.csv")
    assert tuple(rows.columns) == COLUMNS
    certificate = network_of(finished, finished.best).flow.certificate()
    assert np.allclose(rows["flow_ode"], certificate["flow_ode"], rtol=1e-5)
    assert np.allclose(rows["flow_discrete"], certificate["flow_discrete"], rtol=1e-5)
    assert set(rows["checkpoint"]) == {"best"} and set(rows["split"]) == {"test"}
    assert rows["score"].between(0, 1).all()
    assert set(rows["perturbation"]) == {"clean", "gaussian"}


def test_rows_agree_with_the_checkpoint_they_name(finished):
    config = finished.config()
    x, labels = build_data(config).split("test")
    accuracy = float((network_of(finished, finished.best)(x).argmax(1) == labels).float().mean())
    rows = read_rows(finished.folder / "results.csv")
    assert math.isclose(rows[rows["perturbation"] == "clean"]["score"].iloc[0], accuracy, abs_tol=1e-6)


def test_best_checkpoint_is_the_best_on_validation(finished):
    metrics = METRICS.read(finished.folder / "metrics.csv")
    accuracies = metrics[metrics["name"] == "validation/accuracy"]["value"]
    x, labels = build_data(finished.config()).split("validation")
    for checkpoint, expected in ((finished.best, accuracies.max()), (finished.last, accuracies.iloc[-1])):
        measured = float((network_of(finished, checkpoint)(x).argmax(1) == labels).float().mean())
        assert math.isclose(measured, expected, abs_tol=1e-6)


def test_checkpoint_holds_plain_data(finished):
    def types(node):
        yield type(node)
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
        for child in children:
            yield from types(child)

    content = read_checkpoint(finished.last)
    assert set(types(content)) <= {dict, list, tuple, int, float, str, bool, type(None), torch.Tensor} | {
        type(content["state_dict"])
    }
    assert "network.flow.gamma" in content["state_dict"]
    assert str(finished.folder.parent) not in repr(content)


def test_metrics_have_the_regime_and_the_bounds(finished):
    names = set(METRICS.read(finished.folder / "metrics.csv")["name"])
    flow = ("gamma", "c1", "c2", "alpha", "epsilon", "rho", "h_star", "hcgamma/1", "hcgamma_max", "J_over_gamma")
    flow += ("flow_ode", "flow_discrete", "step_ode/1", "step_discrete/2")
    assert names >= {f"flow/{name}" for name in flow}
    assert names >= {"train/loss", "train/accuracy", "validation/loss", "validation/accuracy", "lr"}


def test_bsm_is_logged_per_layer_and_step(finished):
    bsm = BSM_NORMS.read(finished.folder / "bsm.csv")
    assert sorted(set(bsm["step"])) == [0, 2, 4, 6, 8, 9]
    assert sorted(set(bsm["layer"])) == [1, 2]
    assert (bsm["bsm_max"] >= bsm["bsm_median"]).all()
    assert (bsm["bsm_max"] <= 1 + 1e-6).all(), "etd with gamma from Theorem 1 is nonexpansive"
    layer_2 = bsm[bsm["layer"] == 2]
    assert np.allclose(layer_2["bsm_max"], layer_2["step_max"]), "of the last layer both are the same Jacobian"


def test_sweep_measures_validation_data_each_epoch(finished):
    rows = read_rows(finished.folder / "robustness_sweep.csv")
    assert sorted(set(rows["epoch"])) == [0, 1, 2]
    assert set(rows["split"]) == {"validation"}
    clean = rows[rows["perturbation"] == "clean"].sort_values("epoch")["score"]
    metrics = METRICS.read(finished.folder / "metrics.csv")
    assert np.allclose(clean, metrics[metrics["name"] == "validation/accuracy"]["value"], atol=1e-6)


@pytest.mark.slow
def test_sweep_does_not_change_the_training(finished):
    plain = train("epochs=3", "callbacks=default")
    one, two = read_checkpoint(finished.last)["state_dict"], read_checkpoint(plain.last)["state_dict"]
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_environment_names_no_machine(finished):
    import socket

    text = (finished.folder / "environment.json").read_text()
    assert socket.gethostname() not in text and str(finished.folder.parents[2]) not in text
    assert '"threads": 1' in text and '"data_digest"' in text


@pytest.mark.slow
def test_evaluation_appends_and_gives_the_same_numbers(finished):
    before = read_rows(finished.folder / "results.csv")
    config = composed(f"run={finished.folder}", "suite.gaussian.var=0.3", "repeats=1", verb="evaluate")
    result = run_evaluation(config)
    after = read_rows(finished.folder / "results.csv")
    assert len(after) == len(before) + 1
    assert 0.3 in set(after["severity"])
    assert set(after["weights"]) == {weights_digest(network_of(finished, finished.best))}
    assert result.score == before[before["perturbation"] == "clean"]["score"].iloc[0]


@pytest.mark.slow
def test_early_stop_leaves_gamma_projected():
    run = train("epochs=50", "callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=1")
    assert run.status()["epoch"] < 50
    for checkpoint in (run.last, run.best):
        flow = network_of(run, checkpoint).flow
        gamma = float(flow.gamma)
        flow.project_()
        assert float(flow.gamma) == pytest.approx(gamma, rel=1e-6)
        assert flow.certificate()["flow_ode"] <= 1


def test_without_validation_data_the_last_checkpoint_counts():
    run = train("epochs=1", "data.validation=0")
    assert not run.best.exists()
    assert set(read_rows(run.folder / "results.csv")["checkpoint"]) == {"last"}


def test_nan_stops_with_step_layer_and_hint(monkeypatch):
    original = Training.training_step

    def poisoned(self, batch, batch_idx):
        if self.global_step == 4:
            states = type(self.network.flow).states

            def broken(flow, y, context=None):
                return [*states(flow, y)[:2], y * math.nan]

            monkeypatch.setattr(type(self.network.flow), "states", broken)
            monkeypatch.setattr(self.network.flow, "forward", lambda y, context=None: y * math.nan)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Training, "training_step", poisoned)
    with pytest.raises(JobFailed) as failure:
        train("epochs=3", "run=nan")
    message = str(failure.value)
    assert "step 4" in message and "layer 2 of 2" in message and "lr" in message and "\n" not in message
    run, _ = find("nan")
    assert run.status()["status"] == "failed" and "nan" in run.status()["error"]
    assert all(v.isfinite().all() for v in read_checkpoint(run.last)["state_dict"].values())


def test_overflowing_learning_rate_is_a_failed_job():
    with pytest.raises(JobFailed, match="smaller lr"):
        train("epochs=20", "model=hdnn", "integrator=euler", "step=0.5", "optimizer=sgd", "lr=1e30", "run=boom")


@pytest.mark.parametrize(("integrator", "words"), [("euler", "flow_discrete > 1"), ("etd", "J has no effect")])
def test_published_settings_warn_once(integrator, words, capsys):
    run = train("epochs=2", f"integrator={integrator}", "step=0.5", "model.kappa=0.0004", "lr=0.01")
    (warning,) = run.status()["warnings"]
    assert words in warning
    assert capsys.readouterr().out.count(words) == 1


def test_defaults_do_not_warn():
    parts = assemble(composed(*SMALL))
    assert warnings_about(parts.network) == []


def test_fast_dev_run_tries_everything_once():
    run = train("trainer.fast_dev_run=true", "epochs=7", "suite=noise", "repeats=5")
    assert run.status()["step"] == 1 and run.status()["status"] == "done"
    rows = read_rows(run.folder / "results.csv")
    assert set(rows["n"]) == {25} and set(rows["repeat"]) == {0}


@pytest.mark.parametrize(
    "word",
    [
        "trainer=gpu", "trainer.devices=0", "trainer.threads=0", "trainer.precision=12", "trainer.precision=bf16-true",
        "callbacks.bsm.every=0",
        "optimizer.optimizer._target_=torch.optim.Missing", "+optimizer.optimizer.momentums=1", "lr=-1",
        "model.width=3", "protocol=chnode_2022", "+trainer.nonsense=1", "objective.cross_entropy._target_=os.system",
    ],
)  # fmt: skip
def test_bad_input_is_found_before_anything_is_written(word, tmp_path):
    if word == "trainer=gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BadInput) as refusal:
        train(word)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


LOSSES = ("train/loss", "validation/loss")


@pytest.mark.slow
def test_two_processes_train_the_network_that_one_trains_at_the_same_global_batch():
    """ddp_sim, gloo: only process 0 writes, every sample is used, constraints hold, and only rounding differs."""
    words = ["trainer.precision=64-true", "epochs=2", "data.limit_train=100"]
    two = ["trainer=ddp_sim", "trainer.threads=1", *words, "batch_size=25", "run=two"]
    command = [sys.executable, "-m", "robode", "train", *SMALL, *two]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    run, alone = find("two")[0], train(*words, "batch_size=50")
    assert run.status()["status"] == "done" and run.status()["step"] == alone.status()["step"] == 4
    weights = [read_checkpoint(each.last)["state_dict"] for each in (run, alone)]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=1e-9, atol=1e-9)
    logged = [METRICS.read(each.folder / "metrics.csv").set_index(["step", "name"])["value"] for each in (run, alone)]
    assert logged[0].index.is_unique
    losses = [each[each.index.get_level_values("name").isin(LOSSES)] for each in logged]
    assert len(losses[0]) == 4 and np.allclose(losses[0], losses[1].loc[losses[0].index], rtol=1e-9)
    assert network_of(run, run.last).flow.certificate()["flow_ode"] <= 1
