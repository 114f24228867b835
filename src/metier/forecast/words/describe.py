"""Clusters in words: season, level, memory, noise, trend and zeros of their series, measured, then said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metier.forecast.words.cluster_words import Traits, name_clusters, sentence
from metier.forecast.words.seasons import seasons_of, step_word

if TYPE_CHECKING:
    from metier.forecast.forecaster import ClusterForecaster

Floats = NDArray[np.float64]

MAX_SERIES = 400
"""Series per cluster that are measured; more move the medians by less than the words can tell."""

NEAR_BEST = 0.9
"""The shortest season that explains this share of what the best one explains is the one that is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDescription:
    """A cluster in numbers and words.

    Attributes:
        cluster: its number.
        n_series, share: its size.
        traits: medians over its series.
        name: a few words, distinct among the clusters.
        sentence: the numbers in one sentence.
    """

    cluster: int
    n_series: int
    share: float
    traits: Traits
    name: str
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def describe_clusters(
    values: Floats,
    labels: NDArray[np.integer],
    *,
    n_clusters: int,
    lags: Sequence[int],
    coefficients: Floats,
    unexplained: Floats,
    seasons: Mapping[int, str],
    step: str = "step",
) -> tuple[ClusterDescription, ...]:
    """Describe the clusters of a panel.

    Args:
        values: (N, T) series, NaN where not observed.
        labels: (N,) cluster of each series, 0..K-1; other numbers are left out.
        n_clusters: K.
        lags: (p,) lags of the coefficients, in steps.
        coefficients: (K, p) autoregressive coefficients of each cluster on the standardized scale.
        unexplained: (N,) share of each series' variance that one-step forecasts leave, NaN where unknown.
        seasons: steps of a season -> its name, for example {24: "daily", 168: "weekly"}.
        step: what one step is called.

    Returns:
        One description per cluster that has series.

    Example:
        >>> t = np.arange(200)
        >>> values = np.array([np.sin(np.pi * t / 12), np.cos(np.pi * t / 12)])
        >>> found = describe_clusters(
        ...     values, np.array([0, 0]), n_clusters=1, lags=(1,), coefficients=np.array([[0.8]]),
        ...     unexplained=np.zeros(2), seasons={24: "daily"}, step="hour",
        ... )
        >>> found[0].name
        'strong daily rhythm, long memory, quiet'
    """
    levels = _median_rows(values)
    groups = [np.flatnonzero(labels == k) for k in range(n_clusters)]
    used = [k for k in range(n_clusters) if groups[k].size]
    everyone = np.concatenate([groups[k] for k in used]) if used else np.zeros(0, dtype=np.intp)
    traits = []
    for k in used:
        members = thin(groups[k], MAX_SERIES)
        response = impulse_response(lags, coefficients[k], steps=max(max(lags), 100) + 1)
        traits.append(
            _traits(
                values[members], response, unexplained[members], seasons, levels[members], levels[everyone]
            )
        )
    sizes = [len(groups[k]) for k in used]
    names = name_clusters(traits)
    return tuple(
        ClusterDescription(
            cluster=k,
            n_series=size,
            share=size / len(everyone),
            traits=found,
            name=name,
            sentence=sentence(found, size=size, share=size / len(everyone), step=step),
        )
        for k, size, found, name in zip(used, sizes, traits, names, strict=True)
    )


def describe_fitted(forecaster: ClusterForecaster) -> tuple[ClusterDescription, ...]:
    """Describe the partition that a fitted forecaster found, whether it was adopted or not."""
    fitted, panel = forecaster.fitted_, forecaster.panel_
    partition = fitted.found.partitions[0] if fitted.found.partitions else None
    if partition is None:
        return ()
    design = fitted.found.table.design
    labels = np.where(fitted.active, partition.labels, -1)
    unexplained = np.full(panel.n_series, np.nan)
    for k in range(partition.n_clusters):
        members = thin(np.flatnonzero(labels == k), MAX_SERIES)
        unexplained[members] = unexplained_share(
            design.rows(members, fitted.start, design.n_steps), partition.theta[k]
        )
    seasons = seasons_of(panel.freq)
    if forecaster.season_length is not None and forecaster.season_length > 1:
        seasons = {forecaster.season_length: f"{forecaster.season_length}-step", **seasons}
    return describe_clusters(
        panel.values,
        labels,
        n_clusters=partition.n_clusters,
        lags=design.lags,
        coefficients=partition.theta[:, : len(design.lags)],
        unexplained=unexplained,
        seasons=dict(sorted(seasons.items())),
        step=step_word(panel.freq),
    )


