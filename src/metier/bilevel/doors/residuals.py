"""Partialling out: what the controls explain is taken away by models that never saw the row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.core.errors import InputError

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
LEFT_OVER = 1e-8
"""Share of a column's variance below which the controls are said to explain all of it."""


@dataclass(frozen=True, slots=True)
class Residuals:
    """Columns less their cross-fitted regression on the controls.

    Attributes:
        values: (n, m) residuals.
        r2: (m,) out-of-fold R squared of the regressions; 0 without controls.
    """

    values: Floats
    r2: Floats


def partial_out(
    targets: Floats,
    controls: Floats | None,
    *,
    weights: Floats,
    folds: Codes,
    fit: Callable[[Floats, Floats, Floats], Callable[[Floats], Floats]],
) -> Residuals:
    """Residuals of targets (n, m) on controls (n, p), each row by the models of the other folds.

    Without controls the weighted mean is taken away, which needs no folds.

    Args:
        targets: (n, m) columns.
        controls: (n, p), or None.
        weights: (n,) of the rows.
        folds: (n,) fold of every row.
        fit: (X, Y, weights) -> function of X; the learner of the controls.
    """
    mean = np.average(targets, axis=0, weights=weights)
    if controls is None:
        return Residuals(targets - mean, np.zeros(targets.shape[1]))
    values = np.empty_like(targets)
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        predict = fit(controls[~test], targets[~test], weights[~test])
        values[test] = targets[test] - predict(controls[test])
    total = np.average((targets - mean) ** 2, axis=0, weights=weights)
    rest = np.average(values**2, axis=0, weights=weights)
    return Residuals(values, 1.0 - rest / np.where(total > 0, total, 1.0))


def least_squares(controls: Floats, targets: Floats, weights: Floats) -> Callable[[Floats], Floats]:
    """Weighted least squares with an intercept; columns that repeat others share their coefficient."""
    center, scale = np.average(controls, axis=0, weights=weights), controls.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    mean = np.average(targets, axis=0, weights=weights)
    root = np.sqrt(weights)[:, None]
    x = root * (controls - center) / scale
    coef = np.linalg.lstsq(x, root * (targets - mean), rcond=1e-10)[0]
    return lambda new: mean + ((new - center) / scale) @ coef


def refuse_explained(residuals: Residuals, names: tuple[str, ...], role: str) -> None:
    """Refuse columns that the controls explain altogether.

    Raises:
        InputError: naming the columns.
    """
    gone = [name for name, r2 in zip(names, residuals.r2, strict=True) if r2 > 1.0 - LEFT_OVER]
    if gone:
        raise InputError(
            f"the {role} must vary beyond the controls",
            expected="variation that the controls do not explain",
            got=f"{', '.join(map(repr, gone))} explained altogether",
            next_step="Leave it out, or leave out the controls that repeat it.",
        )
