"""Small validators; each returns the checked value and names the argument when it refuses."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

SIMPLEX_TOLERANCE = 1e-6


def ensure(holds: object, rule: str, *, expected: object, got: object, next_step: str) -> None:
    """Raise an `InputError` unless `holds`; a `got` that is costly or undefined otherwise may be a function.

    Example:
        >>> ensure(True, "delta is a scale", expected="a positive number", got=1.0, next_step="Pass delta=1.")
    """
    if not holds:
        found = got() if callable(got) else got
        raise InputError(rule, expected=expected, got=found, next_step=next_step)


def one_of(name: str, value: object, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`, or name its nearest neighbor.

    Example:
        >>> one_of("gate", "mean", ("crossfit", "mean"))
        'mean'
    """
    known = tuple(choices)
    if isinstance(value, str) and value in known:
        return value
    near = difflib.get_close_matches(
        str(value).lower(), [choice.lower() for choice in known], n=1, cutoff=0.5
    )
    best = next((choice for choice in known if near and choice.lower() == near[0]), known[0])
    raise InputError(
        f"{name} is one of a fixed list",
        expected=" | ".join(repr(choice) for choice in known),
        got=repr(value),
        next_step=f"Did you mean {best!r}?" if near else f"Try {name}={best!r}.",
    )


