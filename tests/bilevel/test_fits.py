"""Fitted estimates: statements 6-11 and 20-22 of what must be true, two samples, learners."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from metier.bilevel import (
    AffineTarget,
    BilevelProblem,
    ColumnWeight,
    ExponentialWeight,
    FunctionTarget,
    LogCosh,
    Logistic,
    OBiGrad,
    Poisson,
    SieveRidge,
    SoftmaxCE,
    Squared,
)
from metier.bilevel.crossfit import draw_folds
from metier.bilevel.scores import mean_of_scores

W = np.array([0.3, 0.5])
TARGET = AffineTarget("g0", "dg")
SQUARED = BilevelProblem(Squared(TARGET), Squared("Y"))


def quadratic_basis(X):
    return np.column_stack([X, X**2, X[:, :1] * X[:, 1:]])


RIDGE = SieveRidge(quadratic_basis, penalty=3.0)


@cache
def data(n=300, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    dg = np.column_stack([X[:, 0] + rng.normal(size=n), X[:, 1] ** 2 + 0.5 * rng.normal(size=n)])
    return X, {
        "dg": dg,
        "g0": 0.3 * X[:, 0] + 0.1 * rng.normal(size=n),
        "Y": dg.sum(axis=1) + rng.normal(size=n),
        "B": (rng.random(n) < 1 / (1 + np.exp(-X[:, 0]))).astype(float),
        "N": rng.poisson(np.exp(0.3 * X[:, 0])).astype(float),
        "label": rng.integers(3, size=n).astype(float),
        "u": 0.3 * rng.normal(size=(n, 2)),
    }


SMOOTH = {
    "squared": SQUARED,
    "log-cosh": BilevelProblem(LogCosh(TARGET, weight=ExponentialWeight("u")), LogCosh("Y")),
    "logistic": BilevelProblem(Logistic("B", weight=ExponentialWeight("u")), Logistic("B")),
    "poisson": BilevelProblem(Poisson("N", weight=ExponentialWeight("u")), Squared("Y")),
    "softmax": BilevelProblem(
        SoftmaxCE("label", n_classes=3, weight=ExponentialWeight("u")), SoftmaxCE("label", n_classes=3)
    ),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("outer", [False, True], ids=["one sample", "two samples"])
def test_7_debiased_objective_should_have_the_estimate_as_its_derivative(name, outer):
    X, Z = data()
    X_outer, Z_outer = data(200, seed=1)
    model = OBiGrad(SMOOTH[name], learner=RIDGE, folds=3, diagnose=False)
    model.fit(X, Z, outer={"X": X_outer, **Z_outer} if outer else None)
    value = model.hypergradient(W).value
    difference = [
        (model.objective(W + e).value - model.objective(W - e).value) / 2e-4 for e in 1e-4 * np.eye(2)
    ]
    np.testing.assert_allclose(difference, value, rtol=1e-7, atol=1e-8)


def test_8_affine_path_should_be_the_refit_at_any_w():
    X, Z = data()
    fast = OBiGrad(SQUARED, learner=RIDGE, folds=4, diagnose=False).fit(X, Z)
    target = FunctionTarget(lambda w, z: z["g0"] + z["dg"] @ w, lambda w, z: z["dg"])
    refit = OBiGrad(BilevelProblem(Squared(target), Squared("Y")), learner=RIDGE, folds=4, diagnose=False)
    refit.fit(X, Z)
    for w in np.random.default_rng(0).normal(size=(10, 2)):
        a, b = fast.hypergradient(w), refit.hypergradient(w)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-10)
        np.testing.assert_allclose(a.plugin, b.plugin, atol=1e-10)


@pytest.mark.parametrize("residual", ["direct", "separate"])
def test_8_root_should_be_exact_and_the_slope_symmetric(residual):
    X, Z = data()
    model = OBiGrad(SQUARED, learner=RIDGE, residual=residual, diagnose=False).fit(X, Z)
    solution = model.solve()
    assert solution.method == "closed form"
    assert np.abs(model.hypergradient(solution.w).value).max() <= 1e-10
    np.testing.assert_allclose(solution.jacobian, solution.jacobian.T, atol=1e-12)
    other = OBiGrad(SQUARED, learner=Ridge(3.0), residual=residual, diagnose=False).fit(X, Z)
    newton = other.solve([5.0, 5.0])
    assert np.abs(newton.gradient.value).max() <= 1e-10


def test_8_slope_of_one_row_should_be_symmetric():
    rng = np.random.default_rng(0)
    j, dg = rng.normal(size=(2, 50, 3))
    A = np.einsum("na,nb->nab", j, dg) + np.einsum("na,nb->nab", dg - j, j)
    np.testing.assert_allclose(A, A.transpose(0, 2, 1), atol=1e-12)


def test_9_direct_residual_should_be_the_difference_of_two_fits_for_ridge():
    X, Z = data()
    one = OBiGrad(SQUARED, learner=RIDGE, diagnose=False).fit(X, Z).hypergradient(W)
    two = OBiGrad(SQUARED, learner=RIDGE, residual="separate", diagnose=False).fit(X, Z).hypergradient(W)
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-10)


def test_6_general_path_should_be_the_quadratic_path_on_squared_losses():
    X, Z = data()
    # Without a penalty: a fit of a fit is the fit, so that A2 = -j and a = -(h - m) row by row.
    exact = SieveRidge(quadratic_basis, penalty=0.0)
    fast = OBiGrad(SQUARED, learner=exact, diagnose=False).fit(X, Z)
    general = OBiGrad(
        BilevelProblem(Squared(TARGET) + Squared(0.0, weight=ColumnWeight("zero")), Squared("Y")),
        learner=exact,
        diagnose=False,
    ).fit(X, {**Z, "zero": np.zeros(len(X))})
    a, b = fast.hypergradient(W), general.hypergradient(W)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-10)
    np.testing.assert_allclose(a.plugin, b.plugin, atol=1e-10)
    assert fast.objective(W).value == pytest.approx(general.objective(W).value, abs=1e-10)


def test_10_a_linear_map_of_w_should_map_value_and_covariance():
    X, Z = data()
    B = np.array([[1.0, 0.4], [-0.7, 2.0]])
    one = OBiGrad(SQUARED, learner=RIDGE, diagnose=False).fit(X, Z).hypergradient(B @ W)
    mapped = OBiGrad(SQUARED, learner=RIDGE, diagnose=False).fit(X, {**Z, "dg": Z["dg"] @ B}).hypergradient(W)
    np.testing.assert_allclose(mapped.value, B.T @ one.value, atol=1e-10)
    np.testing.assert_allclose(mapped.covariance, B.T @ one.covariance @ B, atol=1e-10)


def restricted(problem, weights=None):
    X, Z = data()
    model = OBiGrad(problem, learner=RIDGE, inner_class="restricted", diagnose=False)
    return model.fit(X, Z, weights=weights)


@pytest.mark.parametrize("name", SMOOTH)
def test_11_restricted_class_should_be_the_gradient_of_the_fitted_objective(name):
    estimate = restricted(SMOOTH[name]).hypergradient(W)
    # In sample the corrections average to zero: the same number as the plug-in ...
    np.testing.assert_allclose(estimate.value, estimate.plugin, atol=1e-10)
    evaluation = restricted(SMOOTH[name]).repeats_[0].at(W)
    assert np.abs(evaluation.orthogonal[0] - evaluation.plugin[0]).max() > 1e-3  # ... of different rows.
    model = restricted(SMOOTH[name])
    difference = [
        (model.objective(W + e).value - model.objective(W - e).value) / 2e-4 for e in 1e-4 * np.eye(2)
    ]
    np.testing.assert_allclose(difference, estimate.value, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["squared", "log-cosh", "logistic"])
def test_11_restricted_class_should_be_automatic_differentiation(name):
    """autograd through the penalized minimizer (one exact Newton step at it), to 1e-10."""
    torch = pytest.importorskip("torch")
    X, Z = data()
    rows = {key: torch.as_tensor(values) for key, values in Z.items()}
    psi = quadratic_basis(X)
    psi = torch.as_tensor(np.column_stack([np.ones(len(X)), psi - psi.mean(axis=0)]))

    def log_cosh(r):
        return torch.logaddexp(r, -r) - np.log(2.0)

    def losses(w, v):
        c, g = torch.exp(rows["u"] @ w), rows["g0"] + rows["dg"] @ w
        return {
            "squared": ((v - g) ** 2 / 2, (v - rows["Y"]) ** 2 / 2),
            "log-cosh": (c * log_cosh(v - g), log_cosh(v - rows["Y"])),
            "logistic": tuple(k * (torch.logaddexp(v, 0 * v) - rows["B"] * v) for k in (c, 1.0)),
        }[name]

    def fitted_objective(theta, w):
        return losses(w, psi @ theta)[0].sum() + 1.5 * (theta[1:] ** 2).sum()

    w, theta = torch.tensor(W, requires_grad=True), torch.zeros(psi.shape[1], dtype=torch.float64)
    for _ in range(50):
        slope = torch.func.grad(fitted_objective)(theta, w)
        curvature = torch.func.jacrev(torch.func.grad(fitted_objective))(theta, w).detach()
        step = torch.linalg.solve(curvature, slope)
        step = step / step.detach().norm().clamp(min=1.0)
        theta, moving = (theta - step).detach(), theta - step
    losses(w, psi @ moving)[1].mean().backward()
    np.testing.assert_allclose(restricted(SMOOTH[name]).hypergradient(W).value, w.grad.numpy(), atol=1e-10)


def richardson(f, step, levels=4):
    """Central differences at step, step / 2, ..., extrapolated: the error is of order step^(2 levels)."""
    table = [(f(step / 2**k) - f(-step / 2**k)) / (2 * step / 2**k) for k in range(levels)]
    for order in range(1, levels):
        table = [b + (b - a) / (4**order - 1) for a, b in pairwise(table)]
    return table[0]


@pytest.mark.parametrize("name", ["squared", "log-cosh", "logistic"])
def test_11_scores_should_be_the_infinitesimal_jackknife(name):
    """d value / d (weight of row i) to 1e-8; the penalty is a share of every row's loss."""
    estimate = restricted(SMOOTH[name]).hypergradient(W)
    n = len(estimate.scores)
    for row in (0, 17, 123):

        def value(t, row=row):
            weights = np.ones(n)
            weights[row] += t * n
            # P_t = (1 - t) P + t delta_row has total weight n (1 + t); rescaled, the penalty per row stays.
            return restricted(SMOOTH[name], weights / (1 + t)).hypergradient(W).value

        derivative = richardson(value, 5e-4)
        np.testing.assert_allclose(derivative, estimate.scores[row] - estimate.value, rtol=1e-8, atol=1e-8)


