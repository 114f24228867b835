"""The search: which coefficients vanish, and what follows for each exponent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fractions import Fraction

from metier.core.errors import InputError

from .activations import Activation
from .certify.coefficients import NUMERICAL, UNDECIDED, Coefficient, law_known_by_powers, never_reason
from .exponent_results import AtLeast, Certificate, Exponent, coefficient_of, exponent_text
from .step_activation import MAX_EXPONENT

PROFILE = 4
"""Degrees 1..PROFILE are in every profile."""

SEARCHED = 12
"""Degrees looked through for the information exponent."""


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
