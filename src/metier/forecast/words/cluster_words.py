"""From a cluster's numbers to words: thresholds, a short name, one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PHASES = {"daily": "time of day", "weekly": "time of week", "yearly": "time of year"}
RETURNS = {"daily": "a day later", "weekly": "a week later", "yearly": "a year later"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Medians over the series of a cluster.

    Attributes:
        season: steps of the season that explains most, or None.
        season_name: its name, for example "daily".
        season_strength: share of the variance that the place in the season explains.
        relative_level: median level over the panel's median level; None where levels can be negative.
        level_rank: mean share of all series with a lower level.
        half_life: steps until less than half of a surprise is left, or None if it stays beyond 100.
        carry: what a surprise of 1 adds up to in the following steps of a cycle (at most 23).
        echo: what of it returns one season later.
        unexplained: share of the variance that one-step forecasts leave.
        trend: change over the history, in standard deviations.
        zeros: share of zero values.
    """

    season: int | None
    season_name: str
    season_strength: float
    relative_level: float | None
    level_rank: float
    half_life: int | None
    carry: float
    echo: float
    unexplained: float
    trend: float
    zeros: float


def season_word(traits: Traits) -> str:
    """How strong the rhythm is, and which."""
    if traits.season_strength < 0.1:
        return "no rhythm"
    word = f"{traits.season_name} rhythm"
    if traits.season_strength >= 0.5:
        return f"strong {word}"
    return word if traits.season_strength >= 0.25 else f"weak {word}"


def memory_word(traits: Traits) -> str:
    """How long a surprise lasts; an AR(1) with coefficient 0.5 carries 1, one with 0.2 carries 0.25."""
    if traits.carry >= 0.95:
        return "long memory"
    if traits.carry >= 0.25:
        return "some memory"
    return "no memory" if traits.carry > -0.25 else "self-correcting"


def noise_word(traits: Traits) -> str:
    """How much forecasts leave unexplained."""
    if traits.unexplained < 0.25:
        return "quiet"
    return "noisy" if traits.unexplained < 0.6 else "very noisy"


def level_word(traits: Traits) -> str:
    """High, middle or low among all series."""
    if traits.level_rank >= 0.65:
        return "high level"
    return "low level" if traits.level_rank <= 0.35 else "middle level"


def zeros_word(traits: Traits) -> str:
    """Whether zeros dominate."""
    if traits.zeros >= 0.75:
        return "mostly zero"
    return "often zero" if traits.zeros >= 0.4 else "rarely zero"


def trend_word(traits: Traits) -> str:
    """Whether the series rise or fall by more than half a standard deviation."""
    if abs(traits.trend) < 0.5:
        return "no trend"
    return "rising" if traits.trend > 0 else "falling"


def name_clusters(traits: Sequence[Traits]) -> list[str]:
    """Short names, distinct: rhythm, memory, noise, then what tells equal names apart."""
    names = [", ".join(word(t) for word in (season_word, memory_word, noise_word)) for t in traits]
    for further in (level_word, zeros_word, trend_word):
        alike = [name for name in names if names.count(name) > 1]
        words = [further(t) for t in traits]
        for name in set(alike):
            members = [i for i, other in enumerate(names) if other == name]
            if len({words[i] for i in members}) > 1:
                for i in members:
                    names[i] = f"{name}, {words[i]}"
    return _numbered(names, traits)


def _numbered(names: list[str], traits: Sequence[Traits]) -> list[str]:
    """Number names that are still equal, the quietest first."""
    out = list(names)
    for name in sorted({name for name in names if names.count(name) > 1}):
        members = [i for i, other in enumerate(names) if other == name]
        for number, i in enumerate(sorted(members, key=lambda i: traits[i].unexplained), start=1):
            out[i] = f"{name} ({number})"
    return out


def sentence(traits: Traits, *, size: int, share: float, step: str) -> str:
    """The numbers in one sentence."""
    parts = [
        f"{size:,} series ({100 * share:.0f} %)" + _level(traits),
        _season(traits),
        _memory(traits, step),
    ]
    parts.append(f"forecasts leave {100 * min(traits.unexplained, 1.0):.0f} % of the variation unexplained")
    if abs(traits.trend) >= 0.5:
        way = "rise" if traits.trend > 0 else "fall"
        parts.append(f"they {way} by {abs(traits.trend):.1f} standard deviations over the history")
    if traits.zeros >= 0.05:
        parts.append(f"{100 * traits.zeros:.0f} % of the values are zero")
    return "; ".join(part for part in parts if part) + "."


def _level(traits: Traits) -> str:
    ratio = traits.relative_level
    if ratio is None:
        return "" if level_word(traits) == "middle level" else f" at a {level_word(traits)}"
    if 0.8 <= ratio <= 1.25:
        return " at the typical level"
    return f" at {ratio:.2g} times the typical level"


def _season(traits: Traits) -> str:
    if traits.season is None or traits.season_strength < 0.1:
        return "no rhythm to speak of"
    place = PHASES.get(traits.season_name, f"place in a cycle of {traits.season} steps")
    return f"the {place} explains {100 * traits.season_strength:.0f} % of the variation"


def _memory(traits: Traits, step: str) -> str:
    back = ""
    if abs(traits.echo) >= 0.1:
        when = RETURNS.get(traits.season_name, f"{traits.season} steps later")
        way = "" if traits.echo > 0 else "reversed "
        back = f", and {100 * abs(traits.echo):.0f} % of it returns {way}{when}"
    return f"a surprise {_fading(traits, step)}{back}"


def _fading(traits: Traits, step: str) -> str:
    if memory_word(traits) == "self-correcting":
        return f"is corrected by {100 * min(-traits.carry, 9.99):.0f} % in the steps that follow"
    if memory_word(traits) == "no memory":
        return f"is gone after one {step}" if step.split()[0].isalpha() else f"is gone after {step}"
    if traits.half_life is None:
        return "never fades by half"
    if not step.split()[0].isalpha():
        return f"is half gone after {traits.half_life} steps of {step}"
    return f"is half gone after {traits.half_life} {step}{'s' if traits.half_life > 1 else ''}"
