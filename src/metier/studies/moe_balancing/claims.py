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


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of several comparisons, adjusted so that all together err with at most their level (Holm).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    steps = [(len(p_values) - rank) * p_values[i] for rank, i in enumerate(order)]
    raised = np.minimum(np.maximum.accumulate(steps), 1.0)
    found = np.empty(len(p_values))
    found[order] = raised
    return [float(value) for value in found]


def two_sided(ours: ArrayLike, rival: ArrayLike) -> float:
    """p value of the paired t test that both are equal; NaN for a single seed."""
    a, b = paired(ours, rival)
    if a.size < 2:
        return math.nan
    if np.ptp(a - b) == 0.0:
        return float(a[0] == b[0])
    return float(stats.ttest_rel(a, b).pvalue)


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
        lower(
            loss,
            np.full(loss.size, ngram),
            id="below-ngram",
            statement="The sparse model under phi-balancing predicts held-out documents better than "
            "a tuned n-gram.",
            source="ours",
            minimum_effect="any gain, nats per byte",
            command=command,
        ),
        within(
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
            within(
                np.divide(*paired(of(phi, "max_vio"), of(mixed["none"], "max_vio"))),
                EVEN_RATIO,
                below=True,
                id="evenness",
                statement="phi-balancing evens the experts over all held-out text.",
                source="phi-Balancing, arXiv 2605.15403",
                minimum_effect="at most half the MaxVio of no balancer",
                command=command,
            ),
            within(
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
                lower(
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
            lower(
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
            lower(
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
    found.append(_bias_claim(curves["mixed"], sizes, pure=False, command=command))
    if "pure" in curves:
        found.append(_bias_claim(curves["pure"], sizes, pure=True, command=command))
    return tuple(found)


def _bias_claim(
    curve: Mapping[str, Sequence[float]], sizes: Sequence[int], *, pure: bool, command: str
) -> Claim:
    """The lagged price's share of the minibatch's bias: at 64 mixed tokens, or at the most of one domain."""
    size = BIAS_SIZE if BIAS_SIZE in sizes else sizes[len(sizes) // 2]
    size = max(sizes) if pure else size
    at = list(sizes).index(size)
    ratio = curve["lagged"][at] / curve["minibatch"][at]
    where = f"At {size:,} tokens of one domain per batch" if pure else f"At {size:,} tokens per batch"
    return Claim(
        id="bias-lagged-pure" if pure else "bias-lagged",
        statement=f"{where} the lagged price removes most of the minibatch's gradient bias.",
        source="ours",
        minimum_effect="at most half of it remains",
        minimum_effect_value=BIAS_RATIO,
        measured=Measured(value=ratio, method="Monte Carlo at fixed weights of one training"),
        verdict="holds" if ratio <= BIAS_RATIO else "does not hold",
        reason=f"biases {curve['lagged'][at]:.4f} and {curve['minibatch'][at]:.4f} relative to the gradient; "
        "Monte Carlo noise adds to both, so that the ratio is too high rather than too low",
        command=command,
    )


WORDS = {"switch": "Switch's loss", "quantile": "quantile balancing"}


def lower(ours: Floats, rival: Floats, *, margin: float = 0.0, **words: Any) -> Claim:
    """Ours is lower than the rival; the measured value is how much: rival minus ours."""
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
        reason=f"minimum detectable effect {least:.4f}, {a.size} paired seeds"
        if math.isfinite(least)
        else "",
        **words,
    )


def within(values: Floats, limit: float, *, below: bool, **words: Any) -> Claim:
    """The mean over seeds is on the right side of a limit, interval and all."""
    told = mean_of(values)
    sides = (told.low, told.high) if told.low is not None else (told.value, told.value)
    good = sides[1] <= limit if below else sides[0] > limit  # type: ignore[operator]
    bad = sides[0] > limit if below else sides[1] <= limit  # type: ignore[operator]
    verdict = "holds" if good else "does not hold" if bad else "undecided"
    needed: dict[str, Any] = {}
    least = detectable(values, np.full(values.size, limit))
    if verdict == "undecided" and values.size > 1:
        # Seeds at which this distance from the limit is found with 80 % power, not those of an even chance.
        decision = decide(values, np.full(values.size, limit))
        if math.isfinite(decision.needed):
            needed = {"needed": math.ceil(decision.needed), "needed_unit": "seeds"}
    return Claim(
        minimum_effect_value=limit,
        measured=told,
        verdict=verdict,
        reason=f"minimum detectable distance from {limit:g}: {least:.4f}" if math.isfinite(least) else "",
        **needed,
        **words,
    )