def positive_int(name: str, value: object, *, minimum: int = 1) -> int:
    """Return `value` as an int that is at least `minimum` and fits in 64 bits.

    Example:
        >>> positive_int("n_clusters", 4)
        4
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and minimum <= value < 2**63:
        return int(value)
    raise InputError(
        f"{name} is a whole number",
        expected=f"an integer of at least {minimum}",
        got=repr(value),
        next_step=f"Pass {name}={minimum} or more.",
    )


def as_flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False.

    Example:
        >>> as_flag("certify", True)
        True
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise InputError(
        f"{name} is switched on or off",
        expected="True or False",
        got=repr(value),
        next_step=f"Pass {name}=True or {name}=False.",
    )


def open_fraction(name: str, value: object, *, upper: float = 1.0) -> float:
    """Return `value` as a float strictly between 0 and `upper`.

    Example:
        >>> open_fraction("level", 0.95)
        0.95
    """
    if _is_number(value) and 0.0 < float(value) < upper:  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    raise InputError(
        f"{name} is a fraction",
        expected=f"0 < {name} < {upper:g}",
        got=repr(value),
        next_step=f"Pass {name} as a fraction, not as percent.",
    )


def non_negative(name: str, value: object) -> float:
    """Return `value` as a finite float that is at least 0.

    Example:
        >>> non_negative("margin", 0)
        0.0
    """
    if _is_number(value) and np.isfinite(float(value)) and float(value) >= 0:  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    raise InputError(
        f"{name} has no negative values",
        expected="a finite number of at least 0",
        got=repr(value),
        next_step=f"Pass {name}=0 or more.",
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def as_array(name: str, value: Any) -> NDArray[Any]:
    """Return `value` as an array of whatever it holds.

    Example:
        >>> as_array("labels", [2, 0])
        array([2, 0])
    """
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} is an array",
            expected="rows of one length, of one kind of values",
            got=f"something NumPy cannot convert ({error})",
            next_step=f"Convert {name} to a NumPy array first.",
        ) from error


def as_numbers(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """Return `value` as a float64 array, which may hold NaN and infinity.

    Example:
        >>> as_numbers("log_probs", [0, float("-inf")])
        array([  0., -inf])
    """
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} holds numbers",
            expected="a rectangular array of numbers",
            got=f"something NumPy cannot convert ({error})",
            next_step=f"Convert {name} to numbers first.",
        ) from error


def finite_array(name: str, value: ArrayLike, *, ndim: int | None = None) -> NDArray[np.float64]:
    """Return `value` as a float64 array without NaN or infinity, of `ndim` dimensions if given.

    Example:
        >>> finite_array("losses", [1, 2], ndim=1)
        array([1., 2.])
    """
    array = as_numbers(name, value)
    if ndim is not None and array.ndim != ndim:
        raise InputError(
            f"{name} has {ndim} dimension{'s' if ndim > 1 else ''}",
            expected=f"{ndim}-dimensional values",
            got=f"shape {array.shape}",
            next_step=f"Reshape {name} or pick one column.",
        )
    if not np.isfinite(array).all():
        _refuse_non_finite(name, array)
    return array


def _refuse_non_finite(name: str, array: NDArray[np.float64]) -> None:
    bad = np.argwhere(~np.isfinite(array))
    first = tuple(int(i) for i in bad[0])
    where = first[0] if len(first) == 1 else first
    raise InputError(
        f"{name} is finite everywhere",
        expected="no NaN and no infinity",
        got=f"{array[first]} at index {where} ({len(bad)} such value{'s' if len(bad) > 1 else ''})",
        next_step=f"Drop or repair {'these entries' if len(bad) > 1 else 'this entry'} of {name}.",
    )


def simplex_rows(name: str, value: Any, *, tolerance: float = SIMPLEX_TOLERANCE) -> NDArray[np.floating[Any]]:
    """Return `value` (items, specialists) if each row is a probability vector; float32 stays float32.

    Example:
        >>> simplex_rows("weights", [[0.25, 0.75]])
        array([[0.25, 0.75]])
    """
    array = as_array(name, value)
    if array.dtype not in (np.float32, np.float64):
        array = finite_array(name, value)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(
            f"{name} is a table of items x specialists",
            expected="2 dimensions, at least one item and one specialist",
            got=f"shape {array.shape}",
            next_step=f"Pass {name} with one row per item and one column per specialist.",
        )
    sums = array.sum(axis=1, dtype=np.float64)
    wrong = ~((np.abs(sums - 1.0) <= tolerance) & (array.min(axis=1) >= 0.0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"each row of {name} is a probability vector",
            expected=f"entries of at least 0 that sum to 1 (within {tolerance:g})",
            got=f"sum {sums[row]:.9g} and smallest entry {array[row].min():.6g} in row {row}"
            f" ({int(wrong.sum())} such rows)",
            next_step=f"Divide each row of {name} by its sum, or apply a softmax, first.",
        )
    return array


def label_codes(name: str, labels: Any) -> tuple[NDArray[np.int64], list[Hashable]]:
    """Return labels as codes 0..M-1 with the list of the M distinct labels, sorted where they can be.

    Example:
        >>> codes, levels = label_codes("groups", ["b", "a", "b"])
        >>> codes.tolist(), levels
        ([1, 0, 1], ['a', 'b'])
    """
    array = labels if isinstance(labels, np.ndarray) else _as_labels(labels)
    if array.ndim != 1 or array.size == 0:
        raise InputError(
            f"{name} holds one label per item",
            expected="a non-empty one-dimensional list of labels",
            got=f"shape {array.shape}",
            next_step=f"Pass {name} as a flat list or array.",
        )
    if array.dtype == object:
        return _object_codes(name, array)
    if array.dtype.kind in "fcmM" and (missing := array != array).any():
        _refuse_missing(name, int(np.flatnonzero(missing)[0]))
    levels, codes = np.unique(array, return_inverse=True)
    return codes.astype(np.int64, copy=False), levels.tolist()


def _as_labels(labels: Any) -> NDArray[Any]:
    # np.asarray turns [1, "1"] into two equal strings and a list of tuples into a table.
    if not isinstance(labels, list | tuple):
        return as_array("labels", labels)
    kinds = {type(label) for label in labels}
    if len(kinds) == 1 and kinds <= {int, float, str, bool, np.int64, np.int32, np.str_}:
        return np.asarray(labels)
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


def _object_codes(name: str, array: NDArray[Any]) -> tuple[NDArray[np.int64], list[Hashable]]:
    index: dict[Hashable, int] = {}
    codes = np.empty(array.size, dtype=np.int64)
    for i, label in enumerate(array):
        if _is_missing(label):
            _refuse_missing(name, i)
        try:
            codes[i] = index.setdefault(label, len(index))
        except TypeError as error:
            raise InputError(
                f"{name} holds labels",
                expected="numbers, strings or tuples",
                got=f"{type(label).__name__} at index {i}",
                next_step="Convert each label to a string or a tuple.",
            ) from error
    levels = list(index)
    try:
        order = sorted(range(len(levels)), key=lambda k: levels[k])  # type: ignore[arg-type,return-value]
    except TypeError:
        return codes, levels
    rank = np.empty(len(levels), dtype=np.int64)
    rank[order] = np.arange(len(levels))
    return rank[codes], [levels[k] for k in order]


def _is_missing(label: Any) -> bool:
    try:
        return label is None or bool(label != label)
    except (TypeError, ValueError):  # pandas.NA answers neither yes nor no
        return isinstance(label, Hashable)


def _refuse_missing(name: str, index: int) -> None:
    raise InputError(
        f"{name} has no missing labels",
        expected="a label for every item",
        got=f"a missing label at index {index}",
        next_step="Drop these items or give them a label of their own.",
    )
