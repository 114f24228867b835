"""Warnings fire where they should and are silent elsewhere: statement 19, and the parts they are made of."""

from __future__ import annotations

import numpy as np
import pytest
from paper_designs import PROBLEM, W_1, W_STAR, figure_1, true_jacobian_1, waves
from sklearn.neighbors import KNeighborsRegressor

from metier.bilevel import BilevelProblem, ExponentialWeight, Huber, OBiGrad, SieveRidge, Squared
from metier.bilevel.designs import LEARNERS, IVDesign, design_grid, score_warnings
from metier.bilevel.products import error_product, halves_product


@pytest.fixture(scope="module")
def figure_1_rows():
    X, features, Y = figure_1(500, np.random.default_rng(3))
    return X, {"T": features, "Y": Y}


def test_19_nearest_neighbor_nuisances_should_be_warned_of(figure_1_rows):
    estimate = OBiGrad(PROBLEM, learner=KNeighborsRegressor(1)).fit(*figure_1_rows).hypergradient(W_1)
    assert any("nuisance errors multiply" in text for text in estimate.warnings)
    assert estimate.diagnostics.r2["jacobian"] < 0.5


def test_19_oracle_nuisances_should_raise_no_warning(figure_1_rows):
    X, Z = figure_1_rows
    j = true_jacobian_1(X)
    given = {"jacobian": j, "outcome": j @ W_STAR}
    oracle = OBiGrad(PROBLEM, estimator="oracle").fit(X, Z, external_predictions=given)
    assert oracle.hypergradient(W_1).warnings == ()
    # The same predictions with folds, so that every diagnostic has something to look at.
    outside = OBiGrad(PROBLEM).fit(X, Z, external_predictions=given).hypergradient(W_1)
    assert outside.warnings == ()
    assert (outside.diagnostics.product_noise > 0).all()


def test_the_right_sieve_should_raise_no_warning(figure_1_rows):
    estimate = (
        OBiGrad(PROBLEM, learner=SieveRidge(waves, penalty=1e-6)).fit(*figure_1_rows).hypergradient(W_1)
    )
    assert estimate.warnings == ()
    assert estimate.diagnostics.r2["jacobian"] > 0.5
    assert (np.abs(estimate.diagnostics.orthogonality) < 5).all()


@pytest.mark.parametrize("misfit", [0.0, 0.3])
def test_pairs_should_find_a_product_of_errors(misfit):
    """800 draws of 60 rows: the mean within 4 standard errors; without misfit the noise is as said."""
    rng = np.random.default_rng(0)
    n, found, noises = 60, [], []
    for _ in range(800):
        x = rng.normal(size=n)
        u, v = rng.normal(size=(2, n))
        e, f = misfit * x + u, -misfit * x + 0.6 * u + v
        part = error_product(e[:, None], f, x[:, None], np.arange(n) % 2, np.ones(n))
        found.append(part.value[0])
        noises.append(part.noise[0])
    error = np.std(found) / np.sqrt(800)
    assert (
        abs(np.mean(found) + misfit**2) < 4 * error + 0.1 * misfit**2
    )  # A Gram of 30 rows is off by 1 in 15.
    if not misfit:
        assert np.std(found) == pytest.approx(np.sqrt(np.mean(np.square(noises))), rel=0.15)


def test_pairs_should_be_the_double_sum_over_pairs_of_a_fold():
    rng = np.random.default_rng(1)
    psi, e, f = rng.normal(size=(20, 3)), rng.normal(size=(20, 2)), rng.normal(size=20)
    codes = np.arange(20) % 2
    total, variance, pairs = np.zeros(2), np.zeros(2), 0
    for k in (0, 1):
        rows = np.flatnonzero(codes == k)
        inverse = np.linalg.inv(psi[rows].T @ psi[rows] / len(rows))
        for i in rows:
            for j in rows:
                if i != j:
                    kernel = psi[i] @ inverse @ psi[j]
                    total += e[i] * f[j] * kernel
                    variance += kernel**2 * ((e[i] * f[j]) ** 2 + e[i] * f[i] * e[j] * f[j])
                    pairs += 1 - 3 / len(rows)  # Three features of ten rows shrink the fold's own Gram.
    found = error_product(e, f, psi, codes, np.ones(20))
    np.testing.assert_allclose(found.value, total / pairs, rtol=1e-10)
    np.testing.assert_allclose(found.noise, np.sqrt(variance) / pairs, rtol=1e-10)


