"""Expressions in ball arithmetic, and the smooth pieces between the points where they change branch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any

from metier.core.errors import InputError
from metier.core.extras import require

from .nodes import (
    FUNCTIONS,
    Add,
    Call,
    Constant,
    Mul,
    Node,
    Num,
    Pow,
    Var,
    innermost_branch,
    is_constant,
    multiply as multiply_nodes,
    number,
    substitute,
)
from .reading import Polynomial, as_polynomial, derivative, parts_of, polynomial_node

BallFunction = Callable[[Any, bool], Any]


def flint() -> Any:
    """Return python-flint, or say which extra brings it."""
    return require("flint")


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """Compute with `bits` bits inside the block."""
    context = flint().ctx
    before = context.prec
    context.prec = bits
    try:
        yield
    finally:
        context.prec = before


def rational(value: Fraction) -> Any:
    """Return an exact rational of python-flint."""
    return flint().fmpq(value.numerator, value.denominator)


@lru_cache(maxsize=1024)
def ball_function(node: Node, bits: int) -> BallFunction:
    """Return f(x, analytic) on complex balls; numbers are rounded to `bits` once, here."""
    acb = flint().acb
    coefficients = as_polynomial(node)
    if coefficients is not None:
        with precision(bits):
            return horner([acb(rational(a)) for a in coefficients] or [acb(0)])
    match node:
        case Constant(name):
            with precision(bits):
                value = acb.pi() if name == "pi" else acb(1).exp()
            return lambda x, _: value
        case Add(terms):
            return _folded([ball_function(term, bits) for term in terms], operator.add)
        case Mul(factors):
            return _folded([ball_function(factor, bits) for factor in factors], operator.mul)
        case Pow(base, exponent):
            return _power(ball_function(base, bits), exponent, bits)
        case Call(name, argument):
            inner, outer = ball_function(argument, bits), FUNCTIONS[name].ball
            return lambda x, analytic: outer(inner(x, analytic), analytic)
    raise TypeError(f"no ball function of {node!r}")


def horner(numbers: list[Any]) -> BallFunction:
    """Return the polynomial with these coefficients, constant first, on balls."""
    lead, rest = numbers[-1], numbers[-2::-1]

    # A loop, not a fold: integrals come here thousands of times.
    def evaluate(x: Any, _: bool) -> Any:
        total = lead
        for a in rest:
            total = total * x + a
        return total

    return evaluate


def _folded(parts: list[BallFunction], combine: Callable[[Any, Any], Any]) -> BallFunction:
    first, rest = parts[0], parts[1:]

    def evaluate(x: Any, analytic: bool) -> Any:
        total = first(x, analytic)
        for part in rest:
            total = combine(total, part(x, analytic))
        return total

    return evaluate


def _power(base: BallFunction, exponent: Fraction, bits: int) -> BallFunction:
    if exponent.denominator == 1:
        whole = exponent.numerator
        return lambda x, analytic: base(x, analytic) ** whole
    with precision(bits):
        p = flint().acb(rational(exponent))
    # exp(p log u) has the cut of the logarithm, and says so where it must be analytic.
    return lambda x, analytic: (base(x, analytic).log(analytic=analytic) * p).exp()


def real_ball(node: Node, low: Any, high: Any, bits: int) -> Any:
    """Return a real ball that holds f on the real interval from `low` to `high` (real balls)."""
    middle = low if low is high else low.union(high)
    return ball_function(node, bits)(flint().acb(middle), False).real


REACH = Fraction(14)
"""Roots are looked for in [-REACH, REACH]; beyond it the Gaussian has a mass of 2e-44."""

SEARCH_BITS = 64
ISOLATION_BITS = 256
MAX_CUTS = 512


@dataclass(frozen=True, slots=True)
class Cut:
    """A point where the expression changes branch: a rational number, or a root in an isolating bracket.

    `value` is its float; `exact` the rational number if it is one; otherwise `equation` changes sign in
    `bracket` exactly once, at the cut.
    """

    value: float
    exact: Fraction | None = None
    equation: Node | None = None
    bracket: tuple[Fraction, Fraction] | None = None

    def enclose(self, bits: int) -> Any:
        """Return a real ball of about `bits` bits that holds the cut."""
        if self.exact is not None:
            return flint().arb(rational(self.exact))
        return interval(*_narrowed(self, bits))

    def midpoint(self, bits: int) -> tuple[Fraction, Fraction]:
        """Return a rational number near the cut and a bound of the distance."""
        if self.exact is not None:
            return self.exact, Fraction(0)
        low, high = _narrowed(self, bits)
        return (low + high) / 2, (high - low) / 2


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch between two cuts (None is infinity) and the smooth expression that holds on it."""

    low: Cut | None
    high: Cut | None
    node: Node