def test_20_singleton_clusters_should_be_independent_rows():
    X, Z = data()
    scores = np.random.default_rng(0).normal(size=(300, 2))
    a, b = mean_of_scores(scores, None, None), mean_of_scores(scores, None, np.arange(300))
    np.testing.assert_allclose(a.covariance, b.covariance, atol=1e-12)
    one = OBiGrad(SQUARED, learner=RIDGE, diagnose=False).fit(X, Z).hypergradient(W)
    two = OBiGrad(SQUARED, learner=RIDGE, diagnose=False).fit(X, Z, groups=np.arange(300)).hypergradient(W)
    np.testing.assert_allclose(one.covariance, two.covariance, atol=1e-10)
    np.testing.assert_allclose(one.value, two.value, atol=1e-10)


@pytest.mark.parametrize("name", ["squared", "log-cosh"])
def test_20_weight_two_should_be_a_duplicated_row_of_its_fold(name):
    X, Z = data()
    codes = draw_folds(300, 3, np.random.default_rng(0))
    twice = np.r_[np.arange(300), np.arange(0, 300, 7)]
    om = np.where(np.arange(300) % 7 == 0, 2.0, 1.0)
    weighted = OBiGrad(SMOOTH[name], learner=RIDGE, folds=codes, diagnose=False).fit(X, Z, weights=om)
    doubled = OBiGrad(SMOOTH[name], learner=RIDGE, folds=codes[twice], diagnose=False)
    doubled.fit(X[twice], {key: values[twice] for key, values in Z.items()})
    np.testing.assert_allclose(weighted.hypergradient(W).value, doubled.hypergradient(W).value, atol=1e-10)
    np.testing.assert_allclose(weighted.hypergradient(W).plugin, doubled.hypergradient(W).plugin, atol=1e-10)


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_covariance_of_a_mean_should_be_its_double_sum(weighted, clustered):
    """As the docstring has it, in loops; the unit of the weights does not matter."""
    rng = np.random.default_rng(0)
    scores, n = rng.normal(size=(40, 2)), 40
    om = rng.uniform(0.5, 3.0, n) if weighted else np.ones(n)
    codes = rng.permutation(n) % 9 if clustered else np.arange(n)
    share = om / om.sum()
    value = sum(share[i] * scores[i] for i in range(n))
    total = np.zeros((2, 2))
    for i in range(n):
        for j in range(n):
            if codes[i] == codes[j]:
                total += share[i] * share[j] * np.outer(scores[i] - value, scores[j] - value)
    G = len(set(codes.tolist()))
    for unit in (1.0, 10.0):
        weights = unit * om if weighted else None
        mean = mean_of_scores(scores, weights, codes if clustered else None)
        np.testing.assert_allclose(mean.value, value, atol=1e-12)
        np.testing.assert_allclose(mean.covariance, G / (G - 1) * total, rtol=1e-12)
        assert mean.n == G


