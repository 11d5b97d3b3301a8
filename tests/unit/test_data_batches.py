"""Batches: what comes out, in which order, and who may change the order."""

import lightning
import pytest
import torch
from torch import nn

from robode.data import batches
from robode.data.batches import EpochOrder, TensorBatches, in_units


def collected(loader: TensorBatches) -> torch.Tensor:
    return torch.cat([labels for _, labels in loader])


def numbered(n: int, batch_size: int, order: EpochOrder | None = None) -> TensorBatches:
    return TensorBatches(torch.arange(float(n))[:, None], torch.arange(n), batch_size, order)


def test_bytes_become_data_units_exactly_as_to_tensor_does():
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(in_units(x), x.to(torch.float32) / 255)
    assert in_units(x).max() == 1 and in_units(x).dtype == torch.float32


def test_fixed_order_covers_every_sample_once_and_in_place():
    loader = numbered(10, 4)
    assert torch.equal(collected(loader), torch.arange(10))
    assert [len(labels) for _, labels in loader] == [4, 4, 2] and len(loader) == 3


def test_images_and_labels_stay_together_when_shuffled():
    x = torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1)
    for images, labels in TensorBatches(x, torch.arange(200), 32, EpochOrder(3)):
        assert torch.equal((images.view(-1) * 255).round().long(), labels)


def test_order_is_a_function_of_seed_and_epoch_alone():
    loader = numbered(100, 10, EpochOrder(5))
    loader.set_epoch(7)
    seventh = collected(loader)
    torch.manual_seed(99)
    fresh = numbered(100, 10, EpochOrder(5))
    fresh.set_epoch(7)
    assert torch.equal(seventh, collected(fresh))
    assert sorted(seventh.tolist()) == list(range(100))
    loader.set_epoch(8)
    assert not torch.equal(seventh, collected(loader))
    other = numbered(100, 10, EpochOrder(6))
    other.set_epoch(7)
    assert not torch.equal(seventh, collected(other))


def test_shuffling_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    collected(numbered(50, 5, EpochOrder(1)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("n", [10, 12])
def test_ranks_share_a_fixed_order_without_counting_a_sample_twice(monkeypatch, n):
    shares = []
    for rank in range(4):
        monkeypatch.setattr(batches, "_rank_and_ranks", lambda rank=rank: (rank, 4))
        loader = numbered(n, 2)
        assert len(loader) == len(list(loader))
        shares += collected(loader).tolist()
    assert sorted(shares) == list(range(n))


def test_ranks_make_equally_many_training_steps(monkeypatch):
    lengths, seen = set(), set()
    for rank in range(4):
        monkeypatch.setattr(batches, "_rank_and_ranks", lambda rank=rank: (rank, 4))
        loader = numbered(10, 2, EpochOrder(0))
        lengths |= {len(loader), len(list(loader))}
        seen |= set(collected(loader).tolist())
    assert lengths == {2} and seen == set(range(10))


class Recorder(lightning.LightningModule):
    """Notes the labels of every training batch by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.seen: dict[int, list[int]] = {}

    def training_step(self, batch, batch_idx):
        x, labels = batch
        self.seen.setdefault(self.current_epoch, []).extend(labels.tolist())
        return self.layer(x).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def quiet_trainer(epochs: int, folder) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        enable_checkpointing=False,
    )


def test_lightning_sets_the_epoch_and_a_resumed_run_continues_the_order(tmp_path):
    whole = Recorder()
    quiet_trainer(3, tmp_path).fit(whole, numbered(20, 4, EpochOrder(2)))
    for epoch in range(3):
        expected = numbered(20, 4, EpochOrder(2))
        expected.set_epoch(epoch)
        assert whole.seen[epoch] == collected(expected).tolist()
    first = quiet_trainer(2, tmp_path)
    first.fit(Recorder(), numbered(20, 4, EpochOrder(2)))
    first.save_checkpoint(tmp_path / "part.ckpt")
    resumed = Recorder()
    quiet_trainer(3, tmp_path).fit(
        resumed, numbered(20, 4, EpochOrder(2)), ckpt_path=tmp_path / "part.ckpt", weights_only=True
    )
    assert resumed.seen == {2: whole.seen[2]}
