"""Simulated sources with known gradients and weights, and the clusters of the flights as sources."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from metier.bilevel import (
    BilevelProblem,
    ColumnWeight,
    ExponentialWeight,
    Logistic,
    OBiGrad,
    SieveRidge,
    SourceReweighting,
)
from metier.core import specialize_or_fall_back

Floats = NDArray[np.float64]
TILTS = ((1.0, -0.8, 0.6), (0.4, -0.8, 1.4), (1.8, -0.2, 0.2))
"""Coefficients of x1, x2 and x1 x2 in the log-odds of the trusted source and of two others."""
WEIGHTS_AT = np.array([0.3, -0.4])


def log_odds(x: Floats, source: int) -> Floats:
    """Log-odds of a source at x (n, 2)."""
    a, b, c = TILTS[source]
    return a * x[:, 0] + b * x[:, 1] + c * x[:, 0] * x[:, 1]


def draw(n: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """x uniform on [-2, 2]^2, labels, and one of three sources each."""
    x = rng.uniform(-2.0, 2.0, size=(n, 2))
    source = rng.integers(0, 3, n)
    odds = np.choose(source, [log_odds(x, s) for s in range(3)])
    return x, (rng.uniform(size=n) < expit(odds)).astype(np.float64), source


def true_gradient(w: Floats, *, points: int = 401) -> Floats:
    """Gradient of the trusted source's loss when sources count (1, e^w1, e^w2), by a fine grid of x.

    h_w is the log-odds of the weighted mixture: the sources share the law of x.
    """
    grid = (np.arange(points) + 0.5) / points * 4.0 - 2.0
    x = np.column_stack([a.ravel() for a in np.meshgrid(grid, grid)])
    p = np.stack([expit(log_odds(x, s)) for s in range(3)])
    c = np.array([1.0, *np.exp(w)])
    mixed = c @ p / c.sum()
    # d loss / d h = mixed - p_0, d h / d p = 1 / (p (1 - p)), d p / d w_s = c_s (p_s - p) / sum c.
    outer = (mixed - p[0]) / (mixed * (1.0 - mixed))
    return np.array([np.mean(outer * c[s] * (p[s] - mixed) / c.sum()) for s in (1, 2)])


def gradient_replicate(n: int, *, degree: int, penalty: float, seed: int) -> dict[str, Any]:
    """Errors of plug-in and orthogonal gradients at known weights, and their coverage."""
    rng = np.random.default_rng(seed)
    x, y, source = draw(n, rng)
    rows = {
        "y": y,
        "u": np.column_stack([source == 1, source == 2]).astype(np.float64),
        "trusted": 3.0 * (source == 0),
    }
    problem = BilevelProblem(
        Logistic("y", weight=ExponentialWeight("u")), Logistic("y", weight=ColumnWeight("trusted"))
    )
    basis = make_pipeline(StandardScaler(), PolynomialFeatures(degree, include_bias=False))
    truth = true_gradient(WEIGHTS_AT)
    found: dict[str, Any] = {}
    for kind in ("plugin", "obigrad"):
        learner = SieveRidge(basis, penalty=penalty)
        model = OBiGrad(problem, learner=learner, estimator=kind, folds=5, rng=seed, diagnose=False)
        estimate = model.fit(x, rows).hypergradient(WEIGHTS_AT)
        found[kind] = (estimate.value - truth).tolist()
        found[f"{kind}_covered"] = [bool(k) for k in np.abs(estimate.value - truth) <= 1.96 * estimate.stderr]
    return found


def weight_replicate(n: int, *, seed: int) -> dict[str, Any]:
    """Does the interval of a weight cover one half, and does re-weighting pay on held-out rows?"""
    rng = np.random.default_rng(seed)
    x, source = rng.normal(size=(n, 1)), rng.permutation(np.arange(n) % 3)
    y = x[:, 0] * np.array([1.0, 0.7, 1.6])[source] + 0.2 * rng.normal(size=n)
    found = SourceReweighting(rng=seed).fit(x, y, source, trusted=0, reference=1)
    low, high = found.interval()[0]
    assert found.decision_ is not None
    return {
        "log_weight": float(found.log_weights_[0]),
        "stderr": float(found.stderr_[0]),
        "covered": bool(low <= 0.5 <= high),
        "verdict": found.decision_.verdict,
    }


def flight_sources(n_airports: int, n_clusters: int, n_weeks: int, *, seed: int) -> dict[str, Any]:
    """The clusters of the hourly flights as sources for each other, each judged by its own newest weeks."""
    from metier import data
    from metier.forecast import ClusterForecaster

    panel = data.load("flights_hourly").top(n_airports)
    hours = 168 * n_weeks
    panel = panel.steps(panel.values.shape[1] - hours, panel.values.shape[1])
    forecaster = ClusterForecaster(
        lags=(1, 2, 24), season_length=24, n_clusters=n_clusters, gate="none", rng=seed
    ).fit(panel.to_frame(backend="polars"))
    labels = np.asarray(forecaster.assignment_.labels)
    order = {name: k for k, name in enumerate(forecaster.panel_.ids)}
    cluster = np.array([labels[order[name]] for name in panel.ids])
    cut = int(0.7 * hours)
    x, y, series, step = _lagged(panel.values, cut)
    found: dict[str, Any] = {"sizes": np.bincount(cluster).tolist(), "clusters": []}
    for k in np.unique(cluster):
        if np.sum(cluster == k) < 2:
            continue
        found["clusters"].append(_one_cluster(int(k), cluster[series], x, y, step, cut, seed))
    return found


def _lagged(values: Floats, cut: int) -> tuple[Floats, Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Rows of lags 1, 2, 24 and 168 of every fourth hour, scaled by the past before `cut`."""
    past = values[:, :cut]
    scaled = (values - past.mean(axis=1, keepdims=True)) / past.std(axis=1, keepdims=True)
    steps = np.arange(168, values.shape[1], 4)
    x = np.stack([scaled[:, steps - lag] for lag in (1, 2, 24, 168)], axis=2).reshape(-1, 4)
    series = np.repeat(np.arange(len(values)), len(steps))
    return x, scaled[:, steps].ravel(), series, np.tile(steps, len(values))


