"""The statements of the study, each with the smallest effect that matters, from paired seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from metier.core import Estimate
from metier.runs import Claim
from metier_studies.lib.claims import claim
from metier_studies.lib.paired_seeds import Floats, Rows, lower_claim, of, paired, within_claim

EVEN_RATIO = 0.5
BIAS_RATIO = 0.5
BIAS_SIZE = 64


def excess(rows: Rows) -> Floats:
    """Information above its null, of every seed."""
    return of(rows, "information") - of(rows, "null")


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
        lower_claim(
            loss,
            np.full(loss.size, ngram),
            id="below-ngram",
            statement="The sparse model under phi-balancing predicts held-out documents better than "
            "a tuned n-gram.",
            source="ours",
            minimum_effect="any gain, nats per byte",
            command=command,
        ),
        within_claim(
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
            within_claim(
                np.divide(*paired(of(phi, "max_vio"), of(mixed["none"], "max_vio"))),
                EVEN_RATIO,
                below=True,
                id="evenness",
                statement="phi-balancing evens the experts over all held-out text.",
                source="phi-Balancing, arXiv 2605.15403",
                minimum_effect="at most half the MaxVio of no balancer",
                command=command,
            ),
            within_claim(
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
                lower_claim(
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
            lower_claim(
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
            lower_claim(
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
    return claim(
        Estimate.from_values([ratio], unit="trainings"),
        at_most=BIAS_RATIO,
        reason=f"biases {curve['lagged'][at]:.4f} and {curve['minibatch'][at]:.4f} relative to the gradient, "
        "by Monte Carlo at the fixed weights of one training; its noise adds to both, so that the ratio is "
        "too high rather than too low",
        id="bias-lagged-pure" if pure else "bias-lagged",
        statement=f"{where} the lagged price removes most of the minibatch's gradient bias.",
        source="ours",
        minimum_effect="at most half of it remains",
        command=command,
    )


WORDS = {"switch": "Switch's loss", "quantile": "quantile balancing"}
