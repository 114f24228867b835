"""The exponents of an activation: information, generative, noise sensitivity, strong recovery, certified."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from metier.core.checks import positive_int
from metier.core.errors import InputError

from .activations import Activation, as_activation
from .certify.certify import (
    PRECISIONS,
    certified_coefficient,
    law_known_by_powers,
    never_reason,
    numerical_coefficient,
)
from .certify.coefficient import NUMERICAL, UNDECIDED, Coefficient
from .registry import activation_names
from .step_activation import MAX_EXPONENT

PROFILE = 4
"""Degrees 1..PROFILE are in every profile."""

SEARCHED = 12
"""Degrees looked through for the information exponent."""


@dataclass(frozen=True, slots=True, order=True)
class AtLeast:
    """A lower bound where no value is proved: every smaller one is ruled out.

    Example:
        >>> print(AtLeast(9))
        >= 9
    """

    value: int

    def __str__(self) -> str:
        return f">= {self.value}"


Exponent = int | Fraction | float | AtLeast
"""A whole number, a fraction, `math.inf` (with a proof), or `AtLeast`."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Why each exponent is what it is.

    Args:
        status: "certified" (all of it proved), "undecided" (some coefficient is), or "numerical".
        statements: one sentence per fact.

    Example:
        >>> from metier.multi_index import exponents
        >>> print(exponents("He4").certificate.statements[0])
        noise sensitivity 2: c(1,2) = 0 (rational arithmetic); c(2,2) = 192 (rational arithmetic)
    """

    status: str
    statements: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.status, *self.statements])


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponents:
    """What an activation promises: how many samples per dimension each kind of learning needs.

    Args:
        name: the activation's.
        information: min{k >= 1 : E[sigma He_k] != 0}.
        generative: min{j >= 1 : E[He_j | sigma] is not 0 almost surely}; `AtLeast` where only a lower bound
            is proved. Its upper bound is in `generative_bounds`.
        generative_bounds: proved bounds (low, high), equal where the exponent is known.
        leap: for one direction, the information exponent.
        noise_sensitivity: beta* = min{k >= 1 : E[sigma^k He_2] != 0}: at small snr, weak recovery needs
            snr^-beta* samples per dimension.
        strong_recovery: B*: a constant overlap needs snr^-B* (ours); beta* for even activations.
        kappa: kappa_j = min{k >= 1 : E[sigma^k He_j] != 0} for j = 1, 2, ....
        certificate: the proofs, in words.
        activation: the activation itself.
        certify: whether coefficients were certified.
        bits: working precision of balls.
    """

    name: str
    information: Exponent
    generative: Exponent
    generative_bounds: tuple[int | float, int | float]
    leap: Exponent
    noise_sensitivity: Exponent
    strong_recovery: Exponent
    kappa: tuple[Exponent, ...]
    certificate: Certificate
    activation: Activation
    certify: bool = True
    bits: int = PRECISIONS[0]

    def coefficient(self, power: int, degree: int) -> Coefficient:
        """Return c_{power, degree} = E[sigma^power He_degree] with its state.

        Args:
            power: k, at least 1.
            degree: j, at least 0.
        """
        k, j = positive_int("power", power), positive_int("degree", degree, minimum=0)
        return _coefficient(self.activation, k, j, certify=self.certify, bits=self.bits)

    @property
    def constant(self) -> Coefficient | None:
        """c of the law alpha_WR = beta*! / (c^2 snr^beta*); None if beta* is not a known whole number."""
        if not isinstance(self.noise_sensitivity, int):
            return None
        return self.coefficient(self.noise_sensitivity, 2)

    @property
    def onset_snr(self) -> float:
        """The snr below which weak recovery is within 10 % of its asymptotic law (our choice of 10 %).

        nan where there is no such law: beta* unknown or infinite, or a first coefficient that makes weak
        recovery trivial.
        """
        from .onset import onset_snr

        return onset_snr(self)

    def summary(self) -> str:
        """Return the exponents in a few lines."""
        low, high = self.generative_bounds
        shown = exponent_text(self.generative)
        if low != high and math.isfinite(high):
            shown = f"{low} to {high}"
        lines = [
            f"{self.name}: {self.certificate.status}",
            f"  information {exponent_text(self.information)}, generative {shown}, "
            f"leap {exponent_text(self.leap)}",
            f"  noise sensitivity {exponent_text(self.noise_sensitivity)}, "
            f"strong recovery {exponent_text(self.strong_recovery)}",
            f"  kappa {', '.join(map(exponent_text, self.kappa))}",
            *(f"  {statement}" for statement in self.certificate.statements),
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the exponents as plain values; infinity is "inf", a bound ">= k", a fraction "p/q"."""
        shown = (1, 2, *((self.noise_sensitivity,) if isinstance(self.noise_sensitivity, int) else ()))
        return {
            "name": self.name,
            "status": self.certificate.status,
            "information": _plain(self.information),
            "generative": _plain(self.generative),
            "generative_bounds": [_plain(bound) for bound in self.generative_bounds],
            "leap": _plain(self.leap),
            "noise_sensitivity": _plain(self.noise_sensitivity),
            "strong_recovery": _plain(self.strong_recovery),
            "kappa": [_plain(kappa) for kappa in self.kappa],
            "coefficients": [self.coefficient(k, 2).to_dict() for k in sorted(set(shown))],
            "certificate": list(self.certificate.statements),
        }


