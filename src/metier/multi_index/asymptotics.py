"""Small signal: constants of every threshold as snr -> 0, local slopes, where the exact curve obeys them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from metier.core.checks import ensure

from .activations import Activation, as_activation
from .certify.coefficients import CERTIFIED_NONZERO
from .channels import Array, Link, posterior, prior
from .exponents import exponents
from .fixed_points import ERASED, entropy_cost, fixed_points, infimum
from .overlap import OverlapFunction, refined, weak_recovery_values
from .results import Plain
from .thresholds import positive_array


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LocalExponent(Plain):
    """d ln y / d ln x along a curve, each with how far it depends on the grid.

    Attributes:
        x: Where the slopes hold: the inner points of the grid.
        slope: Local slopes there.
        error: |slope - slope from every second point|; nan where the grid is too short to say.
    """

    x: Array
    slope: Array
    error: Array

    def summary(self) -> str:
        """One line per point.

        Example:
            >>> print(local_exponent([1, 2, 4, 8, 16], [3, 12, 48, 192, 768]).summary().splitlines()[1])
            x = 4: slope 2.0000 +- 0e+00
        """
        rows = zip(self.x, self.slope, self.error, strict=True)
        return "\n".join(f"x = {x:g}: slope {slope:.4f} +- {error:.0e}" for x, slope, error in rows)


def local_exponent(x: ArrayLike, y: ArrayLike) -> LocalExponent:
    """Take the local slope of y(x) in log-log coordinates, with no fit over a window.

    The slope at a point is that of the parabola through it and its two neighbors in (ln x, ln y).

    Args:
        x: Positive, strictly monotone, at least 3 values: an snr, a number of units, a sample ratio.
        y: Positive values of the curve there.

    Returns:
        Slopes at the inner points. A threshold that grows as snr^-beta has slope -beta.

    Raises:
        InputError: Values that are not positive and finite, too few, or not monotone.

    Example:
        >>> local_exponent([1e-3, 1e-2, 1e-1], [8e6, 8e4, 8e2]).slope.round(6)
        array([-2.])

    Source:
        Ours.
    """
    a, b = positive_array("x", x).ravel(), positive_array("y", y).ravel()
    steps = np.diff(a)
    ensure(
        not (a.size < 3 or a.size != b.size or not ((steps > 0).all() or (steps < 0).all())),
        "a local slope needs a curve",
        expected="at least 3 strictly monotone x and as many y",
        got=f"{a.size} x and {b.size} y" + ("" if a.size != b.size or a.size < 3 else ", x not monotone"),
        next_step="Sort by x and drop repeated values.",
    )
    u, v = np.log(a), np.log(b)
    slope = _parabola_slope(u, v)
    error = np.full(slope.size, np.nan)
    for offset in (0, 1):
        if u[offset::2].size >= 3:
            wide = _parabola_slope(u[offset::2], v[offset::2])
            at = np.arange(offset + 2, u.size, 2)[: wide.size] - 1
            error[at] = np.abs(slope[at] - wide)
    return LocalExponent(x=a[1:-1], slope=slope, error=error)


def no_slopes(x: Array) -> LocalExponent:
    """Return the slopes of a curve that is infinite somewhere: nan at every inner point."""
    nothing = np.full(max(x.size - 2, 0), np.nan)
    return LocalExponent(x=x[1:-1], slope=nothing, error=nothing)


def _parabola_slope(u: Array, v: Array) -> Array:
    before, after = u[1:-1] - u[:-2], u[2:] - u[1:-1]
    left, right = (v[1:-1] - v[:-2]) / before, (v[2:] - v[1:-1]) / after
    return np.asarray((left * after + right * before) / (before + after))


_ZERO_SIGNAL = 1e-26


class SignalChannel:
    """G'(q) = sum_k k b_k q^(k-1) = E_V[(E[(z - omega)/(1 - q) sigma])^2]: F / snr as snr -> 0."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def overlap(self, overlaps: Array, level: int) -> Array:
        """G'(q), (1, n_overlaps)."""
        law = posterior(self.link, overlaps, level)
        return np.asarray((law.outer * (law.slope * law.values).sum(axis=-1) ** 2).sum(axis=-1)[None, :])

    def onset(self, level: int) -> Array:
        """G''(0) = (E[sigma (z^2 - 1)])^2, (1,)."""
        values, _, curvature = prior(self.link, level)
        onset = float(curvature @ values) ** 2
        return np.array([onset if onset > _ZERO_SIGNAL * (np.abs(curvature) @ values**2) else 0.0])


