"""The study of panels on miniatures: splits, scores, regret, claims, resuming."""

from dataclasses import replace

import numpy as np
import pytest

from metier.core import InputError
from metier.core.registry import load_study, registry
from metier.data import PanelData
from metier.forecast.report import IN_USE
from metier.runs import execute
from metier_studies.forecast_panels.cases import CASES, PanelCase, carried_forward, judge, split
from metier_studies.forecast_panels.study import PanelsConfig, _notes, facts_of, least, stacked
from metier_studies.forecast_panels.tables import (
    above,
    best_in_hindsight,
    gain_claim,
    headline,
    mean_over_panels,
    regret,
    regret_claim,
    regrets,
)

SMALL = {"panels": "simulated_strong,simulated_homogeneous", "max_series": "24", "n_windows": "3"}


def panel_data(values: np.ndarray) -> PanelData:
    n, t = values.shape
    stamps = np.datetime64("2020-01-01T00", "ns") + np.arange(t) * np.timedelta64(1, "h")
    return PanelData(
        name="made", ids=tuple(f"s{i}" for i in range(n)), stamps=stamps, values=values, freq="h"
    )


def made_case(values: np.ndarray, **changes) -> PanelCase:
    case = PanelCase(load=lambda seed: panel_data(values), season=1, lags=2, horizon=2, n_windows=3, step=4)
    return replace(case, **changes)


def noise(n: int, t: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(n, t))


def test_split_should_place_origins_at_the_end_in_time_order():
    splits = split(made_case(noise(3, 50)), 0)
    assert splits.cutoffs == (40, 44, 48)


def test_split_should_keep_the_newest_steps_and_the_largest_series():
    values = noise(4, 50) + np.array([[0.0], [9.0], [5.0], [1.0]])
    splits = split(made_case(values, max_series=2, max_steps=30), 0)
    assert splits.data.ids == ("s1", "s2")
    np.testing.assert_array_equal(splits.data.values, values[1:3, 20:])


def test_split_should_scale_by_what_came_before_the_first_origin():
    values = noise(3, 50)
    before = split(made_case(values), 0)
    changed = values.copy()
    changed[:, 40:] *= 1e6
    after = split(made_case(changed), 0)
    np.testing.assert_array_equal(before.scale, after.scale)
    np.testing.assert_array_equal(before.naive, after.naive)
    np.testing.assert_allclose(before.scale, values[:, :40].std(axis=1))
    np.testing.assert_allclose(before.naive, np.abs(np.diff(values[:, :40])).mean(axis=1))


def test_split_should_leave_out_series_that_did_not_vary():
    values = noise(3, 50)
    values[1, :40] = 2.0
    assert split(made_case(values), 0).data.ids == ("s0", "s2")


def test_split_should_read_rows_in_one_order():
    ids = tuple(f"s{i}" for i in (10, 9, 2))
    values = noise(3, 50)
    made = made_case(values, load=lambda seed: replace(panel_data(values), ids=ids))
    splits = split(made, 0)
    assert splits.data.ids == tuple(splits.panel.ids) == ("s10", "s2", "s9")
    np.testing.assert_array_equal(splits.panel.values, splits.data.values)


def test_gaps_should_be_filled_from_the_past_and_never_scored():
    values = noise(2, 50)
    values[0, 40:42] = np.nan
    splits = split(made_case(values), 0)
    np.testing.assert_array_equal(splits.data.values[0, 40:42], values[0, [39, 39]])
    forecast = np.zeros((2, 2))
    squared, mase = splits.score(forecast, 40)
    assert squared == pytest.approx(np.mean((values[1, 40:42] / splits.scale[1]) ** 2))
    assert mase == pytest.approx(np.mean(np.abs(values[1, 40:42]) / splits.naive[1]))


