"""What the search for exponents hands back: values or bounds, the reasons, coefficients on demand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from metier.core.checks import positive_int

from .activations import Activation
from .certify.coefficients import PRECISIONS, Coefficient, certified_coefficient, numerical_coefficient


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

    @property
    def status(self) -> str:
        """What its certificate says as a whole: "certified", "undecided" or "numerical"."""
        return self.certificate.status

    def coefficient(self, power: int, degree: int) -> Coefficient:
        """Return c_{power, degree} = E[sigma^power He_degree] with its state.

        Args:
            power: k, at least 1.
            degree: j, at least 0.
        """
        k, j = positive_int("power", power), positive_int("degree", degree, minimum=0)
        return coefficient_of(self.activation, k, j, certify=self.certify, bits=self.bits)

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
            "information": plain(self.information),
            "generative": plain(self.generative),
            "generative_bounds": [plain(bound) for bound in self.generative_bounds],
            "leap": plain(self.leap),
            "noise_sensitivity": plain(self.noise_sensitivity),
            "strong_recovery": plain(self.strong_recovery),
            "kappa": [plain(kappa) for kappa in self.kappa],
            "coefficients": [self.coefficient(k, 2).to_dict() for k in sorted(set(shown))],
            "certificate": list(self.certificate.statements),
        }


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
