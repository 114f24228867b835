"""Turn an expression into functions of arrays and of balls; differentiate it; read it as a polynomial."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from .functions import FUNCTIONS
from .nodes import Add, Call, Constant, Mul, Node, Num, Pow, Var, add, is_constant, multiply, number, power

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
    size = max(len(p), len(q))
    return trimmed([(p[i] if i < len(p) else Fraction(0)) + (q[i] if i < len(q) else 0) for i in range(size)])


def polynomial_product(p: Polynomial, q: Polynomial) -> Polynomial:
    """Return p q."""
    if not p or not q:
        return ()
    out = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        if a:
            for j, b in enumerate(q):
                out[i + j] += a * b
    return trimmed(out)


@lru_cache(maxsize=4096)
def as_polynomial(node: Node) -> Polynomial | None:
    """Return the rational coefficients of an expression that is a polynomial, else None.

    Example:
        >>> from metier.multi_index.expression.parse import parse
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
            total = (Fraction(1),)
            for _ in range(exponent.numerator):
                total = polynomial_product(total, part)
            return total
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
            parts = [array_function(term) for term in terms]
            return lambda x: _fold(np.add, parts, x)
        case Mul(factors):
            parts = [array_function(factor) for factor in factors]
            return lambda x: _fold(np.multiply, parts, x)
        case Pow(base, exponent):
            inner, p = array_function(base), exponent
            if p.denominator == 1:
                return lambda x: inner(x) ** int(p)
            return lambda x: inner(x) ** float(p)
        case Call(name, argument):
            inner, outer = array_function(argument), FUNCTIONS[name].array
            return lambda x: outer(inner(x))
    raise TypeError(f"no array function of {node!r}")


def _horner(coefficients: list[float]) -> ArrayFunction:
    def evaluate(x: Any) -> Any:
        total = np.full_like(x, coefficients[-1])
        for a in reversed(coefficients[:-1]):
            total = total * x + a
        return total

    return evaluate


def _fold(operation: Any, parts: list[ArrayFunction], x: Any) -> Any:
    total = parts[0](x)
    for part in parts[1:]:
        total = operation(total, part(x))
    return total


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