def signal_function(link: Link, *, rtol: float = 1e-9) -> OverlapFunction:
    """G' as a series: its integral is G, G(1) = Var sigma; `power` is 1 where E[sigma z] = 0."""
    return refined(SignalChannel(link), rtol=rtol)


def excess_risk(function: OverlapFunction, variance: float, overlaps: Array) -> Array:
    """v - G(q) = sum_k b_k (1 - q^k): risk of the best prediction at overlap q beyond the noise."""
    q = np.asarray(overlaps, dtype=float)
    x = np.minimum(-np.log1p(-np.minimum(q, 1 - 1e-15)), function.edges[-1])
    risk = variance - function.accumulated(x.ravel()).reshape(x.shape)
    # Past the table what is left shrinks at least like sqrt(1 - q), the rate of a jump in sigma.
    left = np.sqrt(np.minimum((1 - q) * np.exp(function.edges[-1]), 1.0))
    return np.asarray(np.maximum(risk, 0.0) * left)


AGREEMENT = 0.1
"""The law counts as reached where |weak_recovery / asymptote - 1| stays below this for all smaller snr."""

_ZERO_SHARE = 1e-10
LINEAR_PART = "E[sigma(z) z] is not 0, so the overlap is above 0 at every sample ratio"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asymptotics(Plain):
    """Constants of the laws that the thresholds obey as snr -> 0.

    Attributes:
        activation: Name of sigma.
        exponent: beta: the smallest k with E[sigma^k (z^2 - 1)] not 0; inf if there is none (with a proof),
            nan if it is not decided.
        coefficient: c = E[sigma^beta (z^2 - 1)]; nan if beta is inf or nan.
        weak_recovery: beta!/c^2: weak_recovery ~ weak_recovery * snr^-beta; inf if beta is.
        it_detection: it_detection ~ it_detection / snr; nan where E[sigma z] is not 0.
        spinodal: spinodal ~ spinodal / snr; nan where the limiting curve has one branch.
        overlaps: Overlap at it_detection and at the spinodal, in the limit.
        reasons: Why a constant is nan or inf, by name.
        certified: Whether beta and c are certified (`exponents`), or numerical.
        status: `"derived"`: our constants; the paper states the order snr^-beta.

    Example:
        >>> a = asymptotics("He4", normalize=True)
        >>> a.exponent, round(a.weak_recovery, 6), round(a.it_detection, 4), round(a.spinodal, 4)
        (2, 0.03125, 1.9759, 1.6875)
    """

    activation: str
    exponent: float
    coefficient: float
    weak_recovery: float
    it_detection: float
    spinodal: float
    overlaps: Mapping[str, float]
    reasons: Mapping[str, str]
    certified: bool
    status: str = "derived"

    def summary(self) -> str:
        """The three laws in words, or why there is none.

        Example:
            >>> print(asymptotics("abs").summary().splitlines()[1])
            weak_recovery ~ 1.5708 snr^-1
        """
        head = f"{self.activation} as snr -> 0 ({'certified' if self.certified else 'numerical'} exponent)"
        rows = [
            f"weak_recovery ~ {self.weak_recovery:.6g} snr^-{self.exponent:g}"
            if math.isfinite(self.exponent)
            else f"weak_recovery: {self.weak_recovery}, {self.reasons['weak_recovery']}"
        ]
        for name in ("it_detection", "spinodal"):
            value = getattr(self, name)
            rows.append(
                f"{name}: {'none' if math.isnan(value) else value}, {self.reasons[name]}"
                if not math.isfinite(value)
                else f"{name} ~ {value:.6g} / snr, at overlap {self.overlaps[name]:.4g}"
            )
        return "\n".join([head, *rows])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RecoveryCurve(Plain):
    """weak_recovery over snr with its local slopes and its distance from the asymptotic law.

    Attributes:
        snrs: Increasing.
        weak_recovery: 1/E_y[(E[z^2 - 1 | y])^2] at each snr: the threshold of any sigma with F(0) = 0, and of
            the second-order instability of the others.
        error: Relative change under refinement.
        exponent, coefficient: Of the law coefficient * snr^-exponent.
        local: Slopes d ln alpha / d ln snr; nan where the curve is infinite somewhere.
        ratio: weak_recovery / law, nan if the exponent is infinite.
        onset_snr: Largest snr of the grid from which down the ratio stays within 10 % of 1; nan if the grid
            ends before.
        status: `"derived"`: exact curve and constant are ours.
    """

    snrs: Array
    weak_recovery: Array
    error: Array
    exponent: float
    coefficient: float
    local: LocalExponent
    ratio: Array
    onset_snr: float
    status: str = "derived"

    def summary(self) -> str:
        """The law, the slope at the smallest snr, and where the law starts."""
        law = (
            f"{self.coefficient:.6g} snr^-{self.exponent:g}"
            if math.isfinite(self.exponent)
            else "no finite law"
        )
        onset = (
            f"reached (within 10 %) below snr {self.onset_snr:.2g}"
            if math.isfinite(self.onset_snr)
            else "not reached on this grid"
        )
        if not np.isfinite(self.weak_recovery).all():
            return f"{law}; weak recovery is infinite on this grid, or below what floats resolve"
        return f"{law}, {onset}; local slope {self.local.slope[0]:.4f} at snr {self.local.x[0]:.2g}"


