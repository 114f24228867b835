"""The activation: a function of one Gaussian variable with its kinks, its parity and its Gaussian moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import ensure
from metier.core.errors import InputError

from .expression.nodes import Node, add, innermost_branch, is_constant, multiply, number
from .expression.pieces import pieces_of
from .expression.reading import Polynomial, array_function, as_polynomial, parse, parts_of
from .registry import REGISTRY

Floats = NDArray[np.float64]
Vectorized = Callable[[Floats], Floats]

RULE_REACH = 26.0
"""Panels cover [-RULE_REACH, RULE_REACH]; the density is 1e-147 of its peak there."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
"""Of each panel."""

TOLERANCE = 1e-12

FARTHEST = 13.0
"""No rule of the theory looks farther out."""

NARROWEST = 6e-4
"""A panel of a callable that is still rough at this width holds a kink or a jump."""

NARROW_PANEL = 0.3
"""Panels start 1 wide; borders of those that end below this mark what the activation does suddenly."""

SINGULAR = 1e-8
"""The same for an expression, whose kinks are known: what is left there is a pole."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """Nodes and weights with sum_i w_i g(z_i) = E g(z), and the activation's values at the nodes.

    Attributes:
        narrow: Borders of the panels that had to be made narrower than NARROW_PANEL, increasing.
    """

    nodes: Floats
    weights: Floats
    values: Floats
    narrow: Floats


def gaussian_rule(function: Vectorized, kinks: tuple[float, ...], *, known: bool, name: str) -> Rule:
    """Return a rule for E under N(0, 1), refined until sigma and sigma^2 no longer change.

    Args:
        function: the activation, vectorized.
        kinks: panel borders that must be there.
        known: the kinks are proved complete, so a panel that stays rough is steep and not broken.
        name: for messages.

    Raises:
        InputError: values that are not finite, an infinite variance, or a kink that was not declared.
    """
    borders = np.r_[np.linspace(-RULE_REACH, RULE_REACH, 53), [k for k in kinks if abs(k) < RULE_REACH]]
    low, high = np.unique(borders)[:-1], np.unique(borders)[1:]
    kept: list[tuple[Floats, Floats]] = []
    scale = max(float(np.abs(_totals(function, low, high, name)).sum()), 1e-300)
    while low.size:
        middle = 0.5 * (low + high)
        whole = _totals(function, low, high, name)
        halves = _totals(function, low, middle, name) + _totals(function, middle, high, name)
        # The first panels may step over a narrow feature, and then hold next to nothing.
        scale = max(scale, float(np.abs(halves).sum()))
        rough = np.abs(whole - halves) > TOLERANCE * scale
        kept.append((low[~rough], high[~rough]))
        narrow = rough & (high - low < (SINGULAR if known else NARROWEST))
        if narrow.any():
            _refuse_rough(round(float(middle[narrow][0]), 6 if known else 3) + 0.0, name, known=known)
        low, high = np.concatenate([low[rough], middle[rough]]), np.concatenate([middle[rough], high[rough]])
    return _assembled(function, kept, name)


def _points(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    half = 0.5 * (high - low)[:, None]
    z = 0.5 * (low + high)[:, None] + half * _NODES
    return z, half * _WEIGHTS * np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)


def _totals(function: Vectorized, low: Floats, high: Floats, name: str) -> Floats:
    """E of sigma + sigma^2 with a tilt, per panel; the tilt keeps odd errors from cancelling."""
    z, w = _points(low, high)
    values = _values(function, z, w, name)
    return np.asarray((w * (1.0 + 0.1 * z) * (values + values * values)).sum(axis=1))


def _values(function: Vectorized, z: Floats, w: Floats, name: str) -> Floats:
    with np.errstate(all="ignore"):
        values = np.asarray(function(z), dtype=np.float64)
        squares = values * values * w
    bad = ~np.isfinite(squares)
    if bad.any():
        first = int(np.argmin(np.where(bad, np.abs(z), np.inf)))
        at, value = float(z.flat[first]), float(values.flat[first])
        _check_variance(abs(at) <= 5.0 or np.isnan(value), name)
        raise InputError(
            "an activation is finite",
            expected="finite real values",
            got=f"{value} at z = {at:.6g} from {name}",
            next_step="Restrict or repair the function there.",
        )
    return values


def _assembled(function: Vectorized, kept: list[tuple[Floats, Floats]], name: str) -> Rule:
    low, high = (np.sort(np.concatenate(ends)) for ends in zip(*kept, strict=True))
    z, w = _points(low, high)
    small = (high - low < NARROW_PANEL) & (np.maximum(np.abs(low), np.abs(high)) < FARTHEST)
    nodes, weights = z.ravel(), w.ravel()
    with np.errstate(all="ignore"):
        values = np.asarray(function(nodes), dtype=np.float64)
    mass = weights * values**2
    outer = float(mass[np.abs(nodes) > 0.8 * RULE_REACH].sum())
    _check_variance(outer <= 1e-10 * max(float(mass.sum()), 1e-300), name)
    return Rule(nodes, weights, values, np.unique(np.r_[low[small], high[small]]))


def _check_variance(finite: object, name: str) -> None:
    ensure(
        finite,
        "an activation has a finite variance under the Gaussian",
        expected="growth below exp(z^2/4)",
        got=f"{name}, whose E[sigma(z)^2] is infinite or beyond floats",
        next_step="Scale its argument down, or clip it.",
    )


def _refuse_rough(at: float, name: str, *, known: bool) -> NoReturn:
    if known:
        raise InputError(
            "an activation has a finite variance under the Gaussian",
            expected="no pole, and no slope that floats cannot resolve",
            got=f"{name}, which is singular near z = {at:g}",
            next_step="Smooth or clip it there.",
        )
    raise InputError(
        "a callable declares every kink",
        expected="a smooth function between the declared kinks",
        got=f"{name}, which has a kink or a jump near z = {at:g}",
        next_step=f"Pass kinks=({at:g},) with all its kinks, or write it as an expression.",
    )


SEEN = 8.0
"""A declared parity is checked at every node of the rule up to here; 1e-15 of the mass lies beyond."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Activation:
    """sigma(z) for z ~ N(0, 1): what every function of `multi_index` takes.

    Make one with `as_activation`. It is pure: calling it never changes it, and two calls agree.

    Args:
        name: how it is shown.
        function: vectorized; takes and returns float64 arrays of one shape.
        kinks: points where the function or its derivative jumps, in increasing order.
        parity: "even", "odd" or None.
        node: the expression behind it; None for a Python callable, which cannot be certified.
        levels: set by `step_activation` only: what proves its exponent by integers.

    Example:
        >>> from metier.multi_index import as_activation
        >>> relu = as_activation("relu")
        >>> relu(np.array([-1.0, 2.0])), relu.kinks, round(relu.variance, 6)
        (array([0., 2.]), (0.0,), 0.340845)
    """

    name: str
    function: Callable[[Any], Any]
    kinks: tuple[float, ...] = ()
    parity: str | None = None
    node: Node | None = None
    levels: Any = None

    def __call__(self, z: Any) -> Floats:
        """Return sigma at every entry of `z`, as float64 of the same shape."""
        points = np.asarray(z, dtype=np.float64)
        with np.errstate(all="ignore"):
            return np.asarray(_called(self.function, points, self.name), dtype=np.float64)

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"

    @cached_property
    def rule(self) -> Rule:
        """Nodes and weights of E over N(0, 1), refined where the activation is steep, split at its kinks."""
        return gaussian_rule(self, self.kinks, known=self.node is not None, name=self.name)

    @cached_property
    def mean(self) -> float:
        """E[sigma(z)]."""
        return float(self.rule.weights @ self.rule.values)

    @cached_property
    def second_moment(self) -> float:
        """E[sigma(z)^2]."""
        return float(self.rule.weights @ self.rule.values**2)

    @cached_property
    def variance(self) -> float:
        """Var sigma(z), as E[(sigma - E sigma)^2]."""
        return float(self.rule.weights @ (self.rule.values - self.mean) ** 2)

    @cached_property
    def constant(self) -> bool:
        """Whether sigma takes one value as far as floats tell: then no label depends on z."""
        values = self.rule.values
        return bool(np.ptp(values) <= 4.0 * np.finfo(float).eps * np.abs(values).max())

    def moment(self, power: int, degree: int) -> float:
        """Return c_{power, degree} = E[sigma(z)^power He_degree(z)] in floats; see `exponents`."""
        he = np.polynomial.hermite_e.HermiteE.basis(degree)(self.rule.nodes)
        return float(self.rule.weights @ (self.rule.values**power * he))

    @cached_property
    def polynomial(self) -> Polynomial | None:
        """The exact rational power coefficients, constant first, if this is a polynomial."""
        return None if self.node is None else as_polynomial(self.node)

    @cached_property
    def stepwise(self) -> bool | None:
        """Whether this is constant between its kinks: proved for an expression, None for a callable."""
        if self.node is None:
            return None
        return all(is_constant(piece.node) for piece in pieces_of(self.node))

    @cached_property
    def array_pieces(self) -> tuple[tuple[float, float, Callable[[Any], Any]], ...]:
        """(low, high, function of arrays) for every smooth piece; one piece if there is no expression."""
        if self.node is None:
            return ((-math.inf, math.inf, self.function),)
        return tuple(
            (
                -math.inf if piece.low is None else piece.low.value,
                math.inf if piece.high is None else piece.high.value,
                array_function(piece.node),
            )
            for piece in pieces_of(self.node)
        )

    def affine(self, scale: float = 1.0, shift: float = 0.0, *, name: str | None = None) -> Activation:
        """Return scale * sigma + shift; with floats given, their exact binary values are meant.

        Example:
            >>> from metier.multi_index import as_activation
            >>> float(as_activation("He2").affine(3.0, 1.0)(2.0))
            10.0
        """
        ensure(
            math.isfinite(scale) and math.isfinite(shift) and scale != 0,
            "an activation is scaled by a finite number other than 0",
            expected="finite scale and shift, scale not 0",
            got=f"scale={scale!r}, shift={shift!r}",
            next_step="Check the numbers.",
        )
        inner, exact = self.function, (Fraction(scale), Fraction(shift))
        node = None if self.node is None else add((multiply((number(exact[0]), self.node)), number(exact[1])))
        return Activation(
            name=name or f"{scale:g}*({self.name})" + (f" + {shift:g}" if shift else ""),
            function=lambda z: scale * inner(z) + shift,
            kinks=self.kinks,
            parity=self.parity if self.parity == "even" or shift == 0 else None,
            node=node,
            levels=None if self.levels is None else self.levels.affine(*exact),
        )

    def normalized(self) -> Activation:
        """Return sigma / sqrt(Var sigma): unit variance, the mean kept."""
        ensure(
            self.variance > 0,
            "an activation with unit variance varies",
            expected="Var sigma(z) above 0",
            got=f"{self.name}, which is constant",
            next_step="Choose another activation.",
        )
        return self.affine(1.0 / math.sqrt(self.variance), name=f"{self.name} (unit variance)")

    def without_linear_part(self) -> Activation:
        """Return sigma - E[sigma(z) z] z, which drives specialization in a committee (odd activations)."""
        slope, inner = self.moment(1, 1), self.function
        linear = add((multiply((number(Fraction(-slope)), parse("x"))),))
        return Activation(
            name=f"{self.name} minus its linear part",
            function=lambda z: inner(z) - slope * z,
            kinks=self.kinks,
            parity=self.parity if self.parity == "odd" else None,
            node=None if self.node is None else add((self.node, linear)),
        )


