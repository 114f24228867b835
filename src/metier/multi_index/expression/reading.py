"""Read an expression: from text, as a polynomial, as a function of arrays, its derivative, its symmetry."""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from itertools import zip_longest
from typing import Any

import numpy as np

from metier.core.errors import InputError

from .nodes import (
    ALIASES,
    FUNCTIONS,
    MACROS,
    VARIABLE,
    Add,
    Call,
    Constant,
    Mul,
    Node,
    Num,
    Pow,
    Var,
    add,
    is_constant,
    multiply,
    negate,
    number,
    power,
    subtract,
)

VARIABLES = ("x", "z")
CONSTANTS = {"pi": "pi", "e": "e"}
MAX_LENGTH, MAX_DEGREE, MAX_DEPTH = 2000, 64, 60

_HERMITE = re.compile(r"He_?(\d+)\Z")


def hermite_coefficients(degree: int) -> tuple[int, ...]:
    """Return the power coefficients of the probabilists' Hermite polynomial, constant first.

    Example:
        >>> hermite_coefficients(4)
        (3, 0, -6, 0, 1)
    """
    before, current = [0], [1]
    for n in range(degree):
        raised = [a - n * b for a, b in zip_longest([0, *current], before, fillvalue=0)]
        before, current = current, raised
    return tuple(current)


def polynomial_node(coefficients: tuple[Fraction | int, ...]) -> Node:
    """Return sum_i a_i x^i as an expression."""
    return _combined(coefficients, VARIABLE)


def _combined(coefficients: tuple[Fraction | int, ...], u: Node) -> Node:
    return add(multiply((number(a), power(u, Fraction(i)))) for i, a in enumerate(coefficients) if a)


@lru_cache(maxsize=512)
def parse(text: str) -> Node:
    """Return the expression that `text` describes; `^` is a power, `x` and `z` are the variable.

    Args:
        text: such as "x**4 - 6*x**2 + 3", "He3 + He4", "relu(x) - 0.5", "abs(x) > 1".

    Returns:
        The expression; comparisons are 1 where they hold and 0 elsewhere.

    Raises:
        InputError: the text is not an expression of one variable, or uses a name or a construct that is
            not allowed. Nothing is ever evaluated as Python.

    Example:
        >>> parse("3 + x^2")
        Add(terms=(Pow(base=Var(), exponent=Fraction(2, 1)), Num(value=Fraction(3, 1))))
    """
    _require(text.strip(), "text of an activation", "an empty text", "Write for example 'tanh' or 'x**2'.")
    short = len(text) <= MAX_LENGTH
    _require(short, f"at most {MAX_LENGTH} characters", f"{len(text)}", "Pass a Python callable instead.")
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        at = f" at character {where}" if (where := getattr(error, "offset", None)) else ""
        raise _refusal(
            "an expression in x", f"{text!r}, which cannot be read{at}", "Write for example 'x**3 - 3*x'."
        ) from error
    return _convert(tree.body, text, 0)


def _require(holds: object, expected: str, got: str, next_step: str) -> None:
    if not holds:
        raise _refusal(expected, got, next_step)


def _refusal(expected: str, got: str, next_step: str) -> InputError:
    return InputError(
        "an activation is a name or an expression in x", expected=expected, got=got, next_step=next_step
    )


def _convert(tree: ast.expr, text: str, depth: int) -> Node:
    _require(
        depth <= MAX_DEPTH, f"at most {MAX_DEPTH} nested brackets", repr(text), "Simplify the expression."
    )
    match tree:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() as value):
            return number(value)
        case ast.Constant(value=float() as value):
            # 0.1 means one tenth, not the nearest binary fraction.
            return Num(Fraction(repr(value))) if abs(value) < float("inf") else _unsafe(tree, text)
        case ast.Name(id=name):
            return _name(name, text)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return negate(_convert(operand, text, depth + 1))
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _convert(operand, text, depth + 1)
        case ast.BinOp():
            return _binary(tree, text, depth)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _comparison(left, op, right, text, depth)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _call(name, [_convert(a, text, depth + 1) for a in arguments], text)
    return _unsafe(tree, text)


