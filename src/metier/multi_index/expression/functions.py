"""The functions an expression may use: as arrays, as balls, with their derivative and their bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from scipy import special

from .nodes import ONE, Call, Constant, Node, add, multiply, negate, number, power, subtract


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


def _log_ball(x: Any, analytic: bool) -> Any:
    return x.log(analytic=analytic)


def _sqrt_ball(x: Any, analytic: bool) -> Any:
    return x.sqrt(analytic=analytic)


def _softplus_ball(x: Any, analytic: bool) -> Any:
    return (1 + x.exp()).log(analytic=analytic)


_HALF = Fraction(1, 2)

FUNCTIONS: dict[str, Function] = {
    "exp": Function(array=np.exp, ball=lambda x, _: x.exp(), derivative=lambda u: Call("exp", u)),
    "log": Function(array=np.log, ball=_log_ball, derivative=lambda u: power(u, Fraction(-1))),
    "sqrt": Function(
        array=np.sqrt,
        ball=_sqrt_ball,
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
        ball=_softplus_ball,
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
