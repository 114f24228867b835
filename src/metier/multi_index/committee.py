"""A committee of equal units: when its subspace is found, when units specialize; the fixed points of two."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from metier.core.checks import ensure, positive_int

from .activations import Activation, as_activation
from .asymptotics import law_coefficient, noise_sensitivity, sensitivity_in_floats, signal_function
from .channels import Array, posterior, prior, run_in_spans
from .fixed_points import ERASED, entropy_cost, infimum, no_information, zoom
from .kernels import additive_sums
from .overlap import OverlapFunction, assemble, node_overlaps, panel_edges, relative_change
from .results import Plain
from .thresholds import Thresholds, curve_of, from_curve, positive, thresholds

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
class Committee(Plain):
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

    _more: ClassVar = ("gap",)

    @property
    def gap(self) -> float:
        """subspace_recovery / it_detection."""
        return self.subspace_recovery / self.it_detection

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
    for level in (2, 3):
        if abs(fine - coarse) > 1e-9 * fine:
            coarse, fine = fine, _instability(link, width, noise, level, _STEP / 2)
    return (math.inf, 0.0) if fine <= 1e-20 else (1.0 / fine, abs(coarse / fine - 1.0))


def _instability(link: Activation, width: int, noise: float, level: int, step: float) -> float:
    values, mass, curvature = prior(link, 3 + level)
    s = (values - float(mass @ values)) / math.sqrt(width)
    variance = width * float(mass @ s**2) + noise
    reach = _REACH * math.sqrt(variance) + float(np.abs(s[np.abs(mass) > _MASS]).max())
    size = 2 ** math.ceil(math.log2(2 * reach / (step * math.sqrt(noise))))
    dy = 2 * reach / size
    t = 2 * np.pi * np.fft.rfftfreq(size, dy)
    kept = t[t < _BAND / math.sqrt(noise)]
    waves = [np.exp(1j * np.outer(kept[k : k + _BLOCK], s)) for k in range(0, kept.size, _BLOCK)]
    c0, c2 = (np.concatenate([wave @ moment for wave in waves]) for moment in (mass, curvature))
    damping = np.exp(-0.5 * noise * kept**2) / dy
    # y runs over [-reach, reach): the shift by -reach is a phase of the transform.
    phase = np.exp(-1j * kept * reach)
    P = _inverse(c0**width * damping * phase, t.size, size)
    Q = _inverse(c0 ** (width - 1) * c2 * damping * phase, t.size, size)
    ensure(
        abs(float(P.sum() * dy) - 1.0) <= 1e-6,
        "the density of y sums to 1 on the grid",
        expected="1 within 1e-6",
        got=f"{P.sum() * dy:.8g} for {link.name}",
        next_step="Raise the noise, or pass an activation with lighter tails.",
    )
    seen = _SHARE * P.max() < P
    return float(np.sum(Q[seen] ** 2 / P[seen]) * dy)


def _inverse(spectrum: Any, n_frequencies: int, size: int) -> Array:
    # E[e^(ity)] is the conjugate of the transform that irfft inverts.
    padded = np.zeros(n_frequencies, dtype=complex)
    padded[: spectrum.size] = np.conj(spectrum)
    return np.asarray(np.fft.irfft(padded, size))


def _information_theoretic(function: OverlapFunction, total: float) -> tuple[float, float]:
    def ratio(x: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(entropy_cost(x) / -np.log1p(-function.accumulated(x) / total))

    onset = total * function.instability if function.power else math.inf
    return infimum(ratio, np.linspace(5e-3, function.edges[-1], 400), onset)


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
        onset = total * function.instability
        return onset if 0 < onset < math.inf else math.nan, 0.0
    x, value = zoom(ratio, grid[lowest[-1] - 1], grid[lowest[-1] + 1])
    return value, -math.expm1(-x)


MOST_UNITS = 2
_RARE, _RARE_NODE = 1e-7, 1e-9
"""Pairs of fields, and of nodes, whose weight is below this share of the largest are left out."""

_SAME = 1e-11
_Law = tuple[Array, Array, Array]

_OBSERVED_STEP = 0.5
"""Of the observation, in noise standard deviations."""

_CHECKS = (0.1, 0.5, 0.9)
"""Overlaps at which F is computed again with the nodes of the fields doubled, and with those of z."""


def committee_thresholds(
    activation: str | Callable[[Any], Any] | Activation,
    *,
    n_units: int = 2,
    noise: float,
    normalize: bool = False,
) -> Thresholds:
    """Find the sample ratios of y = p^(-1/2) sum_k sigma(<w_k, x>) + sqrt(noise) N(0, 1) at overlap q I_p.

    Every unit of the student has overlap q with its own unit of the teacher and none with the others, so that
    alpha(q) = q/((1 - q) F(q)) with F(q) = E[g_1^2], g_1 = (E[z_1 | y] - omega_1)/(1 - q), as for one
    direction. `weak_recovery` is the exact subspace recovery of `committee`; `strong_recovery` is where the
    lower branch of matched overlaps ends and AMP must jump to units that are told apart.

    Args:
        activation: Even: name, expression, callable, or an `Activation`.
        n_units: p, 1 or 2: the fields of all units are integrated on a product grid.
        noise: Variance of the additive noise, positive.
        normalize: Divide sigma by its standard deviation first.

    Returns:
        The thresholds, with status `"heuristic"` for two units: overlaps that are not a multiple of the
        identity are not searched.

    Raises:
        InputError: more than two units, an activation that is not even, or a noise that is not positive.

    Example:
        >>> t = committee_thresholds("cos(2*x) - 4*exp(-3/2)*cos(x)", noise=1.0, normalize=True)
        >>> round(t.weak_recovery, 2), round(t.strong_recovery / t.weak_recovery, 1)
        (8.22, 1.4)

    Source: ours; state evolution of matrix AMP (Aubin et al. 2018) at matched overlaps.
    """
    sigma = as_activation(activation, normalize=normalize)
    width = positive_int("n_units", n_units)
    ensure(
        width <= MOST_UNITS,
        "fixed points of a committee are found on the product grid of its units' fields",
        expected=f"at most {MOST_UNITS} units",
        got=f"n_units={width}",
        next_step="Use committee for the exact first instability of wider ones.",
    )
    variance = positive("noise", noise)
    if width == 1:
        return thresholds(sigma, snr=1.0 / variance)
    ensure(
        sigma.parity == "even",
        "overlap 0 is a fixed point of a committee of even units",
        expected="an even activation",
        got=f"{sigma.name}, which is not even",
        next_step="Use committee, or declare parity='even' of a callable that is.",
    )
    if sigma.constant:
        return from_curve(no_information(), sigma.name, 1.0 / variance, "committee of 2", status="derived")
    channel = _Pair(sigma, variance)
    edges = panel_edges(1)
    q = node_overlaps(edges)
    fine = np.r_[channel.onset(), channel.overlap(q[1:]) / q[1:]]
    checked = np.searchsorted(q, _CHECKS)
    finer = (channel.overlap(q[checked], level, inner) / q[checked] for level, inner in ((1, 0), (0, 1)))
    moved = float(np.sum([relative_change(fine[checked], values) for values in finer], axis=0).max())
    function = assemble(edges, fine, fine, 1, error=moved)
    return from_curve(
        curve_of(function),
        sigma.name,
        1.0 / variance,
        "committee of 2",
        status="heuristic",
        least_error=moved,
    )


class _Pair:
    """y = (sigma(z_1) + sigma(z_2))/sqrt(2 noise) + N(0, 1): F of the first unit."""

    def __init__(self, link: Activation, noise: float) -> None:
        self.link, self.scales = link, np.array([1.0 / math.sqrt(2.0 * noise)])

    def overlap(self, overlaps: Array, level: int = 0, inner: int = 0) -> Array:
        """F(q), (n_overlaps,)."""
        out = np.empty(overlaps.size)

        def part(span: tuple[int, int]) -> None:
            for k in range(*span):
                out[k] = self._one(overlaps[k], level, inner)

        run_in_spans(part, overlaps.size, work=overlaps.size * 10**6)
        return out

    def onset(self) -> float:
        """F'(0) = E_y[(E[z_1^2 - 1 | y])^2]: E[z_1 z_2 | y] is 0 for even sigma."""
        values, mass, curvature = prior(self.link, 1)
        return self._sum(_merged(values, mass, curvature), _merged(values, mass, mass))

    def _one(self, q: float, level: int, inner: int) -> float:
        law = posterior(self.link, np.array([q]), level, inner)
        outer = law.outer[0]
        laws = [_merged(*parts) for parts in zip(law.values[0], law.mass[0], law.slope[0], strict=True)]
        weights = np.outer(outer, outer)
        pairs = np.argwhere(weights > _RARE * weights.max())
        total = sum(weights[i, k] * self._sum(laws[i], laws[k]) for i, k in pairs)
        return float(total) / float(weights[pairs[:, 0], pairs[:, 1]].sum())

    def _sum(self, own: _Law, other: _Law) -> float:
        """Return int N^2/Z dy with N weighted by the slopes (or curvatures) of the first unit."""
        mass = np.outer(own[1], other[1])
        kept = mass > _RARE_NODE * mass.max()
        values, slope = (own[0][:, None] + other[0])[kept], np.outer(own[2], other[1])[kept]
        out, one = np.empty((1, 1)), np.ones((1, 1))
        additive_sums(
            values[None, None],
            mass[kept][None, None],
            slope[None, None],
            one,
            self.scales,
            _OBSERVED_STEP,
            0,
            1,
            out,
        )
        return float(out[0, 0])


def _merged(values: Array, mass: Array, slope: Array) -> _Law:
    """Nodes of equal signal as one: z and -z of an even link."""
    seen = mass > _RARE_NODE * mass.max()
    order = np.flatnonzero(seen)[np.argsort(values[seen])]
    v = values[order]
    starts = np.flatnonzero(np.r_[True, np.diff(v) > _SAME * (1.0 + np.abs(v[1:]))])
    return v[starts], np.add.reduceat(mass[order], starts), np.add.reduceat(slope[order], starts)
