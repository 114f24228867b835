"""The table every behaviour measure starts from: one row of behaviour probabilities per partner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core import InputError, finite_array, one_of, simplex_rows
from metier.core.checks import as_numbers

UNDEFINED = ("drop", "fail")
MOST_EPISODES = 10**9
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BehaviourTable:
    """Behaviour probabilities P_i of N partners with their draw weights.

    Attributes:
        probabilities: P, shape (N, X); rows on the simplex.
        weights: Draw weights w, shape (N,), on the simplex.
        episodes: Episodes behind each row, shape (N,); None where the probabilities are exact.
    """

    probabilities: Floats
    weights: Floats
    episodes: NDArray[np.int64] | None

    @property
    def mixture(self) -> Floats:
        """The population's behaviour m = sum_i w_i P_i, shape (X,)."""
        return np.asarray(self.weights @ self.probabilities)


def behaviour_table(
    probabilities: Any, counts: Any, *, failures: Any, weights: Any, undefined: str
) -> BehaviourTable:
    """Check what the caller gave and return it as one table; `undefined` says what failures become.

    Raises:
        InputError: Both or none of probabilities and counts, rows off the simplex, an empty population,
            counts that are negative or fractional, or a partner whose behaviour is never defined.
    """
    one_of("undefined", undefined, UNDEFINED)
    if (probabilities is None) == (counts is None):
        raise InputError(
            "behaviour comes as probabilities or as counts",
            expected="exactly one of probabilities= and counts=",
            got="both" if counts is not None else "neither",
            next_step="Pass counts= where episodes were counted, probabilities= where they are exact.",
        )
    if counts is not None:
        return _from_counts(counts, failures, weights, undefined)
    given = _filled("probabilities", as_numbers("probabilities", probabilities))
    rows = np.asarray(simplex_rows("probabilities", given), np.float64)
    if failures is not None:
        rows = _with_failure_rates(rows, failures, undefined)
    return BehaviourTable(rows, draw_weights(weights, len(rows)), None)


def draw_weights(weights: ArrayLike | None, n_partners: int) -> Floats:
    """Return the partners' draw weights; None is uniform."""
    if weights is None:
        return np.full(n_partners, 1.0 / n_partners)
    row = finite_array("weights", weights, ndim=1)[None]
    w = np.asarray(simplex_rows("weights", row), np.float64)[0]
    if w.size != n_partners:
        raise InputError(
            "weights has one draw weight per partner",
            expected=f"{n_partners} weights",
            got=f"{w.size}",
            next_step="Pass weights=None for uniform draws.",
        )
    return np.asarray(w)


def whole_counts(name: str, values: ArrayLike, *, ndim: int) -> NDArray[np.int64]:
    """Return `values` as whole numbers of at least 0."""
    array = finite_array(name, values, ndim=ndim)
    wrong = (array < 0) | (array != np.round(array))
    if wrong.any():
        place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        raise InputError(
            f"{name} are numbers of episodes",
            expected="whole numbers of at least 0",
            got=f"{array[place]:g} for partner {int(place[0])}",
            next_step="Count episodes; pass frequencies as probabilities= instead.",
        )
    if array.sum() > MOST_EPISODES:
        raise InputError(
            f"{name} are of episodes that somebody played",
            expected=f"at most {MOST_EPISODES:,} in all; the permutation null draws tables of as many",
            got=f"{array.sum():.3g}",
            next_step="Pass frequencies as probabilities=.",
        )
    return array.astype(np.int64)


def _filled(name: str, rows: NDArray[Any]) -> NDArray[Any]:
    if rows.size and rows.ndim == 2:
        return rows
    raise InputError(
        f"{name} describes at least one partner and one behaviour",
        expected="a table with rows (partners) and columns (behaviours)",
        got=f"shape {rows.shape}",
        next_step="Pass one row per partner, as [[0.5, 0.5], [1.0, 0.0]]; leave no population empty.",
    )


def _from_counts(counts: Any, failures: Any, weights: Any, undefined: str) -> BehaviourTable:
    table = _filled("counts", whole_counts("counts", counts, ndim=2))
    if failures is not None:
        failed = _per_partner("failures", whole_counts("failures", failures, ndim=1), len(table))
        if undefined == "fail":
            table = np.column_stack([table, failed])
    episodes = table.sum(axis=1)
    if not episodes.all():
        raise _never_defined(int(np.argmin(episodes)))
    return BehaviourTable(table / episodes[:, None], draw_weights(weights, len(table)), episodes)


def _never_defined(partner: int) -> InputError:
    return InputError(
        "every partner shows a behaviour in some episode",
        expected="at least one counted episode per partner",
        got=f"none for partner {partner}",
        next_step="Leave that partner out, or pass its failures with undefined='fail'.",
    )


def _with_failure_rates(rows: Floats, failures: Any, undefined: str) -> Floats:
    rate = _per_partner("failures", finite_array("failures", failures, ndim=1), len(rows))
    if (rate < 0).any() or (rate > 1).any():
        worst = int(np.argmax(np.abs(rate - 0.5)))
        raise InputError(
            "failures beside probabilities are rates",
            expected="numbers between 0 and 1",
            got=f"{rate[worst]:g} for partner {worst}",
            next_step="Divide failed episodes by all episodes of the partner.",
        )
    if undefined == "drop" and (rate == 1).any():
        raise _never_defined(int(np.argmax(rate)))
    if undefined == "drop":
        return rows
    return np.column_stack([(1.0 - rate)[:, None] * rows, rate])


def _per_partner(name: str, values: NDArray[Any], n_partners: int) -> NDArray[Any]:
    if values.shape == (n_partners,):
        return values
    raise InputError(
        f"{name} has one entry per partner",
        expected=f"{n_partners} entries",
        got=f"{values.size}",
        next_step=f"Pass {name} in the order of the rows.",
    )
