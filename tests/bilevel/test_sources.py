import json

import numpy as np
import pytest

from metier.bilevel import SieveRidge, SourceReweighting, roots
from metier.bilevel.scores import Mean
from metier.core import InputError

SLOPES = np.array([1.0, 0.7, 1.6])


def draw(seed=0, n=900, slopes=SLOPES, noise=0.2):
    """Trusted slope 1; sources 0.7 and 1.6: the weight of the second beside the first is one half."""
    rng = np.random.default_rng(seed)
    x, source = rng.normal(size=(n, 1)), rng.permutation(np.arange(n) % 3)
    return x, x[:, 0] * slopes[source] + noise * rng.normal(size=n), source


@pytest.fixture(scope="module")
def found():
    x, y, source = draw()
    return SourceReweighting(rng=0).fit(x, y, source, trusted=0, reference=1)


def test_weights_should_be_those_that_reproduce_the_trusted_source(found):
    low, high = found.interval(0.999)[0]
    assert low < 0.5 < high
    assert found.weights_[1] == 1.0
    assert 0.3 < found.weights_[2] < 0.8
    assert found.root_.converged


def test_what_pays_should_be_judged_on_rows_that_chose_nothing(found):
    assert found.decision_.verdict == "pays"
    assert found.decision_.n == 300
    assert found.fold_log_weights_.shape == (5, 1)
    assert np.ptp(found.fold_log_weights_) > 0


def test_verdict_should_be_that_of_plain_refits(found):
    """The held-out losses again, by weighted ridge regressions written out."""
    from metier.bilevel.crossfit import draw_folds
    from metier.core import derive, specialize_or_fall_back

    x, y, source = draw()
    codes = draw_folds(900, 5, derive(0, "verdict"))
    ours, equal = np.zeros(900), np.zeros(900)
    for fold, w in enumerate(found.fold_log_weights_[:, 0]):
        train = (codes != fold) & (source != 0)
        test = (codes == fold) & (source == 0)
        mean, sd = x[train].mean(), x[train].std()
        psi, at = ((np.column_stack([np.ones(len(v)), (v - mean) / sd])) for v in (x[train], x[test]))
        for weight, out in ((np.exp(w), ours), (1.0, equal)):
            c = np.where(source[train] == 2, weight, 1.0)
            system = (psi * c[:, None]).T @ psi + np.diag([0.0, 1.0])
            theta = np.linalg.solve(system, (psi * c[:, None]).T @ y[train])
            out[test] = (at @ theta - y[test]) ** 2 / 2.0
    trusted = source == 0
    expected = specialize_or_fall_back(ours[trusted], equal[trusted])
    assert found.decision_.gain == pytest.approx(expected.gain, rel=1e-8)
    assert found.decision_.p_value == pytest.approx(expected.p_value, rel=1e-6)


def test_equal_sources_should_not_pay():
    x, y, source = draw(slopes=np.ones(3))
    same = SourceReweighting(rng=0).fit(x, y, source, trusted=0)
    assert same.decision_.verdict != "pays"


def test_swapping_the_reference_should_invert_the_weight():
    x, y, source = draw(seed=2)
    one, two = (
        SourceReweighting(rng=0).fit(x, y, source, trusted=0, reference=k, judge=False) for k in (1, 2)
    )
    # The two stop within a tenth of a standard error of the same root.
    assert one.log_weights_[0] == pytest.approx(-two.log_weights_[0], abs=0.2 * one.stderr_[0])
    assert one.stderr_[0] == pytest.approx(two.stderr_[0], rel=0.1)
    assert one.decision_ is None


def test_features_in_place_of_sources_should_carry_the_weights():
    x, y, source = draw(seed=3)
    u = (source == 2).astype(float)
    by_source = SourceReweighting(rng=0).fit(x, y, source, trusted=0, reference=1, judge=False)
    by_feature = SourceReweighting(rng=0).fit(x, y, source, trusted=0, features=u, judge=False)
    np.testing.assert_allclose(by_feature.log_weights_, by_source.log_weights_, rtol=1e-10)
    assert by_feature.reference_ is None
    assert by_feature.sources_ == ("u1",)


def test_a_useless_source_should_stop_at_the_bound():
    x, y, source = draw(slopes=np.array([1.0, 1.0, -1.0]))
    found = SourceReweighting(rng=0, bound=2.0).fit(x, y, source, trusted=0, reference=1, judge=False)
    assert found.root_.at_bound == (-1,)
    assert found.interval()[0].tolist() == [0.0, pytest.approx(np.exp(-2.0))]
    assert any("counts for next to nothing" in text for text in found.warnings_)
    assert found.to_dict()["stderr"] == [None]
    assert "stopped at the bound" in found.summary()


def test_logistic_sources_should_work_and_predict_log_odds():
    rng = np.random.default_rng(4)
    x, source = rng.normal(size=(1200, 1)), np.arange(1200) % 3
    slopes = np.array([1.0, 0.3, 2.5])[source]
    y = (rng.uniform(size=1200) < 1 / (1 + np.exp(-x[:, 0] * slopes))).astype(float)
    found = SourceReweighting(loss="logistic", rng=0).fit(x, y, source, trusted=0, reference=1, judge=False)
    logits = found.predict(np.array([[-1.0], [0.0], [1.0]]))
    assert logits[0] < logits[1] < logits[2]
    assert abs(logits[2] - logits[0] - 2.0) < 1.0
    assert json.dumps(found.to_dict())


def test_bad_input_should_be_named():
    x, y, source = draw(n=90)
    fit = SourceReweighting(rng=0).fit
    with pytest.raises(InputError, match="trusted names one of the sources: expected 0, 1, 2, got 7"):
        fit(x, y, source, trusted=7)
    with pytest.raises(InputError, match="one source has weight 1"):
        fit(x, y, np.minimum(source, 1), trusted=0)
    with pytest.raises(InputError, match="the logistic loss takes labels"):
        SourceReweighting(loss="logistic").fit(x, y, source, trusted=0)
    with pytest.raises(InputError, match='got penalty="gcv" for h'):
        SourceReweighting(learner=SieveRidge())


@pytest.mark.slow
def test_intervals_of_weights_should_cover():
    hits = []
    for seed in range(100):
        x, y, source = draw(seed=seed, n=900)
        found = SourceReweighting(rng=0, folds=2).fit(x, y, source, trusted=0, reference=1, judge=False)
        low, high = found.interval()[0]
        hits.append(low <= 0.5 <= high)
    # Exact 99.9 % binomial band around 0.95 for 100 draws is 0.86 to 1.
    assert np.mean(hits) >= 0.86
    assert np.mean(hits) <= 0.999 or len(hits) < 300


def test_a_search_cut_short_should_report_the_gradient_where_it_stopped(monkeypatch):
    monkeypatch.setattr(roots, "BOX_STEPS", 1)
    curve = roots.Gradient(
        estimate=lambda w: Mean(np.expm1(w) + 0.5, 1e-6 * np.eye(1), 100),
        slope=lambda w: np.diag(np.exp(w)),
        objective=lambda w: float("nan"),
    )
    root = roots.root_in_box(curve, 1, 4.0)
    assert not root.converged
    assert root.w[0] == pytest.approx(-0.5)
    assert root.gradient == pytest.approx(np.expm1(root.w) + 0.5)
    assert root.covariance == pytest.approx(1e-6 * np.exp(-2 * root.w)[:, None])
