"""Sums and the losses that follow from them, against explicit rows (statement 1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from slow_reference import dense_sums, naive_data, random_design, table_of

from metier.forecast.gate.folds import cut
from metier.forecast.regression.design import Design
from metier.forecast.regression.gram import (
    GramTable,
    chunks,
    diagonal,
    direct_gram,
    distance_coefficients,
    loss_coefficients,
    packed_gram,
    packed_size,
    unpack,
)

SHAPES: dict[str, dict[str, Any]] = {
    "complete": {},
    "ragged": {"ragged": True},
    "known features": {"n_common": 2, "n_own": 3},
    "ragged with known features": {"ragged": True, "n_common": 1, "n_own": 1},
    "seasonal lag": {"lags": (1, 2, 168), "season_length": 168, "n_steps": 400},
    "gaps between lags": {"lags": (2, 3, 11, 12)},
    "one lag": {"lags": (1,)},
}


def assert_sums_equal(packed: np.ndarray, design: Design, spans: Any) -> None:
    G, b, s = unpack(packed, design.n_features)
    for i in range(design.n_series):
        expected = dense_sums(*naive_data(design, i, spans))
        # one scale per series: the sum of squares bounds every entry
        scale = max(np.trace(expected[0]), expected[2], 1e-300)
        for got, want in zip((G[i], b[i], s[i]), expected, strict=True):
            assert np.abs(got - want).max() <= 1e-10 * scale


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("horizon", [1, 3])
def test_packed_sums_should_equal_sums_over_explicit_rows(shape: dict[str, Any], horizon: int) -> None:
    design = random_design(1, **shape).at_horizon(horizon)
    last = design.n_steps
    for start, stop in [(design.max_lag, last - 15), (last - 15, last), (last - 9, last - 8)]:
        assert_sums_equal(packed_gram(design, start, stop), design, [(start, stop)])
        assert_sums_equal(direct_gram(design, start, stop), design, [(start, stop)])


def test_sums_of_no_rows_should_be_zero() -> None:
    design = random_design()
    assert packed_gram(design, 20, 20).shape == (packed_size(design.n_features), design.n_series)
    assert not packed_gram(design, 20, 19).any()


def test_a_large_outlier_should_cost_no_digit_of_the_other_windows() -> None:
    design = random_design(2, n_steps=80)
    values = design.values.copy()
    values[3, 30] = 1e8
    spiked = replace(design, values=values)
    assert_sums_equal(packed_gram(spiked, 50, 80), spiked, [(50, 80)])
    packed = packed_gram(spiked, 20, 50)
    G = unpack(packed, design.n_features)[0]
    X, _ = naive_data(spiked, 3, [(20, 50)])
    assert np.abs(G[3] - X.T @ X).max() <= 1e-15 * 1e16
    small = np.flatnonzero(np.abs(X.T @ X).ravel() < 1e3)
    assert np.allclose(G[3].ravel()[small], (X.T @ X).ravel()[small], rtol=1e-10)
    others = [0, 1, 2, 4, 5]
    assert np.allclose(packed[:, others], packed_gram(design, 20, 50)[:, others], rtol=1e-13, atol=1e-13)


@given(seed=st.integers(0, 10_000), start=st.integers(0, 40), size=st.integers(0, 20), ragged=st.booleans())
def test_any_window_should_have_the_direct_sums(seed: int, start: int, size: int, ragged: bool) -> None:
    design = random_design(seed, n_series=3, lags=(1, 4), ragged=ragged, n_common=1)
    stop = min(start + size, design.n_steps)
    direct = direct_gram(design, start, stop) if stop > start else 0.0
    assert np.allclose(packed_gram(design, start, stop), direct, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_losses_from_sums_should_equal_losses_of_residuals(shape: dict[str, Any]) -> None:
    design = random_design(3, **shape)
    theta = np.random.default_rng(0).normal(size=(4, design.n_features))
    start, stop = design.max_lag, design.n_steps
    losses = loss_coefficients(theta) @ packed_gram(design, start, stop)
    distances = distance_coefficients(theta) @ packed_gram(design, start, stop)
    for i in range(design.n_series):
        X, y = naive_data(design, i, [(start, stop)])
        for k in range(len(theta)):
            direct = sum((y[t] - X[t] @ theta[k]) ** 2 for t in range(len(y)))
            assert losses[k, i] == pytest.approx(direct, rel=1e-10)
            assert distances[k, i] == pytest.approx(theta[k] @ X.T @ X @ theta[k], rel=1e-10)


def test_diagonal_should_name_the_traces() -> None:
    design = random_design(4)
    packed = packed_gram(design, 5, 50)
    G, _, _ = unpack(packed, design.n_features)
    assert np.allclose(packed[diagonal(design.n_features)].T, np.einsum("nii->ni", G))


@pytest.mark.parametrize("keep", [True, False])
def test_a_table_should_sum_each_window_over_its_own_spans(keep: bool) -> None:
    design = random_design(5, n_steps=100, ragged=True)
    folds = [fold.keep for fold in cut(60, 100, 4, 5)]
    windows = [((3, 60),), ((60, 100),), *folds]
    active = np.array([True, True, False, True, True, True])
    table = GramTable.build(design, windows, active=active, keep=keep)
    (block,) = table.map(lambda block: block)
    assert (table.stored is None) is not keep
    for window, packed, rows in zip(windows, block.sums, block.rows, strict=True):
        assert not packed[:, 2].any()
        mine = np.flatnonzero(active)
        assert_sums_equal(packed[:, mine], design.take(mine), window)
        counts = [len(naive_data(design, i, window)[1]) for i in range(6)]
        assert rows.tolist() == counts
    for w in range(len(windows)):
        assert np.allclose(table.total(w), block.sums[w].sum(axis=1))


def test_blocks_of_a_table_should_agree_with_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    design = random_design(6, n_series=11, ragged=True)
    whole = table_of(design, 40)
    monkeypatch.setattr("metier.forecast.regression.gram.chunks", lambda n: chunks(n, 4))
    parts = table_of(design, 40)
    assert len(parts.map(lambda block: block)) == 3
    together = np.concatenate(parts.map(lambda b: b.sums[0]), axis=1)
    assert np.allclose(together, whole.map(lambda b: b.sums[0])[0], rtol=1e-13, atol=1e-13)


def test_float32_values_should_give_float64_sums() -> None:
    design = random_design(7)
    single = replace(design, values=design.values.astype(np.float32))
    exact = replace(design, values=single.values.astype(np.float64))
    assert packed_gram(single, 10, 50).dtype == np.float64
    assert np.allclose(packed_gram(single, 10, 50), packed_gram(exact, 10, 50), rtol=1e-12, atol=1e-12)
