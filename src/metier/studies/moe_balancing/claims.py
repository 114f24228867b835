"""The statements of the study, each with the smallest effect that matters, from paired seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from metier.core import Decision, specialize_or_fall_back
from metier.runs import Claim, Measured

Floats = NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]
LEVEL = 0.95
POWER = 0.8
EVEN_RATIO = 0.5
BIAS_RATIO = 0.5
BIAS_SIZE = 64
VERDICTS = {"pays": "holds", "hurts": "does not hold"}


def of(rows: Rows, figure: str) -> Floats:
    """One figure of every seed."""
    return np.array([row[figure] for row in rows], dtype=float)


def excess(rows: Rows) -> Floats:
    """Information above its null, of every seed."""
    return of(rows, "information") - of(rows, "null")


def paired(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    """The seeds that both have."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    n = min(x.size, y.size)
    return x[:n], y[:n]


def mean_of(values: ArrayLike, *, percent: bool = False) -> Measured:
    """Mean over seeds with its Student t interval."""
    x = np.asarray(values, dtype=float)
    half = half_width(x)
    interval = {} if math.isnan(half) else {"low": x.mean() - half, "high": x.mean() + half, "level": LEVEL}
    return Measured(
        value=float(x.mean()),
        n=x.size,
        unit="seeds",
        method="Student t over seeds",
        percent=percent,
        **interval,
    )


def half_width(x: Floats) -> float:
    """Half of the t interval of a mean; NaN for a single value."""
    if x.size < 2:
        return math.nan
    return float(stats.t.ppf(0.5 + LEVEL / 2, x.size - 1) * x.std(ddof=1) / math.sqrt(x.size))


def detectable(x: ArrayLike, y: ArrayLike) -> float:
    """Smallest paired difference found with 80 % power at two-sided 5 %, from the spread over seeds."""
    a, b = paired(x, y)
    if a.size < 2:
        return math.nan
    quantiles = stats.t.ppf([0.5 + LEVEL / 2, POWER], a.size - 1).sum()
    return float(quantiles * (a - b).std(ddof=1) / math.sqrt(a.size))


def decide(ours: ArrayLike, rival: ArrayLike, *, margin: float = 0.0) -> Decision:
    """Whether ours is lower, at two-sided 5 %, or the two agree within `margin`."""
    a, b = paired(ours, rival)
    return specialize_or_fall_back(a, b, alpha=(1 - LEVEL) / 2, margin=margin)