def _unsafe(tree: ast.expr, text: str) -> Node:
    part = (ast.get_source_segment(text.strip().replace("^", "**"), tree) or text)[:60]
    raise _refusal(
        "numbers, x, + - * / **, one comparison, and the functions "
        + ", ".join(sorted({*FUNCTIONS, *MACROS})),
        f"{part!r} ({type(tree).__name__})",
        "Rewrite it with these, or pass a Python callable.",
    )


def _name(name: str, text: str) -> Node:
    if name in VARIABLES:
        return VARIABLE
    if name in CONSTANTS:
        return Constant(CONSTANTS[name])
    if _HERMITE.match(name):
        return _hermite(name, VARIABLE, text)
    functions = (*FUNCTIONS, *MACROS, *ALIASES)
    if name in functions:
        example = f"{name}(x, 0.1)" if name == "leaky_relu" else f"{name}(x)"
        raise _refusal("functions with their argument", f"{name!r} alone in {text!r}", f"Write {example}.")
    near = difflib.get_close_matches(name, [*VARIABLES, *CONSTANTS, *functions, "He4"], n=1, cutoff=0.6)
    raise _refusal(
        "the variable x, constants pi and e, Hermite polynomials He1, He2, …, and known functions",
        f"the name {name!r} in {text!r}",
        f"Did you mean {near[0]!r}?" if near else "Use one of those.",
    )


def _hermite(name: str, u: Node, text: str) -> Node:
    degree = int(name.removeprefix("He").removeprefix("_"))
    _require(
        degree <= MAX_DEGREE, f"a degree of at most {MAX_DEGREE}", f"He{degree} in {text!r}", "Lower it."
    )
    return _combined(hermite_coefficients(degree), u)


def _call(name: str, arguments: list[Node], text: str) -> Node:
    name = ALIASES.get(name, name)
    if _HERMITE.match(name) and len(arguments) == 1:
        return _hermite(name, arguments[0], text)
    expected, build = (1, lambda u: Call(name, u)) if name in FUNCTIONS else MACROS.get(name, (0, None))
    if build is None:
        return _name(name, text)
    _require(
        len(arguments) == expected,
        f"{name} of {expected} argument{'s' if expected > 1 else ''}",
        f"{len(arguments)} in {text!r}",
        "Count the arguments.",
    )
    return build(*arguments)


def _binary(tree: ast.BinOp, text: str, depth: int) -> Node:
    left, right = _convert(tree.left, text, depth + 1), _convert(tree.right, text, depth + 1)
    match tree.op:
        case ast.Add():
            return add((left, right))
        case ast.Sub():
            return subtract(left, right)
        case ast.Mult():
            return multiply((left, right))
        case ast.Div():
            _require(right != number(0), "a divisor other than 0", repr(text), "Correct the expression.")
            return multiply((left, power(right, Fraction(-1))))
        case ast.Pow():
            return _power(left, right, text)
    return _unsafe(tree, text)


def _power(base: Node, exponent: Node, text: str) -> Node:
    if isinstance(exponent, Num):
        value = exponent.value
        low = abs(value) <= MAX_DEGREE and value.denominator <= MAX_DEGREE
        _require(low, f"powers of at most {MAX_DEGREE}", f"{value} in {text!r}", "Lower the power.")
        return Call("sqrt", base) if value == Fraction(1, 2) else power(base, value)
    if base == Constant("e"):
        return Call("exp", exponent)
    if isinstance(base, Num) and base.value > 0:
        return Call("exp", multiply((exponent, Call("log", base))))
    raise _refusal("a rational number as power", repr(text), "Write exp(power*log(base)) instead.")


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr, text: str, depth: int) -> Node:
    low, high = _convert(left, text, depth + 1), _convert(right, text, depth + 1)
    if isinstance(op, ast.Gt | ast.GtE):
        low, high = high, low
    elif not isinstance(op, ast.Lt | ast.LtE):
        raise _refusal("one of < <= > >=", repr(text), "Write an interval as (x > a)*(x < b).")
    return multiply((number(Fraction(1, 2)), add((number(1), Call("sign", subtract(high, low))))))


