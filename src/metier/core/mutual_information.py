"""Entropy, and the information between contexts and specialists with its permutation null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .assignment import Assignment
from .checks import label_codes, positive_int, simplex_rows
from .contingency import Cells, hard_table, shuffler, soft_table, strata_sums
from .errors import InputError
from .nats import x_log_x
from .rng import as_generator


@dataclass(frozen=True, slots=True)
class InformationResult:
    """Information between contexts and specialists, in nats, beside what chance gives.

    Attributes:
        value: Plug-in I(contexts; specialists | given).
        null_mean: Mean over the permutations: the upward bias of the plug-in.
        null_sd: Standard deviation over the permutations.
        p_value: (1 + #{null >= value}) / (1 + permutations).
        ceiling: min(H(contexts | given), H(specialists | given)); `value` cannot exceed it.
        permutations: Number of permutations.
        n: Number of items.
        n_units: Number of units that were permuted.

    Example:
        >>> result = information(["a", "a", "b", "b"] * 10, [0, 0, 1, 1] * 10)
        >>> print(result.summary())
        information 0.693 of at most 0.693 nats; chance gives 0.0152 (p = 0.005, 199 permutations of 40 items)
    """

    value: float
    null_mean: float
    null_sd: float
    p_value: float
    ceiling: float
    permutations: int
    n: int
    n_units: int

    @property
    def excess(self) -> float:
        """Value minus the mean of the null, in nats."""
        return self.value - self.null_mean

    def summary(self) -> str:
        """Return one line for people."""
        units = "items" if self.n_units == self.n else "groups"
        return (
            f"information {self.value:.3g} of at most {self.ceiling:.3g} nats; "
            f"chance gives {self.null_mean:.3g} "
            f"(p = {self.p_value:.3g}, {self.permutations} permutations of {self.n_units} {units})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {
            "value": self.value,
            "null_mean": self.null_mean,
            "null_sd": self.null_sd,
            "excess": self.excess,
            "p_value": self.p_value,
            "ceiling": self.ceiling,
            "permutations": self.permutations,
            "n": self.n,
            "n_units": self.n_units,
        }


def information(
    contexts: Any,
    specialists: Any,
    *,
    given: Any = None,
    groups: Any = None,
    permutations: int = 199,
    rng: int | np.random.Generator = 0,
) -> InformationResult:
    r"""Information I(C; K | G) between contexts C and specialists K given G, with its permutation null.

    Plug-in from the counts n(g, c, k) = sum_i 1[g_i = g, c_i = c] w_ik, with w_i the weights of item i:
    I = (1/n) sum n(g,c,k) log( n(g,c,k) n(g) / (n(g,c) n(g,k)) ).

    The null permutes contexts over the independent units. Without `groups` these are the items, permuted
    within each stratum of `given`. With `groups`, whole groups are permuted: within strata of `given`
    where `given` is constant in every group, over all groups otherwise.

    Args:
        contexts: One label per item (numbers, strings, tuples), shape (n,).
        specialists: One label per item, or weights (n, K) with rows on the simplex, or an `Assignment`.
        given: One label per item to condition on.
        groups: One label per item naming its independent unit: document, series, episode. The context
            must be constant in every group.
        permutations: Number of permutations, at least 1.
        rng: Seed or generator of the permutations.

    Returns:
        The information with its null, p-value and ceiling, in nats.

    Raises:
        InputError: Lengths differ, labels are missing, or a group has two contexts (it is named).

    Example:
        >>> result = information(["a", "b"] * 50, [0, 1] * 50)
        >>> round(result.value, 4), result.p_value
        (0.6931, 0.005)
    """
    permutations = positive_int("permutations", permutations)
    generator = as_generator(rng)
    c, _ = label_codes("contexts", contexts)
    n = c.size
    g = np.zeros(n, np.int64) if given is None else _same_length("given", label_codes("given", given)[0], n)
    k = _same_length("specialists", _specialists(specialists), n)
    cells = _cells(c, g, groups)
    table = hard_table(cells, k) if k.ndim == 1 else soft_table(cells, k)

    observed = table(cells.code)
    fixed, ceiling = _margins(observed, cells.row_stratum)
    shuffle = shuffler(cells.code, cells.stratum)
    value = _plug_in(observed, fixed, n)
    null = np.array([_plug_in(table(shuffle(generator)), fixed, n) for _ in range(permutations)])
    # Equal tables may differ in the last bits, since soft counts are summed in another order.
    exceed = int((null >= value - 1e-12 * (1.0 + value)).sum())
    return InformationResult(
        value=value,
        null_mean=float(null.mean()),
        null_sd=float(null.std(ddof=1)) if permutations > 1 else 0.0,
        p_value=(1 + exceed) / (1 + permutations),
        ceiling=max(0.0, ceiling / n),
        permutations=permutations,
        n=n,
        n_units=cells.code.size,
    )


def _specialists(value: Any) -> NDArray[Any]:
    """Return label codes, shape (n,), or weights, shape (n, specialists)."""
    if isinstance(value, Assignment):
        return value.labels.astype(np.int64) if value.is_hard else value.weights
    return simplex_rows("specialists", value) if _is_table(value) else label_codes("specialists", value)[0]


def _is_table(value: Any) -> bool:
    if isinstance(value, list | tuple):
        # A list of tuples is a list of labels.
        return len(value) > 0 and isinstance(value[0], list | np.ndarray)
    return np.ndim(value) == 2


def _same_length(name: str, values: NDArray[Any], n: int) -> NDArray[Any]:
    if len(values) == n:
        return values
    raise InputError(
        f"{name} and contexts describe the same items",
        expected=f"{n} rows in {name}",
        got=f"{len(values)}",
        next_step=f"Pass one entry of {name} per context.",
    )


def _cells(c: NDArray[np.int64], g: NDArray[np.int64], groups: Any) -> Cells:
    """Say what is permuted: items or groups, within strata of `g` where each lies in one stratum."""
    if groups is None:
        return Cells.within(np.arange(c.size), c, g)
    unit, names = label_codes("groups", groups)
    _same_length("groups", unit, c.size)
    first = np.unique(unit, return_index=True)[1]
    mixed = np.flatnonzero(c != c[first][unit])
    if mixed.size:
        raise InputError(
            "a group is permuted as a whole, so it has one context",
            expected="one context per group",
            got=f"several contexts in group {names[unit[mixed[0]]]!r}",
            next_step="Use finer groups, or make the context constant within each group.",
        )
    if (g == g[first][unit]).all():
        return Cells.within(unit, c[first], g[first])
    return Cells.across(unit, c[first], g)


def _margins(table: NDArray[np.float64], row_stratum: NDArray[np.int64]) -> tuple[float, float]:
    """Return what no permutation changes, and n times the ceiling."""
    by_stratum = strata_sums(table, row_stratum)
    strata, specialists = x_log_x(by_stratum.sum(axis=1)).sum(), x_log_x(by_stratum).sum()
    contexts = x_log_x(table.sum(axis=1)).sum()
    return float(strata - specialists), float(strata - max(specialists, contexts))


def _plug_in(table: NDArray[np.float64], fixed: float, n: int) -> float:
    free = x_log_x(table).sum() - x_log_x(table.sum(axis=1)).sum()
    return max(0.0, float(free + fixed) / n)
