"""Decide a coefficient: proofs of zero, exact arithmetic, else balls of growing precision."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any

import numpy as np

from metier.core.checks import ensure
from metier.multi_index.activations import RULE_REACH, Activation
from metier.multi_index.expression.nodes import Node, is_constant, multiply, power
from metier.multi_index.expression.pieces import branches_known, flint, precision, rational
from metier.multi_index.expression.reading import (
    Polynomial,
    as_polynomial,
    hermite_coefficients,
    parts_of,
    polynomial_node,
    polynomial_product,
)

from .closed_forms import (
    PolynomialPiece,
    as_exponential,
    expectation,
    gaussian_mean,
    is_exactly_zero,
    level_values,
    piecewise_expectation,
    polynomial_pieces,
    stepwise_ball,
    value_ball,
    vanishing_monomial,
)
from .integral import NoBoundError, growth, integral_ball, unseen_branches_ball

CERTIFIED_NONZERO = "certified nonzero"
CERTIFIED_ZERO = "certified zero"
UNDECIDED = "undecided"
NUMERICAL = "numerical"

STATES = (CERTIFIED_NONZERO, CERTIFIED_ZERO, UNDECIDED, NUMERICAL)


@dataclass(frozen=True, slots=True)
class Coefficient:
    """c_{power, degree} = E[sigma(z)^power He_degree(z)], z ~ N(0, 1), and its state.

    The true value lies within `rad` of `mid` for certain, except where the state is "numerical": there
    `rad` is an estimate.

    Args:
        power, degree: k and j.
        mid, rad: the ball, as floats (the radius covers the rounding of the middle).
        state: "certified nonzero", "certified zero", "undecided" or "numerical".
        reason: how this was found.
        bits: working precision of the ball; 0 for exact arithmetic.

    Example:
        >>> from metier.multi_index import exponents
        >>> c = exponents("He4").coefficient(2, 2)
        >>> c.mid, c.rad, c.state, c.reason
        (192.0, 0.0, 'certified nonzero', 'rational arithmetic')
    """

    power: int
    degree: int
    mid: float
    rad: float
    state: str
    reason: str = ""
    bits: int = 0

    @property
    def zero(self) -> bool | None:
        """True or False where it is known (for a numerical one: where it seems so), None if undecided."""
        if self.state == NUMERICAL:
            return abs(self.mid) <= self.rad
        return {CERTIFIED_ZERO: True, CERTIFIED_NONZERO: False}.get(self.state)

    def to_dict(self) -> dict[str, Any]:
        """Return the coefficient as plain values."""
        return asdict(self)


def from_ball(power: int, degree: int, ball: Any, *, reason: str, bits: int) -> Coefficient:
    """Return the coefficient whose real ball was computed: nonzero if the ball excludes 0, else undecided."""
    mid = float(ball.mid())
    # float(mid) rounds; one ulp on the radius covers it.
    rad = float(ball.rad().upper()) * (1.0 + 1e-15) + abs(mid) * 2.3e-16
    state = UNDECIDED if ball.contains(0) else CERTIFIED_NONZERO
    return Coefficient(power, degree, mid, rad, state, reason, bits)


def exact_zero(power: int, degree: int, reason: str) -> Coefficient:
    """Return a coefficient that is proved to be 0."""
    return Coefficient(power, degree, 0.0, 0.0, CERTIFIED_ZERO, reason)


PRECISIONS = (106, 212, 424)
RELATIVE_ERROR = 1e-9
"""Of E|sigma^k He_j|: what the float rule is trusted to."""


def numerical_coefficient(activation: Activation, k: int, j: int, *, why: str) -> Coefficient:
    """Return c_{k,j} from the float rule, with an error estimate."""
    parity = activation.parity
    if (parity == "even" and j % 2) or (parity == "odd" and (k + j) % 2):
        origin = "declared" if activation.node is None else "proved"
        return Coefficient(k, j, 0.0, 0.0, NUMERICAL, f"{origin} {parity}")
    rule = activation.rule
    terms = rule.values**k * np.polynomial.hermite_e.HermiteE.basis(j)(rule.nodes)
    weighed = rule.weights * np.abs(terms)
    size = float(weighed.sum())
    far = float(weighed[np.abs(rule.nodes) > 0.8 * RULE_REACH].sum())
    ensure(
        not (not math.isfinite(size) or far > 1e-10 * max(size, 1e-300)),
        "a coefficient needs an integrable power",
        expected=f"E|sigma^{k}| under the Gaussian",
        got=f"{activation.name}, whose power {k} is not integrable, or not in floats",
        next_step="Ask for a smaller power.",
    )
    return Coefficient(k, j, float(rule.weights @ terms), RELATIVE_ERROR * size, NUMERICAL, why)


@lru_cache(maxsize=8192)
def certified_coefficient(activation: Activation, k: int, j: int, bits: int = PRECISIONS[0]) -> Coefficient:
    """Return c_{k,j}, certified where the activation is an expression.

    Args:
        activation: made by `as_activation`.
        k: power, at least 1.
        j: degree, at least 0.
        bits: the first working precision of balls; it doubles twice before "undecided" is said.
    """
    node = activation.node
    if node is None:
        return numerical_coefficient(activation, k, j, why="a Python callable cannot be certified")
    if j and (reason := _zero_reason(node, k, j)):
        return exact_zero(k, j, reason)
    if activation.levels is not None and j == 2:
        found: Coefficient = activation.levels.coefficient(k, bits)
        return found
    if (polynomial := as_polynomial(node)) is not None:
        return _from_rational(k, j, gaussian_mean(polynomial_product(_powers(polynomial, k), hermite(j))))
    terms = as_exponential(multiply((power(node, Fraction(k)), polynomial_node(hermite(j)))))
    if terms is not None:
        parts = expectation(terms, k)
        if not parts:
            return exact_zero(k, j, "its exponentials cancel exactly (Lindemann-Weierstrass)")
        return _by_balls(k, j, bits, partial(value_ball, parts), "sums of exponentials in closed form")
    pieces = polynomial_pieces(node)
    try:
        if pieces is not None:
            return _from_pieces(node, pieces, k, j, bits)
        return _by_balls(k, j, bits, partial(integral_ball, node, k, j), "ball quadrature")
    except NoBoundError as error:
        return numerical_coefficient(activation, k, j, why=str(error))


def _zero_reason(node: Node, k: int, j: int) -> str | None:
    """Why c_{k,j} with j >= 1 is 0 without any computation, if it is."""
    if is_constant(node):
        return "a constant activation"
    parts = parts_of(node)
    if parts.parity == "even" and j % 2:
        return "an even activation and an odd degree"
    if parts.parity == "odd" and (k + j) % 2:
        return "an odd integrand"
    part = parts.odd if j % 2 else parts.even
    if k == 1 and part is not None and as_polynomial(node) is None and len(part) <= j:
        side, other = ("odd", "even") if j % 2 else ("even", "odd")
        shape = "0" if not part else f"a polynomial of degree {len(part) - 1}"
        return f"the {side} part is {shape}, orthogonal to He{j}; the rest is {other}"
    if j == 2 and vanishing_monomial(as_exponential(node)):
        return "z^(2a) exp(-a z^2): each power tilts the Gaussian so that E[z^2 - 1] stays 0"
    return None


def hermite(j: int) -> Polynomial:
    """Return He_j as fractions."""
    return tuple(Fraction(a) for a in hermite_coefficients(j))


@lru_cache(maxsize=512)
def _powers(polynomial: Polynomial, k: int) -> Polynomial:
    return polynomial if k == 1 else polynomial_product(_powers(polynomial, k - 1), polynomial)


def _from_rational(k: int, j: int, value: Fraction) -> Coefficient:
    if not value:
        return exact_zero(k, j, "rational arithmetic")
    with precision(64):
        found = from_ball(k, j, flint().arb(rational(value)), reason="rational arithmetic", bits=0)
    exact = value.denominator == 1 and abs(value) < 2**53
    return Coefficient(k, j, float(value), 0.0 if exact else found.rad, found.state, found.reason, 0)


def _from_pieces(node: Node, pieces: tuple[PolynomialPiece, ...], k: int, j: int, bits: int) -> Coefficient:
    raised = tuple(
        PolynomialPiece(p.low, p.high, polynomial_product(_powers(p.polynomial, k), hermite(j)))
        for p in pieces
    )
    value = piecewise_expectation(raised)
    if not branches_known(node):
        # Nothing is exact then: a branch point at z = 15 changes the coefficient by 1e-49, but it does.
        def enclosed(b: int) -> Any:
            return stepwise_ball(value, b) + unseen_branches_ball(node, k, j, b)

        return _by_balls(k, j, bits, enclosed, "piecewise polynomial in closed form within |z| = 14")
    if is_exactly_zero(value):
        return exact_zero(k, j, "its pieces cancel exactly in closed form")
    return _by_balls(k, j, bits, partial(stepwise_ball, value), "piecewise polynomial in closed form")


def _by_balls(k: int, j: int, bits: int, ball_at: Any, reason: str) -> Coefficient:
    for factor in (1, 2, 4):
        found = from_ball(k, j, ball_at(factor * bits), reason=reason, bits=factor * bits)
        if found.state != UNDECIDED:
            return found
    low = f"|c| < {abs(found.mid) + found.rad:.1e}, not proved to be 0"
    return Coefficient(k, j, found.mid, found.rad, UNDECIDED, low, found.bits)


def never_reason(activation: Activation, j: int) -> str | None:
    """Return a proof that c_{k,j} = 0 for every power k >= 1, if there is one."""
    node = activation.node
    if node is None:
        return None
    if is_constant(node):
        return "a constant activation"
    if parts_of(node).parity == "even" and j % 2:
        return "an even activation has no odd degree in any power"
    if j == 2 and vanishing_monomial(as_exponential(node)):
        return "z^(2a) exp(-a z^2) has E[sigma^k (z^2 - 1)] = 0 for every power"
    pieces = polynomial_pieces(node)
    values = None if pieces is None or not branches_known(node) else level_values(pieces)
    if values is None:
        return None
    count = sum(map(bool, values))
    if all(certified_coefficient(activation, k, j).zero for k in range(1, count + 1)):
        return f"{len(values)} values: the first {count} powers decide all"
    return None


def law_known_by_powers(activation: Activation) -> bool:
    """Whether sigma(z) provably has exponential moments; then its powers decide E[He_j | sigma] = 0."""
    try:
        return activation.node is not None and growth(activation.node).determinate
    except NoBoundError:
        return False