ArrayFunction = Callable[[Any], Any]
Polynomial = tuple[Fraction, ...]
"""Power coefficients, constant first, no trailing zeros; () is zero."""

MAX_POLYNOMIAL_DEGREE = 512


def trimmed(coefficients: list[Fraction]) -> Polynomial:
    """Return coefficients without trailing zeros."""
    while coefficients and not coefficients[-1]:
        coefficients.pop()
    return tuple(coefficients)


def polynomial_sum(p: Polynomial, q: Polynomial) -> Polynomial:
    """Return p + q."""
    return trimmed([a + b for a, b in zip_longest(p, q, fillvalue=Fraction(0))])


def polynomial_product(p: Polynomial, q: Polynomial) -> Polynomial:
    """Return p q."""
    if not p or not q:
        return ()
    return trimmed(list(np.convolve(np.array(p, dtype=object), np.array(q, dtype=object))))


@lru_cache(maxsize=4096)
def as_polynomial(node: Node) -> Polynomial | None:
    """Return the rational coefficients of an expression that is a polynomial, else None.

    Example:
        >>> from metier.multi_index.expression.reading import parse
        >>> [int(a) for a in as_polynomial(parse("(x - 1)*(x + 1)"))]
        [-1, 0, 1]
    """
    match node:
        case Num(value):
            return (value,) if value else ()
        case Var():
            return (Fraction(0), Fraction(1))
        case Add(terms) | Mul(terms):
            parts = [as_polynomial(term) for term in terms]
            combine = polynomial_sum if isinstance(node, Add) else polynomial_product
            total: Polynomial = () if isinstance(node, Add) else (Fraction(1),)
            for part in parts:
                if part is None or len(total) + len(part) > MAX_POLYNOMIAL_DEGREE:
                    return None
                total = combine(total, part)
            return total
        case Pow(base, exponent) if exponent.denominator == 1 and exponent > 0:
            part = as_polynomial(base)
            if part is None or len(part) * exponent > MAX_POLYNOMIAL_DEGREE:
                return None
            return reduce(polynomial_product, [part] * exponent.numerator)
    return None


@lru_cache(maxsize=1024)
def array_function(node: Node) -> ArrayFunction:
    """Return the expression as a function of NumPy arrays."""
    coefficients = as_polynomial(node)
    if coefficients is not None:
        return _horner([float(a) for a in coefficients] or [0.0])
    match node:
        case Constant(name):
            value = math.pi if name == "pi" else math.e
            return lambda x: np.full_like(x, value)
        case Add(terms):
            return _folded(np.add, [array_function(term) for term in terms])
        case Mul(factors):
            return _folded(np.multiply, [array_function(factor) for factor in factors])
        case Pow(base, exponent):
            inner, p = array_function(base), int(exponent) if exponent.denominator == 1 else float(exponent)
            return lambda x: inner(x) ** p
        case Call(name, argument):
            inner, outer = array_function(argument), FUNCTIONS[name].array
            return lambda x: outer(inner(x))
    raise TypeError(f"no array function of {node!r}")


def _horner(coefficients: list[float]) -> ArrayFunction:
    lead, rest = coefficients[-1], coefficients[-2::-1]
    return lambda x: reduce(lambda total, a: total * x + a, rest, np.full_like(x, lead))


def _folded(operation: Any, parts: list[ArrayFunction]) -> ArrayFunction:
    return lambda x: reduce(operation, [part(x) for part in parts])


