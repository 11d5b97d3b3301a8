"""J and spectral functions of F = J - gamma I."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import KINDS, eye, norm2, randn, skew_matrix

from robode.errors import BadInput
from robode.linalg.skew import Skew, canonical, j2, skew

SIZES = [(kind, n) for kind in KINDS for n in (2, 3, 5, 8) if kind != "canonical" or n % 2 == 0]


@pytest.mark.parametrize(("kind", "n"), SIZES)
def test_modes_are_orthogonal_projections_that_rebuild_J(kind: str, n: int) -> None:
    J = skew_matrix(kind, n, seed=n)
    modes = Skew(J)
    assert torch.equal(J, -J.T)
    assert modes.norm == pytest.approx(norm2(J), rel=1e-12)
    torch.testing.assert_close(modes.P.sum(0), eye(n), rtol=0, atol=1e-12)
    rebuilt = sum(w * Q for w, Q in zip(modes.omegas, modes.Q, strict=True))
    torch.testing.assert_close(rebuilt, J, rtol=0, atol=1e-12 * modes.norm)
    for P, Q in zip(modes.P, modes.Q, strict=True):
        torch.testing.assert_close(P @ P, P, rtol=0, atol=1e-12)
        assert float((Q @ Q + P).abs().max()) <= 1e-12 or float(Q.abs().max()) == 0


@pytest.mark.parametrize(("kind", "n"), SIZES)
def test_function_is_the_spectral_one(kind: str, n: int) -> None:
    """g(z) = z^2 has the matrix F^2, and g = 1/(2 - z) the resolvent."""
    J = skew_matrix(kind, n, seed=n)
    F, modes = J - 0.7 * eye(n), Skew(J)
    z = [complex(-0.7, w) for w in modes.omegas]
    for values, expected in (([x * x for x in z], F @ F), ([1 / (2 - x) for x in z], torch.linalg.inv(2 * eye(n) - F))):
        got = modes.function([(x.real, x.imag) for x in values], torch.float64)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-11 * norm2(expected))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=4), st.integers(0, 100), st.booleans())
def test_any_frequencies_repeated_close_or_zero(frequencies: list[float], seed: int, odd: bool) -> None:
    n = 2 * len(frequencies) + odd
    A = torch.zeros(n, n, dtype=torch.float64)
    for k, w in enumerate(frequencies):
        A[2 * k, 2 * k + 1], A[2 * k + 1, 2 * k] = w, -w
    U = torch.linalg.qr(randn(n, n, seed=seed)).Q
    J = U @ A @ U.T
    J = 0.5 * (J - J.T)
    modes = Skew(J)
    size = max([*frequencies, 1e-30])
    assert float((modes.function([(0.0, w) for w in modes.omegas], torch.float64) - J).abs().max()) <= 1e-7 * size
    assert float((modes.P.sum(0) - eye(n)).abs().max()) <= 1e-12


def test_named_matrices() -> None:
    assert canonical(4).tolist() == [[0, 0, 1, 0], [0, 0, 0, 1], [-1, 0, 0, 0], [0, -1, 0, 0]]
    assert j2(3).tolist() == [[0, 1, 1], [-1, 0, 1], [-1, -1, 0]]
    assert skew("canonical", 6).omegas == pytest.approx([1.0])  # one frequency: one rotation a step
    with pytest.raises(BadInput, match="even"):
        skew("canonical", 3)
    with pytest.raises(BadInput, match="canonical, j2 or file"):
        skew("random", 4)


@pytest.mark.parametrize("suffix", [".npy", ".txt"])
def test_a_matrix_from_a_file(tmp_path: Path, suffix: str) -> None:
    J = skew_matrix("random", 3, seed=1).numpy()
    path = tmp_path / f"J{suffix}"
    np.save(path, J) if suffix == ".npy" else np.savetxt(path, J, fmt="%.18e")
    assert skew("file", 3, str(path)).J.numpy().tolist() == J.tolist()
    with pytest.raises(BadInput, match="4x4"):
        skew("file", 4, str(path))


NOT_SKEW = [
    [[0.0, 1.0], [1.0, 0.0]], [[1.0, 1.0], [-1.0, 0.0]],
    [[0.0, np.nan], [np.nan, 0.0]], [[0.0, np.inf], [-np.inf, 0.0]],
]  # fmt: skip


@pytest.mark.parametrize("matrix", NOT_SKEW)
def test_a_file_that_is_not_skew_or_not_finite_is_bad_input(tmp_path: Path, matrix: list[list[float]]) -> None:
    np.save(tmp_path / "J.npy", np.array(matrix))
    with pytest.raises(BadInput, match="J_file"):
        skew("file", 2, str(tmp_path / "J.npy"))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"1 2\n3"])
@pytest.mark.parametrize("suffix", [".npy", ".txt"])
def test_a_damaged_or_missing_file_is_bad_input(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"J{suffix}"
    path.write_bytes(content)
    for name in (str(path), str(tmp_path / "missing.npy"), None):
        with pytest.raises(BadInput, match="J_file"):
            skew("file", 2, name)


def test_zero_J_is_bad_input(tmp_path: Path) -> None:
    """gamma = 0 would follow from Theorem 1, and with it a flow that does not move."""
    np.save(tmp_path / "J.npy", np.zeros((2, 2)))
    with pytest.raises(BadInput):
        skew("file", 2, str(tmp_path / "J.npy"))
    with pytest.raises(BadInput):
        skew("j2", 1)
