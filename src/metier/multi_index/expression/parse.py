"""Read an activation from text, through Python's own syntax tree and a list of what is allowed."""

from __future__ import annotations

import ast
import difflib
import re
from fractions import Fraction
from functools import lru_cache

from metier.core.errors import InputError

from .functions import ALIASES, FUNCTIONS, MACROS
from .nodes import VARIABLE, Call, Constant, Node, Num, add, multiply, negate, number, power, subtract

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
        raised = [0, *current]
        for i, value in enumerate(before):
            raised[i] -= n * value
        before, current = current, raised
    return tuple(current)


def polynomial_node(coefficients: tuple[Fraction | int, ...]) -> Node:
    """Return sum_i a_i x^i as an expression."""
    terms = (multiply((number(a), power(VARIABLE, Fraction(i)))) for i, a in enumerate(coefficients) if a)
    return add(terms)


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
    if not text.strip():
        raise _refusal("text of an activation", "an empty text", "Write for example 'tanh' or 'x**2'.")
    if len(text) > MAX_LENGTH:
        raise _refusal(f"at most {MAX_LENGTH} characters", f"{len(text)}", "Pass a Python callable instead.")
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        where = getattr(error, "offset", None)
        at = f" at character {where}" if where else ""
        raise _refusal(
            "an expression in x", f"{text!r}, which cannot be read{at}", "Write for example 'x**3 - 3*x'."
        ) from error
    return _convert(tree.body, text, 0)


def _refusal(expected: str, got: str, next_step: str) -> InputError:
    return InputError(
        "an activation is a name or an expression in x", expected=expected, got=got, next_step=next_step
    )


def _convert(tree: ast.expr, text: str, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise _refusal(f"at most {MAX_DEPTH} nested brackets", repr(text), "Simplify the expression.")
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
    found = _HERMITE.match(name)
    if found:
        return _hermite(int(found[1]), text)
    known = [*VARIABLES, *CONSTANTS, *FUNCTIONS, *MACROS, *ALIASES, "He4"]
    if name in FUNCTIONS or name in MACROS or name in ALIASES:
        arguments = "x, 0.1" if name == "leaky_relu" else "x"
        raise _refusal(
            "functions with their argument", f"{name!r} alone in {text!r}", f"Write {name}({arguments})."
        )
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    raise _refusal(
        "the variable x, constants pi and e, Hermite polynomials He1, He2, …, and known functions",
        f"the name {name!r} in {text!r}",
        f"Did you mean {near[0]!r}?" if near else "Use one of those.",
    )


def _hermite(degree: int, text: str) -> Node:
    if degree > MAX_DEGREE:
        raise _refusal(f"a degree of at most {MAX_DEGREE}", f"He{degree} in {text!r}", "Lower it.")
    return polynomial_node(hermite_coefficients(degree))


def _call(name: str, arguments: list[Node], text: str) -> Node:
    name = ALIASES.get(name, name)
    found = _HERMITE.match(name)
    if found and len(arguments) == 1:
        terms = hermite_coefficients(int(found[1])) if int(found[1]) <= MAX_DEGREE else ()
        if not terms:
            _hermite(int(found[1]), text)
        u = arguments[0]
        return add(multiply((number(a), power(u, Fraction(i)))) for i, a in enumerate(terms) if a)
    wanted, build = (1, lambda u: Call(name, u)) if name in FUNCTIONS else MACROS.get(name, (0, None))
    if build is None:
        return _name(name, text)
    if len(arguments) != wanted:
        raise _refusal(
            f"{name} of {wanted} argument{'s' if wanted > 1 else ''}",
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
            if right == number(0):
                raise _refusal("a divisor other than 0", repr(text), "Correct the expression.")
            return multiply((left, power(right, Fraction(-1))))
        case ast.Pow():
            return _power(left, right, text)
    return _unsafe(tree, text)


def _power(base: Node, exponent: Node, text: str) -> Node:
    if isinstance(exponent, Num):
        value = exponent.value
        if abs(value) > MAX_DEGREE or value.denominator > MAX_DEGREE:
            raise _refusal(f"powers of at most {MAX_DEGREE}", f"{value} in {text!r}", "Lower the power.")
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
