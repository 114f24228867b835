"""Where VAL is cut, and that kept rows never touch a held-out block."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from metier.forecast.gate.folds import MIN_ASSIGN, MIN_BLOCK, cut, plan_folds, segments


@given(
    start=st.integers(5, 300),
    length=st.integers(1, 400),
    n_blocks=st.integers(2, 6),
    max_lag=st.integers(1, 40),
    horizon=st.integers(1, 12),
)
def test_kept_rows_should_never_touch_a_held_out_block(
    start: int, length: int, n_blocks: int, max_lag: int, horizon: int
) -> None:
    stop = start + length
    plan = plan_folds(start, stop, n_blocks=n_blocks, max_lag=max_lag, horizon=horizon)
    if plan.reason:
        assert plan.reason == "val_too_short"
        assert not plan.folds
        return
    covered = [t for fold in plan.folds for t in range(*fold.block)]
    assert covered == list(range(start, stop))
    for fold in plan.folds:
        block = set(range(*fold.block))
        rows = [t for span in fold.keep for t in range(*span)]
        assert fold.n_keep == len(rows) >= MIN_ASSIGN
        assert len(block) >= MIN_BLOCK + horizon - 1
        for t in rows:
            assert start <= t < stop
            # an origin uses its lags and the targets up to its horizon
            reach = max_lag if plan.flag != "truncated_gap" else 0
            assert not block & set(range(t - reach, t + horizon))
        for t in block:
            # nor does a held-out origin see a kept target
            seen = set(range(t - reach, t + 1))
            assert not seen & set(rows)
        # as many rows as the gap allows
        expected = [
            t for t in range(start, stop) if t < fold.block[0] - plan.gap or t >= fold.block[1] + plan.gap
        ]
        assert rows == expected


def test_a_long_val_should_be_cut_as_asked() -> None:
    plan = plan_folds(100, 200, n_blocks=4, max_lag=8, horizon=1)
    assert (plan.gap, plan.flag, plan.reason) == (9, "", "")
    assert [fold.block for fold in plan.folds] == [(100, 125), (125, 150), (150, 175), (175, 200)]
    assert plan.folds[1].keep == ((100, 116), (159, 200))
    assert plan.folds[0].keep == ((134, 200),)


def test_a_short_val_should_get_two_blocks_then_a_truncated_gap_then_none() -> None:
    """Statement 20, the plan."""
    assert plan_folds(100, 200, n_blocks=3, max_lag=20, horizon=1).flag == ""
    halved = plan_folds(100, 200, n_blocks=3, max_lag=41, horizon=1)
    assert (halved.flag, halved.gap, len(halved.folds)) == ("two_blocks", 42, 2)
    long_steps = plan_folds(100, 150, n_blocks=4, max_lag=2, horizon=12)
    assert (long_steps.flag, long_steps.gap, len(long_steps.folds)) == ("two_blocks", 14, 2)
    truncated = plan_folds(100, 200, n_blocks=4, max_lag=168, horizon=1)
    assert (truncated.flag, truncated.gap, len(truncated.folds)) == ("truncated_gap", 1, 2)
    short = plan_folds(100, 116, n_blocks=4, max_lag=24, horizon=1)
    assert (short.reason, short.folds) == ("val_too_short", ())


@pytest.mark.parametrize(("n_blocks", "length"), [(4, 100), (3, 10), (2, 7)])
def test_cut_should_give_blocks_of_nearly_equal_length(n_blocks: int, length: int) -> None:
    sizes = [fold.block[1] - fold.block[0] for fold in cut(7, 7 + length, n_blocks, 1)]
    assert sum(sizes) == length
    assert max(sizes) - min(sizes) <= 1


spans = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 15)).map(lambda s: (s[0], s[0] + s[1])),
    min_size=1,
    max_size=2,
)


@given(windows=st.lists(spans.map(tuple), min_size=1, max_size=5))
def test_segments_should_rebuild_every_window_from_inside(windows: list[tuple[tuple[int, int], ...]]) -> None:
    pieces, members = segments(windows)
    for window, member in zip(windows, members, strict=True):
        rows = [t for j in member for t in range(*pieces[j])]
        wanted = {t for span in window for t in range(*span)}
        assert sorted(rows) == sorted(wanted)
    assert {j for member in members for j in member} == set(range(len(pieces)))


def test_segments_of_nothing_should_be_nothing() -> None:
    assert segments([()]) == ([], [[]])
    assert np.shape(segments([((3, 3),)])[0]) == (0,)