def as_activation(
    activation: str | Callable[[Any], Any] | Activation,
    *,
    kinks: Iterable[float] = (),
    parity: str | None = None,
    normalize: bool = False,
) -> Activation:
    """Return an `Activation` from a name, an expression, a Python callable, or one that is made already.

    Args:
        activation: a name of `activation_names()`, an expression in x such as "x**4 - 6*x**2 + 3", a
            Python callable of a float64 vector, or an `Activation`.
        kinks: of a callable: the points where it or its derivative jumps. Expressions know their own.
        parity: of a callable: "even" or "odd" if it is. Expressions prove their own.
        normalize: divide by the standard deviation of sigma(z).

    Returns:
        The activation; the same object for the same name.

    Raises:
        InputError: unreadable or unsafe text, values that are not finite or not square-integrable under
            the Gaussian, a kink that was not declared, a parity that does not hold.

    Example:
        >>> as_activation("He4")(2.0)
        array(-5.)
        >>> as_activation(lambda z: np.abs(z), kinks=(0.0,), parity="even").parity
        'even'
    """
    made = _made(activation, _checked_kinks(kinks), parity)
    return made.normalized() if normalize else made


def _made(activation: Any, kinks: tuple[float, ...], parity: str | None) -> Activation:
    if isinstance(activation, str | Activation):
        ensure(
            not (kinks or parity),
            "kinks and parity are declared for Python callables only",
            expected="no kinks and no parity beside a name or an expression",
            got=f"kinks={kinks}, parity={parity!r}",
            next_step="Leave them out: an expression's kinks and parity are found and proved.",
        )
        return _from_text(activation) if isinstance(activation, str) else activation
    ensure(
        callable(activation),
        "an activation is a name, an expression or a callable",
        expected="for example 'tanh', 'x**2', or a vectorized function",
        got=f"{type(activation).__name__}",
        next_step="Pass one of these.",
    )
    return _from_callable(activation, kinks, parity)


