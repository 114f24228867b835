"""Expressions of one variable: numbers, the variable, sums, products, rational powers, functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache


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
    flat: list[Node] = []
    total = Fraction(0)
    for term in terms:
        for part in term.terms if isinstance(term, Add) else (term,):
            if isinstance(part, Num):
                total += part.value
            else:
                flat.append(part)
    if total or not flat:
        flat.append(Num(total))
    return flat[0] if len(flat) == 1 else Add(tuple(flat))


def multiply(factors: Iterable[Node]) -> Node:
    """Return a flat product with its numbers collected in front."""
    flat: list[Node] = []
    total = Fraction(1)
    for factor in factors:
        for part in factor.factors if isinstance(factor, Mul) else (factor,):
            if isinstance(part, Num):
                total *= part.value
            else:
                flat.append(part)
    if not total:
        return ZERO
    if total != 1 or not flat:
        flat.insert(0, Num(total))
    return flat[0] if len(flat) == 1 else Mul(tuple(flat))


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