def unexplained_share(rows: tuple[Floats, Floats, NDArray[np.bool_]], theta: Floats) -> Floats:
    """(n,) residual sum of squares of each series' rows over that around its mean; NaN without either."""
    X, y, valid = rows
    count = valid.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = y.sum(axis=1) / count
        spread = (valid * (y - mean[:, None]) ** 2).sum(axis=1)
        left = (valid * (y - X @ theta) ** 2).sum(axis=1)
        return np.where(spread > 0, left / spread, np.nan)


def impulse_response(lags: Sequence[int], coefficients: Floats, *, steps: int) -> Floats:
    """What is left of a surprise of 1 after 0, 1, ..., `steps` - 1 steps: psi_j = sum_l a_l psi_{j-l}.

    Example:
        >>> impulse_response((1,), np.array([0.5]), steps=4).tolist()
        [1.0, 0.5, 0.25, 0.125]
    """
    response = np.zeros(steps)
    response[0] = 1.0
    for j in range(1, steps):
        response[j] = sum(
            a * response[j - lag] for lag, a in zip(lags, coefficients, strict=True) if lag <= j
        )
    return response


def seasonal_share(series: Floats, period: int) -> float:
    """Share of the variance around a straight line that the place in the cycle explains (adjusted R^2).

    0 where fewer than three cycles are observed.

    Example:
        >>> round(seasonal_share(np.tile([0.0, 1.0], 50), 2), 3)
        1.0
    """
    seen = np.flatnonzero(~np.isnan(series))
    n = len(seen)
    if period < 2 or n < 3 * period:
        return 0.0
    rest = series[seen] - np.polyval(np.polyfit(seen, series[seen], 1), seen)
    phase = seen % period
    count = np.bincount(phase, minlength=period)
    means = np.bincount(phase, weights=rest, minlength=period) / np.maximum(count, 1)
    total = float(rest @ rest)
    left = float(np.sum((rest - means[phase]) ** 2))
    if total <= 1e-12 * max(float(series[seen] @ series[seen]), 1e-300):
        return 0.0
    return max(0.0, 1.0 - (left / (n - period)) / (total / (n - 1)))


def thin(members: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """At most `most` of the members, evenly spaced."""
    if len(members) <= most:
        return members
    return members[np.linspace(0, len(members) - 1, most).round().astype(np.intp)]


def _traits(
    values: Floats,
    response: Floats,
    unexplained: Floats,
    seasons: Mapping[int, str],
    levels: Floats,
    all_levels: Floats,
) -> Traits:
    season, strength = _season(values, seasons)
    window = min(min(season or 24, 24), len(response))
    below = np.flatnonzero(np.abs(response) < 0.5)
    echo = float(response[season]) if season is not None and season < len(response) else 0.0
    typical = float(np.median(all_levels))
    rank = (all_levels[:, None] < levels).mean() + 0.5 * (all_levels[:, None] == levels).mean()
    return Traits(
        season=season,
        season_name=seasons.get(season, "") if season is not None else "",
        season_strength=strength,
        relative_level=float(np.median(levels)) / typical if all_levels.min() >= 0 and typical > 0 else None,
        level_rank=float(rank),
        half_life=int(below[0]) if below.size else None,
        carry=float(response[1:window].sum()),
        echo=echo,
        unexplained=_median(unexplained),
        trend=_median(np.array([_trend(series) for series in values])),
        zeros=_median((values == 0).sum(axis=1) / (~np.isnan(values)).sum(axis=1)),
    )


def _season(values: Floats, seasons: Mapping[int, str]) -> tuple[int | None, float]:
    """The shortest season that explains nearly as much as the best one, and the share it explains."""
    shares = {s: _median(np.array([seasonal_share(series, s) for series in values])) for s in seasons}
    best = max(shares.values(), default=0.0)
    if best <= 0.0:
        return None, 0.0
    chosen = min(s for s, share in shares.items() if share >= NEAR_BEST * best)
    return chosen, shares[chosen]


def _trend(series: Floats) -> float:
    """Change of the straight line over the history, in standard deviations of the series."""
    seen = np.flatnonzero(~np.isnan(series))
    spread = float(series[seen].std()) if len(seen) else 0.0
    if len(seen) < 3 or spread <= 1e-12 * max(1.0, float(np.abs(series[seen]).max())):
        return 0.0
    slope = np.polyfit(seen / len(seen), series[seen], 1)[0]
    return float(slope) * float(seen[-1] - seen[0]) / len(seen) / spread


def _median_rows(values: Floats) -> Floats:
    """(N,) mean level of each series over its observed values."""
    count = (~np.isnan(values)).sum(axis=1)
    return np.asarray(np.nansum(values, axis=1) / np.maximum(count, 1))


def _median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else 0.0