@lru_cache(maxsize=4096)
def derivative(node: Node) -> Node:
    """Return the derivative; |u| has u' sign(u), steps have 0 away from their jumps."""
    if is_constant(node):
        return number(0)
    match node:
        case Var():
            return number(1)
        case Add(terms):
            return add(derivative(term) for term in terms)
        case Mul(factors):
            return add(
                multiply((*factors[:i], derivative(factor), *factors[i + 1 :]))
                for i, factor in enumerate(factors)
            )
        case Pow(base, exponent):
            return multiply((number(exponent), power(base, exponent - 1), derivative(base)))
        case Call(name, argument):
            return multiply((FUNCTIONS[name].derivative(argument), derivative(argument)))
    raise TypeError(f"no derivative of {node!r}")


UNKNOWN = None
_HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Parts:
    """The odd part (f(x) - f(-x))/2 and the even part (f(x) + f(-x))/2, where they are known polynomials.

    None means: some function, not known to be a polynomial.
    """

    odd: Polynomial | None
    even: Polynomial | None

    @property
    def parity(self) -> str | None:
        """Which of "even" and "odd" is proved, else None."""
        if self.odd == ():
            return "even"
        return "odd" if self.even == () else None


@lru_cache(maxsize=4096)
def parts_of(node: Node) -> Parts:
    """Return what is known of the odd and the even part of an expression.

    Example:
        >>> from metier.multi_index.expression.reading import parse
        >>> parts_of(parse("x*sigmoid(x)")).odd  # x/2: the rest is even
        (Fraction(0, 1), Fraction(1, 2))
        >>> parts_of(parse("tanh(x) + x**2")).parity is None
        True
    """
    coefficients = as_polynomial(node)
    if coefficients is not None:
        return _split(coefficients)
    if is_constant(node):
        return Parts(odd=(), even=UNKNOWN)
    match node:
        case Add(terms):
            return reduce(_plus, map(parts_of, terms))
        case Mul(factors):
            return reduce(_times, map(parts_of, factors))
        case Pow(base, exponent):
            return _parts_of_power(parts_of(base), exponent)
        case Call(name, argument):
            return _parts_of_call(name, parts_of(argument))
    return Parts(odd=UNKNOWN, even=UNKNOWN)


def _split(coefficients: Polynomial) -> Parts:
    even, odd = (
        trimmed([a if i % 2 == parity else Fraction(0) for i, a in enumerate(coefficients)])
        for parity in (0, 1)
    )
    return Parts(odd=odd, even=even)


def _sum(p: Polynomial | None, q: Polynomial | None) -> Polynomial | None:
    return UNKNOWN if p is None or q is None else polynomial_sum(p, q)


def _product(p: Polynomial | None, q: Polynomial | None) -> Polynomial | None:
    if p == () or q == ():
        return ()
    return UNKNOWN if p is None or q is None else polynomial_product(p, q)


def _plus(f: Parts, g: Parts) -> Parts:
    return Parts(odd=_sum(f.odd, g.odd), even=_sum(f.even, g.even))


def _times(f: Parts, g: Parts) -> Parts:
    odd = _sum(_product(f.odd, g.even), _product(f.even, g.odd))
    return Parts(odd=odd, even=_sum(_product(f.odd, g.odd), _product(f.even, g.even)))


def _parts_of_power(base: Parts, exponent: Fraction) -> Parts:
    if exponent.denominator == 1 and 0 < exponent <= 32:
        return reduce(_times, [base] * exponent.numerator)
    even_power = exponent.denominator == 1 and exponent.numerator % 2 == 0
    if base.odd == () or (base.even == () and even_power):
        return Parts(odd=(), even=UNKNOWN)
    return Parts(odd=UNKNOWN, even=() if base.even == () and exponent.denominator == 1 else UNKNOWN)


def _parts_of_call(name: str, u: Parts) -> Parts:
    parity = FUNCTIONS[name].parity if u.even == () else None
    if u.odd == () or parity == "even":
        return Parts(odd=(), even=UNKNOWN)
    if u.even == () and name == "sigmoid":
        return Parts(odd=UNKNOWN, even=(_HALF,))
    if u.even == () and name == "softplus" and u.odd is not None:
        return Parts(odd=polynomial_product(u.odd, (_HALF,)), even=UNKNOWN)
    return Parts(odd=UNKNOWN, even=() if parity == "odd" else UNKNOWN)
