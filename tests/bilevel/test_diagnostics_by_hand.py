"""Every number of the diagnostics a second time, from its definition, on nuisances that are given."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from metier.bilevel import (
    AffineTarget,
    BilevelProblem,
    ExponentialWeight,
    LogCosh,
    OBiGrad,
    SieveRidge,
    Squared,
)
from metier.bilevel.estimators.effects import make_effect

N, W = 240, np.array([0.4, -0.7])
PROBLEM = BilevelProblem(Squared(AffineTarget("g0", "dg")), Squared("Y"))


class Rows:
    """Data, rough nuisances, and what the estimate is made of at W."""

    def __init__(self, weighted: bool = True) -> None:
        rng = np.random.default_rng(4)
        self.X = rng.normal(size=(N, 2))
        mean = np.column_stack([self.X[:, 0], 0.4 * self.X[:, 1]])
        self.dg = mean + rng.normal(size=(N, 2))
        self.g0 = 0.2 * rng.normal(size=N)
        self.Y = self.dg.sum(axis=1) + rng.normal(size=N)
        self.j = 0.8 * mean + 0.1
        self.h = self.j @ W
        self.r = 0.5 * self.X[:, 0] + 0.1
        self.groups = rng.permutation(N) % 60
        self.folds = self.groups % 4
        self.om = rng.uniform(0.5, 2.0, N) if weighted else np.ones(N)
        self.g = self.g0 + self.dg @ W
        self.orthogonal = (self.g - self.Y)[:, None] * self.j + (self.dg - self.j) * self.r[:, None]
        self.plugin = (self.h - self.Y)[:, None] * self.j
        self.left = (self.g - self.Y - self.r)[:, None]

    def fit(self, **settings: object) -> OBiGrad:
        model = OBiGrad(PROBLEM, learner=Ridge(1.0), folds=self.folds, **settings)
        given = {"jacobian": self.j, "residual": self.r, "h": self.h}
        rows = {"g0": self.g0, "dg": self.dg, "Y": self.Y}
        return model.fit(self.X, rows, weights=self.om, groups=self.groups, external_predictions=given)

    def moments(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted mean and its standard error by groups, in loops."""
        share = self.om / self.om.sum()
        value = share @ scores
        sums = np.zeros((60, scores.shape[1]))
        for i in range(N):
            sums[self.groups[i]] += share[i] * (scores[i] - value)
        return value, np.sqrt(60 / 59 * (sums**2).sum(axis=0))

    def z(self, scores: np.ndarray) -> np.ndarray:
        value, stderr = self.moments(scores)
        return value / stderr

    def r2(self, response: np.ndarray, prediction: np.ndarray) -> float:
        center = np.average(response, axis=0, weights=self.om)
        left = np.average((response - prediction) ** 2, axis=0, weights=self.om)
        return float((1 - left / np.average((response - center) ** 2, axis=0, weights=self.om)).min())


@pytest.fixture(scope="module")
def rows() -> Rows:
    return Rows()


@pytest.fixture(scope="module")
def found(rows):
    return rows.fit().hypergradient(W)


def test_value_and_standard_error_should_be_the_weighted_mean_and_its_error(rows, found):
    value, stderr = rows.moments(rows.orthogonal)
    np.testing.assert_allclose(found.scores, rows.orthogonal, atol=1e-12)
    np.testing.assert_allclose(found.value, value, atol=1e-12)
    np.testing.assert_allclose(found.stderr, stderr, rtol=1e-10)
    assert found.n == found.diagnostics.clusters == 60


def test_r2_should_be_that_of_the_worst_output(rows, found):
    first, second = (rows.r2(rows.dg[:, [k]], rows.j[:, [k]]) for k in (0, 1))
    assert found.diagnostics.r2["jacobian"] == pytest.approx(min(first, second), rel=1e-10)
    assert first > second + 0.1
    assert found.diagnostics.r2["h"] == pytest.approx(rows.r2(rows.g[:, None], rows.h[:, None]), rel=1e-10)
    expected = rows.r2((rows.g - rows.Y)[:, None], rows.r[:, None])
    assert found.diagnostics.r2["residual"] == pytest.approx(expected, rel=1e-10)


