"""Compiled inner loops: the Fisher-type sum of an additive channel and piecewise Chebyshev series."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from metier.core import require

WINDOW = 10.0
"""Noise standard deviations kept around each signal: cut tails spoil N^2/Z where N cancels to O(snr)."""

SMALLEST_RATE = 1e-21
"""F(0) or F(q)/q below this is not told from 0: the tails of the noise are cut at 1e-22 of its density."""

_SMALLEST = 1e-280
_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def _compiled(function: _Kernel) -> _Kernel:
    numba = require("numba")
    return cast(_Kernel, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


@_compiled
def _spread(
    values: Any,
    w: Any,
    u: Any,
    scale: float,
    nodes: Any,
    base: float,
    step: float,
    profile: Any,
    Z: Any,
    N: Any,
) -> None:
    half = profile.size - 1
    for i in nodes:
        if w[i] == 0.0 and u[i] == 0.0:
            continue
        signal = values[i] * scale - base
        center = math.floor(signal / step + 0.5)
        delta = signal - center * step
        peak = math.exp(-0.5 * delta * delta)
        up = math.exp(step * delta)
        down = 1.0 / up
        a = w[i] * peak
        b = u[i] * peak
        Z[center + half] += a
        N[center + half] += b
        rise, fall = 1.0, 1.0
        for k in range(1, half + 1):
            rise *= up
            fall *= down
            right = rise * profile[k]
            left = fall * profile[k]
            Z[center + half + k] += a * right
            N[center + half + k] += b * right
            Z[center + half - k] += a * left
            N[center + half - k] += b * left


@_compiled
def _harvest(used: int, Z: Any, N: Any) -> Any:
    total = 0.0
    for k in range(used):
        if Z[k] > _SMALLEST:
            total += N[k] * N[k] / Z[k]
        Z[k] = 0.0
        N[k] = 0.0
    return total


@_compiled
def _one_sum(values: Any, w: Any, u: Any, scale: float, step: float, profile: Any, Z: Any, N: Any) -> Any:
    # Signals farther apart than two windows never meet, so each cluster of them gets a grid of its own.
    n, half = values.size, profile.size - 1
    low, high = values[0] * scale, values[0] * scale
    for i in range(1, n):
        low = min(low, values[i] * scale)
        high = max(high, values[i] * scale)
    if (high - low) / step + 2 * half + 3 <= Z.size:
        nodes = np.arange(n)
        _spread(values, w, u, scale, nodes, low, step, profile, Z, N)
        return _harvest(int((high - low) / step) + 2 * half + 3, Z, N)
    order = np.argsort(values)
    total, start = 0.0, 0
    for stop in range(1, n + 1):
        if stop < n and (values[order[stop]] - values[order[stop - 1]]) * scale <= 2 * half * step:
            continue
        base = values[order[start]] * scale
        _spread(values, w, u, scale, order[start:stop], base, step, profile, Z, N)
        width = values[order[stop - 1]] * scale - base
        total += _harvest(int(width / step) + 2 * half + 3, Z, N)
        start = stop
    return total


@_compiled
def additive_sums(
    values: Any, w: Any, u: Any, outer: Any, scales: Any, step: float, first: int, last: int, out: Any
) -> None:
    """Write out[s, q] = sum_V outer[q, V] int N^2/Z dy for q in [first, last), y = scale * value + N(0, 1).

    Z(y) = sum_i w_i phi(y - scale value_i) and N(y) alike with u_i, over the last axis of (q, V, z) arrays.
    """
    half = math.ceil(WINDOW / step)
    profile = np.exp(-0.5 * (step * np.arange(half + 1)) ** 2)
    size = (values.shape[2] + 1) * (2 * half + 2) + 8
    Z = np.zeros(size)
    N = np.zeros(size)
    for q in range(first, last):
        for s in range(scales.size):
            total = 0.0
            for v in range(values.shape[1]):
                if outer[q, v] != 0.0:
                    total += outer[q, v] * _one_sum(
                        values[q, v], w[q, v], u[q, v], scales[s], step, profile, Z, N
                    )
            out[s, q] = total * step / math.sqrt(2.0 * math.pi)


@_compiled
def clenshaw(coefficients: Any, x: float) -> Any:
    """Return sum_k c_k T_k(x)."""
    b1, b2 = 0.0, 0.0
    for k in range(coefficients.size - 1, 0, -1):
        b1, b2 = 2.0 * x * b1 - b2 + coefficients[k], b1
    return x * b1 - b2 + coefficients[0]


@_compiled
def series(edges: Any, coefficients: Any, x: float) -> Any:
    """Evaluate a piecewise Chebyshev series (panels x degree) at x; outside, its end panels continue."""
    panel = min(max(np.searchsorted(edges, x, side="right") - 1, 0), coefficients.shape[0] - 1)
    left, right = edges[panel], edges[panel + 1]
    return clenshaw(coefficients[panel], (2.0 * x - left - right) / (right - left))


@_compiled
def series_many(edges: Any, coefficients: Any, x: Any) -> Any:
    """Evaluate a piecewise Chebyshev series at every entry of a one-dimensional array."""
    out = np.empty(x.size)
    for i in range(x.size):
        out[i] = series(edges, coefficients, x[i])
    return out


@_compiled
def log_ratio(edges: Any, rate: Any, power: int, x: float) -> float:
    """Return ln alpha(q) at q = 1 - exp(-x), where F = q^power * rate: ln q^(1-power) + x - ln rate."""
    value = series(edges, rate, x)
    if value <= SMALLEST_RATE:
        return math.inf
    start = -math.inf if x <= 0.0 else math.log(-math.expm1(-x))
    return x - math.log(value) + (start if power == 0 else 0.0)


@_compiled
def solve_monotone(edges: Any, rate: Any, power: int, low: float, high: float, target: float) -> float:
    """Bisect ln alpha(q(x)) = target on [low, high], where ln alpha is monotone and crosses the target."""
    rising = log_ratio(edges, rate, power, high) >= target
    for _ in range(80):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if (log_ratio(edges, rate, power, middle) >= target) == rising:
            high = middle
        else:
            low = middle
    return 0.5 * (low + high)


@_compiled
def cross_monotone(
    edges: Any, rate: Any, power: int, stops: Any, levels: Any, targets: Any, out: Any
) -> None:
    """Write out[t, k]: where ln alpha = targets[t] on the monotone piece [stops[k], stops[k+1]], or nan."""
    for t in range(targets.size):
        for k in range(stops.size - 1):
            low, high = min(levels[k], levels[k + 1]), max(levels[k], levels[k + 1])
            if low <= targets[t] <= high:
                out[t, k] = solve_monotone(edges, rate, power, stops[k], stops[k + 1], targets[t])
            else:
                out[t, k] = math.nan
