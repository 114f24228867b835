"""Seeded panels of autoregressive regimes with known structure.

The designs differ in how far apart the regimes lie and how much data there is to find them:

    strong, medium, weak, small             4, 2, 3, 2 regimes of AR(3), at separation 1, .5, .25, 1
    homogeneous, small_homogeneous          one regime, the sizes of weak and of small
    noise_shape, noise_shape_control        one AR(2), two shapes of noise; the control is all Gaussian

AR(3) coefficients are base + separation * deviation_k; their noise is sqrt(.8) t_4 / sqrt(2) + sqrt(.2) f_t
with f_t ~ N(0, 1) common to all series, so that series depend on each other as real ones do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core import derive, seed_of
from metier.core.checks import one_of, positive_int
from metier.data.oracle import FloatArray, check_stationary
from metier.data.regime_panel import RegimePanel

BURN_IN = 100
BASE = (0.45, 0.20, 0.05)
DEVIATIONS = ((0.35, -0.25, 0.0), (-0.60, 0.15, 0.10), (0.10, -0.45, 0.35), (-0.30, -0.40, -0.30))
ANOMALY_SHARE = 0.01
ANOMALY_SD = 10.0
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegimeDesign:
    """A panel design: the regimes' coefficients are base + separation * deviations.

    Args:
        base: (p,) coefficients that all regimes share.
        deviations: one (p,) tuple per regime.
        separation: factor of the deviations.
        noise: "heavy_common" (t_4 plus a common factor), or one of "gaussian" | "exponential" per regime.
        n_series, n_train, n_val: size of the panel and of its first two parts, in series and steps.
    """

    base: tuple[float, ...] = BASE
    deviations: tuple[tuple[float, ...], ...]
    separation: float
    noise: tuple[str, ...] = ("heavy_common",)
    n_series: int
    n_train: int
    n_val: int

    @property
    def coefficients(self) -> FloatArray:
        """(n_regimes, p) coefficients, most recent lag first."""
        return np.array(self.base) + self.separation * np.array(self.deviations)


_FLAT3 = ((0.0, 0.0, 0.0),)
_NOISE_SHAPE = RegimeDesign(
    base=(0.5, 0.2),
    deviations=((0.0, 0.0), (0.0, 0.0)),
    separation=0.0,
    noise=("gaussian", "exponential"),
    n_series=60,
    n_train=200,
    n_val=100,
)
DESIGNS: dict[str, RegimeDesign] = {
    "strong": RegimeDesign(deviations=DEVIATIONS, separation=1.0, n_series=200, n_train=300, n_val=100),
    "medium": RegimeDesign(deviations=DEVIATIONS[:2], separation=0.5, n_series=100, n_train=200, n_val=80),
    "weak": RegimeDesign(deviations=DEVIATIONS[:3], separation=0.25, n_series=100, n_train=200, n_val=80),
    "small": RegimeDesign(deviations=DEVIATIONS[:2], separation=1.0, n_series=24, n_train=60, n_val=40),
    "homogeneous": RegimeDesign(deviations=_FLAT3, separation=0.0, n_series=100, n_train=200, n_val=80),
    "small_homogeneous": RegimeDesign(deviations=_FLAT3, separation=0.0, n_series=24, n_train=60, n_val=40),
    "noise_shape": _NOISE_SHAPE,
    "noise_shape_control": replace(_NOISE_SHAPE, deviations=((0.0, 0.0),), noise=("gaussian",)),
}


def simulate_regimes(
    name: str,
    *,
    rng: int | np.random.Generator = 0,
    n_test: int = 300,
    anomalies: bool = False,
    separation: float | None = None,
    n_series: int | None = None,
    n_train: int | None = None,
    n_val: int | None = None,
) -> RegimePanel:
    r"""Simulate a panel whose series follow one of a few autoregressive regimes.

    Series i in regime k: y_t = sum_m phi_{k,m} y_{t-m} + u_t, after a burn-in of 100 steps from zero; regimes
    are drawn uniformly. Every ingredient has its own label-derived stream, so that anomalies=True changes
    only the hit values and a larger n_test only appends steps.

    Args:
        name: a key of `DESIGNS`.
        rng: seed, or a Generator from which one seed is drawn.
        n_test: steps after TRAIN and VAL.
        anomalies: add N(0, 10^2) to 1 % of the raw values.
        separation, n_series, n_train, n_val: replace the design's own value (for power curves).

    Returns:
        RegimePanel with values (N, n_train + n_val + n_test).

    Raises:
        InputError: unknown name, a size below 1, or a separation at which a regime is not stationary.

    Example:
        >>> panel = simulate_regimes("strong", rng=7)
        >>> panel.values.shape, panel.coefficients[0].round(2).tolist()
        ((200, 700), [0.8, -0.05, 0.05])
        >>> round(panel.oracle_gain(), 2)
        0.22

    Source: the simulation design of the method note of this family.
    """
    one_of("name", name, DESIGNS)
    changes: dict[str, Any] = {
        "separation": separation,
        "n_series": n_series,
        "n_train": n_train,
        "n_val": n_val,
    }
    design = replace(DESIGNS[name], **{key: value for key, value in changes.items() if value is not None})
    for key, size in (
        ("n_test", n_test),
        *((k, getattr(design, k)) for k in ("n_series", "n_train", "n_val")),
    ):
        positive_int(key, size)
    seed = seed_of(rng)
    n_steps = design.n_train + design.n_val + n_test
    coefficients = check_stationary(design.coefficients)
    labels = draw_labels(seed, name, design.n_series, coefficients.shape[0])
    innovations = _innovations(design, labels, n_steps=BURN_IN + n_steps, seed=seed, name=name)
    values = ar_paths(coefficients, labels, innovations)[BURN_IN:]
    if anomalies:
        values = values + _anomalies(values.shape, seed=seed, name=name)
    return RegimePanel(
        name=name,
        values=np.ascontiguousarray(values.T),
        labels=labels,
        coefficients=coefficients,
        profiles=np.zeros((coefficients.shape[0], 0)),
        n_train=design.n_train,
        n_val=design.n_val,
        n_test=n_test,
    )


def ar_paths(coefficients: ArrayLike, labels: IntArray, innovations: FloatArray) -> FloatArray:
    """Run all series' autoregressions from zero: (T, N) innovations in, (T, N) paths out."""
    phi = np.atleast_2d(np.asarray(coefficients, dtype=float))[labels].T
    p = phi.shape[0]
    paths = np.zeros((p + innovations.shape[0], innovations.shape[1]))
    for t, shock in enumerate(innovations, start=p):
        past = paths[t - p : t][::-1]
        paths[t] = np.einsum("pn,pn->n", phi, past) + shock
    return paths[p:]


