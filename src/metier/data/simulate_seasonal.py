"""Seeded panels of seasonal regimes: smooth series, and counts with many zeros."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError, derive, seed_of
from metier.core.checks import positive_int
from metier.data.oracle import FloatArray, check_stationary
from metier.data.regime_panel import RegimePanel
from metier.data.simulate import BURN_IN, ar_paths, draw_labels

SEASONAL_MEMORY = 0.5
LEVEL_LOG_SD = 0.75


def simulate_seasonal(
    *,
    rng: int | np.random.Generator = 0,
    n_series: int = 100,
    n_regimes: int = 3,
    season_length: int = 24,
    n_train: int = 480,
    n_val: int = 168,
    n_test: int = 168,
    amplitude: float = 1.5,
    trend: float = 0.0,
) -> RegimePanel:
    r"""Simulate series whose regimes differ in the shape of their season and in their memory.

    y_{i,t} = level_i + scale_i (amplitude * profile_k(t) + trend * t / season_length + u_{i,t}), where
    profile_k has mean 0 and variance 1 over a season, and u is AR(1) with unit innovations and a
    coefficient that runs from -1/2 to 1/2 over the regimes. Levels are N(0, 10^2), scales log-
    normal.

    Args:
        rng: seed, or a Generator from which one seed is drawn.
        n_series, n_regimes: size; regimes are drawn uniformly.
        season_length: steps per season, at least 3.
        n_train, n_val, n_test: steps of the three parts.
        amplitude: size of the season against unit innovations.
        trend: growth per season, in units of the innovations' standard deviation.

    Returns:
        RegimePanel; `profiles` holds amplitude * profile_k, `coefficients` is (n_regimes, 1).

    Raises:
        InputError: a size is below its minimum.

    Example:
        >>> panel = simulate_seasonal(n_series=20, rng=1)
        >>> panel.values.shape, panel.profiles.shape, panel.season_length
        ((20, 816), (3, 24), 24)
    """
    name = "seasonal"
    _check_sizes(n_series, n_regimes, season_length, n_train, n_val, n_test)
    seed, n_steps = seed_of(rng), n_train + n_val + n_test
    labels = draw_labels(seed, name, n_series, n_regimes)
    memory = np.linspace(-SEASONAL_MEMORY, SEASONAL_MEMORY, n_regimes) if n_regimes > 1 else np.zeros(1)
    coefficients = check_stationary(memory[:, None])
    profiles = amplitude * season_profiles(seed, name, n_regimes, season_length)
    noise = derive(seed, "simulate", name, "own").standard_normal((BURN_IN + n_steps, n_series))
    own = ar_paths(coefficients, labels, noise)[BURN_IN:].T
    steps = np.arange(n_steps)
    level = 10.0 * derive(seed, "simulate", name, "level").standard_normal((n_series, 1))
    scale = derive(seed, "simulate", name, "scale").lognormal(0.0, LEVEL_LOG_SD, (n_series, 1))
    pattern = profiles[labels][:, steps % season_length] + trend * steps / season_length
    return RegimePanel(
        name=name,
        values=level + scale * (pattern + own),
        labels=labels,
        coefficients=coefficients,
        profiles=profiles,
        n_train=n_train,
        n_val=n_val,
        n_test=n_test,
    )


def simulate_counts(
    *,
    rng: int | np.random.Generator = 0,
    n_series: int = 100,
    n_regimes: int = 3,
    season_length: int = 24,
    n_train: int = 480,
    n_val: int = 168,
    n_test: int = 168,
    mean_level: float = 2.0,
    zero_inflation: tuple[float, float] = (0.1, 0.5),
) -> RegimePanel:
    r"""Simulate intermittent counts: zero-inflated Poisson with a season that depends on the regime.

    y_{i,t} = B_{i,t} N_{i,t}, B ~ Bernoulli(1 - pi_k), N ~ Poisson(level_i * shape_k(t)), where shape_k =
    exp(profile_k) divided by its mean, pi_k runs over `zero_inflation` from regime to regime, and level_i is
    log-normal with mean `mean_level`. E y = (1 - pi_k) level_i shape_k(t).

    Args:
        rng: seed, or a Generator from which one seed is drawn.
        n_series, n_regimes: size; regimes are drawn uniformly.
        season_length: steps per season, at least 3.
        n_train, n_val, n_test: steps of the three parts.
        mean_level: mean of the Poisson means over series and season, in counts per step.
        zero_inflation: pi of the first and of the last regime, in [0, 1).

    Returns:
        RegimePanel of whole numbers; `profiles` holds (1 - pi_k) shape_k; `coefficients` is (n_regimes, 0).

    Raises:
        InputError: a size is below its minimum, mean_level <= 0, or zero_inflation is outside [0, 1).

    Example:
        >>> panel = simulate_counts(n_series=20, rng=1)
        >>> panel.values.min(), bool((panel.values % 1 == 0).all())
        (np.float64(0.0), True)
    """
    name = "counts"
    _check_sizes(n_series, n_regimes, season_length, n_train, n_val, n_test)
    _check_counts(mean_level, zero_inflation)
    seed, n_steps = seed_of(rng), n_train + n_val + n_test
    labels = draw_labels(seed, name, n_series, n_regimes)
    shape = np.exp(season_profiles(seed, name, n_regimes, season_length))
    shape /= shape.mean(axis=1, keepdims=True)
    inflation = np.linspace(*zero_inflation, n_regimes)[:, None]
    level = mean_level * derive(seed, "simulate", name, "level").lognormal(
        -(LEVEL_LOG_SD**2) / 2, LEVEL_LOG_SD, n_series
    )
    season = np.arange(n_steps) % season_length
    counts = derive(seed, "simulate", name, "own").poisson((level[:, None] * shape[labels][:, season]).T)
    active = derive(seed, "simulate", name, "active").random(counts.shape) >= inflation[labels].T
    return RegimePanel(
        name=name,
        values=(counts * active).T.astype(np.float64),
        labels=labels,
        coefficients=np.zeros((n_regimes, 0)),
        profiles=(1.0 - inflation) * shape,
        n_train=n_train,
        n_val=n_val,
        n_test=n_test,
    )


def season_profiles(seed: int, name: str, n_regimes: int, season_length: int) -> FloatArray:
    """Two-harmonic seasons with evenly spread phases, mean 0 and variance 1: (n_regimes, season_length)."""
    stream = derive(seed, "simulate", name, "season")
    first = (np.arange(n_regimes) / n_regimes + stream.random())[:, None]
    second = stream.random((n_regimes, 1))
    clock = np.arange(season_length) / season_length
    shape: NDArray[np.float64] = np.cos(2 * np.pi * (clock - first)) + 0.5 * np.cos(
        4 * np.pi * (clock - second)
    )
    shape -= shape.mean(axis=1, keepdims=True)
    return np.asarray(shape / shape.std(axis=1, keepdims=True))


def _check_sizes(
    n_series: int, n_regimes: int, season_length: int, n_train: int, n_val: int, n_test: int
) -> None:
    sizes = {
        "n_series": n_series,
        "n_regimes": n_regimes,
        "n_train": n_train,
        "n_val": n_val,
        "n_test": n_test,
    }
    for key, size in sizes.items():
        positive_int(key, size)
    positive_int("season_length", season_length, minimum=3)


def _check_counts(mean_level: float, zero_inflation: tuple[float, float]) -> None:
    if not 0 < mean_level < float("inf"):
        raise InputError(
            "mean_level is a positive number of counts per step",
            expected="mean_level > 0",
            got=repr(mean_level),
            next_step="Pass mean_level=2.0, for example.",
        )
    if len(zero_inflation) != 2 or not all(0 <= pi < 1 for pi in zero_inflation):
        raise InputError(
            "zero_inflation holds the probabilities of an extra zero in the first and the last regime",
            expected="two numbers of at least 0 and below 1",
            got=repr(zero_inflation),
            next_step="Pass zero_inflation=(0.1, 0.5), for example.",
        )
