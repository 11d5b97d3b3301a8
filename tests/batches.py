"""Batches of seeds beside separate trainings, and what it means that they leave the same."""

import pytest
import torch
from small_runs import SMALL, composed

from robode.report.records import read_bsm, read_metrics
from robode.runs import Run, create
from robode.seeds import one_each
from robode.training.assembly import assemble, build_loggers
from robode.training.batched import train_batched
from robode.training.checkpoints import read_checkpoint
from robode.training.trainer import fit

# In float64 a batch and a separate training differ by rounding alone: 1e-16 an operation, which Adam's division by the
# root of a small second moment and ten steps magnify by no more than 1e4. A wrong batch, seed, rate or decay would
# show in the first digits.
TIGHT = 1e-11
LOOSE = 1e-3  # the same in float32, where Lightning loads a checkpoint without rounding it
TOY = (*SMALL, "trainer.precision=64-true", "epochs=2", "callbacks=default", "data.limit_train=50")


def configs(words, *seeds):
    return one_each(composed(*words, f"seeds={list(seeds)}"))


def alone(config, folder, resume=False):
    run = create(Run(folder), config)
    parts = assemble(config)
    parts.module.run = run
    parts.trainer.loggers = build_loggers(config.logger, run)
    fit(parts.trainer, parts.module, parts.data, run.last if resume else None)
    return run


def folders(path, jobs):
    return [create(Run(path / f"seed-{job.seed}"), job) for job in jobs]


def together(path, jobs):
    runs = folders(path, jobs)
    assert train_batched(jobs, runs) == [None] * len(jobs)
    return runs


def assert_close(one, two, tolerance, path=""):
    """Checkpoints, down to every counter."""
    if isinstance(one, dict):
        assert list(one) == list(two), path
        for key in one:
            assert_close(one[key], two[key], tolerance, f"{path}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), path
        for i, pair in enumerate(zip(one, two, strict=True)):
            assert_close(*pair, tolerance, f"{path}/{i}")
    elif isinstance(one, torch.Tensor) and one.is_floating_point():
        assert one.shape == two.shape and one.dtype == two.dtype, path
        assert (one - two).abs().max() <= tolerance * one.abs().max(), path
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), path
    else:
        assert type(one) is type(two), path
        assert one == (pytest.approx(two, rel=tolerance) if isinstance(one, float) else two), path


def assert_same_run(one, two, tolerance=TIGHT):
    names = {path.name for path in one.folder.iterdir()}
    assert names == {path.name for path in two.folder.iterdir()}
    for name in {"last.ckpt", "best.ckpt"} & names:
        assert_close(read_checkpoint(one.folder / name), read_checkpoint(two.folder / name), tolerance)
    for name, read in (("metrics.csv", read_metrics), ("bsm.csv", read_bsm)):
        if name in names:
            a, b = read(one.folder / name), read(two.folder / name)
            assert a.select_dtypes(exclude="float").equals(b.select_dtypes(exclude="float"))
            for column in a.select_dtypes("float"):
                assert a[column].tolist() == pytest.approx(b[column].tolist(), rel=1000 * tolerance), column
    for key in ("epoch", "step"):
        assert one.status()[key] == two.status()[key]