def exponent_text(exponent: Exponent) -> str:
    """Return an exponent as people read it."""
    return "inf" if exponent == math.inf else str(exponent)


def _plain(exponent: Exponent) -> int | str:
    return exponent if isinstance(exponent, int) else exponent_text(exponent)


def _coefficient(activation: Activation, k: int, j: int, *, certify: bool, bits: int) -> Coefficient:
    if certify:
        return certified_coefficient(activation, k, j, bits)
    return numerical_coefficient(activation, k, j, why="floats, as asked")


def exponents(
    activation: str | Callable[[Any], Any] | Activation,
    *,
    certify: bool = True,
    kinks: Iterable[float] = (),
    parity: str | None = None,
    normalize: bool = False,
    max_power: int = 8,
    bits: int = PRECISIONS[0],
) -> Exponents:
    """Return the exponents of an activation, with proofs.

    c_{k,j} = E[sigma(z)^k He_j(z)]; kappa_j = min{k : c_{k,j} != 0}; beta* = kappa_2 (`noise_sensitivity`).
    beta* = k is said only if every lower coefficient is proved to vanish and c_{k,2} is enclosed away from 0;
    inf only with a proof for all powers; `AtLeast` otherwise.

    Args:
        activation: a name of `activation_names()`, an expression in x ("x**4 - 6*x**2 + 3"), a vectorized
            callable (whose states are "numerical"), or an `Activation`.
        certify: False computes in floats, and every state is "numerical".
        kinks, parity: of a callable, as in `as_activation`.
        normalize: divide by the standard deviation of sigma(z); no exponent changes, coefficients do.
        max_power: powers tried before `AtLeast` is said.
        bits: first working precision of balls; it doubles twice before "undecided" is said.

    Returns:
        The exponents, their certificate, and every coefficient on demand.

    Raises:
        InputError: an unreadable, unsafe, not finite or not integrable activation, or an undeclared kink.
        MissingExtraError: certification needs python-flint, of the extra "multi-index".

    Example:
        >>> e = exponents("tanh")
        >>> e.information, e.generative, e.noise_sensitivity, e.strong_recovery
        (1, 1, 2, 1)
        >>> exponents("x**4 - 6*x**2 + 3").coefficient(2, 2).mid
        192.0
        >>> exponents("He3 + He4").strong_recovery
        Fraction(3, 2)

    Source: noise sensitivity: Defilippis, Krzakala, Loureiro and Maillard (2026), Def. 2.1; strong recovery,
    the profile and the certificates: ours; information and generative exponents are standard.
    """
    made = as_activation(activation, kinks=kinks, parity=parity, normalize=normalize)
    powers = positive_int("max_power", max_power)
    precision = positive_int("bits", bits, minimum=53)
    return _exponents(made, bool(certify), powers, precision)


@lru_cache(maxsize=1024)
def _exponents(made: Activation, certify: bool, max_power: int, bits: int) -> Exponents:
    profile = _Profile(made, certify=certify, max_power=max_power, bits=bits)
    kappa = tuple(profile.kappa(j) for j in range(1, PROFILE + 1))
    information = profile.information()
    low, high = profile.generative_bounds()
    strong = profile.strong_recovery()
    return Exponents(
        name=made.name,
        information=information,
        generative=low if low == high else AtLeast(int(low)),
        generative_bounds=(low, high),
        leap=information,
        noise_sensitivity=kappa[1],
        strong_recovery=strong,
        kappa=kappa,
        certificate=profile.certificate(information, (low, high), strong),
        activation=made,
        certify=certify,
        bits=bits,
    )


