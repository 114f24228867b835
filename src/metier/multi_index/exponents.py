"""The exponents of an activation: information, generative, noise sensitivity, strong recovery, certified."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from metier.core.checks import as_flag, positive_int

from .activations import Activation, as_activation
from .certify.coefficients import PRECISIONS
from .exponent_results import AtLeast, Exponent, Exponents, plain
from .profile import PROFILE, Profile
from .registry import activation_names


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
