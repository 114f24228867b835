"""Expressions of one variable: the tree, and the functions it may hold, as arrays, as balls, with bounds."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from scipy import special


@dataclass(frozen=True, slots=True)
class Num:
    """A rational number."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Constant:
    """A named real constant: "pi" or "e"."""

    name: str


@dataclass(frozen=True, slots=True)
class Var:
    """The variable, a standard Gaussian."""


@dataclass(frozen=True, slots=True)
class Add:
    """A sum."""

    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mul:
    """A product."""

    factors: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Pow:
    """A base to a rational power."""

    base: Node
    exponent: Fraction


@dataclass(frozen=True, slots=True)
class Call:
    """A function of `expression.functions` applied to one argument."""

    name: str
    argument: Node


Node = Num | Constant | Var | Add | Mul | Pow | Call

ZERO, ONE, VARIABLE = Num(Fraction(0)), Num(Fraction(1)), Var()


def number(value: int | Fraction) -> Num:
    """Return a rational number as a node."""
    return Num(Fraction(value))


def add(terms: Iterable[Node]) -> Node:
    """Return a flat sum with its numbers collected."""
    total, flat = _collected(terms, Add, operator.add, Fraction(0))
    if total or not flat:
        flat.append(Num(total))
    return flat[0] if len(flat) == 1 else Add(tuple(flat))


def multiply(factors: Iterable[Node]) -> Node:
    """Return a flat product with its numbers collected in front."""
    total, flat = _collected(factors, Mul, operator.mul, Fraction(1))
    if total != 1 or not flat:
        flat.insert(0, Num(total))
    return ZERO if not total else flat[0] if len(flat) == 1 else Mul(tuple(flat))


def _collected(
    parts: Iterable[Node], kind: type, combine: Callable[..., Fraction], start: Fraction
) -> tuple[Fraction, list[Node]]:
    """The numbers among the parts as one, and the others; parts of the same kind are opened."""
    flat = [inner for part in parts for inner in (children(part) if isinstance(part, kind) else (part,))]
    numbers = [part.value for part in flat if isinstance(part, Num)]
    return reduce(combine, numbers, start), [part for part in flat if not isinstance(part, Num)]


def power(base: Node, exponent: Fraction) -> Node:
    """Return `base` to a rational power, folding what is exact."""
    if exponent == 0:
        return ONE
    if exponent == 1:
        return base
    if isinstance(base, Num) and exponent.denominator == 1 and (base.value or exponent > 0):
        return Num(base.value**exponent.numerator)
    if isinstance(base, Pow) and base.exponent.denominator == 1 == exponent.denominator:
        return power(base.base, base.exponent * exponent)
    return Pow(base, exponent)


def negate(node: Node) -> Node:
    """Return the negative."""
    return multiply((number(-1), node))


def subtract(left: Node, right: Node) -> Node:
    """Return the difference."""
    return add((left, negate(right)))


def children(node: Node) -> tuple[Node, ...]:
    """Return the parts of a node."""
    match node:
        case Add(parts) | Mul(parts):
            return parts
        case Pow(base, _):
            return (base,)
        case Call(_, argument):
            return (argument,)
        case _:
            return ()


def innermost_branch(node: Node) -> Call | None:
    """Return an absolute value or a sign whose argument has no branch of its own; None if there is none."""
    for part in children(node):
        if (inside := innermost_branch(part)) is not None:
            return inside
    return node if isinstance(node, Call) and node.name in ("abs", "sign") else None


@lru_cache(maxsize=4096)
def is_constant(node: Node) -> bool:
    """Whether the variable does not occur."""
    return not isinstance(node, Var) and all(is_constant(part) for part in children(node))


