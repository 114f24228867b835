"""The paper's designs of Figures 1, 3 and 4, with the seeds and the order of draws of its authors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.bilevel import AffineTarget, BilevelProblem, GaussianRidge, OBiGrad, SieveRidge, Squared

Floats = NDArray[np.float64]
PROBLEM = BilevelProblem(Squared(AffineTarget(None, "T")), Squared("Y"))
SHIFTS = np.arange(1, 5)
W_STAR = np.array([1.0, 2.0, 3.0, 4.0]) / np.sqrt(30.0)
W_AT = W_STAR + 0.35 * np.linspace(1, -1, 4) / np.linalg.norm(np.linspace(1, -1, 4))
CURVATURE = (
    0.5 * np.exp(-0.1) * (np.cos(SHIFTS[:, None] - SHIFTS) - np.exp(-24.0) * np.cos(SHIFTS[:, None] + SHIFTS))
)
TRUE_GRADIENT = CURVATURE @ (W_AT - W_STAR)
ROOT = 2.0


def waves(X: Floats) -> Floats:
    """sin and cos of k times the row sum, k = 1..8."""
    s = X.sum(axis=1)
    return np.column_stack([f(k * s) for k in range(1, 9) for f in (np.sin, np.cos)])


def figure_1(n: int, rng: np.random.Generator, *, confounded: bool = False) -> tuple[Floats, Floats, Floats]:
    """Covariates, features of the treatment (n, 4) and outcome of Figure 1, or of Figure 3 if confounded."""
    X = rng.normal(size=(n, 3))
    eta = rng.normal(0.0, np.sqrt(0.10), n)
    noise = 0.5 * eta if confounded else rng.normal(0.0, 0.25, n)
    features = np.sin((2 * X.sum(axis=1) + eta)[:, None] + SHIFTS)
    return X, features, features @ W_STAR + noise


def figure_4(n: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Covariates, treatment and outcome of Figure 4."""
    X = rng.normal(size=(n, 3))
    eta = rng.normal(0.0, np.sqrt(0.10), n)
    T = 2 * X.sum(axis=1) + eta
    return X, T, ROOT * T + 0.5 * eta + rng.normal(0.0, 0.1, n)


def figure_1_gradients(n: int, rng: np.random.Generator) -> dict[str, Any]:
    """One replicate: gradients by plug-in, OBiGrad and oracle, coverage per coordinate, product bias."""
    X, T, Y = figure_1(n, rng)
    learner = SieveRidge(waves, penalty=1e-6)
    model = OBiGrad(PROBLEM, learner=learner, folds=2, rng=rng, diagnose=False).fit(X, {"T": T, "Y": Y})
    estimate = model.hypergradient(W_AT)
    j = np.exp(-0.05) * np.sin(2 * X.sum(axis=1)[:, None] + SHIFTS)
    truth = {"jacobian": j, "outcome": j @ W_STAR}
    oracle = OBiGrad(PROBLEM, estimator="oracle").fit(X, {"T": T, "Y": Y}, external_predictions=truth)
    return {
        "plugin": (estimate.plugin - TRUE_GRADIENT).tolist(),
        "obigrad": (estimate.value - TRUE_GRADIENT).tolist(),
        "oracle": (oracle.hypergradient(W_AT).value - TRUE_GRADIENT).tolist(),
        "covered": _covered(estimate.value, estimate.stderr, TRUE_GRADIENT),
        "plugin_covered": _covered(estimate.plugin, _plugin_stderr(X, T, Y, learner), TRUE_GRADIENT),
    }


def _plugin_stderr(X: Floats, T: Floats, Y: Floats, learner: SieveRidge) -> Floats:
    model = OBiGrad(PROBLEM, learner=learner, estimator="plugin", folds=2, rng=0, diagnose=False)
    return model.fit(X, {"T": T, "Y": Y}).hypergradient(W_AT).stderr


def _covered(value: Floats, stderr: Floats, truth: Floats) -> list[bool]:
    return [bool(inside) for inside in np.abs(value - truth) <= 1.96 * stderr]


def figure_4_roots(data: tuple[Floats, Floats, Floats], rng: Any) -> dict[str, Any]:
    """Errors of the roots of plug-in, OBiGrad, its instrument form and the oracle; which intervals cover."""
    X, T, Y = data
    Z = {"T": T, "Y": Y}
    seed = int(rng.integers(0, 2**31 - 1)) if isinstance(rng, np.random.Generator) else int(rng)
    options: dict[str, Any] = {
        "learner": SieveRidge(penalty=1e-8),
        "folds": 2,
        "rng": seed,
        "diagnose": False,
    }
    found: dict[str, Any] = {}
    for name in ("plugin", "obigrad", "adjoint_instrument"):
        solution = OBiGrad(PROBLEM, estimator=name, **options).fit(X, Z).solve()
        found[name] = float(solution.w[0] - ROOT)
        low, high = solution.interval(0.95)[0]
        found[f"{name}_covered"] = bool(low <= ROOT <= high)
    truth = {"jacobian": 2 * X.sum(axis=1), "outcome": 4 * X.sum(axis=1)}
    oracle = OBiGrad(PROBLEM, estimator="oracle").fit(X, Z, external_predictions=truth)
    found["oracle"] = float(oracle.solve().w[0] - ROOT)
    return found


def kernel_root(
    inner: tuple[Floats, Floats, Floats], outer: tuple[Floats, Floats, Floats], penalty: float
) -> float:
    """Error of the root of the kernel baseline of Figure 4, width 2."""
    learner = GaussianRidge(width=2.0, penalty=penalty)
    model = OBiGrad(PROBLEM, estimator="kbo", learner=learner).fit(
        inner[0], {"T": inner[1]}, outer={"X": outer[0], "Y": outer[2]}
    )
    return float(model.solve().w[0] - ROOT)


def kernel_gradient(
    inner: tuple[Floats, Floats, Floats], outer: tuple[Floats, Floats, Floats], penalty: float
) -> list[float]:
    """Error of the kernel baseline's gradient of Figure 3, width 0.5."""
    learner = GaussianRidge(width=0.5, penalty=penalty)
    model = OBiGrad(PROBLEM, estimator="kbo", learner=learner).fit(
        inner[0], {"T": inner[1]}, outer={"X": outer[0], "Y": outer[2]}
    )
    return list(map(float, model.hypergradient(W_AT).value - TRUE_GRADIENT))


def figure_3_gradient(inner: Any, seed: int) -> list[float]:
    """Error of the one-split OBiGrad of Figure 3: nuisances on the first sample, scores on the second."""
    (Xi, Ti, Yi), (Xo, To, Yo) = inner
    X, T, Y = np.concatenate([Xi, Xo]), np.concatenate([Ti, To]), np.concatenate([Yi, Yo])
    folds = np.r_[np.zeros(len(Xi), dtype=int), np.ones(len(Xo), dtype=int)]
    model = OBiGrad(PROBLEM, learner=SieveRidge(waves, penalty=1e-6), folds=folds, rng=seed, diagnose=False)
    scores = model.fit(X, {"T": T, "Y": Y}).hypergradient(W_AT).scores
    return list(map(float, scores[len(Xi) :].mean(axis=0) - TRUE_GRADIENT))