@lru_cache(maxsize=512)
def _from_text(text: str) -> Activation:
    try:
        made = from_node(parse(REGISTRY.get(text.strip(), text)), name=text.strip())
        _ = made.rule  # refuses what is not finite or not square-integrable, now rather than later
    except OverflowError as error:
        raise InputError(
            "the numbers of an expression fit floats",
            expected="magnitudes below 1.8e308",
            got=f"{text.strip()[:60]}, which holds a larger one",
            next_step="Scale it down.",
        ) from error
    return made


def from_node(node: Node, *, name: str, levels: Any = None) -> Activation:
    """Return the activation of an expression, with its kinks and its parity."""
    pieces = pieces_of(node) if innermost_branch(node) else ()
    return Activation(
        name=name,
        function=array_function(node),
        kinks=tuple(piece.high.value for piece in pieces if piece.high is not None),
        parity=parts_of(node).parity,
        node=node,
        levels=levels,
    )


def _from_callable(
    function: Callable[[Any], Any], kinks: tuple[float, ...], parity: str | None
) -> Activation:
    ensure(
        parity in (None, "even", "odd"),
        "parity is declared by name",
        expected="'even', 'odd' or None",
        got=repr(parity),
        next_step="Pass one of these.",
    )
    points = np.linspace(-3.0, 3.0, 7) + 0.0137  # off the simple numbers where kinks are
    name = getattr(function, "__name__", type(function).__name__)
    made = Activation(name=name, function=_of_vectors(function, name), kinks=kinks, parity=parity)
    ensure(
        np.array_equal(made(points), made(points), equal_nan=True),
        "an activation is a function",
        expected="the same values each time",
        got=f"others at the second call of {name}",
        next_step="Leave noise to snr; draw random weights once, before.",
    )
    nodes = made.rule.nodes
    if parity is not None:
        _check_parity(made, np.concatenate([points, nodes[np.abs(nodes) < SEEN]]), parity)
    return made


