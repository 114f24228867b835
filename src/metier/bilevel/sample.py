"""The data of a problem, checked once: covariates, named columns, weights, clusters, a second sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import finite_array, label_codes
from metier.core.errors import InputError

from .arrays import Floats
from .crossfit import Codes


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of one sample: covariates as the learners get them, and named columns as the losses get them."""

    X: Any
    rows: dict[str, NDArray[Any]]
    weights: Floats | None
    clusters: Codes | None

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.rows["X"])


def check_sample(X: Any, Z: Mapping[str, Any], *, weights: Any = None, groups: Any = None) -> Sample:
    """Return a checked sample.

    Raises:
        InputError: Wrong lengths, NaN, covariates without variation, weights that are not positive.
    """
    covariates, numbers = _covariates(X)
    n = len(numbers)
    rows: dict[str, NDArray[Any]] = {"X": numbers}
    for name, values in Z.items():
        rows[name] = finite_array(f"Z[{name!r}]", values)
        _same_length(f"Z[{name!r}]", len(rows[name]) if rows[name].ndim else -1, n)
    om = None if weights is None else _weights(weights, n)
    clusters = None
    if groups is not None:
        clusters, _ = label_codes("groups", groups)
        _same_length("groups", clusters.size, n)
    return Sample(covariates, rows, om, clusters)


def _covariates(X: Any) -> tuple[Any, NDArray[Any]]:
    """Return what learners get (frames with text stay frames) and an array for the losses."""
    if hasattr(X, "iloc") and not all(
        np.issubdtype(t, np.number) or t == np.bool_ for t in X.dtypes if isinstance(t, np.dtype)
    ):
        return X, np.asarray(X)
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    numbers = finite_array("X", X)
    numbers = numbers[:, None] if numbers.ndim == 1 else numbers
    if numbers.ndim != 2 or 0 in numbers.shape:
        raise InputError(
            "X is a table of covariates",
            expected="rows and at least one column",
            got=f"shape {numbers.shape}",
            next_step="Pass X as (n, p).",
        )
    if len(numbers) > 1 and (numbers == numbers[0]).all():
        raise InputError(
            "the inner problem needs covariates (instruments) that vary",
            expected="at least one column of X with two values",
            got=f"{numbers.shape[1]} constant column(s)",
            next_step="Pass the instruments or states as X.",
        )
    return numbers, numbers


def _same_length(name: str, got: int, n: int) -> None:
    if got != n:
        raise InputError(
            f"{name} has one entry per row of X",
            expected=f"{n} rows",
            got="a single number" if got < 0 else f"{got}",
            next_step="Pass data of the same rows, in the same order.",
        )


def _weights(weights: Any, n: int) -> Floats:
    om = finite_array("weights", weights, ndim=1)
    _same_length("weights", om.size, n)
    if not (om > 0).all():
        row = int(np.argmin(om))
        raise InputError(
            "weights are positive",
            expected="numbers above 0",
            got=f"{om[row]:g} in row {row}",
            next_step="Drop rows of weight 0 before fitting.",
        )
    return om
