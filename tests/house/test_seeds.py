"""`rng` means one thing: an integer seeds, a Generator gives draws, and checking parameters draws none."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

import metier
from metier import bilevel, data
from metier.core import InputError, as_generator, seed_of
from metier.core.rng import check_rng
from metier.forecast import ClusterForecaster

draws = np.random.default_rng(0)
X, shock = draws.normal(size=(200, 1)), draws.normal(size=200)
T, Y = X[:, 0] + shock, 2 * X[:, 0] + shock
CODES = np.arange(200) % 5
PANEL = data.simulate_regimes("strong", rng=0, n_series=30).to_panel().steps(0, 250)
FRAME = PANEL.to_frame(backend="polars")


def forest():
    return RandomForestRegressor(n_estimators=2, max_depth=2)


def obigrad(rng):
    problem = bilevel.BilevelProblem(bilevel.Squared(bilevel.AffineTarget(None, "T")), bilevel.Squared("Y"))
    model = bilevel.OBiGrad(problem, learner=forest(), rng=rng, folds=CODES)
    return model.fit(X, {"T": T, "Y": Y}).hypergradient([1.0]).value[0]


def iv(rng):
    return bilevel.IVBilevel(learner=forest(), folds=2, rng=rng).fit(Y, T, X).coef_[0]


def sources(rng):
    found = bilevel.SourceReweighting(folds=2, rng=rng).fit(X, Y, CODES % 3, trusted=0)
    return found.weights_[2]


def forecaster(rng):
    return ClusterForecaster(lags=3, n_clusters=3, rng=rng).fit(FRAME).candidates_["random"].loss


def regimes(rng):
    return float(data.simulate_regimes("weak", rng=rng, n_series=4).values.sum())


def information(rng):
    return metier.information(CODES, CODES % 2, permutations=19, rng=rng).null_mean


ENTRANCES = [obigrad, iv, sources, forecaster, regimes, information]


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_equal_generators_should_give_equal_results_and_others_should_not(entrance):
    first, second = np.random.default_rng(11), np.random.default_rng(11)
    value = entrance(first)
    assert entrance(second) == value
    assert first.bit_generator.state == second.bit_generator.state
    assert first.bit_generator.state != np.random.default_rng(11).bit_generator.state
    assert entrance(np.random.default_rng(99)) != value


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_equal_seeds_should_give_equal_results(entrance):
    assert entrance(11) == entrance(11) == entrance(np.int64(11))


@pytest.mark.parametrize("wrong", [-1, 1.5, None, "seed", True])
def test_what_is_neither_seed_nor_generator_should_be_refused(wrong):
    for reads in (as_generator, seed_of, check_rng):
        with pytest.raises(InputError, match="rng decides every random draw"):
            reads(wrong)


def test_checking_parameters_should_draw_nothing():
    generator = np.random.default_rng(3)
    before = generator.bit_generator.state
    with pytest.raises(InputError):
        ClusterForecaster(lags=3, n_clusters=3, gate="wrong", rng=generator).fit(FRAME)
    with pytest.raises(InputError):
        ClusterForecaster(lags=3, n_clusters=3, rng=generator).fit(FRAME.drop("y"))
    bilevel.IVBilevel(rng=generator)
    assert generator.bit_generator.state == before


def test_every_way_into_a_fit_should_draw_once():
    results = []
    for fit in (
        lambda f: f.fit(FRAME),
        lambda f: f.fit_panel(f._read(FRAME)),
        lambda f: f.fit(PANEL.to_frame(backend="pandas")),
    ):
        generator = np.random.default_rng(3)
        fitted = fit(ClusterForecaster(lags=3, n_clusters=3, rng=generator))
        results.append((fitted.candidates_["random"].loss, generator.bit_generator.state["state"]["state"]))
    assert results[0] == results[1] == results[2]


def test_a_saved_forecaster_should_keep_the_seed_that_its_fit_drew(tmp_path):
    fitted = ClusterForecaster(lags=3, n_clusters=3, rng=np.random.default_rng(3)).fit(FRAME)
    fitted.save(tmp_path / "saved")
    again = ClusterForecaster.load(tmp_path / "saved").fit(FRAME)
    assert again.candidates_["random"].loss == fitted.candidates_["random"].loss