@lru_cache(maxsize=4096)
def _narrowed(cut: Cut, bits: int) -> tuple[Fraction, Fraction]:
    """Bisect the bracket until it is narrower than 2^-bits, with proved signs."""
    assert cut.equation is not None
    assert cut.bracket is not None
    low, high = cut.bracket
    width = Fraction(1, 2**bits)
    with precision(bits + 64):
        left = _sign_at(cut.equation, low, bits + 64)
        while high - low > width:
            guess = _newton_guess(cut.equation, low, high, bits)
            for point in (*guess, (low + high) / 2):
                sign = _sign_at(cut.equation, point, bits + 64) if low < point < high else None
                if sign is not None:
                    low, high = (point, high) if sign == left else (low, point)
    return low, high


def _newton_guess(equation: Node, low: Fraction, high: Fraction, bits: int) -> tuple[Fraction, ...]:
    """Two points close around where Newton's step from the middle lands."""
    arb = flint().arb
    middle = arb(rational((low + high) / 2))
    value = real_ball(equation, middle, middle, bits + 64)
    slope = real_ball(derivative(equation), middle, middle, bits + 64)
    if not slope.is_finite() or slope.contains(0):
        return ()
    landing = middle - value / slope
    if not landing.is_finite():
        return ()
    at = _middle(landing)
    step = max((high - low) ** 2, Fraction(1, 2 ** (bits + 2)))
    return at - step, at + step


def _sign_at(equation: Node, point: Fraction, bits: int) -> int | None:
    x = flint().arb(rational(point))
    ball = real_ball(equation, x, x, bits)
    return 1 if ball > 0 else -1 if ball < 0 else None


def interval(low: Fraction, high: Fraction) -> Any:
    """Return a real ball that holds every number from `low` to `high`."""
    return flint().arb(rational(low)).union(flint().arb(rational(high)))


def pieces_of(node: Node) -> tuple[Piece, ...]:
    """Return the smooth pieces of an expression, from left to right.

    Raises:
        InputError: a branch point cannot be located, or the expression is not defined somewhere.

    Example:
        >>> from metier.multi_index.expression.reading import parse
        >>> [(p.low and p.low.value, p.high and p.high.value) for p in pieces_of(parse("abs(x**2 - 4)"))]
        [(None, -2.0), (-2.0, 2.0), (2.0, None)]
    """
    return _cut_up(node)[0]


def branches_known(node: Node) -> bool:
    """Whether `pieces_of` holds on the whole line; else within [-REACH, REACH] only.

    Roots of polynomials are all found; those of other functions are searched for within REACH.

    Example:
        >>> from metier.multi_index.expression.reading import parse
        >>> branches_known(parse("abs(x - 20)")), branches_known(parse("sign(cos(x/10))"))
        (True, False)
    """
    return _cut_up(node)[1]


