"""A finite law on which every expectation is a sum: six covariate values, five outcomes each, d = 3."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from metier.bilevel import (
    AffineTarget,
    BilevelProblem,
    ColumnWeight,
    CustomLoss,
    ExponentialWeight,
    FunctionTarget,
    FunctionWeight,
    Huber,
    LogCosh,
    Logistic,
    Poisson,
    SmoothPinball,
    SoftmaxCE,
    Squared,
)
from metier.bilevel.scores import (
    Nuisances,
    inner_adjoint_terms,
    inner_scores,
    outer_adjoint_terms,
    outer_scores,
)

N_X, N_OUTCOMES, D = 6, 5, 3


@dataclass(frozen=True)
class ExactLaw:
    rows: dict
    p: np.ndarray
    x: np.ndarray

    def mean(self, values):
        return np.tensordot(self.p, values, axes=1)

    def conditional(self, values):
        """E[values | x] at every row."""
        at_x = np.zeros((N_X, *values.shape[1:]))
        mass = np.bincount(self.x, weights=self.p, minlength=N_X)
        np.add.at(at_x, self.x, self.p.reshape(-1, *[1] * (values.ndim - 1)) * values)
        return (at_x / mass.reshape(-1, *[1] * (values.ndim - 1)))[self.x]

    def tilted(self, factor):
        p = self.p * factor
        return replace(self, p=p / p.sum())


def random_law(seed, *, p_x=None):
    rng = np.random.default_rng(seed)
    n = N_X * N_OUTCOMES
    x = np.repeat(np.arange(N_X), N_OUTCOMES)
    p_x = rng.dirichlet(np.full(N_X, 5.0)) if p_x is None else p_x
    p = p_x[x] * rng.dirichlet(np.full(N_OUTCOMES, 3.0), size=N_X).ravel()
    shift = rng.normal(size=N_X)[x]
    rows = {
        "X": x[:, None].astype(float),
        "g0": shift + rng.normal(size=n),
        "dg": rng.normal(size=(n, D)) + shift[:, None],
        "dh": 0.3 * rng.normal(size=(n, D)),
        "u": 0.8 * rng.normal(size=(n, D)),
        "m": rng.uniform(0.5, 1.5, size=n),
        "Y": rng.normal(size=n) - shift,
        "B": rng.integers(2, size=n).astype(float),
        "N": rng.poisson(2.0, size=n).astype(float),
        "label": rng.integers(3, size=n).astype(float),
        "G2": rng.normal(size=(n, 2)),
        "dG2": rng.normal(size=(n, D, 2)),
    }
    return ExactLaw(rows, p, x)


def solve_h(law, loss, w, q):
    """The conditional minimizer by Newton's method, to machine precision."""
    v = np.zeros((len(law.p), q))
    for _ in range(200):
        at = loss.derivatives(w, v, law.rows)
        g, H = law.conditional(at.d_v), law.conditional(at.d2_v)
        step = np.linalg.solve(H, g[:, :, None])[:, :, 0]
        # Long steps overflow an exponential; near the root they are short.
        length = np.abs(step).max()
        v = v - step * min(1.0, 1.0 / max(length, 1e-300))
        if length < 1e-15:
            break
    return v


def truth(law, problem, w, outer_law=None):
    """Nuisances by definition: J = -E[d2_wv l_in | x] H^-1, a = -H^-1 E[d_v l_out | x], A2 = -M H^-1."""
    q = problem.outputs(law.rows)
    h = solve_h(law, problem.inner_loss, w, q)
    inner = problem.inner_loss.derivatives(w, h, law.rows)
    outer = problem.outer_loss.derivatives(w, h, law.rows)
    inverse = np.linalg.inv(law.conditional(inner.d2_v))
    a = -np.einsum("nqp,np->nq", inverse, law.conditional(outer.d_v))
    J = -np.einsum("ndq,nqp->ndp", law.conditional(or_zero(inner.d2_wv, h)), inverse)
    within, outside = inner_adjoint_terms(inner, a, J), outer_adjoint_terms(outer, J)
    M = law.conditional(outside if within is None else within + outside)
    return Nuisances(h, a, J, -np.einsum("ndq,nqp->ndp", M, inverse))


