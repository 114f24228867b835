"""A committee of equal units: when its subspace is found, and when its units specialize."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from metier.core import positive_int
from metier.core.checks import ensure

from .activations import Activation, as_activation
from .asymptotics import law_coefficient, noise_sensitivity, sensitivity_in_floats, signal_function
from .channels import Array, prior
from .fixed_points import ERASED, entropy_cost, zoom
from .overlap import OverlapFunction
from .thresholds import positive

_MASS = 1e-12
_REACH = 24.0
_SHARE = 1e-11
_BAND = 9.0
_STEP = 0.25
_BLOCK = 256

ROTATIONS = (
    "the first instability is the same for all rotations of the units: it finds their subspace; which "
    "direction belongs to which unit is decided by later orders that this formula does not see"
)
NEVER = "a sum of squares is the same for every rotation of the units, so they can never be told apart"
MEAN_FIRST = (
    "E[sigma z] is not 0: the mean direction is learnt at any n/d; units follow sigma less its linear part, "
    "with the mean direction taken as known (heuristic)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Committee:
    """Sample ratios n/d of y = p^(-1/2) sum_k sigma(<w_k, x>) + sqrt(noise) N(0, 1), p = n_units.

    Attributes:
        activation: Name of sigma.
        n_units: p.
        noise: Variance of the noise.
        subspace_recovery: Exact n/d at which AMP leaves overlap 0 at this width: all directions of the span
            destabilize at once.
        specialization: n/d at which units are told apart; equals subspace_recovery where the law's exponent
            is at least 2, nan or inf with a reason where the first instability cannot tell rotations apart.
        law: beta! (v + noise)^beta p^beta / c^2, the large-width law at this width.
        exponent: beta, of sigma or, where E[sigma z] is not 0, of sigma less its linear part.
        it_detection: Large-width n/d of the information-theoretic transition.
        spinodal: Large-width n/d at which the upper branch opens.
        overlaps: Overlap at it_detection and at the spinodal.
        mean_direction: n/d at which the mean of the w_k is learnt: 0 where E[sigma z] is not 0, else nan.
        error: Estimated relative error of subspace_recovery.
        reasons: Why an entry is nan or inf, by name.
        status: `"derived"` for even sigma, else `"heuristic"`.
    """

    activation: str
    n_units: int
    noise: float
    subspace_recovery: float
    specialization: float
    law: float
    exponent: float
    it_detection: float
    spinodal: float
    overlaps: Mapping[str, float]
    mean_direction: float
    error: float
    reasons: Mapping[str, str]
    status: str

    @property
    def gap(self) -> float:
        """subspace_recovery / it_detection."""
        return self.subspace_recovery / self.it_detection

    def to_dict(self) -> dict[str, Any]:
        """All attributes as plain values."""
        names = ("activation", "n_units", "noise", "subspace_recovery", "specialization", "law", "exponent")
        more = ("it_detection", "spinodal", "mean_direction", "error", "status", "gap")
        return {
            **{name: getattr(self, name) for name in (*names, *more)},
            "overlaps": dict(self.overlaps),
            "reasons": dict(self.reasons),
        }

    def summary(self) -> str:
        """One line per threshold.

        Example:
            >>> print(committee("He4", n_units=8, noise=0.1).summary().splitlines()[0])
            committee of 8 He4 units, noise variance 0.1 (derived)
        """
        names = ("mean_direction", "subspace_recovery", "specialization", "law", "it_detection", "spinodal")
        rows = [
            f"{name:<18} {getattr(self, name):.6g}"
            + (f": {self.reasons[name]}" if name in self.reasons else "")
            for name in names
            if name != "mean_direction" or self.mean_direction == 0
        ]
        head = f"committee of {self.n_units} {self.activation} units, noise variance {self.noise:g}"
        return "\n".join([f"{head} ({self.status})", *rows])


def committee(
    activation: str | Callable[[Any], Any] | Activation,
    *,
    n_units: int,
    noise: float,
    normalize: bool = False,
) -> Committee:
    """Find when the units of a committee can be learnt, exactly at finite width and by its large-width law.

    For even sigma E[z z^T - I | y] is a multiple c(y) of the identity, and 1/subspace_recovery = E[c(y)^2] =
    int Q^2/P dy, with P and Q the inverse Fourier transforms of c0^p e^(-noise t^2/2) and
    c0^(p-1) c2 e^(-noise t^2/2), c0(t) = E[e^(i t s/sqrt p)], c2(t) = E[e^(i t s/sqrt p) (z^2 - 1)],
    s = sigma - E sigma. At large width, with G(q) = sum_k b_k q^k and v = G(1),
    it_detection/p = inf_q -(q + ln(1 - q))/ln((v + noise)/(v + noise - G(q))).

    Args:
        activation: Name, expression, callable, or an `Activation`.
        n_units: p, at least 1.
        noise: Variance of the additive noise, positive.
        normalize: Divide sigma by its standard deviation first.

    Returns:
        Subspace recovery and specialization apart, with the information-theoretic values.

    Raises:
        InputError: `n_units` or `noise` is not positive, or the activation is refused.

    Example:
        >>> c = committee("abs", n_units=512, noise=0.1)
        >>> round(c.subspace_recovery / c.law, 3), c.exponent
        (1.0, 1)

    Source:
        The orders p (any method) and p^beta (first-order methods): Theorem 5.2 of arXiv:2603.17896. The exact
        finite-width formula and all constants are derived by us.
    """
    sigma = as_activation(activation, normalize=normalize)
    width, variance = positive_int("n_units", n_units), positive("noise", noise)
    if sigma.constant:
        return _erased(sigma, width, variance)
    linear = sigma.parity != "even" and abs(sigma.moment(1, 1)) > 1e-12 * math.sqrt(sigma.second_moment)
    link = sigma.without_linear_part() if linear and width > 1 else sigma
    reasons = {"specialization": MEAN_FIRST} if linear and width > 1 else {}
    beta, c = noise_sensitivity(sigma)[:2] if link is sigma else sensitivity_in_floats(link)
    recovery, error = _finite_width(link, width, variance)
    function = signal_function(link)
    total = float(link.variance) + variance
    detection, at = _information_theoretic(function, total)
    spinodal, opening = _upper_branch(function, total)
    specialization = _specialization(link, width, beta, recovery, reasons)
    if math.isnan(spinodal):
        reasons["spinodal"] = "the large-width curve has one branch, which starts at overlap 0"
    return Committee(
        activation=sigma.name,
        n_units=width,
        noise=variance,
        subspace_recovery=recovery,
        specialization=specialization,
        law=law_coefficient(beta, c) * (total * width) ** beta if math.isfinite(beta) else beta,
        exponent=beta,
        it_detection=width * detection,
        spinodal=width * spinodal,
        overlaps={"it_detection": at, "spinodal": opening},
        mean_direction=0.0 if linear else math.nan,
        error=error,
        reasons=reasons,
        status="derived" if sigma.parity == "even" or width == 1 else "heuristic",
    )


def _erased(sigma: Activation, width: int, noise: float) -> Committee:
    names = ("subspace_recovery", "specialization", "law", "it_detection", "spinodal", "mean_direction")
    return Committee(
        activation=sigma.name,
        n_units=width,
        noise=noise,
        exponent=math.inf,
        overlaps={"it_detection": 0.0, "spinodal": 0.0},
        error=0.0,
        reasons=dict.fromkeys(names, ERASED),
        status="derived",
        **dict.fromkeys(names, math.inf),
    )


def _specialization(
    link: Activation, width: int, beta: float, recovery: float, reasons: dict[str, str]
) -> float:
    if width == 1 or beta >= 2:
        return recovery
    if link.polynomial is not None and len(link.polynomial) <= 3:
        reasons["specialization"] = NEVER
        return math.inf
    reasons["specialization"] = ROTATIONS
    return math.nan


def _finite_width(link: Activation, width: int, noise: float) -> tuple[float, float]:
    """1 / int Q^2/P dy with its relative change under doubled nodes and a halved step."""
    coarse, fine = (_instability(link, width, noise, level, _STEP / 2**level) for level in (0, 1))
    level = 1
    while level < 3 and abs(fine - coarse) > 1e-9 * fine:
        level += 1
        coarse, fine = fine, _instability(link, width, noise, level, _STEP / 2)
    if fine <= 1e-20:
        return math.inf, 0.0
    return 1.0 / fine, abs(coarse / fine - 1.0)


def _instability(link: Activation, width: int, noise: float, level: int, step: float) -> float:
    values, mass, curvature = prior(link, 3 + level)
    s = (values - float(mass @ values)) / math.sqrt(width)
    variance = width * float(mass @ s**2) + noise
    reach = _REACH * math.sqrt(variance) + float(np.abs(s[np.abs(mass) > _MASS]).max())
    size = 2 ** math.ceil(math.log2(2 * reach / (step * math.sqrt(noise))))
    dy = 2 * reach / size
    t = 2 * np.pi * np.fft.rfftfreq(size, dy)
    kept = t[t < _BAND / math.sqrt(noise)]
    c0, c2 = _characteristic(s, mass, curvature, kept)
    damping = np.exp(-0.5 * noise * kept**2) / dy
    # y runs over [-reach, reach): the shift by -reach is a phase of the transform.
    phase = np.exp(-1j * kept * reach)
    P = _inverse(c0**width * damping * phase, t.size, size)
    Q = _inverse(c0 ** (width - 1) * c2 * damping * phase, t.size, size)
    _check_mass(float(P.sum() * dy), link.name)
    seen = _SHARE * P.max() < P
    return float(np.sum(Q[seen] ** 2 / P[seen]) * dy)


def _characteristic(s: Array, mass: Array, curvature: Array, t: Array) -> tuple[Any, Any]:
    parts = [np.exp(1j * np.outer(t[k : k + _BLOCK], s)) for k in range(0, t.size, _BLOCK)]
    return np.concatenate([part @ mass for part in parts]), np.concatenate(
        [part @ curvature for part in parts]
    )


def _inverse(spectrum: Any, n_frequencies: int, size: int) -> Array:
    # E[e^(ity)] is the conjugate of the transform that irfft inverts.
    padded = np.zeros(n_frequencies, dtype=complex)
    padded[: spectrum.size] = np.conj(spectrum)
    return np.asarray(np.fft.irfft(padded, size))


def _check_mass(total: float, name: str) -> None:
    ensure(
        abs(total - 1.0) <= 1e-6,
        "the density of y sums to 1 on the grid",
        expected="1 within 1e-6",
        got=f"{total:.8g} for {name}",
        next_step="Raise the noise, or pass an activation with lighter tails.",
    )


def _information_theoretic(function: OverlapFunction, total: float) -> tuple[float, float]:
    def ratio(x: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(entropy_cost(x) / -np.log1p(-function.accumulated(x) / total))

    grid = np.linspace(5e-3, function.edges[-1], 400)
    k = int(np.argmin(ratio(grid)))
    x, value = zoom(ratio, grid[max(k - 1, 0)], grid[min(k + 1, grid.size - 1)])
    onset = total / function.rate_at_zero if function.power and function.rate_at_zero > 0 else math.inf
    return (onset, 0.0) if onset <= value * (1 + 1e-9) else (value, -math.expm1(-x))


def _upper_branch(function: OverlapFunction, total: float) -> tuple[float, float]:
    """The local minimum of a(q) = q (v + noise - G)/((1 - q) G') that opens the upper branch."""

    def ratio(x: Array) -> Array:
        q = -np.expm1(-x)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.asarray(np.expm1(x) * (total - function.accumulated(x)) / function(q))

    grid = np.linspace(5e-3, function.edges[-1], 800)
    values = ratio(grid)
    lowest = [k for k in range(1, grid.size - 1) if values[k - 1] > values[k] <= values[k + 1]]
    if not lowest:
        onset = total / function.rate_at_zero if function.power and function.rate_at_zero > 0 else math.nan
        return onset, 0.0
    k = lowest[-1]
    x, value = zoom(ratio, grid[k - 1], grid[k + 1])
    return value, -math.expm1(-x)
