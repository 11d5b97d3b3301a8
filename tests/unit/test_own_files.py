"""Pictures in folders, arrays and tables of the user's: what they become, and one line for what is wrong with them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from own_files import points, write_arrays, write_pictures, write_table
from PIL import Image

from robode.data.arrays import Arrays
from robode.data.folder import ImageFolder
from robode.data.info import Source
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.tasks.classification import Classification
from robode.tasks.regression import Regression


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(source: Callable[[], Source]) -> str:
    with pytest.raises(BadInput) as error:
        DataModule(source(), 2, 0, name="mine").prepare()
    assert "\n" not in str(error.value)
    return str(error.value)


def spread(*sets: torch.Tensor) -> list[list[float]]:
    """The numbers of some samples, sorted."""
    return sorted(torch.cat([each.flatten(1) for each in sets]).tolist())


# Pictures


def test_pictures_are_cut_around_the_middle_and_named_by_their_folders() -> None:
    write_pictures(Path("set/train"), 6)
    write_pictures(Path("set/test"), 3)
    source = ImageFolder("set", size=12)
    (x, target), (test, _) = source.load()
    assert source.info.shape == (3, 12, 12) and source.info.bounds == (0.0, 1.0)
    assert isinstance(source.info.task, Classification) and source.info.task.class_names == ("disc", "square")
    assert x.dtype == torch.uint8 and x.shape == (12, 3, 12, 12) and test.shape == (6, 3, 12, 12)
    picture = np.asarray(Image.open("set/train/square/0.png"))
    middle = torch.from_numpy(picture.copy()).permute(2, 0, 1)[:, :, 2:15].float()  # 12 of its 17 columns
    found = x[target == 1].float()
    assert min(float((each - (middle[:, :, :-1] + middle[:, :, 1:]) / 2).abs().max()) for each in found) <= 1


def test_one_folder_a_class_is_split_the_same_way_every_time() -> None:
    write_pictures(Path("set"), 10)
    (x, target), (test, labels) = ImageFolder("set", size=8, channels=1).load()
    assert x.shape == (16, 1, 8, 8) and labels.bincount().tolist() == [2, 2]
    assert len(set(target[:8].tolist())) == 2, "in a mixed order"
    again = ImageFolder("set", size=8, channels=1).load()
    assert torch.equal(again[1].x, test) and torch.equal(again[0].x, x)
    every = [bytes(each.numpy()) for each in torch.cat([x, test])]
    assert len(set(every)) == 20


def test_a_picture_lies_as_its_camera_says_and_hidden_files_are_none() -> None:
    write_pictures(Path("set"), 4)
    (Path("set") / ".checkpoints").mkdir()
    Path("set/disc/._0.png").write_text("no picture")
    Path("set/disc/notes.txt").write_text("no picture")
    turned = Image.new("RGB", (8, 8))
    turned.paste((255, 255, 255), (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned.save("set/disc/turned.png", exif=exif)
    (x, target), (test, labels) = ImageFolder("set", size=12).load()
    assert len(target) + len(labels) == 9
    dark = min([*x, *test], key=lambda each: int(each.long().sum()))
    assert dark[0, 0, 0] == dark[0, 0, -1] == dark[0, -1, 0] == 0 and dark[0, -1, -1] == 255


def statistics_of(source: Source) -> None:
    x = source.load()[0].x
    x = x.double() / 255 if x.dtype == torch.uint8 else x.double()
    flat = x.transpose(0, 1).flatten(1)
    np.testing.assert_allclose(source.info.mean, flat.mean(1), atol=1e-12)
    np.testing.assert_allclose(source.info.std, flat.std(1, correction=0), atol=1e-12)


def test_mean_and_std_are_those_of_the_training_split_or_as_they_are_said() -> None:
    statistics_of(ImageFolder(str(write_pictures(Path("set"), 10)), size=8))
    statistics_of(Arrays(str(write_arrays(Path("points.npz")))))
    said = Arrays("points.npz", mean=[1, 2], std=[3, 4]).info
    assert said.mean == (1.0, 2.0) and said.std == (3.0, 4.0)
    np.savez("constant.npz", x=np.c_[points()[0], np.full(200, 0.1)], y=points()[1])
    assert Arrays("constant.npz").info.std[2] == 1.0, "what never changes is not divided by 0"


def spoiled(change: Callable[[Path], object], folder: str = "set") -> str:
    write_pictures(Path(folder), 3)
    change(Path("set"))
    return refusal(lambda: ImageFolder("set", size=8))


PICTURES: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda at: at.rename("away"), "expected the folder of the pictures, and there is none"),
    "damaged": (lambda at: (at / "disc/1.png").write_bytes(b"\x89PNG"), "cannot read set/disc/1.png (Unidentified"),
    "cut off": (
        lambda at: (at / "disc/1.png").write_bytes((at / "disc/1.png").read_bytes()[:200]), "cannot read set/disc/1.png"
    ),
    "16 bits": (
        lambda at: Image.fromarray(np.zeros((9, 9), np.uint16)).save(at / "disc/1.png"),
        "set/disc/1.png has more than 8 bits a colour, expected 8",
    ),
    "no picture": (lambda at: (at / "square2").mkdir(), "no picture in set/square2, expected files .png, .jpg"),
    "one class": (lambda at: (at / "square").rename("away"), "at least two classes in set, found disc alone"),
    "no test": (lambda at: (at.rename("train"), at.mkdir(), Path("train").rename(at / "train")),
                "has a folder train, expected one called test (or val) beside it"),
    "another class": (
        lambda at: (at.rename("train"), at.mkdir(), Path("train").rename(at / "train"),
                    (at / "test/cat").mkdir(parents=True)),
        "set/test/cat is no class of set/train, which has disc, square",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_wrong_with_pictures(name: str) -> None:
    change, line = PICTURES[name]
    said = spoiled(change)
    assert said.startswith("data.root=set: ") and line in said


# Arrays


def test_vectors_and_texts_of_a_npz_with_four_arrays() -> None:
    x, y = points()
    names = np.array(["left", "right"])[y]
    np.savez("four.npz", x_train=x[::2], y_train=names[::2], x_test=x[1::2], y_test=names[1::2])
    source = Arrays("four.npz")
    train, test = source.load()
    assert source.info.task == Classification(("left", "right")) and source.info.bounds is None
    assert spread(train.x) == spread(torch.from_numpy(x[::2]).float())
    assert torch.equal((test.x[:, 0] > 0).long(), test.target) and len(test.target) == 100


IMAGES = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
LABELS = np.arange(40) % 4
FOUR = {"x_train": IMAGES, "y_train": LABELS[:, None].astype(np.int32), "x_test": IMAGES[:8], "y_test": LABELS[:8]}


def test_grey_bytes_and_labels_in_a_column() -> None:
    """As keras' mnist.npz has them."""
    np.savez("grey.npz", **FOUR)
    source = Arrays("grey.npz")
    train, _ = source.load()
    assert source.info.shape == (1, 28, 28) and source.info.bounds == (0.0, 1.0) and train.x.dtype == torch.uint8
    assert spread(train.x) == sorted(IMAGES.reshape(40, -1).tolist()) and train.target.dtype == torch.int64