def asymptotics(
    activation: str | Callable[[Any], Any] | Activation, *, normalize: bool = False
) -> Asymptotics:
    """Find the constants of the laws as snr -> 0.

    weak_recovery ~ beta!/(c^2 snr^beta), c = E[sigma^beta (z^2 - 1)]. With G(q) = sum_k b_k q^k,
    b_k = (E[sigma He_k])^2/k!: it_detection * snr -> inf_q -(q + ln(1 - q))/G(q) and
    spinodal * snr -> the local minimum of q/((1 - q) G'(q)) that opens its upper branch.

    Args:
        activation: Name, expression, callable, or an `Activation`.
        normalize: Divide sigma by its standard deviation first.

    Returns:
        The constants, each with its reason where there is none.

    Raises:
        InputError: The activation is refused.

    Example:
        >>> a = asymptotics("He3", normalize=True)
        >>> round(a.it_detection, 4), round(a.overlaps["it_detection"], 3), round(a.spinodal, 4)
        (1.4558, 0.645, 1.3333)

    Source:
        The order snr^-beta is Theorem 3.2 of arXiv:2603.17896; all constants are derived by us.
    """
    sigma = as_activation(activation, normalize=normalize)
    beta, c, certified = noise_sensitivity(sigma)
    if sigma.constant:
        names = ("weak_recovery", "it_detection", "spinodal")
        return Asymptotics(
            activation=sigma.name,
            exponent=math.inf,
            coefficient=math.nan,
            overlaps={"it_detection": 0.0, "spinodal": 0.0},
            reasons=dict.fromkeys(names, ERASED),
            certified=certified,
            weak_recovery=math.inf,
            it_detection=math.inf,
            spinodal=math.inf,
        )
    reasons: dict[str, str] = {}
    weak = law_coefficient(beta, c)
    if math.isinf(beta):
        reasons["weak_recovery"] = "E[sigma^k (z^2 - 1)] = 0 for every k, so no power of snr is enough"
    elif math.isnan(beta):
        reasons["weak_recovery"] = "the noise sensitivity exponent is not decided; `exponents` says how far"
    function = signal_function(sigma)
    curve = fixed_points(function, tolerance=1e-8)
    detection, at = math.nan, math.nan
    if function.power:
        cost = partial(_cost_ratio, function)
        detection, at = infimum(cost, np.linspace(5e-3, curve.stops[-1], 400), function.instability)
    else:
        reasons["it_detection"] = LINEAR_PART
    spinodal, opening = function.instability, 0.0
    if curve.stops.size > 2:
        spinodal, opening = math.exp(curve.levels[-2]), -math.expm1(-curve.stops[-2])
    elif not 0 < spinodal < math.inf:
        spinodal, opening = math.nan, math.nan
        reasons["spinodal"] = "the limiting curve has one branch, which starts at overlap 0"
    return Asymptotics(
        activation=sigma.name,
        exponent=beta,
        coefficient=c,
        weak_recovery=weak,
        it_detection=detection,
        spinodal=spinodal,
        overlaps={"it_detection": at, "spinodal": opening},
        reasons=reasons,
        certified=certified,
    )


