"""Columns by role, read from frames, series or arrays, with weights and clusters, and checked together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from metier.bilevel.arrays import Codes, Floats
from metier.core.checks import label_codes
from metier.core.errors import InputError

MAX_LEVELS = 50
"""Levels beyond which a text column is rather an identifier than a category."""


@dataclass(frozen=True, slots=True)
class Columns:
    """A matrix with a name per column.

    Attributes:
        values: (n, p) float64; NaN where a value is missing.
        names: p names, of the columns where the input has them.
        role: what the columns are for, in error messages.
    """

    values: Floats
    names: tuple[str, ...]
    role: str

    @property
    def n_rows(self) -> int:
        """Rows."""
        return len(self.values)


def role_columns(
    role: str, value: Any, *, data: Any = None, prefix: str, categories: bool = False
) -> Columns:
    """Read a role's columns from a frame, a series, an array, or by name from `data`.

    Args:
        role: "outcome", "treatment", "instruments" or "controls", for messages.
        value: frame or series (pandas, polars, pyarrow, ...), array (n,) or (n, p); with `data`, a column
            name or a list of them.
        data: frame, or mapping of names to arrays, that holds the named columns.
        prefix: names columns without names: prefix, or prefix1, prefix2, ...
        categories: whether text columns become indicators of their levels, the first left out.

    Returns:
        The columns as numbers; missing values are NaN.

    Raises:
        InputError: an unknown name, text where numbers belong, or a shape that is no table.

    Example:
        >>> import numpy as np
        >>> role_columns("instruments", np.zeros((4, 2)), prefix="z").names
        ('z1', 'z2')
    """
    if data is not None:
        value = select_columns(role, value, data)
    if isinstance(value, Mapping):
        return _together(role, [_from_named(role, str(name), v, categories) for name, v in value.items()])
    native = nw.from_native(value, eager_only=True, allow_series=True, pass_through=True)
    if isinstance(native, nw.Series):
        native = native.alias(native.name or prefix).to_frame()
    if isinstance(native, nw.DataFrame):
        # Not by name: names need not be text, and then would count rows.
        return _together(role, [_from_series(role, series, categories) for series in native.iter_columns()])  # type: ignore[arg-type]
    return _from_array(role, value, prefix)


def select_columns(role: str, value: Any, data: Any) -> Any:
    """Return the named columns of a frame or a mapping, as it came.

    Raises:
        InputError: a name that the data do not have, with its nearest neighbors.
    """
    frame = data if isinstance(data, Mapping) else nw.from_native(data, eager_only=True)
    known = list(frame) if isinstance(frame, Mapping) else frame.columns
    names = [value] if isinstance(value, str) else list(value)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise unknown_columns(role, unknown, known)
    if isinstance(frame, Mapping):
        return {name: frame[name] for name in names}
    return frame.select(names).to_native()


def _together(role: str, parts: Sequence[Columns]) -> Columns:
    if not parts:
        raise _no_table(role, "no column")
    names = tuple(name for part in parts for name in part.names)
    lengths = {part.names[0]: part.n_rows for part in parts}
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"the columns of the {role} have one value per row",
            expected="equal lengths",
            got=", ".join(f"{n} in {name!r}" for name, n in lengths.items()),
            next_step="Drop the same rows everywhere.",
        )
    return Columns(np.column_stack([part.values for part in parts]), names, role)


def _from_named(role: str, name: str, column: Any, categories: bool) -> Columns:
    """One column of a mapping: numbers, or text that stands for categories."""
    try:
        values = np.asarray(column)
    except ValueError:
        raise _not_numeric(role, name, "values of unequal length") from None
    if values.ndim != 1:
        raise _not_numeric(role, name, f"an array of shape {values.shape}")
    if values.dtype == object and all(isinstance(v, int | float | None) for v in values.tolist()):
        values = values.astype(np.float64)
    if values.dtype.kind in "biuf":
        return Columns(values.astype(np.float64)[:, None], (name,), role)
    labels = values.tolist()
    if not categories or any(label is not None and not isinstance(label, str) for label in labels):
        kinds = sorted({type(label).__name__ for label in labels if label is not None})
        raise _not_numeric(role, name, " and ".join(kinds) or "no value")
    return _indicators(role, name, labels)


def unknown_columns(role: str, unknown: Sequence[str], known: Sequence[str]) -> InputError:
    """The error for columns that the data lack, with their nearest neighbors."""
    near = {name: difflib.get_close_matches(str(name), known, n=2, cutoff=0.5) for name in unknown}
    hints = [
        f"for {name!r} did you mean {' or '.join(map(repr, found))}?" for name, found in near.items() if found
    ]
    return InputError(
        f"the {role} must be columns of the data",
        expected="among " + ", ".join(map(repr, known[:20])) + (" ..." if len(known) > 20 else ""),
        got=", ".join(map(repr, unknown)),
        next_step=" ".join(hints)[:1].upper() + " ".join(hints)[1:] if hints else "Name columns that exist.",
    )


def _from_series(role: str, series: nw.Series[Any], categories: bool) -> Columns:
    name = str(series.name)
    kind = series.dtype
    if kind.is_numeric() or kind == nw.Boolean:
        numbers = series.cast(nw.Float64).to_numpy()
        return Columns(np.asarray(numbers, dtype=np.float64)[:, None], (name,), role)
    if not categories or kind.is_temporal():
        raise _not_numeric(role, name, f"type {kind}")
    return _indicators(role, name, series.to_list())


def _not_numeric(role: str, name: str, got: str) -> InputError:
    return InputError(
        f"{role} column {name!r} must hold numbers",
        expected="a numeric column",
        got=got,
        next_step="Convert it to numbers first.",
    )


def _indicators(role: str, name: str, labels: Sequence[Any]) -> Columns:
    missing = np.array([label is None or label != label for label in labels])
    levels = sorted({str(label) for label, gone in zip(labels, missing, strict=True) if not gone})
    if not 2 <= len(levels) <= MAX_LEVELS:
        raise InputError(
            f"{role} column {name!r} is read as a category",
            expected=f"2 to {MAX_LEVELS} levels",
            got=f"{len(levels)} levels",
            next_step="Leave the column out, or convert it to numbers.",
        )
    text = np.array([str(label) for label in labels])
    values = (text[:, None] == np.array(levels[1:])[None, :]).astype(np.float64)
    values[missing] = np.nan
    return Columns(values, tuple(f"{name}={level}" for level in levels[1:]), role)


def _from_array(role: str, value: Any, prefix: str) -> Columns:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the {role} must be numbers",
            expected="a frame, a series or a numeric array",
            got=f"something NumPy cannot convert ({error})",
            next_step="Convert it to numbers first.",
        ) from None
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or 0 in array.shape:
        raise _no_table(role, f"shape {array.shape}")
    p = array.shape[1]
    return Columns(array, (prefix,) if p == 1 else tuple(f"{prefix}{j + 1}" for j in range(p)), role)


def _no_table(role: str, got: str) -> InputError:
    return InputError(
        f"the {role} is a table of rows x columns",
        expected="at least one row and one column",
        got=got,
        next_step="Pass an array (n,) or (n, p), a series or a frame.",
    )


def check_together(parts: Iterable[Columns]) -> None:
    """Refuse parts of unequal length, missing or infinite values (counted by column), and constant columns.

    Raises:
        InputError: naming roles, columns and counts.
    """
    parts = list(parts)
    lengths = {part.role: part.n_rows for part in parts}
    if len(set(lengths.values())) > 1:
        raise InputError(
            "outcome, treatment, instruments, controls and weights have one row per unit",
            expected="equal numbers of rows",
            got=", ".join(f"{role} {n}" for role, n in lengths.items()),
            next_step="Drop the same rows everywhere.",
        )
    _refuse_missing(parts)
    for part in parts:
        spread = np.ptp(part.values, axis=0)
        constant = [name for name, width in zip(part.names, spread, strict=True) if width == 0]
        if constant and part.role not in ("controls", "weights"):
            raise InputError(
                f"the {part.role} must vary",
                expected="at least two distinct values in every column",
                got=f"{', '.join(map(repr, constant))} constant",
                next_step="Leave constant columns out; an intercept is always there.",
            )


def _refuse_missing(parts: Sequence[Columns]) -> None:
    counts: dict[str, int] = {}
    bad_rows = np.zeros(parts[0].n_rows, dtype=bool)
    for part in parts:
        wrong = ~np.isfinite(part.values)
        bad_rows |= wrong.any(axis=1)
        for name, count in zip(part.names, wrong.sum(axis=0), strict=True):
            if count:
                counts[name] = int(count)
    if counts:
        raise InputError(
            "every row must be complete",
            expected="no missing and no infinite value in the columns used",
            got=", ".join(f"{count} in {name!r}" for name, count in counts.items())
            + f" ({int(bad_rows.sum())} of {len(bad_rows)} rows)",
            next_step="Drop or impute these rows, or leave the columns out.",
        )


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
