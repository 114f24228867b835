"""The exponents of an activation: information, generative, noise sensitivity, strong recovery, certified."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import as_flag, positive_int

from .activations import Activation, as_activation
from .certify.coefficients import PRECISIONS, Coefficient
from .channels import Array
from .kernels import SMALLEST_RATE
from .overlap import weak_recovery_values
from .profile import PROFILE, AtLeast, Certificate, Exponent, Profile, coefficient_of, exponent_text, plain
from .registry import activation_names

WITHIN = 0.1
DECADES = (2.0, -12.0)
PER_DECADE = 8
BISECTIONS = 24


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
        onset: finds `onset_snr`, once: it may take a second, where the exponents take milliseconds.
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
    onset: Callable[[], float] = field(default=lambda: math.nan, repr=False, compare=False)

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
        return self.onset()

    def summary(self) -> str:
        """Return the exponents in a few lines."""
        low, high = self.generative_bounds
        shown = f"{low} to {high}" if low != high < math.inf else exponent_text(self.generative)
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
    return _exponents(made, as_flag("certify", certify), powers, precision)


@lru_cache(maxsize=1024)
def _exponents(made: Activation, certify: bool, max_power: int, bits: int) -> Exponents:
    profile = Profile(made, certify=certify, max_power=max_power, bits=bits)
    kappa = tuple(profile.kappa(j) for j in range(1, PROFILE + 1))
    information = profile.information()
    low, high = profile.generative_bounds()
    strong = profile.strong_recovery()
    # A first coefficient that may not be 0 makes weak recovery trivial: there is no law then.
    trivial = kappa[0] in (1, AtLeast(1))
    constant = profile.coefficient(kappa[1], 2) if isinstance(kappa[1], int) and not trivial else None
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
        onset=cache(partial(_onset_snr, made, constant)),
    )


def _onset_snr(sigma: Activation, constant: Coefficient | None) -> float:
    """Return the largest snr below which |alpha_WR / (beta*!/(c^2 snr^beta*)) - 1| <= 0.1 throughout.

    The grid has 8 points a decade from 1e2 to 1e-12; the crossing is bisected to 1e-6. nan without a law, or
    where it is not reached before floats end.
    """
    if constant is None or not constant.mid:
        return math.nan
    beta = constant.power
    law = math.factorial(beta) / constant.mid**2

    def off(snrs: Array) -> NDArray[np.bool_]:
        values, _ = weak_recovery_values(sigma, snrs)
        return np.asarray(np.abs(values * snrs**beta / law - 1.0) > WITHIN)

    start, end = DECADES
    grid = np.logspace(start, end, round((start - end) * PER_DECADE) + 1)
    # F'(0) ~ snr^beta / law sinks below what floats resolve.
    grid = grid[grid**beta / law > 100.0 * SMALLEST_RATE]
    missed = np.flatnonzero(off(grid))
    if missed.size == 0:
        return float(grid[0])
    if missed[-1] == grid.size - 1:
        return math.nan
    high, low = float(grid[missed[-1]]), float(grid[missed[-1] + 1])
    for _ in range(BISECTIONS):
        middle = math.sqrt(high * low)
        high, low = (middle, low) if off(np.array([middle]))[0] else (high, middle)
    return low


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
            "information": plain(self.information),
            "generative": plain(self.generative),
            "kappa": [plain(kappa) for kappa in self.kappa],
            "noise_sensitivity": plain(self.noise_sensitivity),
            "strong_recovery": plain(self.strong_recovery),
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
    return tuple(
        TableRow(
            name=name,
            information=found.information,
            generative=found.generative,
            kappa=found.kappa,
            noise_sensitivity=found.noise_sensitivity,
            strong_recovery=found.strong_recovery,
            constant=math.nan if (constant := found.constant) is None else constant.mid,
            status=found.status,
        )
        for name in activation_names()
        for found in (exponents(name, normalize=normalize),)
    )
