import numpy as np
import pytest

from metier import data
from metier.forecast import ClusterForecaster
from metier.forecast.panels.frequency import Frequency
from metier.forecast.words.cluster_words import (
    Traits,
    memory_word,
    name_clusters,
    noise_word,
    season_word,
    sentence,
)
from metier.forecast.words.describe import describe_clusters, impulse_response, seasonal_share, thin
from metier.forecast.words.seasons import default_lags, seasons_of

QUIET = Traits(
    season=24,
    season_name="daily",
    season_strength=0.6,
    relative_level=1.0,
    level_rank=0.5,
    half_life=1,
    carry=0.0,
    echo=0.0,
    unexplained=0.1,
    trend=0.0,
    zeros=0.0,
)


def replaced(**changes):
    fields = {name: getattr(QUIET, name) for name in Traits.__slots__}
    return Traits(**{**fields, **changes})


def autoregression(coefficient, *, n_series, n_steps, rng):
    noise = rng.normal(size=(n_series, n_steps))
    values = np.zeros((n_series, n_steps))
    for t in range(1, n_steps):
        values[:, t] = coefficient * values[:, t - 1] + noise[:, t]
    return values


@pytest.mark.parametrize("coefficient", [0.9, 0.5, -0.4])
def test_impulse_response_should_be_the_powers_of_an_ar1(coefficient):
    found = impulse_response((1,), np.array([coefficient]), steps=12)
    np.testing.assert_allclose(found, coefficient ** np.arange(12), rtol=1e-12)


def test_impulse_response_should_follow_a_simulated_shock():
    lags, coefficients = (1, 3, 7), np.array([0.4, -0.2, 0.3])
    path = np.zeros(40)
    path[10] = 1.0
    for t in range(11, 40):
        path[t] = sum(a * path[t - lag] for lag, a in zip(lags, coefficients, strict=True))
    np.testing.assert_allclose(impulse_response(lags, coefficients, steps=30), path[10:], atol=1e-12)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_seasonal_share_should_be_the_share_of_variance_in_the_season(share):
    t, rng = np.arange(4000), np.random.default_rng(1)
    season = np.sqrt(2 * share) * np.sin(2 * np.pi * t / 24)
    series = season + np.sqrt(1 - share) * rng.normal(size=len(t)) + 0.01 * t
    # 4,000 steps leave a standard error below 0.015
    assert abs(seasonal_share(series, 24) - share) < 0.05


def test_seasonal_share_should_not_reward_noise_for_many_phases():
    rng = np.random.default_rng(2)
    found = [seasonal_share(rng.normal(size=600), 168) for _ in range(20)]
    # the raw R^2 would be 168 / 600 = 0.28
    assert np.mean(found) < 0.08


@pytest.mark.parametrize(
    ("series", "period"),
    [(np.ones(100), 7), (np.full(100, np.nan), 7), (np.arange(100.0), 7), (np.arange(10.0), 7)],
)
def test_seasonal_share_should_be_zero_where_there_is_nothing_to_explain(series, period):
    assert seasonal_share(series, period) == pytest.approx(0.0, abs=1e-9)


def test_known_clusters_should_be_described_by_their_own_season_and_memory():
    rng, t = np.random.default_rng(3), np.arange(1500)
    rhythm = 10 + 3 * np.sin(2 * np.pi * t / 24) + 0.5 * rng.normal(size=(6, 1500))
    memory = 100 + autoregression(0.9, n_series=6, n_steps=1500, rng=rng)
    found = describe_clusters(
        np.concatenate([rhythm, memory]),
        np.repeat([0, 1], 6),
        n_clusters=2,
        lags=(1,),
        coefficients=np.array([[0.0], [0.9]]),
        unexplained=np.repeat([0.05, 0.19], 6),
        seasons={24: "daily", 168: "weekly"},
        step="hour",
    )
    assert [d.name for d in found] == [
        "strong daily rhythm, no memory, quiet",
        "no rhythm, long memory, quiet",
    ]
    assert "the time of day explains 95 %" in found[0].sentence
    assert "a surprise is half gone after 7 hours" in found[1].sentence
    assert found[1].traits.relative_level > 1.5
    assert found[0].traits.level_rank < 0.3 < 0.7 < found[1].traits.level_rank


def test_weekly_season_should_be_named_only_where_it_explains_more_than_the_day():
    rng, t = np.random.default_rng(4), np.arange(168 * 8)
    weekly = 2.0 * (t % 168 >= 120) + np.sin(2 * np.pi * t / 24) + 0.1 * rng.normal(size=(3, len(t)))
    daily = np.sin(2 * np.pi * t / 24) + 0.1 * rng.normal(size=(3, len(t)))
    found = describe_clusters(
        np.concatenate([weekly, daily]),
        np.repeat([0, 1], 3),
        n_clusters=2,
        lags=(1,),
        coefficients=np.zeros((2, 1)),
        unexplained=np.zeros(6),
        seasons={24: "daily", 168: "weekly"},
    )
    assert [d.traits.season_name for d in found] == ["weekly", "daily"]