def strong_recovery_bounds(kappa: Callable[[int], tuple[float, float]]) -> tuple[float, float]:
    """Return bounds of B* = min(kappa_1, kappa_2, min_{j>=3} ((j-2) kappa_1 + kappa_j)/(j-1)).

    B* = max_{s>=0} min_{j>=1} (kappa_j + s (j-2)): with q = snr^s, the small-q map of state evolution lets
    the overlap grow from the smallest q on once alpha beats every term.

    Args:
        kappa: degree -> bounds of kappa_j.

    Example:
        >>> strong_recovery_bounds({1: (2, 2), 2: (2, 2), 3: (1, 1), 4: (1, 1)}.__getitem__)
        (1.5, 1.5)

    Source: ours.
    """
    low1, high1 = kappa(1)
    low2, high2 = kappa(2)
    if low1 == math.inf:
        return low2, high2
    low, high = min(low1, low2), min(high1, high2)
    # Without kappa_1 the stop below never comes.
    for j in range(3, 65 if low1 == high1 else SEARCHED):
        # What degree j and all higher ones can still reach, as kappa_j >= 1.
        if low1 - (low1 - 1) / (j - 1) >= high:
            break
        below, above = kappa(j)
        low = min(low, ((j - 2) * low1 + below) / (j - 1))
        high = min(high, ((j - 2) * high1 + above) / (j - 1))
    else:
        # The degrees that were not looked at may have kappa_j = 1.
        low = min(low, low1 - (low1 - 1) / j)
    return float(low), float(high)


class _Profile:
    """The coefficients asked for so far, and what follows from them."""

    def __init__(self, activation: Activation, *, certify: bool, max_power: int, bits: int) -> None:
        self.activation, self.certify, self.bits = activation, certify, bits
        # A step activation vanishes in as many powers as it was asked to.
        self.max_power = max_power if activation.levels is None else max(max_power, MAX_EXPONENT)
        self.asked: dict[tuple[int, int], Coefficient] = {}
        self.never: dict[int, str] = {}
        self._kappa: dict[int, Exponent] = {}

    def coefficient(self, k: int, j: int) -> Coefficient:
        if (k, j) not in self.asked:
            self.asked[k, j] = _coefficient(self.activation, k, j, certify=self.certify, bits=self.bits)
        return self.asked[k, j]

    def kappa(self, j: int) -> Exponent:
        """min{k >= 1 : c_{k,j} != 0}."""
        if j not in self._kappa:
            self._kappa[j] = self._find_kappa(j)
        return self._kappa[j]

    def _find_kappa(self, j: int) -> Exponent:
        reason = never_reason(self.activation, j) if self.certify else None
        if reason is not None:
            self.never[j] = reason
            return math.inf
        for k in range(1, self.max_power + 1):
            try:
                zero = self.coefficient(k, j).zero
            except InputError:  # sigma^k is not integrable, so that no higher power is either
                return AtLeast(k)
            if zero is None:
                return AtLeast(k)
            if not zero:
                return k
        return AtLeast(self.max_power + 1)

    def bounds(self, j: int) -> tuple[float, float]:
        """Bounds of kappa_j as numbers."""
        kappa = self.kappa(j)
        if isinstance(kappa, AtLeast):
            return float(kappa.value), math.inf
        return float(kappa), float(kappa)

    def information(self) -> Exponent:
        """min{k >= 1 : c_{1,k} != 0}."""
        if self.never.get(1) == "a constant activation":
            return math.inf
        polynomial = self.activation.polynomial
        last = SEARCHED if polynomial is None else max(SEARCHED, len(polynomial))
        for j in range(1, last + 1):
            zero = self.coefficient(1, j).zero
            if zero is None:
                return AtLeast(j)
            if not zero:
                return j
        return AtLeast(last + 1)

    def generative_bounds(self) -> tuple[int | float, int | float]:
        """Proved bounds of min{j : E[He_j | sigma] is not 0}; a finite kappa_j proves "at most j"."""
        if self.never.get(1) == "a constant activation":
            return math.inf, math.inf
        known = self.certify and law_known_by_powers(self.activation)
        low, still = 1, True
        for j in range(1, SEARCHED + 1):
            kappa = self.kappa(j)
            if isinstance(kappa, int):
                return low, j
            still = still and (self._odd_degree_of_even(j) or (known and kappa == math.inf))
            if still:
                low = j + 1
        return low, math.inf

    def _odd_degree_of_even(self, j: int) -> bool:
        return j % 2 == 1 and self.activation.parity == "even"

    def strong_recovery(self) -> Exponent:
        """B* from the profile; the same as kappa_2 where kappa_1 is infinite."""
        if self.bounds(1)[0] == math.inf:
            return self.kappa(2)
        low, high = strong_recovery_bounds(self.bounds)
        if low == high and math.isfinite(high):
            exact = Fraction(high).limit_denominator(64)
            return int(exact) if exact.denominator == 1 else exact
        return AtLeast(math.ceil(low)) if math.isfinite(low) else math.inf

    def certificate(
        self, information: Exponent, generative: tuple[int | float, int | float], strong: Exponent
    ) -> Certificate:
        """The proofs in words."""
        statements = [f"noise sensitivity {exponent_text(self.kappa(2))}: {self._why(2)}"]
        powers = [self.coefficient(1, j) for j in range(1, PROFILE + 1)] if information == math.inf else []
        if isinstance(information, int):
            powers = [self.coefficient(1, j) for j in range(1, information + 1)]
        if powers:
            statements.append(f"information {exponent_text(information)}: {_listed(powers)}")
        statements.append(f"generative: {self._why_generative(*generative)}")
        statements.append(
            f"strong recovery {exponent_text(strong)} from kappa = "
            + ", ".join(f"{j}: {exponent_text(kappa)}" for j, kappa in sorted(self._kappa.items()))
        )
        states = {coefficient.state for coefficient in self.asked.values()}
        status = "certified"
        if UNDECIDED in states:
            status = "undecided"
        if NUMERICAL in states:
            status = "numerical"
        return Certificate(status, tuple(statements))

    def _why(self, j: int) -> str:
        if j in self.never:
            return self.never[j]
        found = [self.asked[k, j] for k in range(1, self.max_power + 1) if (k, j) in self.asked]
        return _listed(found)

    def _why_generative(self, low: int | float, high: int | float) -> str:
        if high == math.inf and low == math.inf:
            return "none, the activation is constant"
        upper = (
            f"at most {high}, as kappa_{high} = {exponent_text(self.kappa(int(high)))}"
            if high < math.inf
            else ""
        )
        lower = f"at least {low}" if low > 1 else ""
        if low > 1:
            reasons = [f"degree {j}: {self.never[j]}" for j in range(1, int(low)) if j in self.never]
            lower += f" ({'; '.join(reasons)})"
        return ", ".join(part for part in (lower, upper) if part) or "nothing proved"


