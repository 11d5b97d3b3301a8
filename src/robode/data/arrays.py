"""Arrays in a file: numpy's .npz, or a table as .csv."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robode.data.info import Samples
from robode.data.own import Bounds, Content, Numbers, OwnFiles
from robode.data.samples import check_values
from robode.errors import BadInput
from robode.foreign import refused
from robode.tasks.classification import Classification
from robode.tasks.regression import Regression
from robode.tasks.task import Task

SPLIT = ("x_train", "y_train", "x_test", "y_test")
WHOLE = ("x", "y")
Array = NDArray[np.generic]


class Arrays(OwnFiles):
    """x and y, or x_train, y_train, x_test and y_test, of a .npz; or the columns of a .csv with one line of names.

    x: (n, d) vectors, images (n, C, H, W), or grey images as bytes (n, H, W). Bytes of images stand for x/255, all
    other numbers for themselves. y: labels (n,) or (n, 1), whole numbers or texts; the classes are those of the
    training split, sorted. Where a .npz has an array class_names, the labels are 0 … K - 1 and these are their names.
    For task="regression" y is (n,) or (n, k) numbers.
    label: the column of a .csv that is y; all others are x. bounds: of x in data units; "auto": (0, 1) for images, None
    for vectors. test, mean, std: see `OwnFiles`.
    """

    def __init__(
        self, file: str, label: str | None = None, task: str = "classification",
        bounds: Sequence[float] | Literal["auto"] | None = "auto", test: float = 0.2, mean: Numbers = "auto",
        std: Numbers = "auto",
    ) -> None:  # fmt: skip
        super().__init__(test, mean, std)
        self.label, self.task, self.bounds = label, task, bounds
        self.path, self.where = Path(file).expanduser(), f"data.file={file}"

    def read(self) -> Content:
        if not self.path.is_file():
            raise BadInput(f"{self.where}: there is no such file; say with data.root=FOLDER where it is now")
        readers = {".npz": self._arrays, ".csv": self._table}
        if self.path.suffix.lower() not in readers:
            raise BadInput(f"{self.where}: expected a file whose name ends in {' or '.join(readers)}")
        with refused(f"{self.where}: cannot be read"):
            found = readers[self.path.suffix.lower()]()
        names = SPLIT if any(name in found for name in SPLIT) else WHOLE
        if missing := [name for name in names if name not in found]:
            raise BadInput(
                f"{self.where}: has {', '.join(found) or 'nothing'} and no {missing[0]}; expected x and y, or "
                f"{', '.join(SPLIT)}"
            )
        for x, y in zip(names[::2], names[1::2], strict=True):
            if not 0 < len(found[x]) == len(found[y]):
                raise BadInput(f"{self.where}: {len(found[x])} samples in {x} and {len(found[y])} targets in {y}")
        bounds = self._bounds(found[names[0]])
        xs = [self._samples(found[name], bounds, f"{self.where}, {name}") for name in names[::2]]
        ys = {f"{self.where}, {name}": found[name] for name in names[1::2]}
        targets, task = _numbers(ys) if self.task == "regression" else _labels(ys, found.get("class_names"))
        train, *test = map(Samples, xs, targets)
        return Content(train, test[0] if test else None, bounds, task)

    def _arrays(self) -> dict[str, Array]:
        """Those of a .npz, by their names."""
        if not zipfile.is_zipfile(self.path):
            raise BadInput(f"{self.where}: is no .npz file; numpy.savez writes one")
        with np.load(self.path, allow_pickle=False) as file:
            if self.label is not None:
                raise BadInput(f"data.label={self.label}: names a column of a .csv; the labels of a .npz are in y")
            return {name: np.atleast_1d(file[name]) for name in file.files}

    def _table(self) -> dict[str, Array]:
        """x and y of a .csv. An empty cell is nothing; every other text is a text ("NA" may be a class)."""
        import pandas as pd  # a slow import, needed only by who reads tables

        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows with more cells than there are names
            table = pd.read_csv(self.path, keep_default_na=False, na_values=[""], index_col=False, low_memory=False)
        columns = [str(name) for name in table.columns]
        if self.label not in columns:
            raise BadInput(
                f"data.label={self.label or 'null'}: expected the column with the labels, one of {', '.join(columns)}"
            )
        if (empty := table[self.label].isna()).any():
            raise BadInput(f"{self.where}: row {1 + int(empty.argmax())} has no {self.label}")
        x = table.drop(columns=self.label)
        for name in x.columns:
            if name.startswith("Unnamed: "):
                raise BadInput(
                    f"{self.where}: a column has no name; if it holds row numbers, write without (index=False)"
                )
            numbers = pd.to_numeric(x[name], errors="coerce")
            if (wrong := ~np.isfinite(numbers.to_numpy(float))).any():
                row = int(wrong.argmax())
                given = "nothing" if pd.isna(x[name][row]) else x[name][row]
                raise BadInput(f"{self.where}: row {1 + row}, column {name} is {given}, expected a finite number")
            x[name] = numbers.astype(np.float64)
        y = table[self.label].to_numpy()
        return {"x": x.to_numpy(), "y": y.astype(str) if y.dtype.kind == "O" else y}

    def _bounds(self, x: Array) -> Bounds:
        images = x.ndim > 2
        if self.bounds == "auto":
            return (0.0, 1.0) if images else None
        if images and x.dtype == np.uint8:
            raise BadInput(
                f"data.bounds={self.bounds}: bytes of images stand for x/255 in [0, 1]; leave data.bounds out"
            )
        if self.bounds is None:
            return None
        if len(self.bounds) != 2:
            raise BadInput(f"data.bounds={list(self.bounds)}: expected auto, null or [low, high]")
        low, high = map(float, self.bounds)
        return low, high

    def _samples(self, x: Array, bounds: Bounds, where: str) -> Tensor:
        """x as `Samples` has them. Raises `BadInput` for other shapes, no numbers, and numbers out of bounds."""
        if x.dtype.kind not in "biuf":
            raise BadInput(f"{where} is {x.dtype}, expected numbers")
        if x.ndim == 3 and x.dtype == np.uint8:
            x = x[:, None]
        if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
            raise BadInput(f"{where} has the shape {x.shape}: channels come first; save x.transpose(0, 3, 1, 2)")
        if x.ndim not in (2, 4):
            way = {1: "; save x[:, None]", 3: "; save x[:, None] for grey images, x.reshape(len(x), -1) for vectors"}
            raise BadInput(
                f"{where} has the shape {x.shape}, expected (n, d) for vectors or (n, C, H, W) for images"
                f"{way.get(x.ndim, '')}"
            )
        with np.errstate(over="ignore"):  # inf is refused below
            kept = x if x.dtype == np.uint8 and x.ndim == 4 else x.astype(np.float32)
        found = torch.from_numpy(np.ascontiguousarray(kept))
        check_values(found, bounds, where)
        return found


def _labels(ys: Mapping[str, Array], names: Array | None) -> tuple[list[Tensor], Task]:
    """Targets (n,) int64 of each split, and the task. ys: by what a complaint begins with, training first."""
    labels = {where: y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y for where, y in ys.items()}
    for where, y in labels.items():
        if y.ndim != 1:
            way = "; save y.argmax(1)" if y.ndim == 2 else ""
            raise BadInput(f"{where} has the shape {y.shape}, expected labels (n,){way}")
        if y.dtype.kind not in "biuU":
            raise BadInput(
                f"{where} is {y.dtype}, expected labels as whole numbers or texts; save y.astype(int), or, for "
                "numbers to be predicted, set data.task=regression objective=mean_squared_error"
            )
    first = next(iter(labels))
    classes = np.unique(labels[first]) if names is None else np.arange(len(names))
    if names is not None and len(names) < 2:
        raise BadInput(f"{first.rpartition(', ')[0]}: class_names has {len(names)} of them; expected at least two")
    if len(classes) < 2:
        raise BadInput(f"{first}: one class, {classes[0]}; expected at least two")
    for where, y in labels.items():
        if (wrong := ~np.isin(y, classes)).any():
            index, those = int(wrong.argmax()), ", ".join(map(str, classes[:10]))
            raise BadInput(f"{where}: sample {index} is of class {y[index]}, expected one of {those}")
    targets = [torch.from_numpy(np.searchsorted(classes, y)) for y in labels.values()]
    return targets, Classification(tuple(map(str, classes if names is None else names)))


def _numbers(ys: Mapping[str, Array]) -> tuple[list[Tensor], Task]:
    """Targets (n, k) float32 of each split, and the task."""
    targets = []
    for where, y in ys.items():
        if y.dtype.kind not in "iuf" or y.ndim not in (1, 2):
            raise BadInput(f"{where} has the shape {y.shape} and is {y.dtype}, expected (n,) or (n, k) numbers")
        with np.errstate(over="ignore"):
            targets.append(torch.from_numpy(y.reshape(len(y), -1).astype(np.float32)))
    task = Regression(targets[0].shape[1])
    for where, target in zip(ys, targets, strict=True):
        task.check(target, where)
    return targets, task