@lru_cache(maxsize=1024)
def _cut_up(node: Node) -> tuple[tuple[Piece, ...], bool]:
    done: list[Piece] = []
    waiting, known = [Piece(None, None, node)], True
    while waiting:
        piece = waiting.pop(0)
        inner = innermost_branch(piece.node)
        if inner is None:
            # Neighbors with the same expression have no branch point between them.
            joined = bool(done) and done[-1].node == piece.node
            low = done.pop().low if joined else piece.low
            done.append(Piece(low, piece.high, piece.node))
            continue
        known = known and (is_constant(inner.argument) or as_polynomial(inner.argument) is not None)
        waiting = [*_split(piece, inner), *waiting]
        if len(waiting) + len(done) > MAX_CUTS:
            raise _unlocated(inner, f"more than {MAX_CUTS} of them")
    return tuple(done), known


def _split(piece: Piece, call: Call) -> list[Piece]:
    u = call.argument
    ends = [piece.low, *(cut for cut in roots(u) if _inside(cut, piece)), piece.high]
    out = []
    for low, high in pairwise(ends):
        sign = _sign_between(u, low, high)
        new = number(sign) if call.name == "sign" else multiply_nodes((number(sign), u))
        out.append(Piece(low, high, substitute(piece.node, call, new)))
    return out


def _inside(cut: Cut, piece: Piece) -> bool:
    after = piece.low is None or cut.value > piece.low.value
    return after and (piece.high is None or cut.value < piece.high.value)


def _sign_between(u: Node, low: Cut | None, high: Cut | None) -> int:
    """The proved sign of u at one point between two cuts, where it has no root."""
    if as_polynomial(u) == ():
        return 0
    # Where an end is infinite, points near the other one: far out a function may overflow.
    near = low.value if low is not None else -1
    b = Fraction(high.value) if high is not None else Fraction(near) + 2
    a = Fraction(near) if low is not None else b - 2
    for share in (Fraction(1, 2), Fraction(1, 3), Fraction(4, 5)):
        with precision(256):
            sign = _sign_at(u, a + (b - a) * share, 256)
        if sign is not None:
            return sign
    raise _unlocated(Call("abs", u), "the sign between them cannot be proved")


def _unlocated(call: Node, got: str) -> InputError:
    return InputError(
        "the branch points of an expression can be located",
        expected="an argument of abs, sign, relu, max, min or a comparison with finitely many simple roots",
        got=f"{got}, in {to_text(call)}",
        next_step="Simplify that part, or pass a Python callable with its kinks.",
    )


@lru_cache(maxsize=1024)
def roots(u: Node) -> tuple[Cut, ...]:
    """Return the real roots of a smooth expression where it changes sign or touches 0, from left to right."""
    if is_constant(u):
        return ()
    coefficients = as_polynomial(u)
    if coefficients is not None:
        return _polynomial_roots(coefficients, u)
    found: list[Cut] = []
    with precision(SEARCH_BITS):
        # An odd starting point keeps simple roots off the bisection's own points.
        _search(u, derivative(u), -REACH - Fraction(1, 97), REACH + Fraction(1, 89), 0, found)
    return tuple(found)


def _polynomial_roots(coefficients: Polynomial, u: Node) -> tuple[Cut, ...]:
    """All real roots of a rational polynomial, certified and isolated."""
    f = flint()
    rest = f.fmpq_poly([rational(a) for a in coefficients])
    if len(coefficients) > 2:
        rest //= rest.gcd(rest.derivative())
    _, factors = rest.numer().factor()
    exact = [Fraction(-int(p[0]), int(p[1])) for p, _ in factors if p.degree() == 1]
    for root in exact:
        rest //= f.fmpq_poly([-rational(root), 1])
    cuts = [Cut(float(root), exact=root) for root in exact]
    cuts += _isolated(rest) if rest.degree() > 0 else []
    return tuple(sorted(cuts, key=lambda cut: cut.value))