def substitute(node: Node, old: Node, new: Node) -> Node:
    """Return `node` with every occurrence of `old` replaced by `new`."""
    if node == old:
        return new
    match node:
        case Add(terms):
            return add(substitute(term, old, new) for term in terms)
        case Mul(factors):
            return multiply(substitute(factor, old, new) for factor in factors)
        case Pow(base, exponent):
            return power(substitute(base, old, new), exponent)
        case Call(name, argument):
            return Call(name, substitute(argument, old, new))
        case _:
            return node


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A real function of one variable.

    `ball(x, analytic)` takes and returns a complex ball; with `analytic` it may answer only where the
    function is analytic. `parity` is of the function itself; `mirror` is the value of
    (f(u) + f(-u))/2 or (f(u) - f(-u))/2 where that is simple. `bound` is a bound of |f| on the real line,
    None where there is none.
    """

    array: Callable[[Any], Any]
    ball: Callable[[Any, bool], Any]
    derivative: Callable[[Node], Node]
    parity: str | None = None
    bound: float | None = None
    piecewise: bool = False


_HALF = Fraction(1, 2)

FUNCTIONS: dict[str, Function] = {
    "exp": Function(array=np.exp, ball=lambda x, _: x.exp(), derivative=lambda u: Call("exp", u)),
    "log": Function(
        array=np.log,
        ball=lambda x, analytic: x.log(analytic=analytic),
        derivative=lambda u: power(u, Fraction(-1)),
    ),
    "sqrt": Function(
        array=np.sqrt,
        ball=lambda x, analytic: x.sqrt(analytic=analytic),
        derivative=lambda u: multiply((number(_HALF), power(Call("sqrt", u), Fraction(-1)))),
    ),
    "abs": Function(
        array=np.abs,
        ball=lambda x, analytic: x.real_abs(analytic=analytic),
        derivative=lambda u: Call("sign", u),
        parity="even",
        piecewise=True,
    ),
    "sign": Function(
        array=np.sign,
        ball=lambda x, analytic: x.real_sgn(analytic=analytic),
        derivative=lambda u: number(0),
        parity="odd",
        bound=1.0,
        piecewise=True,
    ),
    "sin": Function(
        array=np.sin,
        ball=lambda x, _: x.sin(),
        derivative=lambda u: Call("cos", u),
        parity="odd",
        bound=1.0,
    ),
    "cos": Function(
        array=np.cos,
        ball=lambda x, _: x.cos(),
        derivative=lambda u: negate(Call("sin", u)),
        parity="even",
        bound=1.0,
    ),
    "sinh": Function(
        array=np.sinh, ball=lambda x, _: x.sinh(), derivative=lambda u: Call("cosh", u), parity="odd"
    ),
    "cosh": Function(
        array=np.cosh, ball=lambda x, _: x.cosh(), derivative=lambda u: Call("sinh", u), parity="even"
    ),
    "tanh": Function(
        array=np.tanh,
        ball=lambda x, _: x.tanh(),
        derivative=lambda u: subtract(ONE, power(Call("tanh", u), Fraction(2))),
        parity="odd",
        bound=1.0,
    ),
    "atan": Function(
        array=np.arctan,
        ball=lambda x, analytic: _atan_ball(x, analytic),
        derivative=lambda u: power(add((ONE, power(u, Fraction(2)))), Fraction(-1)),
        parity="odd",
        bound=1.571,
    ),
    "erf": Function(
        array=special.erf,
        ball=lambda x, _: x.erf(),
        derivative=lambda u: multiply(
            (
                number(2),
                power(Call("sqrt", Constant("pi")), Fraction(-1)),
                Call("exp", negate(power(u, Fraction(2)))),
            )
        ),
        parity="odd",
        bound=1.0,
    ),
    "sigmoid": Function(
        array=special.expit,
        ball=lambda x, _: 1 / (1 + (-x).exp()),
        derivative=lambda u: multiply((Call("sigmoid", u), subtract(ONE, Call("sigmoid", u)))),
        bound=1.0,
    ),
    "softplus": Function(
        array=lambda x: np.logaddexp(x, 0.0),
        ball=lambda x, analytic: (1 + x.exp()).log(analytic=analytic),
        derivative=lambda u: Call("sigmoid", u),
    ),
}


def _atan_ball(x: Any, analytic: bool) -> Any:
    """Arctangent away from its cuts i(1, oo) and -i(1, oo); there it has no analytic answer."""
    value = x.atan()
    if analytic and x.real.contains(0) and not (abs(x.imag) < 1):
        return value + type(value)("nan")
    return value


def _relu(u: Node) -> Node:
    return multiply((number(_HALF), add((u, Call("abs", u)))))


def _step(u: Node) -> Node:
    return multiply((number(_HALF), add((ONE, Call("sign", u)))))


def _leaky_relu(u: Node, slope: Node) -> Node:
    return add((_relu(u), negate(multiply((slope, _relu(negate(u)))))))


def _gelu(u: Node) -> Node:
    root = power(Call("sqrt", number(2)), Fraction(-1))
    return multiply((number(_HALF), u, add((ONE, Call("erf", multiply((u, root)))))))


def _silu(u: Node) -> Node:
    return multiply((u, Call("sigmoid", u)))


def _maximum(u: Node, v: Node) -> Node:
    return multiply((number(_HALF), add((u, v, Call("abs", subtract(u, v))))))


def _minimum(u: Node, v: Node) -> Node:
    return multiply((number(_HALF), add((u, v, negate(Call("abs", subtract(u, v)))))))


MACROS: dict[str, tuple[int, Callable[..., Node]]] = {
    "relu": (1, _relu),
    "heaviside": (1, _step),
    "step": (1, _step),
    "leaky_relu": (2, _leaky_relu),
    "gelu": (1, _gelu),
    "silu": (1, _silu),
    "swish": (1, _silu),
    "maximum": (2, _maximum),
    "max": (2, _maximum),
    "minimum": (2, _minimum),
    "min": (2, _minimum),
    "square": (1, lambda u: power(u, Fraction(2))),
}
"""Functions that are written with the others; their number of arguments and how."""

ALIASES = {"arctan": "atan", "expit": "sigmoid", "logistic": "sigmoid", "sgn": "sign"}