def draw_labels(seed: int, name: str, n_series: int, n_regimes: int) -> IntArray:
    """Uniform random regimes, (n_series,)."""
    return derive(seed, "simulate", name, "labels").integers(n_regimes, size=n_series)


def _innovations(design: RegimeDesign, labels: IntArray, *, n_steps: int, seed: int, name: str) -> FloatArray:
    shape = (n_steps, labels.size)
    own = derive(seed, "simulate", name, "own")
    if design.noise == ("heavy_common",):
        common: FloatArray = derive(seed, "simulate", name, "common").standard_normal((n_steps, 1))
        heavy = own.standard_t(4, shape) / np.sqrt(2.0)
        return np.asarray(np.sqrt(0.8) * heavy + np.sqrt(0.2) * common)
    noise = own.standard_normal(shape)
    skewed = np.array([kind == "exponential" for kind in design.noise])[labels]
    if skewed.any():
        shocks = derive(seed, "simulate", name, "skewed").standard_exponential(shape) - 1.0
        noise[:, skewed] = shocks[:, skewed]
    return noise


def _anomalies(shape: tuple[int, ...], *, seed: int, name: str) -> FloatArray:
    hit = derive(seed, "simulate", name, "anomaly_hit").random(shape) < ANOMALY_SHARE
    size = derive(seed, "simulate", name, "anomaly_size").standard_normal(shape)
    return np.where(hit, ANOMALY_SD * size, 0.0)
