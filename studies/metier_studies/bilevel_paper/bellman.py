"""The paper's fitted Bellman designs: two gradients, a root, and the random-feature kernel baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.bilevel import AffineTarget, BilevelProblem, OBiGrad, SieveRidge, Squared

Floats = NDArray[np.float64]
PROBLEM = BilevelProblem(Squared(AffineTarget("R", "slope")), Squared("Y"))


@dataclass(frozen=True, slots=True)
class BellmanDesign:
    """S' = 0.7 S + 0.5 A + N(0, 0.2^2), R = sin S + 0.5 A + 0.25 S A + N(0, 0.1^2), Y = g at w_star + noise.

    Attributes:
        discount: per step.
        policy: probability of A = 1: 0 for one half everywhere, else the slope of a logit in S.
        n_features: 4 for sin, cos, s, s^2; 2 for sin, cos.
        w_star, w: truth, and where the gradient is taken.
        noise: standard deviation of Y about its mean.
        penalty: of the ridge.
    """

    discount: float
    policy: float
    n_features: int
    w_star: Floats
    w: Floats
    noise: float
    penalty: float


def _unit(*v: float) -> Floats:
    return np.asarray(np.array(v) / np.linalg.norm(v))


_B1 = np.array([0.55, -0.35, 0.25, 0.15])
_B2 = _unit(1.0, -0.6, 0.35, 0.15)
_B3 = np.array([0.65, -0.45])
DESIGNS = {
    "B1": BellmanDesign(0.8, 0.0, 4, _B1, _B1 + 0.35 * _unit(1.0, -0.5, 0.35, -0.25), 0.25, 0.5),
    "B2": BellmanDesign(0.9, 0.5, 4, _B2, _B2 + 0.35 * _unit(0.6, 0.2, -0.5, 0.3), 0.25, 0.05),
    "B3": BellmanDesign(0.8, 0.0, 2, _B3, _B3, 0.10, 1.0),
}


def basis(X: Floats) -> Floats:
    """The 37 functions of (s, a) beside the intercept."""
    s, a = X[:, 0], X[:, 1]
    shared = [f(k * s) for k in (0.5, 0.75, 1.0, 1.5, 2.0) for f in (np.sin, np.cos)]
    shared += [np.exp(-0.5 * ((s - c) / 0.8) ** 2) for c in range(-2, 3)]
    powers = [s, a, s * a, s**2, s**2 * a, s**3, s**3 * a]
    return np.column_stack([*powers, *shared, *(f * a for f in shared)])


def features(s: Floats, d: int) -> Floats:
    """sin, cos, s, s^2: the first d."""
    return np.column_stack([np.sin(s), np.cos(s), s, s**2][:d])


def mean_next(s: Floats, a: Floats, design: BellmanDesign) -> Floats:
    """The true Jacobian: discount E[features(S') | s, a]."""
    mu = 0.7 * s + 0.5 * a
    parts = [np.exp(-0.02) * np.sin(mu), np.exp(-0.02) * np.cos(mu), mu, mu**2 + 0.04]
    return design.discount * np.column_stack(parts[: design.n_features])


def _probability(s: Floats, design: BellmanDesign) -> Floats:
    return 1.0 / (1.0 + np.exp(-design.policy * s))


def true_gradient(design: BellmanDesign) -> Floats:
    """E[j j'](w - w_star) by 200-node Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    weights = weights / weights.sum()
    p = _probability(nodes, design)
    curvature = np.zeros((design.n_features, design.n_features))
    for a, mass in ((0.0, 1.0 - p), (1.0, p)):
        j = mean_next(nodes, np.full_like(nodes, a), design)
        curvature += (j * (weights * mass)[:, None]).T @ j
    return curvature @ (design.w - design.w_star)


def draw(design: BellmanDesign, n: int, rng: np.random.Generator) -> tuple[Floats, dict[str, Floats]]:
    """Covariates (s, a) and the columns R, slope, Y of n transitions."""
    s = rng.normal(size=n)
    a = (rng.uniform(size=n) < _probability(s, design)).astype(np.float64)
    after = 0.7 * s + 0.5 * a + 0.2 * rng.normal(size=n)
    reward = np.sin(s) + 0.5 * a + 0.25 * s * a + 0.1 * rng.normal(size=n)
    slope = design.discount * features(after, design.n_features)
    outcome = reward + slope @ design.w_star + design.noise * rng.normal(size=n)
    return np.column_stack([s, a]), {"R": reward, "slope": slope, "Y": outcome}


def bellman_replicate(name: str, n: int, seed: int) -> dict[str, Any]:
    """Errors and coverage of one replicate: of the gradient (B1, B2) or of the root (B3)."""
    design = DESIGNS[name]
    X, Z = draw(design, n, np.random.default_rng(seed))
    options: dict[str, Any] = {
        "learner": SieveRidge(basis, penalty=design.penalty),
        "folds": 2,
        "rng": seed,
        "diagnose": False,
    }
    found: dict[str, Any] = {}
    truth = design.w_star if name == "B3" else true_gradient(design)
    j = mean_next(X[:, 0], X[:, 1], design)
    external = {"jacobian": j, "residual": _residual(j, design)}
    for kind in ("plugin", "obigrad", "oracle"):
        model = OBiGrad(PROBLEM, estimator=kind, **(options if kind != "oracle" else {}))
        model.fit(X, Z, external_predictions=external if kind == "oracle" else None)
        answer = model.solve(np.zeros(design.n_features)) if name == "B3" else model.hypergradient(design.w)
        value = answer.w if name == "B3" else answer.value  # type: ignore[union-attr]
        found[kind] = (value - truth).tolist()
        found[f"{kind}_covered"] = [bool(k) for k in np.abs(value - truth) <= 1.96 * answer.stderr]
    return found


def _residual(j: Floats, design: BellmanDesign) -> Any:
    """r = E[g_w - Y | X] = j'(w - w_star), as a function of w."""
    return lambda w, X: j @ (w - design.w_star)


def kernel_bellman(n: int, penalty: float, seed: int) -> list[float]:
    """Error of the kernel baseline of B4: 256 random Fourier features, n inner and n outer transitions."""
    design = DESIGNS["B1"]
    rng = np.random.default_rng(seed)
    (Xi, Zi), (Xo, Zo) = draw(design, n, rng), draw(design, n, rng)
    frequency = rng.normal(0.0, np.sqrt(0.7), size=(2, 256))
    phase = rng.uniform(0.0, 2.0 * np.pi, 256)
    psi_in, psi_out = (np.sqrt(2.0 / 256) * np.cos(X @ frequency + phase) for X in (Xi, Xo))
    system = psi_in.T @ psi_in + n * penalty * np.eye(256)
    fitted = np.linalg.solve(system, psi_in.T @ np.column_stack([Zi["R"], Zi["slope"]]))
    inner = psi_out @ fitted
    gradient = inner[:, 1:].T @ (inner[:, 0] + inner[:, 1:] @ design.w - Zo["Y"]) / n
    return list(map(float, gradient - true_gradient(design)))