def test_labels_from_one_on_and_names_of_classes() -> None:
    np.savez("one.npz", x=points()[0], y=1 + points()[1])
    source = Arrays("one.npz")
    assert source.info.task == Classification(("1", "2")) and source.load()[0].target.unique().tolist() == [0, 1]
    np.savez("named.npz", x=points()[0], y=points()[1], class_names=["left", "right"])
    assert Arrays("named.npz").info.task == Classification(("left", "right"))


def test_numbers_to_be_predicted() -> None:
    x, _ = points()
    np.savez("numbers.npz", x=x, y=x.sum(1))
    source = Arrays("numbers.npz", task="regression")
    train, test = source.load()
    assert source.info.task == Regression(1) and len(test.target) == 40
    assert torch.allclose(train.x.sum(1, keepdim=True), train.target, atol=1e-6)


def test_a_table() -> None:
    write_table(Path("t.csv"), "a kind b\n" + "\n".join(f"{i} {('NA', 'cat')[i % 2]} {i / 2}" for i in range(20)))
    source = Arrays("t.csv", label="kind")
    train, test = source.load()
    assert source.info.task == Classification(("NA", "cat")) and source.info.shape == (2,)
    assert spread(train.x, test.x) == [[i, i / 2] for i in range(20)]
    assert torch.equal(train.x[:, 0].long() % 2, train.target)
    source = Arrays("t.csv", label="b", task="regression")
    assert "row 1, column kind is NA, expected a finite number" in refusal(lambda: source)


def test_bounds_may_be_said() -> None:
    np.savez("b.npz", x=np.clip(points()[0], -1, 1), y=points()[1])
    assert Arrays("b.npz", bounds=[-1, 1]).info.bounds == (-1.0, 1.0)
    assert "x: sample " in refusal(lambda: Arrays("b.npz", bounds=[0, 1]))
    np.savez("i.npz", x=np.random.rand(8, 1, 4, 4), y=np.arange(8) % 2)
    assert Arrays("i.npz").info.bounds == (0.0, 1.0) and Arrays("i.npz", bounds=None).info.bounds is None


