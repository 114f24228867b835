"""The structural function between treatments, with pointwise and simultaneous bands, and its picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from metier.bilevel.arrays import Floats
from metier.core.checks import open_fraction
from metier.core.rng import derive

BAND_DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Effect:
    """g(treatment) - g(reference) with bands.

    Attributes:
        treatment: (m, p) values, p columns of treatment.
        reference: (p,) where the effect is zero.
        value: (m,) effects.
        stderr: (m,) standard errors.
        low, high: (m,) pointwise interval.
        uniform_low, uniform_high: (m,) band that holds the whole curve with probability `level`.
        level: coverage aimed at.
    """

    treatment: Floats
    reference: Floats
    value: Floats
    stderr: Floats
    low: Floats
    high: Floats
    uniform_low: Floats
    uniform_high: Floats
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values."""
        names = [name for name in self.__slots__ if name != "level"]
        return {**{name: getattr(self, name).tolist() for name in names}, "level": self.level}


def make_effect(
    contrast: Floats,
    coef: Floats,
    covariance: Floats,
    *,
    treatment: Floats,
    reference: Floats,
    level: float,
) -> Effect:
    """Bands of contrast @ coef; the simultaneous one by the largest |t| of simulated normal curves.

    Args:
        contrast: (m, d) features less those of the reference.
        coef: (d,).
        covariance: (d, d) of the coefficients.
        treatment, reference: as in `Effect`.
        level: coverage aimed at.

    Source: the sup-t band, for example Montiel Olea and Plagborg-Moller (2019), J. Applied Econometrics 34.
    """
    from scipy.special import ndtri

    open_fraction("level", level)
    value = contrast @ coef
    stderr = np.sqrt(np.maximum(np.einsum("md,de,me->m", contrast, covariance, contrast), 0.0))
    half = float(ndtri((1.0 + level) / 2.0)) * stderr
    wide = max(_sup_t(contrast, covariance, stderr, level), float(ndtri((1.0 + level) / 2.0))) * stderr
    return Effect(
        treatment, reference, value, stderr, value - half, value + half, value - wide, value + wide, level
    )


def _sup_t(contrast: Floats, covariance: Floats, stderr: Floats, level: float) -> float:
    moving = stderr > 1e-12 * max(stderr.max(initial=0.0), 1e-300)
    if not moving.any():
        return 0.0
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    draws = derive(0, "sup-t").normal(size=(BAND_DRAWS, len(values)))
    curves = draws @ (contrast[moving] @ root / stderr[moving, None]).T
    return float(np.quantile(np.abs(curves).max(axis=1), level))


def plot_coefficients(names: tuple[str, ...], coef: Floats, interval: Floats, *, ax: Any, title: str) -> Any:
    """Draw dots and whiskers, one row per coefficient; return the axes."""
    ax = ax if ax is not None else _new_axes()
    rows = np.arange(len(names))[::-1]
    ax.errorbar(coef, rows, xerr=np.abs(interval.T - coef), fmt="o", capsize=3)
    ax.axvline(0.0, linewidth=0.8, color="0.5")
    ax.set_yticks(rows, names)
    ax.set_xlabel("effect on the outcome")
    ax.set_title(title)
    return ax


def plot_effect(effect: Effect, *, name: str, ax: Any, title: str) -> Any:
    """Draw the effect against one treatment with its pointwise and simultaneous bands; return the axes."""
    ax = ax if ax is not None else _new_axes()
    x = effect.treatment[:, 0]
    percent = f"{100 * effect.level:g} %"
    ax.fill_between(x, effect.uniform_low, effect.uniform_high, alpha=0.15, label=f"{percent}, whole curve")
    ax.fill_between(x, effect.low, effect.high, alpha=0.3, label=f"{percent}, pointwise")
    ax.plot(x, effect.value)
    ax.axhline(0.0, linewidth=0.8, color="0.5")
    ax.set_xlabel(name)
    ax.set_ylabel(f"effect against {effect.reference[0]:.4g}")
    ax.set_title(title)
    ax.legend()
    return ax


def _new_axes() -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(7, 4), layout="constrained").subplots()