def _of_vectors(function: Callable[[Any], Any], name: str) -> Callable[[Any], Floats]:
    """Ask for vectors only, so that a callable that returns lists or flattens works at every shape."""

    def evaluated(z: Any) -> Floats:
        points = np.asarray(z, dtype=np.float64)
        values = np.asarray(_called(function, points.ravel(), name))
        ensure(
            not (values.shape != (points.size,) or values.dtype.kind not in "fiub"),
            "an activation is vectorized",
            expected=f"a real array of shape {(points.size,)} for an array of that shape",
            got=f"shape {values.shape} and dtype {values.dtype} from {name}",
            next_step="Write it with NumPy, or wrap it in np.vectorize.",
        )
        return values.reshape(points.shape).astype(np.float64, copy=False)

    return evaluated


def _called(function: Callable[[Any], Any], points: Floats, name: str) -> Any:
    """Call it, naming what it raises itself."""
    try:
        return function(points)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            "an activation returns a value wherever it is asked",
            expected=f"no exception from {name}",
            got=f"{type(error).__name__}: {error}",
            next_step="Make it accept a float64 vector.",
        ) from error


def _checked_kinks(kinks: Iterable[float]) -> tuple[float, ...]:
    try:
        found = tuple(sorted({float(k) for k in kinks}))
    except (TypeError, ValueError) as error:
        raise InputError(
            "kinks are numbers", expected="finite numbers", got=repr(kinks), next_step="Pass kinks=(0.0,)."
        ) from error
    ensure(
        all(map(math.isfinite, found)),
        "kinks are numbers",
        expected="finite numbers",
        got=repr(kinks),
        next_step="Drop infinities.",
    )
    return found


def _check_parity(activation: Activation, points: Floats, parity: str) -> None:
    left, right = (-1 if parity == "odd" else 1) * activation(-points), activation(points)
    wrong = np.abs(left - right) > 1e-9 * (1.0 + np.abs(right))
    if wrong.any():
        at = float(points[int(np.flatnonzero(wrong)[0])])
        sign = "-" if parity == "odd" else ""
        raise InputError(
            f"an activation declared {parity} is {parity}",
            expected=f"sigma(-z) = {sign}sigma(z)",
            got=", ".join(f"sigma({t:.4g}) = {float(activation(t)):.6g}" for t in (at, -at)),
            next_step=f"Drop parity={parity!r}.",
        )