X, Y = points()
NAN, INF = X.copy(), X.copy()
NAN[7, 1], INF[3, 0] = np.nan, 1e300
ARRAYS: dict[str, tuple[dict[str, object], str]] = {
    "no y": ({"x": X}, "has x and no y; expected x and y, or x_train, y_train, x_test, y_test"),
    "no test": ({"x_train": X, "y_train": Y}, "has x_train, y_train and no x_test"),
    "too few": ({"x": X, "y": Y[1:]}, "200 samples in x and 199 targets in y"),
    "empty": ({"x": X[:0], "y": Y[:0]}, "0 samples in x and 0 targets in y"),
    "nan": ({"x": NAN, "y": Y}, "x: sample 7 is nan at (1), expected finite numbers"),
    "float64 beyond float32": ({"x": INF, "y": Y}, "x: sample 3 is inf at (0), expected finite numbers"),
    "texts": ({"x": X.astype(str), "y": Y}, "x is <U32, expected numbers"),
    "objects": ({"x": X, "y": np.array([{}] * 200)}, "cannot be read (ValueError: Object arrays cannot be loaded"),
    "float labels": ({"x": X, "y": Y / 2}, "y is float64, expected labels as whole numbers or texts; save y"),
    "one hot": ({"x": X, "y": np.eye(2, dtype=int)[Y]}, "y has the shape (200, 2), expected labels (n,); save y."),
    "one class": ({"x": X, "y": 0 * Y}, "y: one class, 0; expected at least two"),
    "empty class": ({"x": X, "y": Y, "class_names": ["a", "b", "c"]}, "no sample of class 2 (c), expected"),
    "beyond the names": ({"x": X, "y": 1 + Y, "class_names": ["a", "b"]}, "y: sample 108 is of class 2, expected"),
    "unknown in test": ({"x_train": X, "y_train": Y, "x_test": X, "y_test": 1 + Y}, "y_test: sample 108 is of class"),
    "other width": ({"x_train": X, "y_train": Y, "x_test": X[:, :1], "y_test": Y}, "test: samples have the shape (2"),
    "NHWC": ({"x": np.zeros((8, 9, 9, 3)), "y": Y[:8]}, "channels come first; save x.transpose(0, 3, 1, 2)"),
    "signals": ({"x": np.zeros((8, 2, 32)), "y": Y[:8]}, "x has the shape (8, 2, 32), expected (n, d) for vectors or"),
    "0 … 255": ({"x": np.full((8, 1, 4, 4), 255.0), "y": Y[:8]}, "x: sample 0 is 255 at (0, 0, 0), expected values"),
    "two samples": ({"x": X[107:109], "y": Y[107:109]}, "no sample of class"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_what_is_wrong_with_arrays(name: str) -> None:
    arrays, line = ARRAYS[name]
    np.savez("a.npz", **arrays)
    assert line in refusal(lambda: Arrays("a.npz"))


TABLES = {
    "a text": ("a b y\n1 2 u\n3 x v", "row 2, column b is x, expected a finite number"),
    "long row": ("a b y\n1 2 u\n3 4 v 5", "cannot be read (ParserError"),
    "long rows": ("a b y\n1 2 3 u\n3 4 5 v", "cannot be read (ParserWarning: Length of header"),
    "no label": ("a b z\n1 2 u\n3 4 v", "data.label=y: expected the column with the labels, one of a, b, z"),
    "empty": ("", "cannot be read (EmptyDataError"),
}


@pytest.mark.parametrize("name", TABLES)
def test_what_is_wrong_with_tables(name: str) -> None:
    rows, line = TABLES[name]
    write_table(Path("t.csv"), rows)
    assert line in refusal(lambda: Arrays("t.csv", label="y"))


def test_cells_without_content_and_row_numbers() -> None:
    Path("t.csv").write_text("a,b,y\n1,2,u\n1,,v\n")
    assert "row 2, column b is nothing, expected a finite number" in refusal(lambda: Arrays("t.csv", label="y"))
    Path("t.csv").write_text("a,b,y\n1,2,u\n1,2,\n")
    assert "row 2 has no y" in refusal(lambda: Arrays("t.csv", label="y"))
    Path("t.csv").write_text(",a,y\n0,2,u\n1,2,v\n")
    assert "if it holds row numbers, write without (index=False)" in refusal(lambda: Arrays("t.csv", label="y"))


def test_other_files() -> None:
    Path("x.npy").write_text("")
    assert "expected a file whose name ends in .npz or .csv" in refusal(lambda: Arrays("x.npy"))
    Path("x.npz").write_text("no archive")
    assert refusal(lambda: Arrays("x.npz")).startswith("data.file=x.npz: is no .npz file")
    assert "there is no such file" in refusal(lambda: Arrays("gone.npz"))
    write_arrays(Path("p.npz"))
    assert refusal(lambda: Arrays("p.npz", label="y")).startswith("data.label=y: names a column of a .csv")


def test_a_home_is_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_pictures(Path("set"), 10)
    write_arrays(Path("p.npz"))
    monkeypatch.chdir("/")
    assert ImageFolder("~/set", size=4).info.task.outputs == Arrays("~/p.npz").info.task.outputs == 2


def test_another_content_has_another_digest() -> None:
    def digest(**keys: float) -> str:
        return DataModule(Arrays("p.npz", **keys), 10, 0, 0.1).digest

    write_arrays(Path("p.npz"))
    first = digest()
    assert first == digest() != digest(test=0.3)
    x, y = points()
    x[5, 1] += 1e-3
    np.savez("p.npz", x=x, y=y)
    assert digest() != first