def or_zero(array, h):
    return np.zeros((len(h), D, h.shape[1])) if array is None else array


def objective(law, problem, w):
    h = solve_h(law, problem.inner_loss, w, problem.outputs(law.rows))
    return law.mean(problem.outer_loss.derivatives(w, h, law.rows).value)


def scores(law, problem, w, nuisances):
    inner = problem.inner_loss.derivatives(w, nuisances.h, law.rows)
    outer = problem.outer_loss.derivatives(w, nuisances.h, law.rows)
    return outer_scores(outer, nuisances) + inner_scores(inner, nuisances)


def central(f, w, step=1e-5):
    columns = [(f(w + e) - f(w - e)) / (2 * step) for e in step * np.eye(len(w))]
    return np.stack(columns)


def quartic(w, v, z):
    return (v[:, 0] - np.sin(z["dg"] @ w)) ** 4 / 4 + v[:, 0] ** 2 / 2


def _r(w, v, z):
    return v[:, 0] - np.sin(z["dg"] @ w)


def _ds(w, z):
    return np.cos(z["dg"] @ w)[:, None] * z["dg"]


QUARTIC = CustomLoss(
    quartic,
    d_v=lambda w, v, z: (_r(w, v, z) ** 3 + v[:, 0])[:, None],
    d2_v=lambda w, v, z: (3 * _r(w, v, z) ** 2 + 1)[:, None, None],
    d3_v=lambda w, v, z: (6 * _r(w, v, z))[:, None, None, None],
    d_w=lambda w, v, z: -(_r(w, v, z) ** 3)[:, None] * _ds(w, z),
    d2_wv=lambda w, v, z: (-3 * _r(w, v, z) ** 2)[:, None, None] * _ds(w, z)[:, :, None],
    d3_wvv=lambda w, v, z: (-6 * _r(w, v, z))[:, None, None, None] * _ds(w, z)[:, :, None, None],
)
TARGET, OTHER, RATE = AffineTarget("g0", "dg"), AffineTarget(0.2, "dh"), ExponentialWeight("u")
SINE = FunctionTarget(lambda w, z: np.sin(z["dg"] @ w), lambda w, z: np.cos(z["dg"] @ w)[:, None] * z["dg"])
MOVING = FunctionWeight(
    lambda w, z: 1 + np.tanh(z["u"] @ w) ** 2,
    lambda w, z: (2 * np.tanh(z["u"] @ w) / np.cosh(z["u"] @ w) ** 2)[:, None] * z["u"],
)

PROBLEMS = {
    "squared": BilevelProblem(Squared(TARGET), Squared("Y")),
    "sine target": BilevelProblem(Squared(SINE), Squared("Y")),
    "log-cosh, logistic": BilevelProblem(LogCosh(TARGET, weight=RATE), Logistic(OTHER, weight=MOVING)),
    "logistic, pinball": BilevelProblem(
        Logistic("B", weight=RATE) + Squared(0.0, weight=ColumnWeight("m")),
        SmoothPinball("Y", quantile=0.3, smoothing=0.4),
    ),
    "poisson, log-cosh": BilevelProblem(
        Poisson("N", weight=MOVING) + Squared(TARGET), LogCosh(OTHER, delta=2.0, weight=RATE)
    ),
    "pinball, poisson": BilevelProblem(
        SmoothPinball(TARGET, quantile=0.7, smoothing=0.5, weight=RATE) + Squared(0.0), Poisson("N")
    ),
    "custom, huber": BilevelProblem(QUARTIC, Huber("Y", delta=1.0)),
    "softmax": BilevelProblem(
        SoftmaxCE("label", n_classes=3, weight=RATE) + Squared(AffineTarget("G2", "dG2")),
        SoftmaxCE("label", n_classes=3) + LogCosh("G2", weight=MOVING),
    ),
}
W = np.array([0.4, -0.3, 0.2])