def _one_cluster(
    k: int, cluster: NDArray[np.int64], x: Floats, y: Floats, step: Any, cut: int, seed: int
) -> dict[str, Any]:
    """Own past is the reference, the other clusters' pasts are weighed, own newest weeks judge."""
    judge = (cluster == k) & (step >= cut)
    keep = (step < cut) | judge
    source = np.where(judge, -1, cluster)[keep]
    # Days are the blocks: rows of one day share a fold, whatever their series.
    day = (step // 24)[keep]
    folds = day % 5
    found = SourceReweighting(rng=seed, folds=5).fit(
        x[keep], y[keep], source, trusted=-1, reference=k, folds=folds, groups=day
    )
    own = _own_losses(found, source, x[keep], y[keep], day, k)
    decision, against = found.decision_, own["decision"]
    assert decision is not None
    return {
        "cluster": k,
        "sources": [int(s) for s in found.sources_],  # type: ignore[call-overload]
        **{
            key: value
            for key, value in found.to_dict().items()
            if key in ("log_weights", "stderr", "interval")
        },
        "at_bound": list(found.root_.at_bound),
        "against_equal": decision.to_dict(),
        "against_own": against,
        "equal_loss": own["equal_loss"],
    }


def _own_losses(
    found: SourceReweighting, source: Any, x: Floats, y: Floats, day: Any, k: int
) -> dict[str, Any]:
    """Held-out losses with the folds' weights, with the own past alone, and with equal weights."""
    ours, own, equal = (np.full(len(y), np.nan) for _ in range(3))
    scale = StandardScaler()
    for fold in range(5):
        train, test = (day % 5 != fold) & (source != -1), (day % 5 == fold) & (source == -1)
        psi = scale.fit_transform(x[train])
        at = np.column_stack([np.ones(test.sum()), scale.transform(x[test])])
        psi = np.column_stack([np.ones(len(psi)), psi])
        for out, weights in (
            (ours, _row_weights(source[train], found, fold)),
            (own, np.where(source[train] == k, 1.0, 1e-9)),
            (equal, np.ones(train.sum())),
        ):
            system = (psi * weights[:, None]).T @ psi + np.diag([0.0, *np.ones(x.shape[1])])
            theta = np.linalg.solve(system, (psi * weights[:, None]).T @ y[train])
            out[test] = (at @ theta - y[test]) ** 2 / 2.0
    judged = source == -1
    decision = specialize_or_fall_back(ours[judged], own[judged], dependence=day[judged])
    return {"decision": decision.to_dict(), "equal_loss": float(equal[judged].mean())}


def _row_weights(source: Any, found: SourceReweighting, fold: int) -> Floats:
    weights = np.ones(len(source))
    for name, w in zip(found.sources_, found.fold_log_weights_[fold], strict=True):
        weights[source == name] = np.exp(w)
    return weights
