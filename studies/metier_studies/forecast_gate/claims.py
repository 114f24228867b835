"""The claims of `forecast-gate`, each with its limit and the verdict of its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from metier.runs import Claim, Measured
from metier_studies.forecast_gate.measures import (
    SIZES,
    Trials,
    adoption,
    candidate_gains,
    gains,
    harmed,
    known_gain,
    nearest_power,
    power_cases,
)
from metier_studies.lib.shares import LEVEL, mean, ratio
from metier_studies.lib.statements import Statement

SIZE_LIMIT = 0.10
SIZE_LEVEL = 0.90
"""Two-sided level whose upper end is the upper 95 % limit."""


def claims(trials: Mapping[str, Trials], command: str) -> tuple[Claim, ...]:
    """Every claim of the study, judged by its interval."""
    parts = (_without_regimes, _with_power, _with_both, _with_regimes, _with_noise_shapes)
    return tuple(statement.judged(command) for part in parts for statement in part(trials))


def _without_regimes(trials: Mapping[str, Trials]) -> Iterator[Statement]:
    for key, size in SIZES.items():
        yield Statement(
            id=f"size-{size.split()[0]}-series",
            text=f"Where no regimes exist ({size}), the default gate rarely adopts specialists.",
            effect="the upper 95 % limit of the adoption rate is at most 10 %",
            measured=adoption(trials[key], "crossfit", level=SIZE_LEVEL),
            limit=SIZE_LIMIT,
            below=True,
        )
    pooled = [trial for key in SIZES for trial in trials[key]]
    yield Statement(
        id="same-val-adopts",
        text="Where no regimes exist, the fall-back judged on the VAL that assigned the series adopts "
        "some cluster in most panels.",
        effect="in more than half of the panels",
        measured=adoption(pooled, "paper"),
        limit=0.5,
    )
    yield Statement(
        id="same-val-harms",
        text="What that fall-back adopts there makes TEST forecasts worse.",
        effect="a mean TEST gain below zero",
        measured=mean(gains(pooled, "paper"), percent=True, unit="panels"),
        limit=0.0,
        below=True,
    )


def _with_power(trials: Mapping[str, Trials]) -> Iterator[Statement]:
    found = trials[nearest_power(trials)]
    yield Statement(
        id="power-at-5-percent",
        text=f"Where the true regimes are known to be worth {100 * known_gain(found):.2g} %, the default "
        "gate adopts.",
        effect="in at least 80 % of the panels",
        measured=adoption(found, "crossfit"),
        limit=0.8,
    )
    yield Statement(
        id="harm-at-worst",
        text="Whatever the known gain, what the default gate uses seldom forecasts TEST worse than the "
        "global model.",
        effect="in at most 10 % of the panels of the least favorable gain, by simultaneous intervals",
        measured=_worst_harm(trials),
        limit=SIZE_LIMIT,
        below=True,
    )
    yield Statement(
        id="better-than-features",
        text="Clusters by validation loss forecast TEST better than clusters by autoregressive coefficients "
        "where the regimes differ in these coefficients.",
        effect="a mean difference of TEST gains above zero",
        measured=mean(_more(found, "clustered", found, "feature"), percent=True, unit="panels"),
        limit=0.0,
    )


def _with_both(trials: Mapping[str, Trials]) -> Iterator[Statement]:
    at = nearest_power(trials)
    if f"both-{at}" not in trials:
        return
    val, both = trials[at], trials[f"both-{at}"]
    yield Statement(
        id="both-size",
        text="Where no regimes exist, the default gate rarely adopts clusters assigned on TRAIN and VAL "
        "either.",
        effect="the upper 95 % limit of the adoption rate is at most 10 %",
        measured=adoption([t for key in SIZES for t in trials[f"both-{key}"]], "crossfit", level=SIZE_LEVEL),
        limit=SIZE_LIMIT,
        below=True,
    )
    yield Statement(
        id="both-better-than-val",
        text="Clusters assigned on TRAIN, each series left out of its own cluster, and VAL forecast TEST "
        "better than clusters assigned on VAL alone.",
        effect="a mean difference of TEST gains above zero, no gate",
        measured=mean(_more(both, "clustered", val, "clustered"), percent=True, unit="panels"),
        limit=0.0,
    )
    yield Statement(
        id="both-better-than-features",
        text="They also forecast TEST better than clusters by autoregressive coefficients.",
        effect="a mean difference of TEST gains above zero, no gate",
        measured=mean(_more(both, "clustered", both, "feature"), percent=True, unit="panels"),
        limit=0.0,
    )


def _with_regimes(trials: Mapping[str, Trials]) -> Iterator[Statement]:
    strong, medium, odd = trials["strong"], trials["medium"], trials["medium-anomalies"]
    yield Statement(
        id="strong-regimes",
        text="Four strong regimes are found again.",
        effect="a mean adjusted Rand index of at least 0.9",
        measured=mean([trial["ari"] for trial in strong], unit="panels"),
        limit=0.9,
    )
    yield Statement(
        id="strong-gain",
        text="With four strong regimes the forecaster gains nearly what the true partition gains.",
        effect="at least 90 % of it on TEST",
        measured=ratio(gains(strong, "crossfit"), candidate_gains(strong, "true"), unit="panels"),
        limit=0.9,
    )
    yield Statement(
        id="medium-gain",
        text="With two regimes half as far apart it gains most of what the true partition gains.",
        effect="at least 70 % of it on TEST",
        measured=ratio(gains(medium, "crossfit"), candidate_gains(medium, "true"), unit="panels"),
        limit=0.7,
    )
    yield Statement(
        id="anomalies-gain",
        text="One gross error in a hundred values does not undo that gain.",
        effect="a mean TEST gain above zero",
        measured=mean(gains(odd, "crossfit"), percent=True, unit="panels"),
        limit=0.0,
    )


def _with_noise_shapes(trials: Mapping[str, Trials]) -> Iterator[Statement]:
    pinball = trials["noise-pinball"]
    yield Statement(
        id="noise-shape-by-pinball",
        text="Series that differ only in the shape of their noise are told apart by the pinball loss.",
        effect="a mean adjusted Rand index of at least 0.7",
        measured=mean([trial["ari"] for trial in pinball], unit="panels"),
        limit=0.7,
    )
    yield Statement(
        id="noise-shape-by-huber",
        text="The Huber loss, which sees conditional levels, does not tell them apart.",
        effect="a mean adjusted Rand index of at most 0.3",
        measured=mean([trial["ari"] for trial in trials["noise-huber"]], unit="panels"),
        limit=0.3,
        below=True,
    )
    yield Statement(
        id="better-than-features-on-noise",
        text="Where the series differ in the shape of their noise, clusters by pinball loss forecast TEST "
        "better than clusters by autoregressive coefficients.",
        effect="a mean difference of TEST gains above zero",
        measured=mean(_more(pinball, "clustered", pinball, "feature"), percent=True, unit="panels"),
        limit=0.0,
    )
    yield Statement(
        id="noise-control",
        text="Where all noise is Gaussian, the pinball forecaster keeps one model.",
        effect="adopted in at most 20 % of the panels",
        measured=adoption(trials["noise-control"], "crossfit"),
        limit=0.2,
        below=True,
    )


def _more(found: Trials, name: str, others: Trials, other: str) -> list[float]:
    """TEST gain of one candidate beyond another's on the same panels; `others` may go on."""
    return [a - b for a, b in zip(candidate_gains(found, name), candidate_gains(others, other), strict=False)]


def _worst_harm(trials: Mapping[str, Trials]) -> Measured:
    """Largest share of panels made worse over the known gains, at a level shared among them."""
    keys = power_cases(trials)
    level = 1.0 - (1.0 - LEVEL) / len(keys)
    return max((harmed(trials[key], "crossfit", level=level) for key in keys), key=lambda m: m.value)
