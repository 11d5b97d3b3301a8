"""The rational function that `robode.ode.fused_numba` takes for tanh, fitted anew: x P(x^2)/Q(x^2) on [0, 7.9].

Least squares of the linearised relative error, weighted anew until its extremes are level (Lawson's algorithm, with the
weights of Sanathanan and Koerner).

    python scripts/fit_tanh.py
"""

import numpy as np

MOST, DEGREE, ROUNDS = 7.9, 4, 400


def fit() -> tuple[np.ndarray, np.ndarray, float]:
    """P and Q, lowest power first, and the largest relative error in float64."""
    x = MOST * (1 + np.cos(np.linspace(0, np.pi, 4001))) / 2
    x = x[x > 1e-3]
    u, target = (x / MOST) ** 2, np.tanh(x) / x
    powers = np.vander(u, DEGREE + 1, increasing=True)
    weights, below = np.ones_like(x), np.ones_like(x)
    best: tuple[float, np.ndarray, np.ndarray] = (np.inf, x, x)
    for _ in range(ROUNDS):
        scale = np.sqrt(weights) / (below * target)
        system = np.hstack([powers, -target[:, None] * powers[:, 1:]]) * scale[:, None]
        found = np.linalg.lstsq(system, target * scale)[0]
        P, Q = found[: DEGREE + 1], np.concatenate([[1.0], found[DEGREE + 1 :]])
        below = powers @ Q
        error = np.abs(powers @ P / below / target - 1)
        if error.max() < best[0]:
            best = (error.max(), P, Q)
        weights *= (error / error.max() + 1e-3) ** 0.5
        weights /= weights.max()
        below = np.abs(below)
    scales = MOST ** (2 * np.arange(DEGREE + 1))
    return best[1] / scales, best[2] / scales, best[0]


if __name__ == "__main__":
    P, Q, error = fit()
    print("P", [float(np.float32(p)) for p in P])
    print("Q", [float(np.float32(q)) for q in Q])
    print(f"largest relative error {error:.2g}, before the coefficients are rounded to float32")
