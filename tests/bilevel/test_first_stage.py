import numpy as np
import pytest
from scipy import stats

from metier.bilevel.estimators.first_stage import critical_effective_f, first_stage
from metier.bilevel.estimators.moments import Moments, two_stage_least_squares
from metier.core import InputError


def data(seed=0, n=400, k=3, d=1, clusters=None, weighted=False):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k))
    v = rng.normal(size=(n, d)) * (1 + 0.5 * np.abs(z[:, :1]))
    t = 0.3 * z @ rng.normal(size=(k, d)) + v
    y = t.sum(axis=1) + v[:, 0] + rng.normal(size=n)
    groups = None if clusters is None else rng.integers(0, clusters, n)
    weights = rng.uniform(0.5, 2, n) if weighted else np.ones(n)
    weights /= weights.mean()
    center = lambda x: x - np.average(x, axis=0, weights=weights)  # noqa: E731
    return Moments(center(y), center(t), center(z), weights, groups)


def test_classical_f_should_be_that_of_the_analysis_of_variance():
    m = data()
    fitted = m.z @ np.linalg.lstsq(m.z, m.t[:, 0], rcond=None)[0]
    k, n = 3, 400
    explained, rest = np.sum(fitted**2), np.sum((m.t[:, 0] - fitted) ** 2)
    row = first_stage(m, ("t",)).rows[0]
    assert row.f == pytest.approx(explained / k / (rest / (n - k - 1)), rel=1e-12)
    assert row.partial_r2 == pytest.approx(explained / np.sum(m.t**2), rel=1e-12)


def test_robust_and_effective_f_should_match_slow_sums():
    m = data(weighted=True, clusters=50)
    q = sum(w * np.outer(z, z) for w, z in zip(m.weights, m.z, strict=True))
    pi = np.linalg.solve(q, sum(w * z * t for w, z, t in zip(m.weights, m.z, m.t[:, 0], strict=True)))
    sums = np.zeros((50, 3))
    for i in range(400):
        sums[m.groups[i]] += m.weights[i] * m.z[i] * (m.t[i, 0] - m.z[i] @ pi)
    v = np.linalg.inv(q) @ (50 / 49 * sums.T @ sums) @ np.linalg.inv(q)
    row = first_stage(m, ("t",)).rows[0]
    assert row.f_robust == pytest.approx(pi @ np.linalg.inv(v) @ pi / 3, rel=1e-10)
    assert row.f_effective == pytest.approx(pi @ q @ pi / np.trace(v @ q), rel=1e-10)


def test_with_one_instrument_effective_and_robust_f_should_be_the_same():
    row = first_stage(data(k=1), ("t",)).rows[0]
    assert row.f_effective == pytest.approx(row.f_robust, rel=1e-12)


@pytest.mark.parametrize(("tau", "published"), [(0.05, 37.42), (0.10, 23.11), (0.20, 15.06), (0.30, 12.04)])
def test_critical_value_should_be_the_published_one_for_one_instrument(tau, published):
    """Montiel Olea and Pflueger (2013), Table 1, effective degrees of freedom 1."""
    assert critical_effective_f(np.eye(1), tau=tau) == pytest.approx(published, abs=0.006)


def test_critical_value_should_be_the_quantile_for_equal_variances():
    k, x = 5, 10.0
    assert critical_effective_f(np.eye(k)) == pytest.approx(stats.ncx2.ppf(0.95, k, k * x) / k, rel=1e-8)


def test_conditional_f_should_be_low_where_two_features_move_together():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(2000, 2))
    together = z[:, :1] + z[:, 1:]
    t = np.column_stack([together, together]) + rng.normal(size=(2000, 2))
    m = Moments(t.sum(axis=1), t, z, np.ones(2000))
    stage = first_stage(m, ("a", "b"))
    assert min(row.f for row in stage.rows) > 300
    assert max(row.f_conditional for row in stage.rows) < 10
    assert stage.weak == ("a", "b")
    assert "cond. F" in stage.summary()
    assert stage.to_dict()["rows"][0]["f_effective"] is None


def test_dependent_instruments_should_be_refused():
    m = data(k=2)
    with pytest.raises(InputError, match="the instruments are linearly dependent"):
        first_stage(Moments(m.y, m.t, m.z[:, [0, 0]], m.weights), ("t",))


@pytest.mark.parametrize("clusters", [None, 60])
def test_two_stage_least_squares_should_match_linearmodels(clusters):
    iv = pytest.importorskip("linearmodels.iv")
    m = data(k=3, d=2, clusters=clusters)
    kind = {"cov_type": "robust"} if clusters is None else {"cov_type": "clustered", "clusters": m.groups}
    theirs = iv.IV2SLS(m.y, None, m.t, m.z).fit(**kind)
    ours = two_stage_least_squares(m)
    np.testing.assert_allclose(ours.coef, theirs.params.to_numpy(), rtol=1e-9)
    # They divide by n and ask no small-sample factor; ours is n / (n - 1), or G / (G - 1).
    np.testing.assert_allclose(
        ours.covariance * (m.n_units - 1) / m.n_units, theirs.cov.to_numpy(), rtol=1e-8
    )


def test_hansen_j_should_match_linearmodels():
    iv = pytest.importorskip("linearmodels.iv")
    from metier.bilevel.estimators.moments import over_identification

    m = data(k=4)
    theirs = iv.IVGMM(m.y, None, m.t, m.z).fit(iter_limit=2).j_stat.stat
    assert over_identification(m).statistic * 400 / 399 == pytest.approx(theirs, rel=1e-6)
