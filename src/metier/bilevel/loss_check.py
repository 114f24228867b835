"""Do a loss's derivatives agree with finite differences of its value? Asked before a user's loss is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from metier.core.errors import InputError

from .arrays import Floats, Rows
from .losses import Derivatives, Loss

STEP = 1e-5
TOLERANCE = 1e-4
ROUNDING = 1e-7
"""Rounding of a central difference at that step, as a share of what is differenced, with room to spare."""
N_ROWS = 8


def check_loss(loss: Loss, w: Floats, v: Floats, rows: Rows, *, name: str = "loss") -> None:
    """Raise if a derivative of `loss` differs from the central difference of the one below it.

    Args:
        loss: Any loss.
        w: (d,) where to look.
        v: (n, q) values, one per row.
        rows: The rows.
        name: How the error names the loss.

    Raises:
        InputError: A shape is wrong, or a derivative disagrees; the text names the derivative.

    Example:
        >>> from metier.bilevel import Squared
        >>> check_loss(Squared("Y"), np.zeros(1), np.ones((2, 1)), {"Y": np.array([0.0, 2.0])})
    """
    at = loss.derivatives(w, v, rows)
    for derivative, expected_shape in _shapes(w, v).items():
        found = getattr(at, derivative)
        if found is not None and found.shape != expected_shape:
            raise InputError(
                f"{derivative} of the {name} has a fixed layout",
                expected=f"shape {expected_shape}",
                got=f"{found.shape}",
                next_step="Return one row per data row, w before v.",
            )
    for derivative, difference, size in _differences(loss, w, v, rows):
        found = getattr(at, derivative)
        claimed = np.zeros_like(difference) if found is None else found
        # In units of the loss, so that a loss of tiny numbers is checked as closely as one of large ones.
        allowed = TOLERANCE * float(np.abs(difference).max()) + ROUNDING * size
        gap = float(np.abs(claimed - difference).max())
        # NaN must not pass.
        if not gap <= allowed:
            raise InputError(
                f"the derivatives of the {name} agree with finite differences",
                expected=f"{derivative} within {allowed:.3g} of the central difference",
                got=f"a gap of {gap:.3g}",
                next_step=f"Correct {derivative}, or pass a torch function and let autodiff do it.",
            )


def _shapes(w: Floats, v: Floats) -> dict[str, tuple[int, ...]]:
    (n, q), d = v.shape, len(w)
    return {
        "value": (n,),
        "d_v": (n, q),
        "d2_v": (n, q, q),
        "d_w": (n, d),
        "d2_wv": (n, d, q),
        "d3_v": (n, q, q, q),
        "d3_wvv": (n, d, q, q),
    }


def _differences(loss: Loss, w: Floats, v: Floats, rows: Rows) -> Iterator[tuple[str, Floats, float]]:
    """Yield (derivative, its central difference in its layout, size of what was differenced)."""

    def at(w_: Floats, v_: Floats) -> Derivatives:
        return loss.derivatives(w_, v_, rows)

    def steps(size: int) -> Iterator[Floats]:
        yield from STEP * np.eye(size)

    def along(
        name: str,
        pick: Callable[[Derivatives], Floats | None],
        pairs: list[tuple[Derivatives, Derivatives]],
    ) -> tuple[str, Floats, float]:
        columns, size = [], 0.0
        for up, down in pairs:
            high, low = pick(up), pick(down)
            shape = next((x for x in (high, low) if x is not None), None)
            zero = np.zeros(1) if shape is None else np.zeros_like(shape)
            up_to = zero if high is None else high
            columns.append((up_to - (zero if low is None else low)) / (2 * STEP))
            size = max(size, float(np.abs(up_to).max()))
        return name, np.stack(columns, axis=1), size

    in_v = [(at(w, v + e), at(w, v - e)) for e in steps(v.shape[1])]
    in_w = [(at(w + e, v), at(w - e, v)) for e in steps(len(w))]
    yield along("d_v", lambda x: x.value, in_v)
    yield along("d2_v", lambda x: x.d_v, in_v)
    yield along("d3_v", lambda x: x.d2_v, in_v)
    yield along("d_w", lambda x: x.value, in_w)
    yield along("d2_wv", lambda x: x.d_v, in_w)
    yield along("d3_wvv", lambda x: x.d2_v, in_w)
