"""Chunks, blocks and threads bound memory and time; they change no result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from panels import forecast, frame_of, regimes, small

from metier.forecast.regression.gram import chunks

PARAMETERS: list[dict[str, Any]] = [
    {"horizon": 2},
    {"loss": "huber"},
    {"loss": "pinball", "shrinkage": "auto"},
    {"horizon": 2, "assign_horizons": (1, 2)},
    {"assign_on": "both"},
    {"horizon": 2, "strategy": "direct"},
]


def fit(parameters: dict[str, Any]) -> Any:
    values = regimes(31, n_series=21)
    values[4, :40] = np.nan
    values[9, 140:] = np.nan
    return small(**parameters).fit(frame_of(values))


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_small_chunks_should_change_nothing(
    parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(parameters)

    def pieces(n_series: int, size: int = 2048) -> list[slice]:
        return chunks(n_series, min(size, 4))

    for module in ("regression.gram", "partition.criterion", "gate.heldout"):
        monkeypatch.setattr(f"metier.forecast.{module}.chunks", pieces)
    parts = fit(parameters)
    assert parts.partition_.tolist() == whole.partition_.tolist()
    assert parts.gate_report_.chosen == whole.gate_report_.chosen
    assert np.allclose(parts.loss_matrix_, whole.loss_matrix_, rtol=1e-6)
    assert np.allclose(forecast(parts), forecast(whole), rtol=1e-6)
    held, other = whole.fitted_.held, parts.fitted_.held
    assert np.allclose(held.by_time, other.by_time, rtol=1e-6)
    assert np.allclose(held.by_series, other.by_series, rtol=1e-6, equal_nan=True)
    assert np.allclose(held.by_group, other.by_group, rtol=1e-6, equal_nan=True)


SOME = [*PARAMETERS[:2], *(pytest.param(p, marks=pytest.mark.slow) for p in PARAMETERS[2:])]


@pytest.mark.parametrize("parameters", SOME, ids=str)
def test_the_number_of_threads_should_change_no_bit(
    parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("regression.gram", "partition.criterion", "gate.heldout"):
        monkeypatch.setattr(
            f"metier.forecast.{module}.chunks", lambda n_series, size=2048: chunks(n_series, min(size, 4))
        )
    monkeypatch.setenv("METIER_THREADS", "1")
    one = fit(parameters)
    monkeypatch.setenv("METIER_THREADS", "3")
    three = fit(parameters)
    assert np.array_equal(one.loss_matrix_, three.loss_matrix_)
    assert np.array_equal(forecast(one), forecast(three))
    assert np.array_equal(one.fitted_.held.by_time, three.fitted_.held.by_time)