def test_z_values_should_be_means_over_their_own_standard_errors(rows, found):
    d = found.diagnostics
    np.testing.assert_allclose(d.correction_z, rows.z(rows.orthogonal - rows.plugin), rtol=1e-9)
    instrument = (rows.g - rows.Y)[:, None] * rows.j
    np.testing.assert_allclose(d.instrument_contrast, rows.z(rows.orthogonal - instrument), rtol=1e-9)
    both = np.array([rows.z(rows.left * rows.j), rows.z((rows.dg - rows.j) * rows.r[:, None])])
    largest = both[np.abs(both).argmax(axis=0), [0, 1]]
    np.testing.assert_allclose(d.orthogonality, largest, rtol=1e-9)
    assert (np.abs(np.abs(both[0]) - np.abs(both[1])) > 0.1).all()


def test_ratio_should_be_that_of_lengths(rows, found):
    plugin = rows.moments(rows.plugin)[0]
    ratio = np.linalg.norm(rows.moments(rows.orthogonal)[0] - plugin) / np.linalg.norm(plugin)
    assert found.diagnostics.correction_ratio == pytest.approx(ratio, rel=1e-10)


def test_calibration_should_be_a_regression_with_a_clustered_error():
    """Slope of dg on the fit with an intercept; z of its distance from 1, unweighted."""
    rows = Rows(weighted=False)
    d = rows.fit().hypergradient(W).diagnostics
    for k in (0, 1):
        design = np.column_stack([np.ones(N), rows.j[:, k]])
        coef = np.linalg.lstsq(design, rows.dg[:, k], rcond=None)[0]
        left, bread = rows.dg[:, k] - design @ coef, np.linalg.inv(design.T @ design)
        sums = np.zeros((60, 2))
        np.add.at(sums, rows.groups, design * left[:, None])
        stderr = np.sqrt((bread @ (sums.T @ sums) @ bread)[1, 1])
        assert d.calibration[k] == pytest.approx(coef[1], rel=1e-10)
        assert d.calibration_z[k] == pytest.approx((coef[1] - 1) / stderr, rel=1e-8)


def test_slope_numbers_should_be_those_of_its_eigenvalues(rows):
    """The first-stage F is that of the weakest direction, signed."""
    model = OBiGrad(PROBLEM, learner=Ridge(1.0), folds=rows.folds)
    data, given = {"g0": rows.g0, "dg": rows.dg, "Y": rows.Y}, {"jacobian": rows.j, "outcome": rows.h}
    model.fit(rows.X, data, weights=rows.om, groups=rows.groups, external_predictions=given)
    solution = model.solve()
    S, d = solution.jacobian, solution.gradient.diagnostics
    values, vectors = np.linalg.eigh(S)
    assert d.condition == pytest.approx(np.linalg.cond(S), rel=1e-8)
    assert d.least_eigenvalue == pytest.approx(values.min() / np.abs(values).max(), rel=1e-8)
    strengths = []
    for v in vectors.T:
        a, b = rows.j @ v, rows.dg @ v
        z = rows.z((2 * a * b - a**2)[:, None])[0]
        strengths.append(np.sign(z) * z**2)
    assert d.first_stage == pytest.approx(min(strengths), rel=1e-8)
    assert max(strengths) > 1.5 * min(strengths)
    assert d.condition > 1.5


def test_spread_of_folds_should_be_over_what_sampling_gives():
    rows = Rows(weighted=False)
    found = rows.fit().hypergradient(W)
    means = np.array([rows.orthogonal[rows.folds == k].mean(axis=0) for k in range(4)])
    center = means.mean(axis=0)
    spread = np.sqrt(((means - center) ** 2).sum(axis=0) / 3)
    np.testing.assert_allclose(found.diagnostics.fold_spread, spread / (found.stderr * 2), rtol=1e-9)


def test_spread_of_repeats_should_be_that_of_their_own_estimates(rows):
    data = {"g0": rows.g0, "dg": rows.dg, "Y": rows.Y}
    model = OBiGrad(PROBLEM, learner=Ridge(1.0), repeats=3, rng=2).fit(rows.X, data)
    alone = [
        OBiGrad(PROBLEM, learner=Ridge(1.0), folds=repeat.codes).fit(rows.X, data).hypergradient(W).value
        for repeat in model.repeats_
    ]
    found = model.hypergradient(W)
    spread = np.sqrt(((alone - np.mean(alone, axis=0)) ** 2).sum(axis=0) / 2)
    np.testing.assert_allclose(found.diagnostics.repeat_spread, spread / found.stderr, rtol=1e-8)