def _listed(coefficients: Iterable[Coefficient]) -> str:
    words = []
    for c in coefficients:
        value = "0" if c.zero else f"{c.mid:.10g}"
        if c.zero is None:
            value = "?"
        words.append(f"c({c.power},{c.degree}) = {value} ({c.reason})")
    return "; ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One activation of the table: its exponents and the constant of its law."""

    name: str
    information: Exponent
    generative: Exponent
    kappa: tuple[Exponent, ...]
    noise_sensitivity: Exponent
    strong_recovery: Exponent
    constant: float
    status: str

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values; a constant that does not exist is None."""
        return {
            "name": self.name,
            "information": _plain(self.information),
            "generative": _plain(self.generative),
            "kappa": [_plain(kappa) for kappa in self.kappa],
            "noise_sensitivity": _plain(self.noise_sensitivity),
            "strong_recovery": _plain(self.strong_recovery),
            "constant": None if math.isnan(self.constant) else self.constant,
            "status": self.status,
        }


def nse_table(*, normalize: bool = False) -> tuple[TableRow, ...]:
    """Return the exponents of every activation of the registry, certified.

    Args:
        normalize: constants of the activations at unit variance.

    Returns:
        One row per activation; `constant` is c_{beta*,2}, nan where beta* is infinite.

    Example:
        >>> rows = {row.name: row for row in nse_table()}
        >>> rows["He4"].noise_sensitivity, rows["He4"].constant, rows["sign"].noise_sensitivity
        (2, 192.0, inf)

    Source: ours; activations as given.
    """
    rows = []
    for name in activation_names():
        found = exponents(name, normalize=normalize)
        constant = found.constant
        rows.append(
            TableRow(
                name=name,
                information=found.information,
                generative=found.generative,
                kappa=found.kappa,
                noise_sensitivity=found.noise_sensitivity,
                strong_recovery=found.strong_recovery,
                constant=math.nan if constant is None else constant.mid,
                status=found.certificate.status,
            )
        )
    return tuple(rows)