def recovery_curve(
    activation: str | Callable[[Any], Any] | Activation, *, snrs: ArrayLike, normalize: bool = False
) -> RecoveryCurve:
    """Compute weak_recovery exactly over a grid of snr, with local slopes and the onset of its law.

    Args:
        activation: Name, expression, callable, or an `Activation`.
        snrs: Power signal-to-noise ratios, positive, at least 3, in any order.
        normalize: Divide sigma by its standard deviation first.

    Returns:
        The curve, sorted by snr.

    Raises:
        InputError: Bad snrs, or the activation is refused.

    Example:
        >>> curve = recovery_curve("abs", snrs=[1e-5, 1e-4, 1e-3, 1e-2])
        >>> curve.local.slope.round(3), curve.exponent, round(float(curve.ratio[0]), 4)
        (array([-1., -1.]), 1, 1.0)

    Source:
        Ours.
    """
    sigma = as_activation(activation, normalize=normalize)
    grid = np.unique(positive_array("snrs", snrs))
    values, error = weak_recovery_values(sigma, grid)
    beta, c, _ = noise_sensitivity(sigma)
    coefficient = law_coefficient(beta, c)
    ratio = values * grid**beta / coefficient if math.isfinite(beta) else np.full(grid.size, np.nan)
    local = local_exponent(grid, values) if np.isfinite(values).all() else no_slopes(grid)
    off = np.flatnonzero(~(np.abs(ratio - 1) <= AGREEMENT))
    reached = grid.size if off.size == 0 else int(off[0])
    return RecoveryCurve(
        snrs=grid,
        weak_recovery=values,
        error=error,
        exponent=beta,
        coefficient=coefficient,
        local=local,
        ratio=ratio,
        onset_snr=float(grid[reached - 1]) if reached else math.nan,
    )


def noise_sensitivity(link: Activation) -> tuple[float, float, bool]:
    """Return beta, E[sigma^beta (z^2 - 1)] and whether both are certified; nan where beta is not decided."""
    found = exponents(link)
    constant = found.constant
    if constant is None:
        proved = isinstance(found.noise_sensitivity, float)
        return math.inf if proved else math.nan, math.nan, proved and found.status == "certified"
    return constant.power, constant.mid, constant.state == CERTIFIED_NONZERO


def sensitivity_in_floats(link: Activation, *, max_power: int = 8) -> tuple[float, float]:
    """Return beta and its coefficient in floats; inf and nan where every moment up to max_power is rounding.

    For links with rounded constants, such as sigma less its linear part: a certificate would tell rounding
    from 0 and be right about the wrong function.
    """
    values, mass, curvature = prior(link, 4)
    centered = values - float(mass @ values)
    for power in range(1, max_power + 1):
        c = float(curvature @ centered**power)
        if abs(c) > _ZERO_SHARE * float(np.abs(curvature) @ np.abs(centered) ** power):
            return power, c
    return math.inf, math.nan


def law_coefficient(beta: float, c: float) -> float:
    """Return beta!/c^2; inf or nan where beta is."""
    return math.factorial(int(beta)) / c**2 if math.isfinite(beta) else beta


def _cost_ratio(function: OverlapFunction, x: Array) -> Array:
    """-(q + ln(1 - q))/G(q) at x = -ln(1 - q)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(entropy_cost(x) / function.accumulated(x))