@pytest.mark.parametrize("name", ["squared", "log-cosh"])
def test_unit_of_the_weights_should_not_reach_the_standard_error(name):
    """Without a penalty, which counts in the unit of the weights."""
    X, Z = data()
    om = np.random.default_rng(2).uniform(0.5, 2.0, size=300)
    learner = SieveRidge(quadratic_basis, penalty=0.0)
    one, ten = (
        OBiGrad(SMOOTH[name], learner=learner, folds=3).fit(X, Z, weights=unit * om).hypergradient(W)
        for unit in (1.0, 10.0)
    )
    np.testing.assert_allclose(ten.value, one.value, rtol=1e-7)
    np.testing.assert_allclose(ten.stderr, one.stderr, rtol=1e-7)
    for figure in ("correction_z", "orthogonality", "calibration_z", "product_bias", "product_noise"):
        ours, theirs = (getattr(e.diagnostics, figure) for e in (one, ten))
        np.testing.assert_allclose(theirs, ours, rtol=1e-6, err_msg=figure)


def test_20_clusters_should_widen_the_error_of_repeated_rows():
    X, Z = data()
    many = np.repeat(np.arange(300), 4)
    Z_many = {key: values[many] for key, values in Z.items()}
    codes = draw_folds(1200, 3, np.random.default_rng(0), many)
    model = OBiGrad(SQUARED, learner=RIDGE, folds=codes, diagnose=False)
    naive = model.fit(X[many], Z_many).hypergradient(W).stderr
    clustered = model.fit(X[many], Z_many, groups=many).hypergradient(W)
    np.testing.assert_allclose(clustered.stderr / naive, 2.0, rtol=0.01)
    assert clustered.n == 300


