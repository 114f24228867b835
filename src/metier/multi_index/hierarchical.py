"""Units of decaying strength: the ladder of thresholds, and the loss against the number of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import zeta

from metier.core import non_negative, one_of, positive_int
from metier.core.checks import ensure

from .activations import Activation, as_activation
from .asymptotics import (
    LocalExponent,
    excess_risk,
    law_coefficient,
    local_exponent,
    no_slopes,
    noise_sensitivity,
    sensitivity_in_floats,
    signal_function,
)
from .channels import AdditiveChannel, Array
from .fixed_points import FixedPointCurve, find_lines, fixed_points
from .overlap import OverlapFunction, assemble, field_power, node_overlaps, weak_recovery_values
from .phase_diagram import rate_table, table_edges
from .results import Plain
from .thresholds import READINGS, positive_array

_TOLERANCE = 1e-7


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Hierarchical(Plain):
    """y = sum_k k^-decay sigma(<w_k, x>) + sqrt(noise) N(0, 1), each unit seen against all weaker ones.

    Attributes:
        activation: Name of sigma (less its linear part where `status` is `"heuristic"`).
        decay: gamma.
        noise: Variance of the noise.
        ranks: k = 1 .. n_units.
        snrs: Effective snr of unit k: k^(-2 gamma)/(noise + v sum_{l > k} l^(-2 gamma)).
        weak_recovery: Exact n/d at which unit k is first seen, weak_recovery of `thresholds` at its snr.
        strong_recovery, it_strong: n/d at which AMP, or any method, has unit k on its upper branch.
        law: beta!/(c^2 snr_k^beta).
        slopes: Local exponents d ln weak_recovery / d ln k.
        ladder_exponent: Limit of those slopes: 2 gamma beta with noise, beta without.
        loss_exponent, it_loss_exponent: Predicted -d ln loss / d ln(n/d) of AMP and of any method.
        exponent: beta.
        variance: v = Var sigma.
        status: `"derived"` (even sigma) or `"heuristic"`; the information-theoretic exponent is a conjecture.
    """

    activation: str
    decay: float
    noise: float
    ranks: Array
    snrs: Array
    weak_recovery: Array
    strong_recovery: Array
    it_strong: Array
    law: Array
    slopes: LocalExponent
    ladder_exponent: float
    loss_exponent: float
    it_loss_exponent: float
    exponent: float
    variance: float
    tail_strength: float
    signal: OverlapFunction
    curves: tuple[FixedPointCurve, ...]
    status: str

    _hidden: ClassVar = ("tail_strength", "signal", "curves")

    def overlaps(self, sample_ratios: ArrayLike, *, start: str = "uninformed") -> Array:
        """Overlap of every unit at each n/d, (n_ratios, n_units); `start` as in `Thresholds.overlap`."""
        ratios = positive_array("sample_ratios", sample_ratios).ravel()
        read = READINGS[one_of("start", start, READINGS)]
        return np.stack([read(curve, ratios) for curve in self.curves], axis=1)

    def loss(self, sample_ratios: ArrayLike, *, start: str = "uninformed") -> Array:
        """Excess risk sum_k k^(-2 gamma) (v - G(q_k)) at each n/d; past the last rank units are unlearnt.

        Example:
            >>> h = hierarchical("square", decay=1.0, noise=1.0, n_units=8)
            >>> bool((np.diff(h.loss([1.0, 10.0, 100.0])) < 0).all())
            True
        """
        q = self.overlaps(sample_ratios, start=start)
        learnt = excess_risk(self.signal, self.variance, q) @ self.ranks ** (-2 * self.decay)
        return np.asarray(learnt + self.variance * self.tail_strength)

    def loss_slopes(self, sample_ratios: ArrayLike, *, start: str = "uninformed") -> LocalExponent:
        """Local exponents of the loss curve; compare with -loss_exponent."""
        ratios = np.unique(positive_array("sample_ratios", sample_ratios))
        return local_exponent(ratios, self.loss(ratios, start=start))

    def summary(self) -> str:
        """Ends of the ladder, its local slope there, and the predicted exponents."""
        last = self.slopes
        return "\n".join(
            [
                f"{self.activation}, strengths k^-{self.decay:g}, noise {self.noise:g} ({self.status})",
                f"weak_recovery: {self.weak_recovery[0]:.4g} (k = 1) to {self.weak_recovery[-1]:.4g} "
                f"(k = {self.ranks[-1]:g})",
                f"local slope {last.slope[-1]:.3f} at k = {last.x[-1]:g}; limit {self.ladder_exponent:g}",
                f"loss ~ (n/d)^-{self.loss_exponent:.4g} (AMP), "
                f"(n/d)^-{self.it_loss_exponent:.4g} (any method)",
            ]
        )


def hierarchical(
    activation: str | Callable[[Any], Any] | Activation,
    *,
    decay: float,
    noise: float,
    n_units: int,
    normalize: bool = False,
    tail: str = "infinite",
) -> Hierarchical:
    """Compute when each unit of a hierarchy is learnt, and what that does to the loss.

    Unit k meets the signal-to-noise ratio lam_k = k^(-2 gamma)/(noise + v sum_{l > k} l^(-2 gamma)), since
    the stronger units are known by then and the weaker ones act as noise; its thresholds are those of one
    unit at lam_k. With noise they grow as k^(2 gamma beta), without as k^beta.

    Args:
        activation: Name, expression, callable, or an `Activation`.
        decay: gamma, above 1/2.
        noise: Variance of the additive noise; 0 is the noiseless variant.
        n_units: Ranks computed, at least 3; each takes one to three milliseconds.
        normalize: Divide sigma by its standard deviation first.
        tail: `"infinite"`: the teacher has infinitely many units; `"none"`: it ends at n_units.

    Returns:
        The ladder; `loss(sample_ratios)` gives the curve of the loss.

    Raises:
        InputError: A number out of range, or no noise and no tail: the last unit would meet no noise at all.

    Example:
        >>> h = hierarchical("square", decay=1.0, noise=0.0, n_units=100)
        >>> abs(float(h.slopes.slope[-1]) - 1) < 0.05, h.ladder_exponent, h.loss_exponent
        (True, 1, 1.0)

    Source:
        The orders with noise and the exponents of the loss: arXiv:2603.17896 (its information-theoretic part
        a conjecture). Effective snrs, exact ladder and the noiseless exponents: ours.
    """
    sigma = as_activation(activation, normalize=normalize)
    ensure(
        not (sigma.constant),
        "the units of a hierarchy vary",
        expected="Var sigma(z) above 0",
        got=f"{sigma.name}, which is constant: its ladder has no finite rung and its loss is 0",
        next_step="Choose another activation.",
    )
    gamma = _decay(decay)
    variance_of_noise, count = non_negative("noise", noise), positive_int("n_units", n_units, minimum=3)
    infinite = one_of("tail", tail, ("infinite", "none")) == "infinite"
    ensure(
        not (variance_of_noise == 0 and not infinite),
        "the weakest unit of a hierarchy meets noise",
        expected="noise above 0, or an infinite tail",
        got="noise=0 and tail='none'",
        next_step="Pass a positive noise, or tail='infinite'.",
    )
    linear = sigma.parity != "even" and abs(sigma.moment(1, 1)) > 1e-12 * math.sqrt(sigma.second_moment)
    link = sigma.without_linear_part() if linear else sigma
    k = np.arange(1, count + 1, dtype=float)
    ends = zeta(2 * gamma, k + 1) - (0.0 if infinite else zeta(2 * gamma, count + 1.0))
    snrs = k ** (-2 * gamma) / (variance_of_noise + link.variance * ends)
    beta, c = noise_sensitivity(sigma)[:2] if link is sigma else sensitivity_in_floats(link)
    weak = weak_recovery_values(link, snrs[::-1].copy())[0][::-1].copy()
    curves = _curves(link, snrs)
    found = [find_lines(curve) for curve in curves]
    noisy = variance_of_noise > 0
    rate = (1 - 1 / (2 * gamma)) if noisy else (2 * gamma - 1)
    return Hierarchical(
        activation=link.name,
        decay=gamma,
        noise=variance_of_noise,
        ranks=k,
        snrs=snrs,
        weak_recovery=weak,
        strong_recovery=np.array([one.ratios["strong_recovery"] for one in found]),
        it_strong=np.array([one.ratios["it_strong"] for one in found]),
        law=law_coefficient(beta, c) / snrs**beta if math.isfinite(beta) else np.full(count, beta),
        slopes=_slopes(k, weak),
        ladder_exponent=2 * gamma * beta if noisy else beta,
        loss_exponent=rate / beta,
        it_loss_exponent=rate,
        exponent=beta,
        variance=link.variance,
        tail_strength=float(zeta(2 * gamma, count + 1.0)) if infinite else 0.0,
        signal=signal_function(link),
        curves=curves,
        status="derived" if sigma.parity == "even" else "heuristic",
    )


def _slopes(k: Array, weak: Array) -> LocalExponent:
    if not np.isfinite(weak).all():
        return no_slopes(k)
    # Neighboring ranks differ by little: slopes over a geometric subset are not lost to rounding.
    kept = np.unique(np.round(np.geomspace(1, k.size, min(k.size, 40))).astype(int)) - 1
    return local_exponent(k[kept], weak[kept])


def _curves(link: Activation, snrs: Array) -> tuple[FixedPointCurve, ...]:
    make = partial(AdditiveChannel, link)
    increasing = np.unique(snrs)
    power = field_power(make(increasing[-1:]))
    edges = table_edges(power)
    table = rate_table(make, increasing, node_overlaps(edges), power, rtol=1e-6)
    made = [fixed_points(assemble(edges, row, row, power), tolerance=_TOLERANCE) for row in table]
    at: Mapping[float, FixedPointCurve] = dict(zip(increasing.tolist(), made, strict=True))
    return tuple(at[snr] for snr in snrs.tolist())


def _decay(value: object) -> float:
    numeric = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    number = float(value) if numeric else math.nan  # type: ignore[arg-type]
    ensure(
        0.5 < number < math.inf,
        "decay makes the total strength finite",
        expected="a finite number above 1/2",
        got=repr(value),
        next_step="Pass decay=1.0, for example.",
    )
    return number
