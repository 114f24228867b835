"""Days, weeks and years counted in steps of a time grid, and defaults for lags that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

from metier.forecast.panels.frequency import UNIT_NANOSECONDS, Frequency

DAY = UNIT_NANOSECONDS["D"]
CYCLES = {"daily": DAY, "weekly": 7 * DAY, "yearly": 365 * DAY}
MIN_LAGS, MAX_LAGS = 4, 24
CYCLES_WANTED = 10
"""Cycles of a season that the history holds before the season becomes a lag by default."""

_STEPS = {
    "day": DAY,
    "hour": UNIT_NANOSECONDS["h"],
    "minute": UNIT_NANOSECONDS["m"],
    "second": UNIT_NANOSECONDS["s"],
}
_MONTHS = {1: "month", 3: "quarter", 12: "year"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LagChoice:
    """Lags and season that follow from the frequency, and why.

    Args:
        lags: number of lags.
        season_length: steps of the season that becomes a further lag, or None.
        reason: one sentence for people.
    """

    lags: int
    season_length: int | None
    reason: str


def seasons_of(freq: Frequency) -> dict[int, str]:
    """Steps per day, week and year where they are whole and more than one, shortest first.

    Example:
        >>> seasons_of(Frequency.parse("h"))
        {24: 'daily', 168: 'weekly', 8760: 'yearly'}
        >>> seasons_of(Frequency.parse("MS")), seasons_of(Frequency.parse("B"))
        ({12: 'yearly'}, {5: 'weekly'})
    """
    if freq.kind == "month":
        return {12 // freq.step: "yearly"} if 12 % freq.step == 0 and freq.step < 12 else {}
    if freq.kind == "business":
        return {5: "weekly"}
    if freq.kind == "integer":
        return {}
    if freq.step == 7 * DAY:
        return {52: "yearly"}
    return {
        length // freq.step: name
        for name, length in CYCLES.items()
        if length % freq.step == 0 and length // freq.step > 1
    }


def step_word(freq: Frequency) -> str:
    """What one step is called.

    Example:
        >>> [step_word(Frequency.parse(alias)) for alias in ("h", "15min", "QS")]
        ['hour', '15 minutes', 'quarter']
    """
    if freq.kind == "month":
        return _MONTHS.get(freq.step, f"{freq.step} months")
    if freq.kind == "business":
        return "business day"
    if freq.kind == "fixed":
        if freq.step == 7 * DAY:
            return "week"
        for name, length in _STEPS.items():
            if freq.step % length == 0:
                count = freq.step // length
                return name if count == 1 else f"{count} {name}s"
    return "step"


def default_lags(freq: Frequency, *, n_steps: int, shortest: int, horizon: int) -> LagChoice:
    """Lags for a panel whose owner named none.

    The number of lags is the shortest season, at least 4 and at most 24; the season is the longest one that
    the history holds ten times and the shortest series once. Both shrink with the history.

    Args:
        freq: frequency of the grid.
        n_steps: stamps of a typical series.
        shortest: stamps of the shortest series.
        horizon: steps to forecast.

    Example:
        >>> default_lags(Frequency.parse("h"), n_steps=4344, shortest=4344, horizon=24).reason
        '24 lags and the weekly lag 168, because a step is one hour and the history holds 25 such cycles'
    """
    seasons = seasons_of(freq)
    room = max(1, min(n_steps // CYCLES_WANTED, shortest - horizon - 1))
    lags = min(max(min(seasons, default=MAX_LAGS), MIN_LAGS), MAX_LAGS, room)
    fitting = [season for season in seasons if season <= room]
    word = step_word(freq)
    step = f"one {word}" if word.split()[0].isalpha() else word
    if not fitting:
        why = "no day, week or year fits the history ten times" if seasons else f"a step is {step}"
        why = "the time column holds numbers, not dates" if freq.kind == "integer" else why
        return LagChoice(lags=lags, season_length=None, reason=f"{_lags(lags)} and no season, because {why}")
    season = max(fitting)
    cycles = n_steps // season
    reason = f"because a step is {step} and the history holds {cycles} such cycles"
    what = f"{'and' if season > lags else 'with'} the {seasons[season]} lag {season}"
    return LagChoice(lags=lags, season_length=season, reason=f"{_lags(lags)} {what}, {reason}")


def _lags(count: int) -> str:
    return "1 lag" if count == 1 else f"{count} lags"
