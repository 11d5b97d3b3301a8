"""The DataModule: splits that never overlap, never depend on the user's seed, and refusals."""

import lightning
import pytest
import torch
from test_data_batches import Recorder, quiet_trainer

from robode.data.info import DatasetInfo, Samples, Source
from robode.data.module import DataModule, stratified
from robode.data.toy import DoubleCircles, SixPoints
from robode.errors import BadInput
from robode.tasks.classification import Classification


class Numbers(Source):
    """Samples that carry their own number; classes 0 and 1 in the ratio 3 to 1."""

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo((1,), (0.0,), (1.0,), None, Classification(("0", "1")))

    def load(self) -> tuple[Samples, Samples]:
        x = torch.arange(100.0)[:, None]
        labels = (torch.arange(100) % 4 == 0).long()
        return Samples(x, labels), Samples(x[:20] + 1000, labels[:20])


@pytest.mark.parametrize("validation, held_out", [(20, 20), (0.2, 20), (1, 1), (0.001, 1)])
def test_validation_comes_from_train_and_keeps_class_shares(validation, held_out):
    data = DataModule(Numbers(), 10, 0, validation)
    train, kept = data.split("train"), data.split("validation")
    assert len(kept.target) == held_out and len(train.target) == 100 - held_out
    everything = torch.cat([train.x, kept.x]).flatten().sort().values
    assert torch.equal(everything, torch.arange(100.0))
    if held_out == 20:
        assert kept.target.bincount().tolist() == [15, 5]


def test_splits_do_not_move_with_the_users_seed():
    one, two = (DataModule(Numbers(), 10, seed, 20) for seed in (0, 1))
    assert torch.equal(one.split("validation").x, two.split("validation").x)
    assert one.digest == two.digest
    assert one.digest != DataModule(Numbers(), 10, 0, 21).digest


def test_test_split_is_the_sources_own():
    data = DataModule(Numbers(), 10, 0, 20)
    assert torch.equal(data.split("test").x, Numbers().load()[1].x)


def test_limit_train_is_stratified_and_leaves_validation_alone():
    data = DataModule(Numbers(), 10, 0, 20, limit_train=8)
    assert data.split("train").target.bincount().tolist() == [6, 2]
    assert torch.equal(data.split("validation").x, DataModule(Numbers(), 10, 0, 20).split("validation").x)


def test_stratified_shares_are_within_one_of_exact():
    labels = torch.tensor([0] * 7 + [1] * 5 + [2] * 3)
    for n in range(1, 16):
        chosen = stratified(labels, n)
        assert len(chosen.unique()) == n
        exact = torch.tensor([7.0, 5.0, 3.0]) * n / 15
        assert ((labels[chosen].bincount(minlength=3) - exact).abs() < 1).all()


@pytest.mark.parametrize("validation", [-1, 100, 250, 1.5, float("nan"), True])
def test_impossible_validation_is_bad_input(validation):
    with pytest.raises(BadInput, match=r"data\.validation"):
        DataModule(Numbers(), 10, 0, validation).prepare()


@pytest.mark.parametrize("limit", [0, -3, 101, 2.5, True, "abc"])
def test_impossible_limit_is_bad_input(limit):
    with pytest.raises(BadInput, match=r"data\.limit_train"):
        DataModule(Numbers(), 10, 0, limit_train=limit).prepare()


def test_batch_size_below_one_is_bad_input():
    with pytest.raises(BadInput, match="batch_size=0"):
        DataModule(Numbers(), 0, 0)


def test_nothing_can_be_held_out_where_train_is_test():
    with pytest.raises(BadInput, match=r"data\.validation=2.*test points"):
        DataModule(SixPoints(), 6, 0, 2)


def test_an_absent_split_is_named():
    with pytest.raises(BadInput, match="no validation split, only test, train"):
        DataModule(Numbers(), 10, 0).split("validation")


class Validated(Recorder):
    """Counts validation batches."""

    validated = 0

    def validation_step(self, batch, batch_idx):
        self.validated += 1


@pytest.mark.parametrize("validation, batches", [(0, 0), (20, 2)])
def test_lightning_runs_with_and_without_a_validation_split(tmp_path, validation, batches):
    module = Validated()
    trainer = quiet_trainer(1, tmp_path)
    trainer.fit(module, datamodule=DataModule(Numbers(), 10, 0, validation))
    # Two more for Lightning's sanity check before the first epoch.
    assert module.validated == 2 * batches
    assert len(module.seen[0]) == 100 - validation


def test_the_module_is_lightnings():
    data = DataModule(DoubleCircles(), 100, 0, 400)
    assert isinstance(data, lightning.LightningDataModule)
    assert len(data.train_dataloader()) == 36 and len(data.test_dataloader()) == 40