def test_trend_and_zeros_should_be_measured_and_said():
    t = np.arange(300)
    rising = 5 + 0.1 * t + np.tile([0.0, 1.0], 150)
    rare = np.where(t % 5 == 0, 1.0, 0.0)
    found = describe_clusters(
        np.array([rising, rare]),
        np.array([0, 1]),
        n_clusters=2,
        lags=(1,),
        coefficients=np.zeros((2, 1)),
        unexplained=np.array([0.3, np.nan]),
        seasons={},
    )
    assert found[0].traits.trend == pytest.approx(np.sqrt(12), rel=0.01)
    assert "they rise by 3.4 standard deviations" in found[0].sentence
    assert found[1].traits.zeros == pytest.approx(0.8)
    assert "80 % of the values are zero" in found[1].sentence


def test_description_should_not_depend_on_the_order_of_series():
    rng = np.random.default_rng(5)
    values, labels = rng.normal(size=(20, 200)) + 10, rng.integers(3, size=20)
    order = rng.permutation(20)
    options = {
        "n_clusters": 3,
        "lags": (1, 2),
        "coefficients": rng.normal(size=(3, 2)) / 4,
        "seasons": {7: "weekly"},
    }
    unexplained = rng.uniform(size=20)
    one = describe_clusters(values, labels, unexplained=unexplained, **options)
    two = describe_clusters(values[order], labels[order], unexplained=unexplained[order], **options)
    assert [d.to_dict() for d in one] == [d.to_dict() for d in two]


def test_names_should_tell_equal_clusters_apart():
    names = name_clusters([QUIET, QUIET, replaced(level_rank=0.9), replaced(unexplained=0.7)])
    assert len(set(names)) == 4
    assert names[2].endswith("high level")
    assert names[3].endswith("very noisy")


@pytest.mark.parametrize(
    ("word", "changes", "expected"),
    [
        (memory_word, {"carry": 1.0}, "long memory"),
        (memory_word, {"carry": 0.5}, "some memory"),
        (memory_word, {"carry": 0.0}, "no memory"),
        (memory_word, {"carry": -0.5}, "self-correcting"),
        (season_word, {"season_strength": 0.05}, "no rhythm"),
        (season_word, {"season_strength": 0.2}, "weak daily rhythm"),
        (noise_word, {"unexplained": 0.4}, "noisy"),
    ],
)
def test_words_should_follow_the_numbers(word, changes, expected):
    assert word(replaced(**changes)) == expected


def test_sentence_should_say_what_returns_a_season_later():
    said = sentence(replaced(echo=0.4), size=12, share=0.25, step="hour")
    assert said.startswith("12 series (25 %) at the typical level; the time of day explains 60 %")
    assert "a surprise is gone after one hour, and 40 % of it returns a day later" in said


def test_thin_should_keep_the_ends():
    members = np.arange(1000)
    assert thin(members, 10)[[0, -1]].tolist() == [0, 999]
    assert len(thin(members, 10)) == 10
    assert thin(members[:5], 10).tolist() == [0, 1, 2, 3, 4]


def test_fitted_forecaster_should_describe_the_regimes_it_found():
    simulated = data.simulate_regimes("strong", rng=0)
    panel = simulated.to_panel().steps(0, 400)
    forecaster = ClusterForecaster(lags=3, n_clusters=4).fit(panel.to_frame(backend="polars"))
    found = forecaster.describe()
    assert [d.n_series for d in found] == np.bincount(forecaster.partition_, minlength=4).tolist()
    assert sum(d.share for d in found) == pytest.approx(1.0)
    # the regime of most of a cluster's series has the memory that the cluster is said to have
    for d in found:
        members = simulated.labels[forecaster.partition_ == d.cluster]
        true = simulated.coefficients[np.bincount(members).argmax()]
        response = impulse_response((1, 2, 3), true, steps=101)
        assert d.traits.carry == pytest.approx(response[1:24].sum(), rel=0.15, abs=0.15)
    assert len({d.name for d in found}) == 4


def test_unfitted_forecaster_should_say_so():
    with pytest.raises(ValueError, match="has not been fitted"):
        ClusterForecaster().describe()


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("h", {24: "daily", 168: "weekly", 8760: "yearly"}),
        ("8h", {3: "daily", 21: "weekly", 1095: "yearly"}),
        ("D", {7: "weekly", 365: "yearly"}),
        ("W-MON", {52: "yearly"}),
        ("QS", {4: "yearly"}),
        ("YS", {}),
        (1, {}),
    ],
)
def test_seasons_should_follow_the_frequency(alias, expected):
    assert seasons_of(Frequency.parse(alias)) == expected


@pytest.mark.parametrize(
    ("alias", "n_steps", "lags", "season"),
    [
        ("h", 4344, 24, 168),
        ("h", 600, 24, 24),
        ("D", 181, 7, 7),
        ("D", 5000, 7, 365),
        ("MS", 150, 12, 12),
        ("h", 60, 6, None),
    ],
)
def test_default_lags_should_fit_the_history(alias, n_steps, lags, season):
    choice = default_lags(Frequency.parse(alias), n_steps=n_steps, shortest=n_steps, horizon=1)
    assert (choice.lags, choice.season_length) == (lags, season)


def test_default_lags_should_leave_short_series_a_row():
    choice = default_lags(Frequency.parse("D"), n_steps=400, shortest=9, horizon=3)
    assert choice.lags + 3 + 1 <= 9
    assert choice.season_length is None
