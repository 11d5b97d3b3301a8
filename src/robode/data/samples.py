"""What a source must give, looked at once when it is loaded: a complaint names the sample, its value and what was
expected."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real

import torch
from torch import Tensor

from robode.data.info import DatasetInfo, Samples, Source
from robode.errors import BadInput
from robode.foreign import refused
from robode.tasks.classification import Classification
from robode.tasks.task import Task


def info_of(source: Source, name: str) -> DatasetInfo:
    """What a source says of its samples. name: of the data set, `data=NAME`.

    Raises:
        BadInput: no source, or one that says nothing, or contradicts itself.
    """
    kind = type(source).__name__
    if not isinstance(source, Source):
        raise BadInput(f"data={name}: {kind} is no robode.data.info.Source")
    with refused(f"data={name}: {kind}.info fails"):
        info = source.info
    if not isinstance(info, DatasetInfo) or not isinstance(info.task, Task):
        raise BadInput(f"data={name}: {kind}.info gives a {type(info).__name__}, expected DatasetInfo with a Task")
    _check_form(info, f"data={name}")
    shape, channels = info.shape, info.shape[0] if info.shape else 0
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise BadInput(f"data={name}: shape is {shape}, expected (d,) for vectors or (C, H, W) for images")
    if not len(info.mean) == len(info.std) == channels:
        given = f"{len(info.mean)} and {len(info.std)} numbers"
        raise BadInput(f"data={name}: mean and std have {given}, expected {channels}: one a channel")
    low, high = info.bounds or (-math.inf, math.inf)
    if info.bounds is not None and not -math.inf < low < high < math.inf:
        raise BadInput(f"data={name}: bounds are {info.bounds}, expected (low, high) or None")
    for index, (mean, std) in enumerate(zip(info.mean, info.std, strict=True)):
        if not math.isfinite(mean):
            raise BadInput(f"data={name}: mean[{index}] is {mean}, expected a finite number")
        if not low <= mean <= high:
            raise BadInput(
                f"data={name}: mean[{index}] is {mean:g}, expected a number in [{low:g}, {high:g}], the bounds of "
                "these data; mean and std are in data units"
            )
        if not 0 < std < math.inf:
            raise BadInput(
                f"data={name}: std[{index}] is {std}, expected a number above 0; write 1 for what never changes"
            )
    least = 2 if isinstance(info.task, Classification) else 1
    if info.task.outputs < least:
        raise BadInput(f"data={name}: the task has {info.task.outputs} outputs, expected at least {least}")
    return info


def _check_form(info: DatasetInfo, where: str) -> None:
    """Raises `BadInput` for what is not of the kind that `DatasetInfo` says."""
    expected = {"shape": Integral, "mean": Real, "std": Real} | ({} if info.bounds is None else {"bounds": Real})
    for key, kind in expected.items():
        values = getattr(info, key)
        if not isinstance(values, tuple) or not all(isinstance(each, kind) for each in values):
            given = f"a {type(values).__name__}" if not isinstance(values, tuple) else values
            raise BadInput(f"{where}: {key} is {given}, expected a tuple of {'whole ' * (kind is Integral)}numbers")
    if info.bounds is not None and len(info.bounds) != 2:
        raise BadInput(f"{where}: bounds are {info.bounds}, expected (low, high) or None")
    if isinstance(info.task, Classification):
        names = info.task.class_names
        if not isinstance(names, tuple) or not all(isinstance(each, str) for each in names):
            raise BadInput(f"{where}: class_names are {names}, expected a tuple of texts, one a class")


def load_checked(source: Source, info: DatasetInfo, name: str) -> tuple[Samples, Samples]:
    """(train, test) of a source, which are as it describes them.

    Raises:
        BadInput: files that cannot be read, or samples and targets of another kind.
    """
    with _readable(source, name):
        loaded = source.load()
    try:
        pairs = [Samples(*pair) for pair in loaded]
    except TypeError:
        pairs = []
    if len(pairs) != 2:
        raise BadInput(f"data={name}: {type(source).__name__}.load() gives no (train, test) of Samples(x, target) each")
    for split, samples in zip(("train", "test"), pairs, strict=True):
        _check_split(samples, info, f"data={name}, {split}")
    if isinstance(info.task, Classification):
        counts = pairs[0].target.bincount(minlength=info.task.outputs)
        if len(empty := (counts == 0).nonzero()):
            label = int(empty[0])
            raise BadInput(
                f"data={name}, train: no sample of class {label} ({info.task.class_names[label]}), expected at least "
                f"one of each of the {info.task.outputs} classes"
            )
    return pairs[0], pairs[1]


def load_own_validation(source: Source, info: DatasetInfo, name: str) -> Samples:
    """The validation split of a source that has its own. Raises `BadInput` as `load_checked` does."""
    with _readable(source, name):
        samples = source.load_validation()
    _check_split(samples, info, f"data={name}, validation")
    return samples


@contextmanager
def _readable(source: Source, name: str) -> Iterator[None]:
    try:
        with refused(f"data={name}: {type(source).__name__}.load() fails"):
            yield
    except BadInput as error:
        file = error.__cause__
        if isinstance(file, OSError) and file.filename is not None:
            raise BadInput(
                f"data={name}: cannot read {file.filename} ({file.strerror}); put the file there, or change the keys "
                "of data that name it"
            ) from error
        raise


def _check_split(samples: Samples, info: DatasetInfo, where: str) -> None:
    """where: what a complaint begins with."""
    for what, part in zip(("samples", "targets"), samples, strict=True):
        if not isinstance(part, Tensor):
            raise BadInput(f"{where}: {what} are a {type(part).__name__}, expected a tensor; write torch.as_tensor(…)")
        if part.requires_grad or part.device.type != "cpu" or part.layout != torch.strided:
            way = ".to_dense()" if part.layout != torch.strided else ".detach().cpu()"
            raise BadInput(
                f"{where}: {what} are no plain numbers on the CPU; write {'x' if part is samples[0] else 'target'}{way}"
            )
    x, target = samples
    if x.dtype not in (torch.float32, torch.uint8):
        hint = "write x.float()" if x.is_floating_point() else "write x.float(), or x.byte() for pixels from 0 to 255"
        raise BadInput(f"{where}: samples are {_kind(x)}, expected float32, or uint8 standing for x/255; {hint}")
    if tuple(x.shape[1:]) != tuple(info.shape):
        raise BadInput(
            f"{where}: samples have the shape {tuple(x.shape)}, expected (n, {', '.join(map(str, info.shape))})"
            f"{_reshaping(tuple(x.shape[1:]), tuple(info.shape))}"
        )
    count = len(target) if target.dim() else 0
    if len(x) != count or not count:
        raise BadInput(f"{where}: {len(x)} samples and {count} targets, expected as many, at least one")
    check_values(x, info.bounds, where)
    info.task.check(target, where)


def check_values(x: Tensor, bounds: tuple[float, float] | None, where: str) -> None:
    """Raises `BadInput` for the first number of samples (n, *shape), float32 or uint8 standing for x/255, that is not
    finite or out of bounds. where: what the complaint begins with."""
    low, high = bounds or (-math.inf, math.inf)
    if x.dtype == torch.uint8:
        if bounds and high > 1:
            raise BadInput(f"{where}: samples are bytes, which stand for x/255 in [0, 1], and bounds are {bounds}")
        low, high = 255 * low, 255 * high
    least, most = (float(end) for end in x.aminmax())  # nan where there is one
    if math.isfinite(least) and math.isfinite(most) and low <= least and most <= high:
        return
    wrong = ~x.isfinite() | (x < low) | (x > high)
    index, *place = wrong.nonzero()[0].tolist()
    value = float(x[(index, *place)])
    expected = f"values in [{low:g}, {high:g}], the bounds of these data" if bounds else "finite numbers"
    bytes_ = bounds == (0.0, 1.0) and 1 < most <= 255 and least >= 0
    hint = "; write x / 255, or x.byte()" if bytes_ and math.isfinite(value) else ""
    at = ", ".join(map(str, place))
    raise BadInput(f"{where}: sample {index} is {value:g} at ({at}), expected {expected}{hint}")


def _reshaping(given: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What to write where the numbers are those that are expected, in another order."""
    if len(given) == 3 and (given[2], *given[:2]) == expected:
        return ": channels come first; write x.permute(0, 3, 1, 2)"
    if (1, *given) == expected:
        return "; write x.unsqueeze(1)"
    if math.prod(given) == math.prod(expected):
        return f"; write x.reshape(-1, {', '.join(map(str, expected))})"
    return ""


def _kind(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
