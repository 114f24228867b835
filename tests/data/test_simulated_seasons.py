import numpy as np
import pytest

from metier.core import InputError
from metier.data import simulate_counts, simulate_seasonal


def mean_by_season(panel, rows):
    season = np.arange(rows.shape[1]) % panel.season_length
    return np.stack([rows[:, season == s].mean(axis=1) for s in range(panel.season_length)], axis=1)


def test_counts_should_be_whole_with_the_expected_season_and_zeros():
    panel = simulate_counts(rng=1, n_series=60, n_train=24_000, n_val=24, n_test=24)
    assert (panel.values >= 0).all()
    assert (panel.values % 1 == 0).all()
    assert panel.profiles.shape == (3, 24)
    assert panel.coefficients.shape == (3, 0)
    kept = panel.profiles.mean(axis=1)  # 1 - pi_k
    np.testing.assert_allclose(kept, [0.9, 0.7, 0.5])
    for k in range(3):
        rows = panel.train[panel.labels == k]
        pattern = mean_by_season(panel, rows)
        level = pattern.mean(axis=1, keepdims=True) / kept[k]
        np.testing.assert_allclose((pattern / level).mean(axis=0), panel.profiles[k], atol=0.05)
        means = level * panel.profiles[k] / kept[k]
        zeros = (1 - kept[k] + kept[k] * np.exp(-means)).mean()
        assert (rows == 0).mean() == pytest.approx(zeros, abs=0.01)


def test_count_levels_should_have_the_asked_mean():
    # Log-normal levels with sd 0.87 of the mean: standard error 2 % over 2,000 series.
    panel = simulate_counts(rng=3, n_series=2_000, mean_level=5.0, zero_inflation=(0.0, 0.0), n_regimes=1)
    assert panel.values.mean() == pytest.approx(5.0, rel=0.08)


def test_seasonal_series_should_follow_their_profile_trend_and_memory():
    panel = simulate_seasonal(rng=2, n_series=60, n_train=24_000, trend=0.01)
    np.testing.assert_allclose(panel.profiles.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(panel.profiles.std(axis=1), 1.5)
    np.testing.assert_allclose(panel.coefficients[:, 0], [-0.5, 0.0, 0.5])
    steps = np.arange(panel.n_train)
    for i in range(panel.n_series):
        y, k = panel.train[i], panel.labels[i]
        design = np.column_stack([np.ones_like(steps), steps / 24, panel.profiles[k][steps % 24]])
        level, slope, scale = np.linalg.lstsq(design, y, rcond=None)[0]
        assert slope / scale == pytest.approx(0.01, abs=0.002)
        rest = (y - design @ [level, slope, scale]) / scale
        assert np.corrcoef(rest[1:], rest[:-1])[0, 1] == pytest.approx(panel.coefficients[k, 0], abs=0.05)


@pytest.mark.parametrize("simulate", [simulate_counts, simulate_seasonal])
def test_seasonal_simulators_should_be_seeded_and_only_append_steps(simulate):
    first, again, longer = simulate(rng=1), simulate(rng=1), simulate(rng=1, n_test=500)
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(longer.values[:, : first.values.shape[1]], first.values)
    assert (simulate(rng=2).values != first.values).any()
    assert simulate(rng=2, n_regimes=1).n_regimes == 1


def test_wrong_sizes_should_be_named():
    with pytest.raises(
        InputError, match=r"season_length is a whole number: expected an integer of at least 3"
    ):
        simulate_counts(season_length=2)
    with pytest.raises(InputError, match=r"n_regimes is a whole number"):
        simulate_seasonal(n_regimes=0)
    with pytest.raises(InputError, match=r"mean_level is a positive number.*got -1"):
        simulate_counts(mean_level=-1)
    with pytest.raises(InputError, match=r"zero_inflation holds.*got \(0\.1, 1\.0\)"):
        simulate_counts(zero_inflation=(0.1, 1.0))
