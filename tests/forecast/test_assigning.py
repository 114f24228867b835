"""New series go to a cluster only where the second half of their own history says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from metier import data
from metier.core import InputError, specialize_or_fall_back
from metier.forecast import ClusterForecaster

DRAWN = data.simulate_regimes("strong", rng=3, n_series=120, n_train=240, n_val=80, n_test=1)
PANEL = DRAWN.to_panel().steps(0, 320)
IDS = list(PANEL.ids)


@pytest.fixture(scope="module")
def forecaster() -> ClusterForecaster:
    return ClusterForecaster(lags=3, n_clusters=4, shrinkage=0.0, gate="none").fit(frame(IDS[:80]))


def frame(ids: list[str], start: int = 0, stop: int = 320) -> Any:
    return PANEL.select(ids).steps(start, stop).to_frame(backend="polars")


def test_new_series_should_join_the_cluster_of_their_regime(forecaster: ClusterForecaster) -> None:
    labels = forecaster.assign(frame(IDS[80:]))["cluster"].to_numpy()
    adopted = labels < 4
    assert adopted.mean() > 0.6
    regime_of = {k: np.bincount(DRAWN.labels[:80][forecaster.partition_ == k]).argmax() for k in range(4)}
    assert [regime_of[k] for k in labels[adopted]] == DRAWN.labels[80:][adopted].tolist()


def test_test_should_equal_one_written_out(forecaster: ClusterForecaster) -> None:
    name = IDS[90]
    y = PANEL.values[list(PANEL.ids).index(name)]
    middle = 3 + (320 - 3) // 2
    z = (y - y[:middle].mean()) / y[:middle].std()
    served = forecaster.served_
    theta = np.concatenate([served.models["clustered"].theta[0], served.models["global"].theta[0]])
    losses = np.array(
        [
            [(z[t] - np.array([z[t - 1], z[t - 2], z[t - 3], 1.0]) @ row) ** 2 for t in range(3, 320)]
            for row in theta
        ]
    )
    best = int(losses[:4, : middle - 3].mean(axis=1).argmin())
    decision = specialize_or_fall_back(losses[best, middle - 3 :], losses[4, middle - 3 :], dependence="time")
    row = forecaster.assign(frame([name])).row(0, named=True)
    assert row["adopted"] == decision.adopt
    assert row["cluster"] == (best if decision.adopt else 4)
    assert row["gain"] == pytest.approx(decision.gain, rel=1e-10)
    assert row["p_value"] == pytest.approx(decision.p_value, rel=1e-8)


def test_second_half_should_not_choose_the_cluster(forecaster: ClusterForecaster) -> None:
    name = IDS[90]
    whole, poisoned = frame([name]), frame([name])
    late = pl.when(pl.col("ds") >= whole["ds"].to_list()[165])
    poisoned = poisoned.with_columns(late.then(pl.lit(0.0)).otherwise(pl.col("y")).alias("y"))
    found = [forecaster.assign(f).row(0, named=True) for f in (whole, poisoned)]
    assert found[0]["gain"] != found[1]["gain"]
    chosen = {row["cluster"] for row in found} - {4}
    assert len(chosen) <= 1


def test_short_histories_should_stay_global_without_a_test(forecaster: ClusterForecaster) -> None:
    out = forecaster.assign(frame(IDS[80:83], 0, 12))
    assert out["cluster"].to_list() == [4, 4, 4]
    assert np.isnan(out["p_value"].to_numpy()).all()


def test_rejected_clusters_should_take_no_new_series() -> None:
    drawn = data.simulate_regimes("homogeneous", rng=0, n_series=60, n_train=120, n_val=60, n_test=1)
    panel = drawn.to_panel().steps(0, 180).to_frame(backend="polars")
    forecaster = ClusterForecaster(lags=3, n_clusters=3).fit(panel)
    assert forecaster.gate_report_.chosen == "global"
    assert not forecaster.assign(panel)["adopted"].any()


def test_forecasts_of_fitted_series_should_not_depend_on_their_being_new(
    forecaster: ClusterForecaster,
) -> None:
    """A series that is assigned to its own cluster gets the forecast it had: same scale, same model."""
    old = forecaster.predict(2).sort("unique_id", "ds")
    labels = forecaster.assign(frame(IDS[:80]))
    same = labels.filter(pl.col("cluster") == pl.Series(forecaster.partition_))["unique_id"]
    assert len(same) > 40
    new = forecaster.predict(2, new_df=frame(IDS[:80])).sort("unique_id", "ds")
    keep = pl.col("unique_id").is_in(same.to_list())
    np.testing.assert_allclose(
        new.filter(keep)["ClusterForecaster"], old.filter(keep)["ClusterForecaster"], rtol=1e-10
    )


def test_other_exogenous_columns_should_be_refused(forecaster: ClusterForecaster) -> None:
    with pytest.raises(InputError, match=r"new series need the exogenous columns.*expected none, got price"):
        forecaster.assign(frame(IDS[80:]).with_columns(price=1.0))
