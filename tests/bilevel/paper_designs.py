"""The paper's designs with their seeds: Figure 1, Figure 3 and Figure 4, as its authors draw them."""

from __future__ import annotations

import numpy as np

from metier.bilevel import AffineTarget, BilevelProblem, GaussianRidge, OBiGrad, SieveRidge, Squared

PROBLEM = BilevelProblem(Squared(AffineTarget(None, "T")), Squared("Y"))
SHIFTS = np.arange(1, 5)
W_STAR = np.array([1.0, 2.0, 3.0, 4.0]) / np.sqrt(30.0)
OFFSET = np.linspace(1, -1, 4) / np.linalg.norm(np.linspace(1, -1, 4))
W_1 = W_STAR + 0.35 * OFFSET
A_1 = (
    0.5 * np.exp(-0.1) * (np.cos(SHIFTS[:, None] - SHIFTS) - np.exp(-24.0) * np.cos(SHIFTS[:, None] + SHIFTS))
)
PSI_1 = A_1 @ (W_1 - W_STAR)


def true_jacobian_1(X):
    return np.exp(-0.05) * np.sin(2 * X.sum(axis=1)[:, None] + SHIFTS)


def waves(X):
    s = X.sum(axis=1)
    return np.column_stack([f(k * s) for k in range(1, 9) for f in (np.sin, np.cos)])


def figure_1(n, rng, *, confounded=False):
    """X, features of T (n, 4), Y."""
    X = rng.normal(size=(n, 3))
    eta = rng.normal(0.0, np.sqrt(0.10), n)
    noise = 0.5 * eta if confounded else rng.normal(0.0, 0.25, n)
    features = np.sin((2 * X.sum(axis=1) + eta)[:, None] + SHIFTS)
    return X, features, features @ W_STAR + noise


def figure_4(n, rng):
    X = rng.normal(size=(n, 3))
    eta = rng.normal(0.0, np.sqrt(0.10), n)
    T = 2 * X.sum(axis=1) + eta
    return X, T, 2 * T + 0.5 * eta + rng.normal(0.0, 0.1, n)


def figure_1_replicate(n, seed):
    """Errors of plug-in, OBiGrad and oracle, and which of OBiGrad's intervals cover, for one seed."""
    rng = np.random.default_rng(seed)
    X, T, Y = figure_1(n, rng)
    model = OBiGrad(PROBLEM, learner=SieveRidge(waves, penalty=1e-6), folds=2, rng=rng, diagnose=False)
    estimate = model.fit(X, {"T": T, "Y": Y}).hypergradient(W_1)
    low, high = estimate.interval(0.95).T
    j = true_jacobian_1(X)
    truth = {"jacobian": j, "outcome": j @ W_STAR}
    oracle = OBiGrad(PROBLEM, estimator="oracle").fit(X, {"T": T, "Y": Y}, external_predictions=truth)
    errors = [estimate.plugin - PSI_1, estimate.value - PSI_1, oracle.hypergradient(W_1).value - PSI_1]
    return np.array(errors), (low <= PSI_1) & (high >= PSI_1)


def figure_4_replicate(n, seeds):
    """Root errors of plug-in, OBiGrad and oracle, and whether OBiGrad's interval covers, for four seeds."""
    X, T, Y = figure_4(n, np.random.default_rng(seeds[0]))
    Z = {"T": T, "Y": Y}
    options = {"learner": SieveRidge(penalty=1e-8), "folds": 2, "rng": seeds[3], "diagnose": False}
    ours = OBiGrad(PROBLEM, **options).fit(X, Z).solve()
    plugin = OBiGrad(PROBLEM, estimator="plugin", **options).fit(X, Z).solve()
    truth = {"jacobian": 2 * X.sum(axis=1), "outcome": 4 * X.sum(axis=1)}
    oracle = OBiGrad(PROBLEM, estimator="oracle").fit(X, Z, external_predictions=truth).solve()
    low, high = ours.interval(0.95)[0]
    return np.array([plugin.w[0], ours.w[0], oracle.w[0]]) - 2.0, low <= 2.0 <= high


def kernel_model(inner, outer, *, width, penalty):
    """OBiGrad with the kernel rival on an inner sample (X, T) and an outer one (X, Y)."""
    learner = GaussianRidge(width=width, penalty=penalty)
    return OBiGrad(PROBLEM, estimator="kbo", learner=learner).fit(
        inner[0], {"T": inner[1]}, outer={"X": outer[0], "Y": outer[1]}
    )


def rmse(errors):
    return float(np.sqrt(np.mean(np.square(errors).reshape(len(errors), -1).sum(axis=1))))