def test_covariances_of_two_samples_should_add_up(rows):
    """The scores come inner rows first; each sample has its own mean and covariance."""
    other = Rows(weighted=False)
    data = {"g0": rows.g0, "dg": rows.dg, "Y": rows.Y}
    outer = {"X": other.X[:100], **{k: v[100:200] for k, v in data.items()}}
    model = OBiGrad(PROBLEM, learner=SieveRidge(penalty=1.0), folds=3)
    found = model.fit(rows.X, data, outer=outer).hypergradient(W)
    parts = found.scores[:N], found.scores[N:]
    assert len(parts[1]) == 100
    np.testing.assert_allclose(found.value, sum(p.mean(axis=0) for p in parts), atol=1e-12)
    expected = sum(np.cov(p.T) / len(p) for p in parts)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-10)


def test_clusters_should_be_those_of_the_sample_with_fewer(rows):
    data = {"g0": rows.g0, "dg": rows.dg, "Y": rows.Y}
    other = {"X": rows.X[:100], **{k: v[:100] for k, v in data.items()}, "groups": np.arange(100) // 5}
    model = OBiGrad(PROBLEM, learner=SieveRidge(penalty=1.0), folds=3)
    found = model.fit(rows.X, data, groups=rows.groups, outer=other).hypergradient(W)
    assert found.diagnostics.clusters == 20
    assert found.n == 80


def test_least_curvature_and_floored_rows_should_be_those_of_the_fitted_means(rows):
    """The weight e^(w u) is the curvature, whatever the fit: three neighbors' mean of it, fold by fold."""
    u = np.where(rows.X[:, 0] > 0.8, -12.0, 0.3 * rows.X[:, 1])
    problem = BilevelProblem(Squared("Y", weight=ExponentialWeight("u")), Squared("Y"))
    model = OBiGrad(problem, learner=KNeighborsRegressor(3), folds=rows.folds)
    found = model.fit(rows.X, {"Y": rows.Y, "u": u}).hypergradient([1.0]).diagnostics
    least, floored = np.inf, 0
    for k in range(4):
        train, test = rows.folds != k, rows.folds == k
        K = np.exp(u[train])
        fitted = KNeighborsRegressor(3).fit(rows.X[train], K).predict(rows.X[test]) / K.mean()
        least, floored = min(least, fitted.min()), floored + int((fitted < 1e-3).sum())
    assert found.min_curvature == pytest.approx(least, rel=1e-8)
    assert found.floored == floored > 5


@pytest.mark.parametrize("d", range(1, 8))
def test_the_band_of_one_point_should_be_its_interval(d):
    """The whole curve is one point: simulation may not make the band narrower, nor much wider."""
    rng = np.random.default_rng(d)
    root = rng.normal(size=(d, d))
    effect = make_effect(
        rng.normal(size=(1, d)), np.ones(d), root @ root.T,
        treatment=np.zeros((1, 1)), reference=np.zeros(1), level=0.9,
    )  # fmt: skip
    assert effect.low[0] - effect.value[0] == pytest.approx(-ndtri(0.95) * effect.stderr[0])
    assert effect.uniform_low[0] <= effect.low[0]
    assert effect.uniform_high[0] >= effect.high[0]
    # 20,000 draws: the standard error of the quantile is 0.010, so four of them.
    assert effect.uniform_high[0] - effect.value[0] < (ndtri(0.95) + 0.042) * effect.stderr[0]


def test_the_band_of_independent_points_should_be_sidaks():
    effect = make_effect(
        np.eye(4), np.zeros(4), np.diag([1.0, 4.0, 9.0, 0.25]),
        treatment=np.zeros((4, 1)), reference=np.zeros(1), level=0.9,
    )  # fmt: skip
    np.testing.assert_allclose(effect.stderr, [1.0, 2.0, 3.0, 0.5])
    wide = ndtri((1 + 0.9**0.25) / 2)
    # The standard error of the quantile is sqrt(.9 x .1 / 20,000) over a density of .21: four of them.
    np.testing.assert_allclose(effect.uniform_high / effect.stderr, wide, atol=0.042)


def test_smooth_losses_should_report_the_error_of_their_own_scores(rows):
    """LogCosh takes the general path; weights and groups count as on the other one."""
    problem = BilevelProblem(LogCosh(AffineTarget("g0", "dg")), LogCosh("Y"))
    data = {"g0": rows.g0, "dg": rows.dg, "Y": rows.Y}
    model = OBiGrad(problem, learner=Ridge(1.0), folds=rows.folds, diagnose=False)
    found = model.fit(rows.X, data, weights=rows.om, groups=rows.groups).hypergradient(W)
    value, stderr = rows.moments(found.scores)
    np.testing.assert_allclose(found.value, value, atol=1e-10)
    np.testing.assert_allclose(found.stderr, stderr, rtol=1e-8)
