"""Intervals from held-out residuals: exact ranks, coverage, and the fallback to all series."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from slow_reference import naive_row, random_design

from metier.core import InputError
from metier.forecast.gate.conformal import MAX_KEPT, MIN_OWN, Calibration, _thin, calibrate
from metier.forecast.regression.models import LinearModel

BLOCKS = [(40, 60), (60, 80)]


def calibration_of(residuals: list[float]) -> Calibration:
    ordered = np.sort(np.asarray(residuals, dtype=np.float64))
    return Calibration(
        residuals=((ordered,),), counts=np.array([[len(ordered)]]), coverage=(), source="held-out blocks"
    )


@pytest.mark.parametrize(
    ("n", "level", "low", "high"),
    [
        (9, 0.8, 1, 9),
        (19, 0.9, 1, 19),
        (19, 0.8, 2, 18),
        (99, 0.9, 5, 95),
        (39, 0.95, 1, 39),
        (40, 0.95, 1, 40),
    ],
)
def test_bounds_should_be_order_statistics(n: int, level: float, low: int, high: int) -> None:
    """Of n exchangeable residuals, rank r is exceeded with probability 1 - r / (n + 1)."""
    ranks = list(range(1, n + 1))
    assert calibration_of([float(r) for r in ranks]).interval(0, 1, level) == (low, high)


@given(n=st.integers(1, 300), level=st.floats(0.05, 0.99))
def test_bounds_should_leave_at_most_half_the_miss_on_each_side(n: int, level: float) -> None:
    tail = (1 - level) / 2
    calibration = calibration_of([float(r) for r in range(1, n + 1)])
    if (n + 1) * tail < 1 - 1e-9:
        with pytest.raises(InputError, match="needs enough held-out residuals"):
            calibration.interval(0, 1, level)
        return
    low, high = calibration.interval(0, 1, level)
    assert low / (n + 1) <= tail + 1e-8
    assert 1 - high / (n + 1) <= tail + 1e-8
    # and no wider than a rank allows
    assert (low + 1) / (n + 1) > tail - 1e-8
    assert 1 - (high - 1) / (n + 1) > tail - 1e-8


def test_too_few_residuals_should_name_the_number_needed() -> None:
    calibration = calibration_of([0.0] * 38)
    with pytest.raises(
        InputError, match=r"level 95 .*expected at least 39, got 38 at step 1\. Ask for a lower"
    ):
        calibration.interval(0, 1, 0.95)
    assert calibration_of([0.0] * 39).interval(0, 1, 0.95) == (0.0, 0.0)
    with pytest.raises(InputError, match=r"level 80 .*expected at least 9, got 8 at step 1"):
        calibration_of([0.0] * 8).interval(0, 1, 0.8)


def test_coverage_should_reach_its_level_on_exchangeable_residuals() -> None:
    """4000 panels of 30 calibration residuals and one new one: 80 % nominal, 25/31 = .806 exact, sd .006."""
    rng = np.random.default_rng(0)
    draws = rng.standard_t(3, size=(4000, 31))
    inside = 0
    for row in draws:
        low, high = calibration_of(row[:30].tolist()).interval(0, 1, 0.8)
        inside += low <= row[30] <= high
    exact = (28 - 3) / 31
    assert abs(inside / 4000 - exact) < 4 * np.sqrt(exact * (1 - exact) / 4000)


def test_thinning_should_keep_bounds_outside_the_exact_ones() -> None:
    rng = np.random.default_rng(1)
    full = np.sort(rng.normal(size=50_000))
    thin = Calibration(
        residuals=((_thin(full),),), counts=np.array([[full.size]]), coverage=(), source="held-out blocks"
    )
    exact = calibration_of(full.tolist())
    assert len(thin.residuals[0][0]) == MAX_KEPT
    for level in (0.5, 0.8, 0.95):
        (low, high), (low_exact, high_exact) = thin.interval(0, 1, level), exact.interval(0, 1, level)
        assert low <= low_exact + 1e-12
        assert high >= high_exact - 1e-12
        assert high - low <= (high_exact - low_exact) * 1.01
        assert thin.quantile(0, 1, level) == pytest.approx(exact.quantile(0, 1, level), abs=2e-3)


def model_for(design) -> LinearModel:
    theta = 0.3 * np.random.default_rng(2).normal(size=(1, design.n_features))
    return LinearModel(theta=(theta,), labels=np.zeros(design.n_series, dtype=int))


@pytest.mark.parametrize("steps", [1, 3])
def test_residuals_should_be_collected_per_group_and_step(steps: int) -> None:
    design = random_design(1, n_series=8, n_steps=80, ragged=True)
    design.stop[7] = 65
    # The second series of group 0 counts nowhere (a constant one, say): what follows keeps its own group.
    groups = np.array([0, 0, 1, 0, 0, 0, 1, 2])
    active = np.arange(8) != 1
    model = model_for(design)
    calibration = calibrate(
        design,
        BLOCKS,
        [model, model],
        steps=steps,
        groups=groups,
        n_groups=3,
        active=active,
        source="held-out blocks",
        rng=0,
    )
    assert (calibration.steps, len(calibration.residuals)) == (steps, 3)
    pools: dict[tuple[int, int], list[float]] = {}
    for start, stop in BLOCKS:
        for i in np.flatnonzero(active):
            for origin in range(start, stop - steps + 1):
                if naive_row(design, i, origin) is None:
                    continue
                one = np.array([i])
                path = model.forecast(design, one, origin, origin + 1, steps=steps)
                for h in range(steps):
                    if origin + h < design.stop[i]:
                        r = design.values[i, origin + h] - path[h][0, 0]
                        pools.setdefault((int(groups[i]), h), []).append(float(r))
    for h in range(steps):
        everyone = sorted(r for (_, step), pool in pools.items() if step == h for r in pool)
        for group in range(3):
            own = sorted(pools.get((group, h), []))
            expected = own if len(own) >= MIN_OWN else everyone
            assert np.allclose(calibration.residuals[group][h], expected, rtol=1e-10)
            assert calibration.counts[group, h] == len(expected)
    assert len(pools[2, 0]) < MIN_OWN


def test_cross_coverage_should_judge_each_block_by_the_others() -> None:
    design = random_design(3, n_series=10, n_steps=80)
    model, groups = model_for(design), np.zeros(10, dtype=int)
    calibration = calibrate(
        design,
        BLOCKS,
        [model, model],
        steps=1,
        groups=groups,
        n_groups=2,
        active=np.ones(10, dtype=bool),
        source="held-out blocks",
        rng=0,
    )
    blocks = [
        (design.values[:, a:b] - model.forecast(design, slice(None), a, b, steps=1)[0]).ravel()
        for a, b in BLOCKS
    ]
    expected = []
    for level in (0.8, 0.95):
        hits = 0
        for mine, other in (blocks, blocks[::-1]):
            low, high = np.quantile(other, [(1 - level) / 2, (1 + level) / 2])
            hits += int(((mine >= low) & (mine <= high)).sum())
        expected.append((0, level, hits / 400, 400))
    assert calibration.coverage == tuple(expected)


def test_coverage_should_be_empty_for_one_block() -> None:
    design = random_design(3, n_series=4, n_steps=80)
    calibration = calibrate(
        design,
        BLOCKS[:1],
        [model_for(design)],
        steps=1,
        groups=np.zeros(4, dtype=int),
        n_groups=1,
        active=np.ones(4, dtype=bool),
        source="VAL",
        rng=0,
    )
    assert calibration.coverage == ()
    assert calibration.counts.tolist() == [[80]]


@given(q=st.floats(0.0, 1.0))
def test_quantiles_should_be_numpys(q: float) -> None:
    residuals = np.random.default_rng(0).normal(size=57)
    assert calibration_of(residuals.tolist()).quantile(0, 1, q) == np.quantile(residuals, q)
