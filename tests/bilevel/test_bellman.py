import json

import numpy as np
import pytest
from sklearn.preprocessing import PolynomialFeatures

from metier.bilevel import FittedBellman, SieveRidge
from metier.core import InputError

DISCOUNT = 0.9
QUADRATIC = SieveRidge(PolynomialFeatures(2, include_bias=False), penalty=1e-6)


def walk(n=4000, seed=0, noise=1.0):
    """S' = 0.6 S + noise, R = S + S^2 + noise; Q = w1 S + w2 S^2 + w0 in closed form."""
    rng = np.random.default_rng(seed)
    s = rng.normal(size=n)
    after = 0.6 * s + noise * rng.normal(size=n)
    reward = s + s**2 + 0.5 * rng.normal(size=n)
    w2 = 1.0 / (1.0 - DISCOUNT * 0.36)
    truth = np.array([1.0 / (1.0 - DISCOUNT * 0.6), w2, DISCOUNT * w2 * noise**2 / (1.0 - DISCOUNT)])
    return s, reward, after, truth


def basis(s):
    return np.column_stack([s, s**2, np.ones_like(s)])


def test_values_should_be_found_without_a_second_sample_of_the_next_state():
    s, reward, after, truth = walk()
    fitted = FittedBellman(discount=DISCOUNT, learner=QUADRATIC, rng=0)
    fitted.fit(s[:, None], reward, basis(after), features=basis(s))
    assert (np.abs(fitted.coef_ - truth) < 4 * fitted.stderr_).all()
    assert fitted.stderr_.max() < 1.0
    # The sample Bellman residual instead minimizes the transition's noise along with the residual.
    slope = DISCOUNT * basis(after) - basis(s)
    naive = np.linalg.lstsq(slope, -reward, rcond=None)[0]
    assert np.abs(naive[1] - truth[1]) > 10 * fitted.stderr_[1]


def test_value_of_a_state_should_have_an_interval():
    s, reward, after, truth = walk()
    fitted = FittedBellman(discount=DISCOUNT, learner=QUADRATIC, rng=0)
    fitted.fit(s[:, None], reward, basis(after), features=basis(s))
    at = np.array([0.5, 0.25, 1.0])
    value = fitted.value(at, level=0.99)
    assert value.interval[0] <= at @ truth <= value.interval[1]
    by_hand = np.sqrt(at @ fitted.covariance_ @ at)
    assert value.stderr == pytest.approx(by_hand, rel=1e-12)
    with pytest.raises(InputError, match="expected 3 entries, got 2"):
        fitted.value([1.0, 2.0])


def test_an_observed_outcome_should_give_the_papers_root():
    rng = np.random.default_rng(1)
    s = rng.normal(size=3000)
    after = 0.7 * s + 0.5 * rng.normal(size=3000)
    phi = np.column_stack([np.sin(after), np.cos(after)])
    reward = s + 0.1 * rng.normal(size=3000)
    truth = np.array([0.65, -0.45])
    outcome = reward + 0.8 * phi @ truth + 0.1 * rng.normal(size=3000)
    learner = SieveRidge(PolynomialFeatures(6, include_bias=False), penalty=1e-3)
    fitted = FittedBellman(discount=0.8, learner=learner, rng=0).fit(s[:, None], reward, phi, outcome=outcome)
    assert (np.abs(fitted.coef_ - truth) < 4 * fitted.stderr_).all()
    gradient = fitted.hypergradient(truth)
    assert (np.abs(gradient.value) < 4 * gradient.stderr).all()
    assert "P>|z|" in fitted.summary()
    assert json.dumps(fitted.to_dict())


def test_names_should_come_from_frames():
    import polars as pl

    s, reward, after, _ = walk(n=300)
    frame = pl.DataFrame({"level": after, "square": after**2})
    fitted = FittedBellman(discount=0.5, rng=0).fit(
        s[:, None], reward, frame, features=np.column_stack([s, s**2])
    )
    assert fitted.feature_names_ == ("level", "square")


def test_bad_input_should_be_named():
    s, reward, after, _ = walk(n=50)
    with pytest.raises(InputError, match=r"discount is in \[0, 1\)"):
        FittedBellman(discount=1.0)
    with pytest.raises(InputError, match=r"judged by one thing: .* got neither"):
        FittedBellman(discount=0.5).fit(s[:, None], reward, after)
    with pytest.raises(InputError, match="got both"):
        FittedBellman(discount=0.5).fit(s[:, None], reward, after, features=s, outcome=s)
    with pytest.raises(InputError, match="the same functions"):
        FittedBellman(discount=0.5).fit(s[:, None], reward, basis(after), features=s)
