"""How many units a committee may have."""

from __future__ import annotations

from metier.core.checks import positive_int
from metier.core.errors import InputError


def units_up_to(most: int, n_units: object, *, rule: str, next_step: str) -> int:
    """Return `n_units` as a positive int of at most `most`.

    Example:
        >>> units_up_to(3, 2, rule="matrix AMP integrates over all units' fields", next_step="Use committee.")
        2
    """
    units = positive_int("n_units", n_units)
    if units <= most:
        return units
    raise InputError(rule, expected=f"at most {most} units", got=f"n_units={units}", next_step=next_step)
