"""Levels of intervals are percents; a share is a slip that is named."""

from __future__ import annotations

import pytest

from metier import data
from metier.core import InputError
from metier.forecast import ClusterForecaster


@pytest.fixture(scope="module")
def fitted():
    panel = data.simulate_regimes("small", rng=0, n_test=20).to_panel()
    return ClusterForecaster(lags=2, n_clusters=2).fit(panel.to_frame(backend="polars"))


def test_one_level_should_stand_for_a_list_of_one(fitted):
    assert fitted.predict(level=80).equals(fitted.predict(level=[80]))
    assert fitted.predict(level=80).columns[-1] == "ClusterForecaster-hi-80"


@pytest.mark.parametrize(("level", "meant"), [([0.8], "80"), (0.95, "95"), ([80, 0.9], "90")])
def test_a_share_should_be_refused_with_the_percent_it_means(fitted, level, meant):
    with pytest.raises(InputError, match=rf"level is a coverage in percent.*Pass level={meant}\."):
        fitted.predict(level=level)


@pytest.mark.parametrize("level", [[100], [0], [-5], ["80"], [float("nan")]])
def test_levels_outside_should_be_refused(fitted, level):
    with pytest.raises(
        InputError, match=r"in percent: expected numbers from 1 to below 100.*Pass level=80\."
    ):
        fitted.predict(level=level)