def test_halves_should_measure_the_common_noise_of_two_fits():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 100_000))
    product, bound = halves_product((a[:, None], a), (b[:, None], b))
    assert product[0] == pytest.approx(0.5, abs=0.02)  # Var(a - b) / 4.
    assert bound[0] == pytest.approx(product[0])


def test_weak_instruments_should_be_warned_of_at_the_root():
    for strength, warned in ((0.005, True), (0.6, False)):
        design = IVDesign(
            n=400, dim=3, learner="ridge", strength=strength, misspecification=0.0, shape="linear"
        )
        X, Z = design.draw(np.random.default_rng(0))
        solution = OBiGrad(PROBLEM, learner=SieveRidge(penalty=1.0)).fit(X, Z).solve()
        assert any("instruments are weak" in text for text in solution.warnings) is warned
        # The gradient itself needs no identified root.
        assert not any("weak" in text for text in solution.gradient.warnings)


def test_a_kink_should_be_said():
    X, features, Y = figure_1(100, np.random.default_rng(0))
    problem = BilevelProblem(Huber("Y", weight=ExponentialWeight("u")), Squared("Y"))
    estimate = OBiGrad(problem).fit(X, {"Y": Y, "u": 0.1 * X[:, 0]}).hypergradient([0.0])
    assert "LogCosh is the smooth choice" in estimate.warnings[0]
    assert features.shape == (100, 4)


def test_fitted_curvature_at_its_floor_should_be_counted():
    """Huber's curvature is 0 or 1 by row: the mean of three neighbors is often 0."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 1))
    problem = BilevelProblem(Huber("Y", delta=0.3, weight=ExponentialWeight("u")), Squared("Y"))
    model = OBiGrad(problem, learner=KNeighborsRegressor(3), folds=3)
    model.fit(X, {"Y": X[:, 0] + rng.normal(size=300), "u": 0.3 * rng.normal(size=300)})
    estimate = model.hypergradient([0.0])
    assert estimate.diagnostics.floored > 15
    assert any("hit its floor" in text for text in estimate.warnings)


def test_estimates_that_move_with_the_folds_should_be_warned_of():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 12))
    T = X[:, 0] + rng.normal(size=40)
    model = OBiGrad(PROBLEM, learner=KNeighborsRegressor(1), repeats=7, diagnose=False)
    estimate = model.fit(X, {"T": T, "Y": 2 * T + rng.normal(size=40)}).hypergradient([2.0])
    assert (estimate.diagnostics.repeat_spread > 0).all()
    assert len(estimate.summary().splitlines()) == 2 + len(estimate.warnings)


def test_diagnostics_should_be_plain_in_a_dict(figure_1_rows):
    import json

    estimate = (
        OBiGrad(PROBLEM, learner=SieveRidge(waves, penalty=1e-6)).fit(*figure_1_rows).hypergradient(W_1)
    )
    record = json.loads(json.dumps(estimate.to_dict()))
    assert record["diagnostics"]["product_bias"] == pytest.approx(estimate.diagnostics.product_bias)
    assert record["value"] == pytest.approx(estimate.value)


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_cell_of_the_grid_should_run(learner):
    design = IVDesign(n=200, dim=3, learner=learner, strength=0.6, misspecification=1.0, shape="sine")
    score = score_warnings([design], replicates=2)
    assert score.n_low + score.n_other == 1
    axes = {"shapes": ("sine", "linear"), "sizes": (200,), "strengths": (0.3,)}
    assert len(design_grid(**axes)) == 2 * len(LEARNERS) * 2 * 2
    assert design_grid(**axes, cells=5, seed=1) == design_grid(**axes, cells=5, seed=1)
    assert design_grid(**axes, cells=5, seed=1) != design_grid(**axes, cells=5, seed=2)


def test_a_designs_root_should_be_that_of_its_law():
    design = IVDesign(
        n=200_000, dim=3, learner="ridge", strength=0.3, misspecification=1.0, shape="interaction"
    )
    X, Z = design.draw(np.random.default_rng(0))
    j = design.slope * X[:, 0] * (1 + X[:, 1]) / np.sqrt(2)
    assert np.mean(j * Z["Y"]) / np.mean(j * Z["T"]) == pytest.approx(design.root, abs=0.03)
    at = design.root + 0.35
    assert np.mean(j * (at * Z["T"] - Z["Y"])) == pytest.approx(design.gradient, abs=0.03)