@pytest.mark.parametrize("name", ["squared", "log-cosh"])
def test_21_permuting_rows_with_their_folds_should_change_nothing(name):
    X, Z = data()
    codes = draw_folds(300, 3, np.random.default_rng(0))
    order = np.random.default_rng(1).permutation(300)
    one = OBiGrad(SMOOTH[name], learner=RIDGE, folds=codes, diagnose=False).fit(X, Z).hypergradient(W)
    other = OBiGrad(SMOOTH[name], learner=RIDGE, folds=codes[order], diagnose=False)
    two = other.fit(X[order], {key: values[order] for key, values in Z.items()}).hypergradient(W)
    np.testing.assert_allclose(one.value, two.value, atol=1e-12)
    np.testing.assert_allclose(one.covariance, two.covariance, atol=1e-12)


@pytest.mark.parametrize("name", ["squared", "logistic"])
def test_21_same_seed_should_give_the_same_bytes(name):
    X, Z = data()
    model = OBiGrad(SMOOTH[name], learner=RIDGE, repeats=2, rng=5).fit(X, Z)
    first = model.hypergradient(W)
    model.hypergradient(W + 1)  # Nothing of another w may leak into the next.
    second = OBiGrad(SMOOTH[name], learner=RIDGE, repeats=2, rng=5).fit(X, Z).hypergradient(W)
    for one in (second, model.hypergradient(W)):
        assert one.value.tobytes() == first.value.tobytes()
        assert one.covariance.tobytes() == first.covariance.tobytes()


