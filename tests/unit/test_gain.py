"""The gain schedule: when it falls, when it rises, and who has none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from small_runs import composed

from robode.api.training import run_training
from robode.encoders import MLPControl
from robode.errors import BadInput
from robode.families.data_node import DataNode
from robode.integrators.runge_kutta import RK4
from robode.runs.run import find
from robode.training.assembly import assemble
from robode.training.gain import PUBLISHED, GainSchedule
from robode.training.module import Training

LYANET = (
    "model=lyanet", "data=double_moons", "encoder=mlp", "encoder.hidden=[4]", "model.hidden=4", "depth=2",
    "callbacks=[gain_schedule]", "objective.lyapunov_mc.samples=8", "suite=clean", "data.validation=0",
)  # fmt: skip


def moved(share: float, epoch: int, gain: float = 10.0, **keys) -> float:
    """The gain after one step in that epoch of ten, of a hundred steps in all, with that share violated."""
    flow = DataNode(2, 2, RK4(), hidden=3, gain=20.0)
    flow.gain.fill_(gain)
    term = SimpleNamespace(violation="v", notes=lambda: {"v": torch.tensor(share)})
    module = SimpleNamespace(network=SimpleNamespace(flow=flow), objectives={"a": term})
    trainer = SimpleNamespace(current_epoch=epoch, max_epochs=10, estimated_stepping_batches=100)
    schedule = GainSchedule(**keys)
    schedule.on_train_start(trainer, module)
    schedule.on_train_batch_end(trainer, module)
    return float(flow.gain)


def test_it_falls_while_most_conditions_hold_and_rises_later_where_they_do_not() -> None:
    down = 10 * (1 / 20) ** (1 / (PUBLISHED * 100))
    assert moved(0.69, 5) == pytest.approx(down) and moved(0.69, 0) == pytest.approx(down)
    assert moved(0.7, 5) == moved(0.0, 6) == moved(0.1, 6) == 10.0
    assert moved(0.11, 6) == pytest.approx(100 / down)
    assert moved(0.0, 0, gain=1.0) == 1.0 and moved(1.0, 9, gain=20.0) == 20.0  # the ends
    assert moved(0.0, 0, factor=0.5) == 5.0 and moved(1.0, 9, gain=20.0, most=50.0, factor=0.5) == 40.0


def test_auto_takes_the_gain_from_most_to_least_in_the_published_share_of_the_steps() -> None:
    gain, steps = 20.0, 0
    while gain > 1.0 and steps < 1000:
        gain, steps = moved(0.0, 0, gain=gain), steps + 1
    assert steps == pytest.approx(PUBLISHED * 100, abs=1.5)


def test_a_training_moves_it_and_a_checkpoint_has_it() -> None:
    parts = assemble(composed(*LYANET, "epochs=1"))
    before = float(parts.network.flow.gain)
    assert isinstance(parts.network.encoder, MLPControl) and before == 20.0
    parts.network.flow.gain.mul_(0.5)
    state = parts.network.state_dict()
    again = assemble(composed(*LYANET, "epochs=1")).network
    again.load_state_dict(state)
    assert float(again.flow.gain) == 10.0


def test_a_run_that_was_cut_off_ends_with_the_gain_and_the_weights_of_one_that_was_not(tmp_path, monkeypatch) -> None:
    """resume= takes the run's own configuration, which keeps nothing of what a model fits; dropout and states are drawn
    on, and the gain goes on."""
    monkeypatch.chdir(tmp_path)
    words = [*LYANET, "epochs=3", "data.limit_train=64", "batch_size=16", "callbacks.gain_schedule.fall_below=1.0"]
    whole = find(run_training(composed(*words, "run=whole"), words).run)[0]
    ends = Training.on_train_epoch_end

    def cut(module: Training) -> None:
        ends(module)
        if module.current_epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Training, "on_train_epoch_end", cut)
        run_training(composed(*words, "run=cut"), words)
    run_training(composed("resume=cut"), ["resume=cut"])
    one, two = (torch.load(run.last, weights_only=True)["state_dict"] for run in (whole, find("cut")[0]))
    assert one.keys() == two.keys() and 0 < float(one["network.flow.gain"]) < 20.0
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("model=data_node",),
            "expected objective=lyapunov_mc or barrier, .*, got cross_entropy",
        ),
        (("model=node", "encoder=auto", "objective=cross_entropy"), "expected a model with a gain .*, got Node"),
    ],
)
def test_who_has_none_is_refused_before_a_folder_is_there(words, says) -> None:
    own = [word for word in LYANET if not word.startswith(("model", "objective", "encoder"))]
    encoder = [] if "encoder=auto" in words else ["encoder=mlp", "encoder.hidden=[4]", "model.hidden=4"]
    with pytest.raises(BadInput, match=f"callbacks.gain_schedule: {says}"):
        assemble(composed(*words, *own, *encoder))


def test_a_gain_that_begins_below_the_least_is_refused() -> None:
    with pytest.raises(BadInput, match="callbacks.gain_schedule.least: expected at most model.gain=20, .* got 30"):
        assemble(composed(*LYANET, "callbacks.gain_schedule.least=30"))
    assert assemble(composed(*LYANET, "callbacks.gain_schedule.least=20"))


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="callbacks.gain_schedule.least: expected at most most=2, got 3"):
        GainSchedule(least=3, most=2)