def claims(
    mixed: Mapping[str, Rows],
    pure: Mapping[str, Rows],
    *,
    ngram: float,
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    sizes: Sequence[int],
    margin: float,
    command: str,
) -> tuple[Claim, ...]:
    """Every claim that the trained arms can decide."""
    phi = mixed["phi"]
    loss = of(phi, "loss")
    found = [
        _lower(
            loss,
            np.full(loss.size, ngram),
            id="below-ngram",
            statement="The sparse model under phi-balancing predicts held-out documents better than "
            "a tuned n-gram.",
            source="ours",
            minimum_effect="any gain, nats per byte",
            command=command,
        ),
        _within(
            excess(phi),
            0.0,
            below=False,
            id="domain-information",
            statement="Which experts compute a byte tells about its domain beyond what the byte tells.",
            source="ours",
            minimum_effect="information above its null of permuted documents, nats",
            command=command,
        ),
    ]
    if "none" in mixed:
        found += [
            _within(
                np.divide(*paired(of(phi, "max_vio"), of(mixed["none"], "max_vio"))),
                EVEN_RATIO,
                below=True,
                id="evenness",
                statement="phi-balancing evens the experts over all held-out text.",
                source="phi-Balancing, arXiv 2605.15403",
                minimum_effect="at most half the MaxVio of no balancer",
                command=command,
            ),
            _within(
                np.subtract(*paired(loss, of(mixed["none"], "loss"))),
                margin,
                below=True,
                id="cost-of-balance",
                statement="Even experts cost no validation loss.",
                source="ours",
                minimum_effect=f"at most {margin:g} nats per byte more than without a balancer",
                command=command,
            ),
        ]
    for rival, claim_id in (("switch", "phi-or-switch"), ("quantile", "phi-or-quantile")):
        if rival in mixed:
            found.append(
                _lower(
                    loss,
                    of(mixed[rival], "loss"),
                    margin=margin,
                    id=claim_id,
                    statement=f"phi-balancing gives a lower validation loss than {WORDS[rival]}.",
                    source="phi-Balancing, arXiv 2605.15403",
                    minimum_effect=f"any gain; within {margin:g} nats per byte they are equivalent",
                    command=command,
                )
            )
    if "quantile" in mixed:
        found.append(
            _lower(
                of(phi, "max_vio"),
                of(mixed["quantile"], "max_vio"),
                id="phi-or-quantile-evenness",
                statement="phi-balancing evens the experts more than quantile balancing.",
                source="ours",
                minimum_effect="any difference of MaxVio over all held-out text",
                command=command,
            )
        )
    if {"phi", "switch"} <= set(pure):
        found.append(
            _lower(
                -excess(pure["phi"]),
                -excess(pure["switch"]),
                id="pure-information",
                statement="On single-domain batches phi-balancing leaves more domain information to "
                "the experts "
                "than Switch's loss of the micro-batch.",
                source="phi-Balancing, arXiv 2605.15403",
                minimum_effect="any difference, nats",
                command=command,
            )
        )
    size = BIAS_SIZE if BIAS_SIZE in sizes else sizes[len(sizes) // 2]
    at = list(sizes).index(size)
    ratio = curves["mixed"]["lagged"][at] / curves["mixed"]["minibatch"][at]
    found.append(
        Claim(
            id="bias-lagged",
            statement=f"At {size} tokens per batch the lagged price removes most of the minibatch's "
            "gradient bias.",
            source="ours",
            minimum_effect="at most half of it remains",
            minimum_effect_value=BIAS_RATIO,
            measured=Measured(value=ratio, method="Monte Carlo at fixed weights"),
            verdict="holds" if ratio <= BIAS_RATIO else "does not hold",
            command=command,
        )
    )
    return tuple(found)


WORDS = {"switch": "Switch's loss", "quantile": "quantile balancing"}


def _lower(ours: Floats, rival: Floats, *, margin: float = 0.0, **words: Any) -> Claim:
    """Ours is lower than the rival; the measured value is rival minus ours."""
    a, b = paired(ours, rival)
    decision = decide(a, b, margin=margin)
    open_ = decision.verdict == "undecided" and math.isfinite(decision.needed)
    least = detectable(a, b)
    return Claim(
        minimum_effect_value=margin or None,
        measured=mean_of(b - a),
        verdict=VERDICTS.get(decision.verdict, decision.verdict),
        needed=math.ceil(decision.needed) if open_ else None,
        needed_unit="seeds" if open_ else "",
        reason=f"minimum detectable effect {least:.4f}" if math.isfinite(least) else "",
        **words,
    )


def _within(values: Floats, limit: float, *, below: bool, **words: Any) -> Claim:
    """The mean over seeds is on the right side of a limit, interval and all."""
    told = mean_of(values)
    sides = (told.low, told.high) if told.low is not None else (told.value, told.value)
    good = sides[1] <= limit if below else sides[0] > limit  # type: ignore[operator]
    bad = sides[0] > limit if below else sides[1] <= limit  # type: ignore[operator]
    verdict = "holds" if good else "does not hold" if bad else "undecided"
    needed: dict[str, Any] = {}
    distance = abs(told.value - limit)
    if verdict == "undecided" and values.size > 1 and distance > 0:
        needed = {
            "needed": math.ceil(values.size * (half_width(values) / distance) ** 2) + 1,
            "needed_unit": "seeds",
        }
    return Claim(minimum_effect_value=limit, measured=told, verdict=verdict, **needed, **words)
