"""Draw weights that make behaviour tell most about the partner: the capacity of partners as a channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError, non_negative, positive_int

from .table import behaviour_table


def capacity_weights(
    probabilities: Any = None,
    *,
    counts: Any = None,
    failures: Any = None,
    undefined: str = "drop",
    tolerance: float = 1e-6,
    max_iterations: int = 100_000,
) -> NDArray[np.float64]:
    r"""Draw weights w that maximize I(behaviour; partner), by Blahut and Arimoto's ascent.

    Repeats w_i <- w_i exp(step KL(P_i || m)), normalized, until the largest divergence exceeds the
    information by less than `tolerance`, which bounds how much more any weights could give. A step of 1 never
    loses information; longer ones are kept while they gain. At the end KL(P_i || m) is the same
    for every partner with weight and not larger for the others. Labelled ours: a way to choose whom a
    generalist trains with, not one the paper tests.

    Args:
        probabilities: P, shape (partners, behaviours), rows on the simplex.
        counts: Episodes by behaviour instead.
        failures: As in `behaviour_information`.
        undefined: As in `behaviour_information`.
        tolerance: Largest distance to the capacity that is left, nats.
        max_iterations: Where to give up.

    Returns:
        Weights, shape (partners,), on the simplex.

    Raises:
        InputError: A bad table, or no convergence within `max_iterations`.

    Example:
        >>> capacity_weights([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).round(3).tolist()
        [0.25, 0.25, 0.5]
    """
    positive_int("max_iterations", max_iterations)
    non_negative("tolerance", tolerance)
    table = behaviour_table(probabilities, counts, failures=failures, weights=None, undefined=undefined)
    p, w, step = table.probabilities, table.weights, 1.0
    divergence = divergences(p, w)
    for _ in range(max_iterations):
        if divergence.max() - w @ divergence <= tolerance:
            return w
        longer = ascend(w, divergence, step)
        ahead = divergences(p, longer)
        if longer @ ahead >= w @ divergence or step == 1.0:
            w, divergence, step = longer, ahead, 1.5 * step
        else:
            step = max(1.0, step / 4.0)
    raise InputError(
        "the weights reach the capacity",
        expected=f"a gap of at most {tolerance:g} nats",
        got=f"{divergence.max() - w @ divergence:.3g} after {max_iterations} iterations",
        next_step="Raise max_iterations or tolerance.",
    )


def ascend(w: NDArray[np.float64], divergence: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Return w exp(step divergence), normalized."""
    grown = w * np.exp(step * (divergence - divergence.max()))
    return np.asarray(grown / grown.sum())


def divergences(p: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return KL(P_i || m) per partner, nats; m = sum_i w_i P_i. (dI/dw_i is this minus 1.)"""
    m = np.broadcast_to(w @ p, p.shape)
    ratio = np.divide(p, m, out=np.ones_like(p), where=(p > 0) & (m > 0))
    return np.asarray((p * np.log(ratio)).sum(axis=1))
