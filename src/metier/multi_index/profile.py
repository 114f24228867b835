"""The search: which coefficients vanish, what follows for each exponent, and the proofs in sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

from metier.core.errors import InputError

from .activations import Activation
from .certify.coefficients import (
    NUMERICAL,
    UNDECIDED,
    Coefficient,
    certified_coefficient,
    law_known_by_powers,
    never_reason,
    numerical_coefficient,
)
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


def exponent_text(exponent: Exponent) -> str:
    """Return an exponent as people read it."""
    return "inf" if exponent == math.inf else str(exponent)


def plain(exponent: Exponent) -> int | str:
    """Return an exponent for JSON: a whole number, or its text."""
    return exponent if isinstance(exponent, int) else exponent_text(exponent)


def coefficient_of(activation: Activation, k: int, j: int, *, certify: bool, bits: int) -> Coefficient:
    """Return c_{k,j}, certified or in floats."""
    if certify:
        return certified_coefficient(activation, k, j, bits)
    return numerical_coefficient(activation, k, j, why="floats, as asked")


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


class Profile:
    """The coefficients asked for so far, and what follows from them."""

    def __init__(self, activation: Activation, *, certify: bool, max_power: int, bits: int) -> None:
        self.activation, self.certify, self.bits = activation, certify, bits
        # A step activation vanishes in as many powers as it was asked to.
        self.max_power = max_power if activation.levels is None else max(max_power, MAX_EXPONENT)
        self.asked: dict[tuple[int, int], Coefficient] = {}
        self.never: dict[int, str] = {}
        self._kappa: dict[int, Exponent] = {}

    def coefficient(self, k: int, j: int) -> Coefficient:
        """c_{k,j}, kept."""
        if (k, j) not in self.asked:
            self.asked[k, j] = coefficient_of(self.activation, k, j, certify=self.certify, bits=self.bits)
        return self.asked[k, j]

    def kappa(self, j: int) -> Exponent:
        """min{k >= 1 : c_{k,j} != 0}."""
        if j not in self._kappa:
            reason = never_reason(self.activation, j) if self.certify else None
            if reason is None:
                self._kappa[j] = _first_nonzero(self.max_power, lambda k: self.coefficient(k, j))
            else:
                self.never[j], self._kappa[j] = reason, math.inf
        return self._kappa[j]

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
        last = max(SEARCHED, len(self.activation.polynomial or ()))
        return _first_nonzero(last, lambda j: self.coefficient(1, j))

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
            odd_of_even = j % 2 == 1 and self.activation.parity == "even"
            still = still and (odd_of_even or (known and kappa == math.inf))
            low = j + 1 if still else low
        return low, math.inf

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
        # An infinite exponent has no first degree to end the list at.
        last = PROFILE if information == math.inf else information if isinstance(information, int) else 0
        powers = [self.coefficient(1, j) for j in range(1, last + 1)]
        asked = [self.asked[k, 2] for k in range(1, self.max_power + 1) if (k, 2) in self.asked]
        kappas = (f"{j}: {exponent_text(kappa)}" for j, kappa in sorted(self._kappa.items()))
        statements = (
            f"noise sensitivity {exponent_text(self.kappa(2))}: {self.never.get(2) or _listed(asked)}",
            *([f"information {exponent_text(information)}: {_listed(powers)}"] if powers else []),
            f"generative: {self._why_generative(*generative)}",
            f"strong recovery {exponent_text(strong)} from kappa = {', '.join(kappas)}",
        )
        states = {coefficient.state for coefficient in self.asked.values()}
        status = "numerical" if NUMERICAL in states else "undecided" if UNDECIDED in states else "certified"
        return Certificate(status, statements)

    def _why_generative(self, low: int | float, high: int | float) -> str:
        if high == math.inf and low == math.inf:
            return "none, the activation is constant"
        parts = []
        if low > 1:
            reasons = (f"degree {j}: {self.never[j]}" for j in range(1, int(low)) if j in self.never)
            parts.append(f"at least {low} ({'; '.join(reasons)})")
        if high < math.inf:
            parts.append(f"at most {high}, as kappa_{high} = {exponent_text(self.kappa(int(high)))}")
        return ", ".join(parts) or "nothing proved"


def _first_nonzero(last: int, coefficient: Callable[[int], Coefficient]) -> Exponent:
    """The first index whose coefficient is not 0; a bound where one is undecided or not integrable."""
    for i in range(1, last + 1):
        try:
            zero = coefficient(i).zero
        except InputError:  # sigma^k is not integrable, so that no higher power is either
            return AtLeast(i)
        if not zero:
            return AtLeast(i) if zero is None else i
    return AtLeast(last + 1)


def _listed(coefficients: Iterable[Coefficient]) -> str:
    shown = {True: "0", None: "?"}
    return "; ".join(
        f"c({c.power},{c.degree}) = {shown.get(c.zero, f'{c.mid:.10g}')} ({c.reason})" for c in coefficients
    )
