"""Design rows against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from slow_reference import naive_row, random_design

from metier.forecast.regression.design import lag_set, shifted_view

SHAPES = [
    {},
    {"ragged": True},
    {"n_common": 2, "n_own": 3, "ragged": True},
    {"lags": (1, 2, 7, 12), "season_length": 12, "ragged": True},
    {"lags": (3, 5)},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_rows_should_equal_a_loop_over_series_and_stamps(shape: dict, horizon: int) -> None:
    design = random_design(**shape).at_horizon(horizon)
    start, stop = 2, design.n_steps - 1
    X, y, valid = design.rows(slice(None), start, stop)
    assert X.shape == (design.n_series, stop - start, design.n_features)
    n_valid = 0
    for i in range(design.n_series):
        for t in range(start, stop):
            row = naive_row(design, i, t)
            assert valid[i, t - start] == (row is not None)
            if row is None:
                assert not X[i, t - start].any()
                assert y[i, t - start] == 0.0
            else:
                n_valid += 1
                assert X[i, t - start].tolist() == row[0]
                assert y[i, t - start] == row[1]
    assert n_valid > 100
    assert np.array_equal(valid, design.valid(slice(None), start, stop))


def test_take_should_give_the_rows_of_these_series() -> None:
    design = random_design(ragged=True, n_own=2, n_common=1)
    chosen = np.array([4, 1])
    for whole, part in zip(
        design.rows(chosen, 5, 50), design.take(chosen).rows(slice(None), 5, 50), strict=True
    ):
        assert np.array_equal(whole, part)


@given(
    lags=st.sets(st.integers(1, 9), min_size=1, max_size=4),
    season=st.integers(2, 8),
    horizon=st.integers(1, 20),
)
def test_direct_rows_should_see_nothing_within_the_horizon(lags: set[int], season: int, horizon: int) -> None:
    design = random_design(lags=lag_set(tuple(lags), season), season_length=season, n_series=2)
    direct = design.at_horizon(horizon)
    assert min(direct.lags) >= horizon
    assert direct.max_lag <= design.max_lag + horizon - 1
    assert any(lag % season == 0 for lag in direct.lags)
    expected = {lag + horizon - 1 for lag in lags - {season}}
    assert expected <= set(direct.lags)


def test_lag_set_should_sort_and_add_the_season() -> None:
    assert lag_set(3, 24) == (1, 2, 3, 24)
    assert lag_set((7, 1), 7) == (1, 7)
    assert lag_set(2, None) == (1, 2)
    assert lag_set(2, 1) == (1, 2)


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (-2, 3), (-5, -1), (-3, 0), (2, 2)])
def test_shifted_view_should_hold_zeros_before_the_grid(start: int, stop: int) -> None:
    values = np.arange(1.0, 13.0).reshape(2, 6)
    expected = [[values[i, t] if t >= 0 else 0.0 for t in range(start, stop)] for i in range(2)]
    assert shifted_view(values, start, stop).tolist() == expected
