"""What `IVBilevel.fit` is given: columns by role, weights and clusters, read and checked together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from metier.core.checks import label_codes
from metier.core.errors import InputError

from .columns import Columns, check_together, role_columns, select_columns

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class InstrumentRows:
    """Columns by role, all of n rows.

    Attributes:
        outcome, treatment, instruments: Columns.
        controls: Columns, or None.
        weights: (n,) of mean 1.
        groups: (n,) cluster of each row, or None.
    """

    outcome: Columns
    treatment: Columns
    instruments: Columns
    controls: Columns | None
    weights: Floats
    groups: Codes | None

    @property
    def n(self) -> int:
        """Rows."""
        return self.outcome.n_rows


def read_rows(
    y: Any, t: Any, z: Any, *, controls: Any, weights: Any, groups: Any, data: Any
) -> InstrumentRows:
    """Return the arguments of `IVBilevel.fit` as arrays with names.

    Raises:
        InputError: Missing or infinite values, constant columns, other lengths, several outcomes, weights
            that are not positive.
    """
    outcome = role_columns("outcome", y, data=data, prefix="y")
    treatment = role_columns("treatment", t, data=data, prefix="t")
    instruments = role_columns("instruments", z, data=data, prefix="z")
    parts, held = [outcome, treatment, instruments], None
    if controls is not None and (data is None or len(controls)):
        held = role_columns("controls", controls, data=data, prefix="x", categories=True)
        parts.append(held)
    named = data if isinstance(weights, str) else None
    extra = [] if weights is None else [role_columns("weights", weights, data=named, prefix="weights")]
    check_together([*parts, *extra])
    if outcome.values.shape[1] != 1:
        raise InputError(
            "there is one outcome",
            expected="one column",
            got=", ".join(map(repr, outcome.names)),
            next_step="Fit one outcome at a time.",
        )
    n = outcome.n_rows
    om = _weights(extra[0].values[:, 0] if extra else None, n)
    return InstrumentRows(outcome, treatment, instruments, held, om, _codes(groups, data, n))


def _weights(values: Floats | None, n: int) -> Floats:
    if values is None:
        return np.ones(n)
    if (values <= 0).any():
        raise InputError(
            "weights are positive",
            expected="numbers above 0",
            got=f"{values.min():g} in {int((values <= 0).sum())} rows",
            next_step="Drop rows that should not count.",
        )
    return np.asarray(values / values.mean())


def _codes(groups: Any, data: Any, n: int) -> Codes | None:
    if groups is None:
        return None
    if isinstance(groups, str) and data is not None:
        groups = _labels(groups, data)
    codes, _ = label_codes("groups", groups)
    if len(codes) != n:
        raise InputError(
            "groups hold one label per row",
            expected=f"{n} labels",
            got=f"{len(codes)}",
            next_step="Pass the cluster of every row.",
        )
    return codes


def _labels(name: str, data: Any) -> list[Any]:
    """Return the labels in a column of a frame or a mapping."""
    column = select_columns("groups", name, data)
    if isinstance(column, Mapping):
        return list(np.asarray(column[name]).tolist())
    return list(nw.from_native(column, eager_only=True)[name].to_list())