def test_carried_forward_should_not_look_ahead():
    values = np.array([[1.0, np.nan, np.nan, 5.0, np.nan]])
    np.testing.assert_array_equal(carried_forward(values), [[1.0, 1.0, 1.0, 5.0, 5.0]])
    later = values.copy()
    later[0, 3] = 100.0
    np.testing.assert_array_equal(carried_forward(later)[:, :3], carried_forward(values)[:, :3])


def test_judge_should_score_what_cross_validation_forecasts():
    case = replace(CASES["simulated_strong"], max_series=24, n_windows=2)
    splits = split(case, 3)
    found = judge(case, splits, splits.cutoffs[0], rng=5)
    until = splits.data.steps(None, splits.cutoffs[0] + case.horizon)
    frame = case.forecaster(rng=5).cross_validation(until.to_frame(), h=case.horizon, n_windows=1)
    columns = {IN_USE: "ClusterForecaster", **{name: name for name in found["squared"] if name != IN_USE}}
    assert set(columns) == {IN_USE, "global", "local", "clustered", "feature", "random"}
    for name, column in columns.items():
        forecast = frame[column].to_numpy().reshape(24, case.horizon)
        assert splits.score(forecast, splits.cutoffs[0]) == pytest.approx(
            (found["squared"][name], found["mase"][name]), rel=1e-9
        )


def test_judge_should_not_see_what_comes_after_its_origin():
    case = replace(CASES["simulated_homogeneous"], max_series=12, n_windows=2)
    splits = split(case, 1)
    cutoff = splits.cutoffs[0]
    values = splits.data.values.copy()
    values[:, cutoff + case.horizon :] = 1e9
    poisoned = split(replace(case, load=lambda seed: replace(splits.data, values=values), max_series=None), 1)
    poisoned = replace(poisoned, scale=splits.scale, naive=splits.naive)
    assert judge(case, poisoned, cutoff) == judge(case, splits, cutoff)


def losses(**means: float) -> dict[str, np.ndarray]:
    wobble = np.array([0.9, 1.0, 1.1])
    return {name.replace("choice", IN_USE): mean * wobble for name, mean in means.items()}


def test_regret_should_be_the_excess_over_the_best_candidate():
    found = losses(**{"global": 1.0, "local": 0.8, "feature": 0.5, "choice": 0.9})
    assert best_in_hindsight(found) == "feature"
    assert regret(found).value == pytest.approx(0.8)
    assert best_in_hindsight(found, ("global", "local", "clustered")) == "local"
    assert regret(found, ("global", "local")).value == pytest.approx(0.125)


def test_regret_of_the_best_candidate_should_be_zero():
    found = losses(**{"global": 1.0, "local": 0.8, "choice": 0.8})
    cost = regret(found)
    assert (cost.value, cost.low, cost.high, cost.method) == (0.0, 0.0, 0.0, "identical")


def test_mean_over_panels_should_have_a_student_interval():
    from scipy import stats

    values = np.array([0.0, 0.01, 0.03, -0.01])
    mean = mean_over_panels(values)
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.0075, low, high))


@pytest.mark.parametrize(
    ("excess", "verdict"), [(0.0, "holds"), (0.05, "does not hold"), (0.009, "undecided")]
)
def test_regret_claim_should_follow_the_interval(excess: float, verdict: str):
    squared = {
        f"p{i}": losses(**{"global": 1.0, "choice": 1.0 + excess + 0.002 * (i - 1.5)}) for i in range(4)
    }
    claim = regret_claim(squared, command="c")
    assert claim.verdict == verdict
    assert (claim.needed is not None) == (verdict == "undecided")
    assert claim.measured.value == pytest.approx(regrets(squared).mean())
    limit = claim.measured.high if verdict == "holds" else claim.measured.low
    if verdict != "undecided":
        assert (limit < 0.01) == (verdict == "holds")


def test_gain_claim_should_compare_with_the_global_model():
    squared = {f"p{i}": losses(**{"global": 1.0, "choice": 0.8 + 0.01 * i}) for i in range(4)}
    claim = gain_claim(squared, command="c")
    assert claim.verdict == "holds"
    assert claim.measured.value == pytest.approx(0.185)
    assert above([0.185, 0.175], 0.0).verdict == "pays"