def _isolated(square_free: Any) -> list[Cut]:
    equation = polynomial_node(tuple(Fraction(int(a.p), int(a.q)) for a in square_free.coeffs()))
    with precision(ISOLATION_BITS):
        found = square_free.numer().complex_roots()
        real = sorted(_middle(root.real) for root, _ in found if root.imag.contains(0))
    gap = min((b - a for a, b in pairwise(real)), default=Fraction(1)) / 4
    margin = min(gap, Fraction(1, 2**20))
    cuts = [Cut(float(x), equation=equation, bracket=(x - margin, x + margin)) for x in real]
    floats = [cut.value for cut in cuts]
    for cut in cuts:
        if floats.count(cut.value) > 1 or not _changes_sign(cut):
            raise _unlocated(Call("abs", equation), f"roots too close to tell apart near {cut.value:.6g}")
    return cuts


def _middle(ball: Any) -> Fraction:
    mantissa, exponent = ball.mid().man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def _changes_sign(cut: Cut) -> bool:
    """Whether the bracket of a cut holds a root for certain."""
    assert cut.equation is not None
    assert cut.bracket is not None
    with precision(ISOLATION_BITS):
        signs = [_sign_at(cut.equation, end, ISOLATION_BITS) for end in cut.bracket]
    return None not in signs and signs[0] != signs[1]


def _search(u: Node, slope: Node, low: Fraction, high: Fraction, depth: int, found: list[Cut]) -> None:
    """Bisect until every part has no root, or is monotone; then a change of sign is one simple root."""
    arb = flint().arb
    a, b = arb(rational(low)), arb(rational(high))
    ball = real_ball(u, a, b, SEARCH_BITS)
    if ball.is_finite() and not ball.contains(0):
        return
    tangent = real_ball(slope, a, b, SEARCH_BITS)
    if tangent.is_finite() and not tangent.contains(0):
        left, right = _sign_at(u, low, SEARCH_BITS), _sign_at(u, high, SEARCH_BITS)
        if left is not None and right is not None:
            if left != right:
                found.append(_named(u, low, high))
            return
    if depth > 40 or len(found) > MAX_CUTS:
        raise _unlocated(Call("abs", u), f"no simple root near {float(low):.6g}")
    middle = (low + high) / 2
    _search(u, slope, low, middle, depth + 1, found)
    _search(u, slope, middle, high, depth + 1, found)


def _named(u: Node, low: Fraction, high: Fraction) -> Cut:
    """The root in the bracket; exact where u is proved to vanish at a simple rational number."""
    cut = Cut(0.0, equation=u, bracket=(low, high))
    a, b = _narrowed(cut, 60)
    near = ((a + b) / 2).limit_denominator(1000)
    # u vanishes at 0 because it is odd; other coincidences stay balls.
    if a <= near <= b and near == 0 and parts_of(u).even == ():
        return Cut(float(near), exact=near)
    return Cut(float((a + b) / 2), equation=u, bracket=(a, b))


def to_text(node: Node) -> str:
    """Return an expression as text that `parse` reads.

    Example:
        >>> from metier.multi_index.expression.reading import parse
        >>> to_text(parse("abs(x)**2/3"))
        '1/3*abs(x)^2'
    """
    match node:
        case Num(value):
            return str(value)
        case Constant(name):
            return name
        case Var():
            return "x"
        case Add(terms):
            return " + ".join(to_text(term) for term in terms)
        case Mul(factors):
            return "*".join(_bracketed(factor) for factor in factors)
        case Pow(base, exponent):
            shown = str(exponent) if exponent.denominator == 1 and exponent > 0 else f"({exponent})"
            return f"{_bracketed(base, in_power=True)}^{shown}"
        case Call(name, argument):
            return f"{name}({to_text(argument)})"
    raise TypeError(f"no text of {node!r}")


def _bracketed(node: Node, *, in_power: bool = False) -> str:
    loose = Add | Mul | Pow if in_power else Add
    negative = isinstance(node, Num) and (node.value < 0 or (in_power and node.value.denominator > 1))
    return f"({to_text(node)})" if isinstance(node, loose) or negative else to_text(node)