def test_22_squared_problems_should_not_load_torch():
    code = (
        "import sys, numpy as np; from metier.bilevel import *;"
        "X = np.random.default_rng(0).normal(size=(50, 1));"
        "p = BilevelProblem(Squared(AffineTarget(None, 'T')), Squared('Y'));"
        "m = OBiGrad(p).fit(X, {'T': X[:, 0], 'Y': X[:, 0]});"
        "m.hypergradient([0.0]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("repeats", [4, 5])
def test_repeats_should_be_combined_by_the_median(repeats):
    """Of an even number of covariances the larger of the two in the middle."""
    X, Z = data()
    model = OBiGrad(SQUARED, learner=RIDGE, repeats=repeats, rng=1, diagnose=False).fit(X, Z)
    singles = [e.mean(e.orthogonal) for e in model._evaluate(W)]
    values = np.array([m.value for m in singles])
    median = np.median(values, axis=0)
    estimate = model.hypergradient(W)
    np.testing.assert_allclose(estimate.value, median, atol=1e-14)
    inflated = [m.covariance + np.outer(m.value - median, m.value - median) for m in singles]
    traces = sorted(np.trace(c) for c in inflated)
    assert np.trace(estimate.covariance) == pytest.approx(traces[2], rel=1e-12)
    assert traces[1] < (1 - 1e-9) * traces[2]


def test_shared_sums_should_be_the_fold_by_fold_fits():
    from metier.bilevel.crossfit import RegressorCrossFit
    from metier.bilevel.sieve import SieveCrossFit

    X, Z = data()
    codes = draw_folds(300, 4, np.random.default_rng(0))
    om = np.random.default_rng(1).uniform(0.5, 2, size=300)
    fast = SieveCrossFit(RIDGE, X, codes, om).predict(Z["dg"])
    slow = RegressorCrossFit(RIDGE, X, codes, om).predict(Z["dg"])
    peer = make_pipeline(PolynomialFeatures(2, include_bias=False), Ridge(3.0, solver="cholesky"))
    np.testing.assert_allclose(fast, slow, atol=1e-10)
    np.testing.assert_allclose(fast, RegressorCrossFit(peer, X, codes, om).predict(Z["dg"]), atol=1e-10)


def test_tuned_penalty_should_be_that_of_ridge_cv():
    """Generalized cross-validation beside scikit-learn's on the same standardized features."""
    X, Z = data(120)
    ours = SieveRidge(quadratic_basis).fit(X, Z["Y"])
    psi = StandardScaler().fit_transform(quadratic_basis(X))
    y = Z["Y"] - Z["Y"].mean()
    U, s, _ = np.linalg.svd(psi, full_matrices=False)
    scale = (s**2).mean()
    errors = []
    for alpha in np.logspace(-8, 2, 41) * scale:
        fitted = U @ (s**2 / (s**2 + alpha) * (U.T @ y))
        dof = 1 + (s**2 / (s**2 + alpha)).sum()
        errors.append(((y - fitted) ** 2).sum() / (1 - dof / 120) ** 2)
    best = np.logspace(-8, 2, 41)[int(np.argmin(errors))] * scale
    expected = Ridge(best).fit(psi, y).predict(psi) + Z["Y"].mean()
    np.testing.assert_allclose(ours.predict(X), expected, atol=1e-8)


LEARNERS = {
    "ridge pipeline": make_pipeline(PolynomialFeatures(2), StandardScaler(), Ridge(1.0)),
    "linear": make_pipeline(PolynomialFeatures(2, include_bias=False), LinearRegression()),
    "neighbors": KNeighborsRegressor(25),
    "forest": RandomForestRegressor(20, min_samples_leaf=10, random_state=0),
    "tuned sieve": SieveRidge(quadratic_basis),
    "by name": {"h": Ridge(1.0), "adjoint": KNeighborsRegressor(30), "jacobian": SieveRidge(penalty=1.0)},
}


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("name", ["squared", "log-cosh", "softmax"])
def test_any_learner_should_serve_every_loss(learner, name):
    X, Z = data()
    if name == "softmax" and learner == "ridge pipeline":
        pytest.skip("one pipeline is enough for vector values")
    reference = OBiGrad(SMOOTH[name], learner=SieveRidge(quadratic_basis, penalty=1.0), folds=3).fit(X, Z)
    estimate = OBiGrad(SMOOTH[name], learner=LEARNERS[learner], folds=3).fit(X, Z).hypergradient(W)
    other = reference.hypergradient(W)
    spread = np.sqrt(estimate.stderr**2 + other.stderr**2)
    assert (np.abs(estimate.value - other.value) < 4 * spread).all()


def test_a_classifier_should_learn_logits():
    X, Z = data(600)
    problem = BilevelProblem(Logistic("B", weight=ExponentialWeight("u")), Logistic("B"))
    learner = {
        "h": LogisticRegression(C=1e6),
        "adjoint": SieveRidge(penalty=1e-3),
        "jacobian": SieveRidge(penalty=1e-3),
        "adjoint_jacobian": SieveRidge(penalty=1e-3),
    }
    by_classifier = OBiGrad(problem, learner=learner, folds=3).fit(X, Z).hypergradient(W)
    by_newton = OBiGrad(problem, learner=SieveRidge(penalty=1e-3), folds=3).fit(X, Z).hypergradient(W)
    np.testing.assert_allclose(by_classifier.value, by_newton.value, atol=1e-3)


def test_nested_folds_should_change_little_for_a_smooth_learner():
    X, Z = data(600)
    plain = OBiGrad(SMOOTH["log-cosh"], learner=RIDGE, folds=3).fit(X, Z).hypergradient(W)
    nested = OBiGrad(SMOOTH["log-cosh"], learner=RIDGE, folds=3, nested=True).fit(X, Z).hypergradient(W)
    assert 0 < np.abs(plain.value - nested.value).max() < plain.stderr.max()


def test_external_predictions_should_replace_fits():
    X, Z = data()
    fitted = OBiGrad(SMOOTH["log-cosh"], learner=RIDGE, folds=3, diagnose=False).fit(X, Z)
    at = fitted.repeats_[0]
    from metier.bilevel.general import NAMES, Extras, Fold
    from metier.bilevel.scores import Nuisances

    predicted = Nuisances.empty(300, 2, 1)
    for split in at.splits:
        Fold(at.setup, split, W, {}).fill(predicted, None, Extras())
    given = {name: getattr(predicted, name) for name in NAMES}
    given["adjoint"] = lambda w, X, a=predicted.adjoint: a
    outside = OBiGrad(SMOOTH["log-cosh"], estimator="oracle").fit(X, Z, external_predictions=given)
    np.testing.assert_allclose(outside.hypergradient(W).value, fitted.hypergradient(W).value, atol=1e-12)


def test_adjoint_instrument_should_drop_the_second_term():
    X, Z = data()
    model = OBiGrad(SQUARED, learner=RIDGE, estimator="adjoint_instrument", diagnose=False).fit(X, Z)
    estimate = model.hypergradient(W)
    j = model.repeats_[0].affine.j
    g = Z["g0"] + Z["dg"] @ W
    np.testing.assert_allclose(estimate.value, (j * (g - Z["Y"])[:, None]).mean(axis=0), atol=1e-12)
    root = model.solve()
    np.testing.assert_allclose(model.hypergradient(root.w).value, 0.0, atol=1e-10)


@pytest.mark.parametrize("method", ["newton", "gd", "lbfgs"])
def test_solvers_should_agree_on_the_root(method):
    X, Z = data(600)
    problem = BilevelProblem(LogCosh(TARGET, delta=3.0), Squared("Y"))
    model = OBiGrad(problem, learner=RIDGE, folds=3, diagnose=False).fit(X, Z)
    exact = model.solve(np.zeros(2), stop=1e-10)
    assert exact.converged
    assert np.abs(exact.gradient.value).max() <= 1e-10
    statistical = model.solve(np.zeros(2), method=method)
    assert statistical.converged
    assert (np.abs(statistical.w - exact.w) < 0.2 * exact.stderr).all()
    np.testing.assert_allclose(statistical.stderr, exact.stderr, rtol=0.1)
    assert len(statistical.trace) >= 2


def test_a_learner_that_is_not_linear_should_be_refitted_along_the_way():
    X, Z = data(600)
    model = OBiGrad(SQUARED, learner=SieveRidge(quadratic_basis), diagnose=False).fit(X, Z)
    solution = model.solve()
    assert solution.method == "newton"
    ridge = OBiGrad(SQUARED, learner=RIDGE, diagnose=False).fit(X, Z).solve()
    assert (np.abs(solution.w - ridge.w) < 0.5 * ridge.stderr).all()
    assert np.abs(solution.gradient.value / solution.gradient.stderr).max() < 0.1
