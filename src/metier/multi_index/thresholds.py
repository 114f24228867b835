"""Sample ratios at which one direction can be learned, for one activation at one signal strength."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from metier.core import InputError, one_of

from .activations import Activation, as_activation
from .channels import AdditiveChannel, Array, Channel, SignChannel
from .fixed_points import NAMES, FixedPointCurve, Lines, find_lines, fixed_points, no_information
from .noiseless import NoiselessChannel, NoiselessSignChannel, sign_changes
from .overlap import OverlapFunction, refined
from .results import Plain

CHANNELS: Mapping[str, Mapping[bool, Callable[[Activation, Array], Channel]]] = {
    "additive": {True: AdditiveChannel, False: lambda link, _: NoiselessChannel(link)},
    "sign": {True: SignChannel, False: lambda link, _: NoiselessSignChannel(link)},
}
"""Channel by name, then by whether there is noise."""

NOT_A_RATIO = "0/0 or a threshold that is undefined here"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Thresholds(Plain):
    """Sample ratios n/d of one single-index model, with the curve they are read from.

    Attributes:
        activation: Name of sigma.
        snr: Power signal-to-noise ratio; inf without noise.
        channel: `"additive"` or `"sign"`.
        weak_recovery: alpha above which AMP leaves overlap 0; 0 where it starts above 0; inf where never.
        strong_recovery: alpha above which AMP from overlap 0 reaches the upper branch.
        spinodal: alpha above which the upper branch exists (a start near the truth stays near).
        it_detection: alpha above which any method beats overlap 0; nan where the overlap starts above 0.
        it_strong: alpha above which the Bayes overlap lies on the upper branch.
        overlaps: Overlap at each threshold, by name.
        errors: Estimated relative error of each threshold: its change from half the resolution.
        reasons: Why a threshold or gap is nan or infinite, by name.
        status: `"derived"`: our formulas, from state evolution and the replica free entropy.
        curve: All fixed points; `overlap` reads it.

    Example:
        >>> t = thresholds("abs", snr=1e-3)
        >>> round(t.weak_recovery, 1), t.gap
        (1570.7, 1.0)
    """

    activation: str
    snr: float
    channel: str
    weak_recovery: float
    strong_recovery: float
    spinodal: float
    it_detection: float
    it_strong: float
    overlaps: Mapping[str, float]
    errors: Mapping[str, float]
    reasons: Mapping[str, str]
    curve: FixedPointCurve
    status: str = "derived"

    _hidden: ClassVar = ("curve",)
    _more: ClassVar = ("gap", "strong_gap")

    @property
    def gap(self) -> float:
        """weak_recovery / it_detection: 1 without a computational gap, nan where undefined."""
        return _quotient(self.weak_recovery, self.it_detection)

    @property
    def strong_gap(self) -> float:
        """strong_recovery / it_strong: 1 without a computational gap, nan where undefined."""
        return _quotient(self.strong_recovery, self.it_strong)

    def overlap(self, sample_ratios: ArrayLike, *, start: str = "uninformed") -> Array:
        """Overlap q at sample ratios.

        Args:
            sample_ratios: n/d, positive, any shape.
            start: `"uninformed"` (AMP from 0), `"informed"` (from 1) or `"bayes"` (largest free entropy).

        Returns:
            Overlaps in the shape of `sample_ratios`.

        Example:
            >>> t = thresholds("abs", snr=2.0)
            >>> t.overlap([0.6, 1.5, 4.0]).round(3)
            array([0.   , 0.145, 0.762])
        """
        alphas = positive_array("sample_ratios", sample_ratios)
        read = READINGS[one_of("start", start, READINGS)]
        return read(self.curve, alphas.ravel()).reshape(alphas.shape)

    def summary(self) -> str:
        """One line per threshold: sample ratio, overlap there, relative error, or the reason for none.

        Example:
            >>> print(thresholds("abs", snr=1.0).summary().splitlines()[1][:36])
            weak_recovery    1.76206   overlap 0
        """
        kind = "without noise" if math.isinf(self.snr) else f"at snr {self.snr:g}"
        head = f"{self.activation}, {self.channel} channel {kind}: sample ratios n/d ({self.status})"
        values = {name: getattr(self, name) for name in (*NAMES, "gap", "strong_gap")}
        texts = {
            **{name: f"{value:.6g}" for name, value in values.items()},
            **{
                name: f"{values[name]:<9.6g} overlap {q:<7.3g} error {self.errors[name]:.0e}"
                for name, q in self.overlaps.items()
            },
            **{
                name: f"{'none' if name in NAMES and math.isnan(values[name]) else values[name]}: {reason}"
                for name, reason in self.reasons.items()
            },
        }
        return "\n".join([head, *(f"{name:<16} {texts[name]}" for name in values)])


def thresholds(
    activation: str | Callable[[Any], Any] | Activation,
    *,
    snr: float,
    normalize: bool = False,
    channel: str = "additive",
    rtol: float = 1e-7,
) -> Thresholds:
    """Find the sample ratios at which y = sqrt(snr) sigma(<w, x>) + N(0, 1) gives up its direction w.

    With F(q) = E[g^2], g = (E[z|y] - omega)/(1 - q), omega = sqrt(q) V and z ~ N(omega, 1 - q), every fixed
    point of state evolution lies on alpha(q) = q/((1 - q) F(q)), alpha = n/d; the free entropy is
    phi = (q + ln(1 - q))/2 + alpha/2 int_0^q F. Then weak_recovery = 1/F'(0) (where F(0) = 0),
    strong_recovery is the highest local maximum of alpha(q) before its upper branch, spinodal the minimum
    that opens it, it_detection = inf -(q + ln(1 - q))/int_0^q F, and it_strong equates phi on both branches.

    Args:
        activation: Name, expression, callable, or an `Activation`.
        snr: Power signal-to-noise ratio, positive; `inf` is the noiseless limit.
        normalize: Divide sigma by its standard deviation first.
        channel: `"additive"`, or `"sign"`: only the sign of y is seen.
        rtol: Each value of F is refined until a doubling of all nodes moves it by at most this.

    Returns:
        Thresholds, each with its overlap and its estimated error.

    Raises:
        InputError: `snr` or `rtol` is not positive, or the activation is refused.

    Example:
        >>> t = thresholds("He4", snr=1e-3, normalize=True)
        >>> round(t.it_detection * 1e-3, 3), round(t.weak_recovery * 1e-3, 2), round(t.gap, 2)
        (1.933, 11.58, 5.99)

    Source:
        State evolution of GAMP and the replica free entropy; all fixed points without iteration is ours. The
        order snr^-beta of weak_recovery is Theorem 3.2 of arXiv:2603.17896, the exact curves are derived.
    """
    sigma = as_activation(activation, normalize=normalize)
    strength = positive("snr", snr, infinite=True)
    noisy = math.isfinite(strength)
    make = CHANNELS[one_of("channel", channel, CHANNELS)][noisy]
    tolerance = positive("rtol", rtol)
    if sigma.constant or (channel == "sign" and not noisy and sign_changes(sigma)[0].size == 0):
        return from_curve(no_information(), sigma.name, strength, channel)
    law = make(sigma, np.array([strength]))
    function = refined(law, rtol=tolerance)
    perfect = getattr(law, "perfect_recovery", math.inf)
    return from_curve(curve_of(function), sigma.name, strength, channel, perfect=perfect)


def curve_of(function: OverlapFunction) -> FixedPointCurve:
    """All fixed points, with turns below ten times the error of F left out."""
    return fixed_points(function, tolerance=10 * function.error)


def from_curve(
    curve: FixedPointCurve,
    name: str,
    snr: float,
    channel: str,
    *,
    perfect: float = math.inf,
    status: str = "derived",
    least_error: float = 0.0,
) -> Thresholds:
    """Read the thresholds off all fixed points, and their errors off those at half the resolution of F."""
    function = curve.function
    lines = find_lines(curve, perfect=perfect)
    errors = dict.fromkeys(NAMES, 0.0 if curve.erased else math.nan)
    if function.coarse is not None:
        rough = fixed_points(function.coarse, tolerance=10 * function.error)
        errors = line_errors(lines, find_lines(rough, perfect=perfect), least=least_error)
    reasons = dict(lines.reasons)
    pairs = {"gap": ("weak_recovery", "it_detection"), "strong_gap": ("strong_recovery", "it_strong")}
    for quotient, (above, below) in pairs.items():
        if not math.isfinite(_quotient(lines.ratios[above], lines.ratios[below])):
            reasons[quotient] = lines.reasons.get(below, _gap_reason(above, lines.ratios[above]))
    return Thresholds(
        activation=name,
        snr=snr,
        channel=channel,
        **lines.ratios,
        overlaps=lines.overlaps,
        errors=errors,
        reasons=reasons,
        curve=curve,
        status=status,
    )


def line_errors(fine: Lines, rough: Lines, *, least: float = 0.0) -> dict[str, float]:
    """Relative differences between two resolutions, at least `least`; 0 where both are the same 0 or none."""
    known = {name: 0.0 < value < math.inf for name, value in fine.ratios.items()}
    errors = {name: _relative(fine.ratios[name], rough.ratios[name]) for name in NAMES}
    return {name: max(error, least) if known[name] else error for name, error in errors.items()}


def uninformed_overlap(curve: FixedPointCurve, sample_ratios: Array) -> Array:
    """First overlap whose running maximum of alpha(q) exceeds alpha: where AMP from 0 stops."""
    logs = np.log(sample_ratios)
    first = np.where(logs < curve.levels[0], 0.0, np.fmin.reduce(_stable(curve, sample_ratios), axis=1))
    # Without noise AMP is past every turn where no stable branch crosses: it has found the truth.
    end = np.where(logs > curve.levels.max(), np.inf, 0.0)
    return np.asarray(-np.expm1(-np.where(np.isnan(first), end, first)))


def informed_overlap(curve: FixedPointCurve, sample_ratios: Array) -> Array:
    """Largest stable overlap: where AMP from the truth stops."""
    largest = np.nan_to_num(np.fmax.reduce(_stable(curve, sample_ratios), axis=1), nan=0.0)
    return _or_truth(curve, sample_ratios, largest)


def bayes_overlap(curve: FixedPointCurve, sample_ratios: Array) -> Array:
    """Stable overlap of the largest free entropy."""
    x = _stable(curve, sample_ratios)
    if curve.function.power:
        x = np.concatenate([np.zeros((x.shape[0], 1)), x], axis=1)
    at = np.nan_to_num(x, nan=0.0)
    phi = curve.free_entropy(at.ravel(), np.repeat(sample_ratios, at.shape[1])).reshape(at.shape)
    best = np.argmax(np.where(np.isfinite(x), phi, -np.inf), axis=1)
    return _or_truth(curve, sample_ratios, np.take_along_axis(at, best[:, None], axis=1)[:, 0])


def _stable(curve: FixedPointCurve, sample_ratios: Array) -> Array:
    return np.where(curve.rising, curve.crossings(sample_ratios), np.nan)


def _or_truth(curve: FixedPointCurve, sample_ratios: Array, x: Array) -> Array:
    """Overlaps; without noise the truth itself is a fixed point once alpha exceeds alpha(1)."""
    found = ~curve.rising[-1] & (np.log(sample_ratios) > curve.levels[-1])
    return np.asarray(-np.expm1(-np.where(found, np.inf, x)))


READINGS: Mapping[str, Callable[[FixedPointCurve, Array], Array]] = {
    "uninformed": uninformed_overlap,
    "informed": informed_overlap,
    "bayes": bayes_overlap,
}


def positive(name: str, value: object, *, infinite: bool = False) -> float:
    """Return `value` as a positive float."""
    number = float(value) if isinstance(value, int | float | np.integer | np.floating) else math.nan
    if number > 0 and (infinite or math.isfinite(number)) and not isinstance(value, bool):
        return number
    raise InputError(
        f"{name} is positive",
        expected=f"a number above 0{', or inf' if infinite else ''}",
        got=repr(value),
        next_step=f"Pass {name}=0.1, for example.",
    )


def positive_array(name: str, value: ArrayLike) -> Array:
    """Return `value` as an array of positive finite floats."""
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        got = reprlib.repr(value)
    else:
        bad = ~(np.isfinite(array) & (array > 0))
        if array.size and not bad.any():
            return array
        got = repr(array[bad][0].item()) if array.size else "no entries"
    raise InputError(
        f"{name} are positive",
        expected="finite numbers above 0",
        got=got,
        next_step=f"Keep the positive entries of {name}.",
    )


def _quotient(above: float, below: float) -> float:
    if math.isnan(above) or math.isnan(below) or (above == below and above in (0.0, math.inf)):
        return math.nan
    return above / below if below > 0 and math.isfinite(above) else math.inf


def _gap_reason(above: str, value: float) -> str:
    infinite = f"{above} is infinite: no number of samples per dimension is enough"
    return infinite if math.isinf(value) else f"{above} and its information-theoretic counterpart are both 0"


def _relative(fine: float, rough: float) -> float:
    if fine == rough or (math.isnan(fine) and math.isnan(rough)):
        return 0.0
    return abs(rough / fine - 1.0) if math.isfinite(fine) and fine != 0 else math.inf