def test_an_origin_without_a_candidate_should_count_its_global_model():
    rows = [{"squared": {"global": 1.0, "clustered": 0.5}}, {"squared": {"global": 2.0}}]
    np.testing.assert_array_equal(stacked(rows, "squared")["clustered"], [0.5, 2.0])


def test_limits_should_only_lower_a_case():
    config = PanelsConfig(max_series=24, n_windows=100)
    case = config.case("simulated_strong")
    assert (case.max_series, case.n_windows) == (24, CASES["simulated_strong"].n_windows)
    assert least(None, None) is None


def test_every_case_should_be_known_and_leave_a_history():
    real = [name for name in CASES if not name.startswith("simulated")]
    assert len(real) >= 10
    assert len(CASES) == 16
    for name, case in CASES.items():
        if not case.package:
            splits = split(replace(case, max_series=5), 0)
            assert splits.cutoffs[0] > 2 * max(case.lags, case.far_lag or 0), name
            assert len(facts_of(splits)["sha256"]) == 64


def test_an_unknown_panel_should_be_named():
    with pytest.raises(InputError, match=r"panels.*'chicgo'"):
        PanelsConfig().case("chicgo")


def test_fewer_than_two_panels_should_be_refused(tmp_path):
    with pytest.raises(InputError, match=r"at least two of them.*got simulated_weak"):
        execute(load_study("forecast-panels"), tmp_path / "run", overrides={"panels": "simulated_weak"})


def test_the_study_should_run_and_resume_to_the_same_bytes(tmp_path):
    study = load_study("forecast-panels")
    result = execute(study, tmp_path / "a", overrides=SMALL, seed=2)
    assert [claim.id for claim in result.claims] == list(study.claims)
    (table,) = result.sections[0].tables
    assert [row[0] for row in table.rows] == ["simulated_strong", "simulated_homogeneous"]
    assert sum(result.headline.divided.load) == pytest.approx(1.0)
    assert len(result.losses[0].values) == 6
    execute_partly(study, tmp_path / "b")
    resumed = execute(study, tmp_path / "b", overrides=SMALL, seed=2, resume=True)
    assert resumed == result
    assert (tmp_path / "a" / "result.json").read_bytes() == (tmp_path / "b" / "result.json").read_bytes()


def execute_partly(study, folder):
    """Interrupt the study after its first origins."""

    class Stops:
        def stage(self, text):
            if "homogeneous" in text:
                raise KeyboardInterrupt

        def track(self, iterable, description, total=None):
            return iterable

    with pytest.raises(KeyboardInterrupt):
        execute(study, folder, overrides=SMALL, seed=2, progress=Stops())


def test_notes_should_say_the_gates_codes_in_words():
    rows = {"a": [{"flag": "truncated_gap"}, {"flag": ""}, {"flag": "val_too_short"}], "b": [{"flag": ""}]}
    notes = _notes({}, {}, rows, ())
    assert notes == (
        "On a the gate judged on two blocks with a gap of the horizon alone, since VAL is short; "
        "at other origins it judged nothing, since VAL has no room for a block with a gap on both sides.",
    )


def test_the_headline_should_count_panels():
    squared = {
        name: {"in use": np.array([1.0, 1.1]) * c, "global": np.array([1.0, 1.0])}
        for name, c in (("a", 0.8), ("b", 1.1), ("c", 0.9))
    }
    paid = headline(squared, {name: ["global"] for name in squared}).paid
    assert paid.verdict == "undecided"
    assert (paid.needed is not None, paid.needed_unit) == (True, "panels")


def test_the_registry_should_name_the_study():
    assert registry()["forecast-panels"].title == load_study("forecast-panels").title
    sizes = load_study("forecast-panels").sizes
    assert set(sizes) == {"tour", "standard", "full"}
