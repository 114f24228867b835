import numpy as np
import pytest

from metier.core import InputError
from metier.data import DESIGNS, autocorrelations, simulate_regimes
from metier.data.oracle import spectral_radius
from metier.data.simulate import ar_paths

SIZES = {  # name: (regimes, N, T_train, T_val)
    "strong": (4, 200, 300, 100),
    "medium": (2, 100, 200, 80),
    "weak": (3, 100, 200, 80),
    "small": (2, 24, 60, 40),
    "homogeneous": (1, 100, 200, 80),
    "small_homogeneous": (1, 24, 60, 40),
    "noise_shape": (2, 60, 200, 100),
    "noise_shape_control": (1, 60, 200, 100),
}


def test_every_design_should_have_its_size_listed_here():
    assert set(SIZES) == set(DESIGNS)


@pytest.mark.parametrize("name", DESIGNS)
def test_designs_should_have_the_sizes_of_the_method(name):
    n_regimes, n_series, n_train, n_val = SIZES[name]
    panel = simulate_regimes(name, rng=3, n_test=250)
    assert panel.values.shape == (n_series, n_train + n_val + 250)
    assert (panel.n_regimes, panel.n_train, panel.n_val, panel.n_test) == (n_regimes, n_train, n_val, 250)
    assert [part.shape[1] for part in (panel.train, panel.val, panel.test)] == [n_train, n_val, 250]
    np.testing.assert_array_equal(np.hstack([panel.train, panel.val, panel.test]), panel.values)
    assert set(panel.labels) == set(range(n_regimes))
    assert panel.shares.sum() == pytest.approx(1.0)


def test_coefficients_should_be_base_plus_separation_times_deviation():
    np.testing.assert_allclose(
        DESIGNS["weak"].coefficients,
        [[0.5375, 0.1375, 0.05], [0.3, 0.2375, 0.075], [0.475, 0.0875, 0.1375]],
    )
    np.testing.assert_allclose(DESIGNS["strong"].coefficients[3], [0.15, -0.2, -0.25])
    np.testing.assert_allclose(DESIGNS["homogeneous"].coefficients, [[0.45, 0.2, 0.05]])
    np.testing.assert_allclose(DESIGNS["noise_shape"].coefficients, [[0.5, 0.2]] * 2)


@pytest.mark.parametrize("name", DESIGNS)
def test_every_design_should_be_stationary(name):
    assert max(spectral_radius(row) for row in DESIGNS[name].coefficients) < 0.95


def test_ar_paths_should_equal_the_written_out_recursion():
    rng = np.random.default_rng(0)
    coefficients, labels = np.array([[0.5, -0.2, 0.1], [-0.3, 0.2, 0.0]]), np.array([1, 0, 1, 0])
    shocks = rng.standard_normal((40, 4))
    slow = np.zeros((40, 4))
    for i in range(4):
        for t in range(40):
            slow[t, i] = shocks[t, i]
            for lag in range(1, 4):
                if t >= lag:
                    slow[t, i] += coefficients[labels[i], lag - 1] * slow[t - lag, i]
    np.testing.assert_allclose(ar_paths(coefficients, labels, shocks), slow, atol=1e-13)


def residuals(panel):
    p = panel.coefficients.shape[1]
    phi = panel.coefficients[panel.labels]
    fitted = sum(phi[:, m - 1 : m] * panel.values[:, p - m : -m] for m in range(1, p + 1))
    return panel.values[:, p:] - fitted


def test_heavy_noise_should_have_unit_variance_heavy_tails_and_a_common_fifth():
    # 200 series x 20,000 steps; the tolerances are above four standard errors, two-sided.
    shocks = residuals(simulate_regimes("strong", rng=5, n_test=20_000))
    assert shocks.var() == pytest.approx(1.0, abs=0.02)
    assert shocks.mean(axis=0).var() == pytest.approx(0.2 + 0.8 / 200, abs=0.009)
    own = shocks - shocks.mean(axis=0)
    assert np.mean(np.abs(own) > 4) > 20 * 6.3e-5  # N(0, 1) exceeds 4 with probability 6.3e-5


