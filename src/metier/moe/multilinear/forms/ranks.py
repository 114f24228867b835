"""Checks of ranks, in users' words."""

from __future__ import annotations

import numpy as np

from metier.core.checks import positive_int
from metier.core.errors import InputError

from .base import Rank


def one_rank(form: str, rank: Rank) -> int:
    """Return the single rank of a form that has one."""
    if isinstance(rank, tuple | list):
        if len(rank) != 1:
            raise InputError(
                f"form={form!r} has one rank",
                expected="a whole number",
                got=f"{tuple(rank)}",
                next_step="Pass rank=64, for example.",
            )
        (rank,) = rank
    return positive_int("rank", rank)


def two_ranks(ring_ranks: tuple[int, int]) -> tuple[int, int]:
    """Return the inner ranks after checking that there are two."""
    if not isinstance(ring_ranks, tuple | list) or len(ring_ranks) != 2:
        raise InputError(
            "ring_ranks are the two inner ranks of a tensor ring",
            expected="two whole numbers, (r1, r2)",
            got=repr(ring_ranks),
            next_step="Pass ring_ranks=(4, 4), for example.",
        )
    return positive_int("ring_ranks", ring_ranks[0]), positive_int("ring_ranks", ring_ranks[1])


def many_ranks(form: str, rank: Rank, names: tuple[str, ...]) -> tuple[int, ...]:
    """Return a tuple of ranks after checking its length."""
    if isinstance(rank, int | np.integer) or not isinstance(rank, tuple | list):
        positive_int("rank", rank)
    if len(rank) != len(names):  # type: ignore[arg-type]
        raise InputError(
            f"form={form!r} has {len(names)} ranks here",
            expected=f"({', '.join(names)})",
            got=f"{tuple(rank)}",  # type: ignore[arg-type]
            next_step="Pass one rank per name, or one whole number for the last.",
        )
    return tuple(positive_int(f"rank {name}", r) for name, r in zip(names, rank, strict=True))  # type: ignore[arg-type]
