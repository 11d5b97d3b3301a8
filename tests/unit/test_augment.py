"""Augmentation: what it makes of training batches, and that nothing else is touched by it."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import composed, train
from torch import Tensor
from torchvision.transforms import v2

from robode.config.config import TrainConfig
from robode.config.listing import options
from robode.data.augment import Augmentation, CropFlip
from robode.data.autoaugment import AutoAugment
from robode.data.batches import in_units
from robode.data.info import DatasetInfo, Samples, Source
from robode.data.module import DataModule
from robode.data.motion import Motion
from robode.errors import BadInput
from robode.runs.identity import config_hash, differences
from robode.runs.run import Run
from robode.tasks.classification import Classification
from robode.training.assembly import assemble, build_data
from robode.training.module import Training

BYTES = torch.randint(256, (40, 3, 9, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
EACH = {"crop_flip": CropFlip(2), "autoaugment": AutoAugment(), "motion": Motion(20, 0.2, 1)}


class Pictures(Source):
    """40 pictures, of bytes or of the same in data units; the target of each is its number, modulo 2."""

    def __init__(self, x: Tensor = BYTES) -> None:
        self.x = x

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo((3, 9, 8), (0.5,) * 3, (0.3,) * 3, (0.0, 1.0), Classification(("even", "odd")))

    def load(self) -> tuple[Samples, Samples]:
        target = torch.arange(40) % 2
        return Samples(self.x, target), Samples(self.x[:10].flip(0), target[:10])


def epoch(data: DataModule, number: int = 0, seed: int | None = None) -> tuple[Tensor, Tensor]:
    """All training batches of an epoch."""
    if seed is not None:
        torch.manual_seed(seed)
    loader = data.train_dataloader()
    loader.set_epoch(number)
    x, target = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(target)


@pytest.mark.parametrize("name", EACH)
def test_training_batches_are_changed_and_nothing_else(name) -> None:
    plain, data = (DataModule(Pictures(), 16, 0, 8, augment=augment) for augment in (None, EACH[name]))
    digest = plain.digest
    for split in ("train", "validation", "test"):
        assert all(torch.equal(a, b) for a, b in zip(plain.split(split), data.split(split), strict=True))
    x, target = epoch(data, seed=1)
    before, same = epoch(plain)
    assert torch.equal(target, same), "the order and the targets are those of an epoch without augmentation"
    assert x.shape == before.shape and x.dtype == torch.float32 and x.isfinite().all()
    assert 0 <= float(x.min()) and float(x.max()) <= 1
    assert float((x != before).flatten(1).any(1).float().mean()) > 0.5
    for a, b in ((data.val_dataloader(), plain.val_dataloader()), (data.test_dataloader(), plain.test_dataloader())):
        state = torch.get_rng_state()
        assert all(torch.equal(one[0], two[0]) for one, two in zip(a, b, strict=True))
        assert torch.equal(state, torch.get_rng_state())
    assert data.digest == digest
    assert torch.equal(data.split("train").x, plain.split("train").x), "not even after an epoch"


@pytest.mark.parametrize("name", EACH)
def test_draws_are_those_of_the_global_generator(name) -> None:
    data = DataModule(Pictures(), 16, 0, augment=EACH[name])
    first, _ = epoch(data, seed=3)
    second, _ = epoch(data, 0)
    again, _ = epoch(data, 0, seed=3)
    assert torch.equal(first, again) and not torch.equal(first, second)


@pytest.mark.parametrize("name", EACH)
def test_bytes_and_data_units_give_the_same(name) -> None:
    of_bytes, of_units = (DataModule(Pictures(x), 16, 0, augment=EACH[name]) for x in (BYTES, in_units(BYTES)))
    torch.testing.assert_close(epoch(of_bytes, seed=2)[0], epoch(of_units, seed=2)[0])


def test_crops_are_places_in_a_black_frame_and_half_are_mirrored() -> None:
    x = torch.arange(1, 21, dtype=torch.uint8).view(1, 1, 4, 5).repeat(4000, 1, 1, 1)
    torch.manual_seed(0)
    found = CropFlip(1)(x)
    framed = torch.nn.functional.pad(x[0, 0], (1, 1, 1, 1))
    known = {(down, right, flip): framed[down : down + 4, right : right + 5].flip([1] if flip else [])
             for down in range(3) for right in range(3) for flip in (False, True)}  # fmt: skip
    counts = [int((found[:, 0] == each).flatten(1).all(1).sum()) for each in known.values()]
    assert sum(counts) == 4000 and min(counts) > 4000 / 18 - 5 * (4000 / 18) ** 0.5
    assert torch.equal(CropFlip(0, flip=False)(x), x)


def test_autoaugment_is_that_of_torchvision_on_pictures() -> None:
    """The same draws on PIL images, as published scripts have them: hardly a byte differs by more than one."""
    smooth = torch.nn.functional.interpolate(in_units(BYTES)[:, :, :4, :4], size=32, mode="bilinear")
    x = (smooth * 255).byte()
    torch.manual_seed(5)
    found = AutoAugment("cifar10")(x)
    torch.manual_seed(5)
    change = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    pictures = [np.array(change(Image.fromarray(each.permute(1, 2, 0).numpy()))) for each in x]
    expected = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    off = (found.int() - expected.int()).abs()
    assert float((off > 1).float().mean()) < 0.01
    assert float((found != x).flatten(1).any(1).float().mean()) > 0.5


def test_motion_is_that_of_the_margin_losses() -> None:
    torch.manual_seed(4)
    expected = Motion(10, 0.1, 1, "objective.margin_hinge")(in_units(BYTES))
    torch.manual_seed(4)
    assert torch.equal(Motion(10, 0.1, 1)(BYTES), expected)


def test_refusals() -> None:
    vectors = DatasetInfo((3,), (0.0,) * 3, (1.0,) * 3, None, Classification(("a", "b")))
    assert all("expected images" in str(each.refusal(vectors)) for each in EACH.values())
    wide = DatasetInfo((4, 9, 8), (0.5,) * 4, (0.3,) * 4, (0.0, 1.0), Classification(("a", "b")))
    assert "grey or colour images" in str(AutoAugment().refusal(wide)) and CropFlip().refusal(wide) is None
    with pytest.raises(BadInput, match="augment.pad=-1: expected a whole number >= 0"):
        CropFlip(-1)
    with pytest.raises(BadInput, match="augment.policy=mnist: choose one of: imagenet, cifar10, svhn"):
        AutoAugment("mnist")
    with pytest.raises(BadInput, match="augment.rotation: expected a number >= 0, got -1"):
        Motion(-1)


MNIST = ("data=mnist5k", "data.validation=20", "data.limit_train=60", "model.width=2")


@pytest.mark.parametrize("name", EACH)
def test_the_file_of_each_makes_it(name) -> None:
    assert set(options("augment")) == {"none", *EACH}
    data = build_data(composed(*MNIST, f"augment={name}"))
    assert type(data.augment) is type(EACH[name]) and isinstance(data.augment, Augmentation)


def test_none_is_no_part_of_what_a_run_is_and_any_other_is() -> None:
    """Runs from before there was a choice are those with none."""
    config = composed()
    assert build_data(config).augment is None
    plain = config.plain()
    earlier = {key: value for key, value in plain.items() if key != "augment"}
    assert config_hash(plain) == config_hash(earlier) and differences(plain, earlier) == []
    hashes = {config_hash(composed(f"augment={name}").plain()) for name in options("augment")}
    assert len({*hashes, config_hash(composed("augment=crop_flip", "augment.pad=2").plain())}) == len(hashes) + 1


def test_a_run_folder_from_before_there_was_a_choice_opens(tmp_path) -> None:
    from omegaconf import OmegaConf

    from robode.runs.run import create

    config = composed()
    run = create(Run(tmp_path / "old"), config)
    plain = config.plain()
    del plain["augment"]
    (run.folder / "config.yaml").write_text(OmegaConf.to_yaml(plain))
    opened = run.config()
    assert isinstance(opened, TrainConfig) and opened.augment.name == "none" and not opened.augment.target


@pytest.mark.parametrize("name", ["crop_flip", "autoaugment"])
def test_a_run_that_was_cut_off_goes_on_with_the_same_bits(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    words = (*MNIST, f"augment={name}", "epochs=3")
    seen: dict[int, Tensor] = {}
    original = Training.training_step

    def watched(self, batch, batch_idx):
        if self.global_step in seen:
            assert torch.equal(seen[self.global_step], batch[0]), self.global_step
        seen.setdefault(self.global_step, batch[0].clone())
        return original(self, batch, batch_idx)

    def cut(self, batch, batch_idx):
        if self.global_step == 4:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Training, "training_step", watched)
    whole = train(*words, "run=whole")
    assert len(seen) == 9
    monkeypatch.setattr(Training, "training_step", cut)
    with pytest.raises(KeyboardInterrupt):
        train(*words, "run=cut")
    monkeypatch.setattr(Training, "training_step", watched)
    resumed = train("resume=cut")
    one, two = (torch.load(run.last, weights_only=True) for run in (whole, resumed))
    assert all(torch.equal(one["state_dict"][key], two["state_dict"][key]) for key in one["state_dict"])
    assert torch.equal(one["rng"]["cpu"], two["rng"]["cpu"])
    rows = [(run.folder / "results.csv").read_text().count("\n") for run in (whole, resumed)]
    assert rows[0] == rows[1] > 1


def test_data_whose_shape_only_their_file_knows_are_refused_before_anything_is_written(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("points.npz", x=np.random.default_rng(0).normal(size=(30, 3)), y=np.arange(30) % 2)
    words = ("data=arrays", "data.file=points.npz", "augment=motion")
    with pytest.raises(
        BadInput, match=r"augment and data=arrays: expected images, got samples of shape \(3,\); choose"
    ):
        train(*words)
    assert [path.name for path in tmp_path.iterdir()] == ["points.npz"]


class Cut(Augmentation):
    def __call__(self, x: Tensor) -> Tensor:
        return x[:, :, 1:]


class Fails(Augmentation):
    def __call__(self, x: Tensor) -> Tensor:
        raise ValueError("no such luck")


@pytest.mark.parametrize(("augment", "says"), [
    (Cut(), r"augment: Cut gives \(2, 3, 8, 8\) for \(2, 3, 9, 8\), expected the same shape"),
    (Fails(), r"augment: Fails fails \(ValueError: no such luck\)"),
])  # fmt: skip
def test_an_augmentation_is_tried_before_a_folder_is_there(augment, says) -> None:
    with pytest.raises(BadInput, match=says):
        DataModule(Pictures(), 16, 0, augment=augment).example(2)


def test_trying_it_moves_no_generator_and_changes_no_weight() -> None:
    states, weights = [], []
    for name in ("none", "crop_flip"):
        parts = assemble(composed(*MNIST, f"augment={name}", "depth=1"))
        states.append(torch.get_rng_state())
        weights.append(parts.network.state_dict())
    assert torch.equal(*states) and all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