def test_the_process_should_be_stationary_from_its_first_step():
    # Variance across 4,000 series of a regime, which the common factor leaves alone: both ends agree.
    panel = simulate_regimes("strong", rng=2, n_series=16_000, n_train=100, n_val=1, n_test=1)
    for k in range(4):
        spread = panel.values[panel.labels == k].var(axis=0)
        assert spread[:30].mean() == pytest.approx(spread[-30:].mean(), rel=0.1)


def test_series_should_have_the_autocorrelation_of_their_regime():
    panel = simulate_regimes("strong", rng=2, n_train=5_000)
    for k in range(4):
        rows = panel.train[panel.labels == k]
        lag1 = np.mean(rows[:, 1:] * rows[:, :-1]) / np.mean(rows**2)
        assert lag1 == pytest.approx(autocorrelations(panel.coefficients[k], 1)[1], abs=0.02)


def test_noise_shapes_should_differ_only_in_shape():
    panel = simulate_regimes("noise_shape", rng=4, n_series=200, n_test=5_000)
    shocks = residuals(panel)
    for label, skewness in ((0, 0.0), (1, 2.0)):
        rows = shocks[panel.labels == label]
        assert rows.mean() == pytest.approx(0.0, abs=0.01)
        assert rows.var() == pytest.approx(1.0, abs=0.02)
        assert np.mean(rows**3) == pytest.approx(skewness, abs=0.15)
    assert shocks[panel.labels == 1].min() >= -1.0 - 1e-12
    control = residuals(simulate_regimes("noise_shape_control", rng=4, n_series=200, n_test=5_000))
    assert np.mean(control**3) == pytest.approx(0.0, abs=0.02)


def test_the_same_seed_should_give_the_same_panel_and_another_seed_another():
    first, again, other = (simulate_regimes("medium", rng=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert np.abs(first.values - other.values).min(axis=1).max() > 0
    generated = [simulate_regimes("medium", rng=np.random.default_rng(9)).values for _ in range(2)]
    np.testing.assert_array_equal(*generated)
    generator = np.random.default_rng(9)
    assert (simulate_regimes("medium", rng=generator).values != generated[0]).sum() == 0
    assert (simulate_regimes("medium", rng=generator).values != generated[0]).all()


def test_a_longer_test_part_should_only_append_steps():
    short, long = simulate_regimes("strong", rng=6, n_test=100), simulate_regimes("strong", rng=6, n_test=300)
    np.testing.assert_array_equal(long.values[:, : short.values.shape[1]], short.values)


def test_anomalies_should_hit_one_percent_of_the_values_and_nothing_else():
    # 58,000 values at 1 %: 580 hits, standard error 24.
    plain, hit = simulate_regimes("medium", rng=8), simulate_regimes("medium", rng=8, anomalies=True)
    np.testing.assert_array_equal(plain.labels, hit.labels)
    added = (hit.values - plain.values)[hit.values != plain.values]
    assert 480 < added.size < 680
    assert added.std() == pytest.approx(10.0, rel=0.15)


def test_separation_should_move_the_known_gain():
    gains = [simulate_regimes("medium", rng=0, separation=s).oracle_gain() for s in (0.0, 0.25, 0.5, 1.0)]
    assert gains[0] == pytest.approx(0.0, abs=1e-15)
    assert gains == sorted(gains)
    assert gains[3] > 3 * gains[2] > 9 * gains[1] / 2


def test_wrong_arguments_should_be_named():
    with pytest.raises(
        InputError, match=r"name is one of a fixed list.*got 'stron'. Did you mean 'strong'\?"
    ):
        simulate_regimes("stron")
    with pytest.raises(InputError, match=r"n_test is a whole number.*got 0"):
        simulate_regimes("weak", n_test=0)
    with pytest.raises(
        InputError, match=r"stationary autoregression.*regime 1 with coefficients \[-1\.35, 0\.65, 0\.35\]"
    ):
        simulate_regimes("strong", separation=3.0)
    with pytest.raises(InputError, match=r"rng decides every random draw"):
        simulate_regimes("weak", rng=-1)


def test_to_panel_should_keep_the_values_and_name_the_series():
    panel = simulate_regimes("small", rng=0)
    data = panel.to_panel()
    np.testing.assert_array_equal(data.values, panel.values)
    assert data.ids[:2] == ("s0000", "s0001")
    assert (data.freq, data.season_length) == ("h", 1)
    assert panel.to_dict()["n_regimes"] == 2
