"""The rank that spends a budget of parameters or multiplies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from metier.core.checks import one_of, positive_int
from metier.core.errors import InputError

from .forms import FORMS, Shape
from .forms.ranks import two_ranks
from .sizes import expert_modes

ROUNDINGS = ("floor", "ceil")


def rank_for_budget(
    in_features: int,
    out_features: int,
    *,
    n_experts: int | Sequence[int],
    form: str = "cp",
    parameters: int | None = None,
    multiplies: int | None = None,
    hidden_features: int | None = None,
    ring_ranks: tuple[int, int] = (4, 4),
    bias: bool = True,
    rounding: str = "floor",
) -> int:
    """Return the rank that spends a budget, the gate counted.

    One layer, CP: R = (P - I N) / (I + 1 + O + N); TR: r_3 = (P - I N - r_1 r_2 N) / (r_2 (I + 1) + r_1 O);
    with several modes N is the sum of their sizes. With `hidden_features` the budget is that of a two-layer
    block I -> H -> O with one shared gate and equal ranks.

    Args:
        in_features: I.
        out_features: O.
        n_experts: N or the sizes of the modes.
        form: As in `MultilinearMoE`; for "tr" and "tt" the last rank is returned, for "tucker" R_I = R_O.
        parameters: P, the budget in parameters; either this or `multiplies`.
        multiplies: The budget in multiplies of matrix products per token.
        hidden_features: H of a two-layer block.
        ring_ranks: Inner ranks of "tr", "tt" and bounds of Tucker's expert ranks.
        bias: Whether experts have biases.
        rounding: "floor" stays within the budget; "ceil" is the published rule, at or just above it.

    Returns:
        The rank, to be passed to `MultilinearMoE(rank=...)` together with the same `ring_ranks`.

    Raises:
        InputError: (a ValueError) Not even rank 1 fits: it names the gate's cost, the least budget and the
            largest number of experts.

    Example:
        >>> rank_for_budget(768, 1000, n_experts=64, parameters=769_000)
        392
        >>> rank_for_budget(768, 1000, n_experts=64, parameters=769_000, rounding="ceil")
        393

    The gate of "relu_topk" has a bias of N more parameters, which are not counted.

    Source: arXiv 2402.12550, appendix; the solver for every form, multiplies and modes is ours.
    """
    ring_ranks = two_ranks(ring_ranks)
    in_features = positive_int("in_features", in_features)
    out_features = positive_int("out_features", out_features)
    modes, rounding = expert_modes(n_experts), one_of("rounding", rounding, ROUNDINGS)
    name, budget = _budget(parameters, multiplies)
    factory = FORMS[one_of("form", form, FORMS)]

    def cost(rank: int, sizes: tuple[int, ...] = modes) -> int:
        total = in_features * sum(sizes)
        for shape in _shapes(in_features, out_features, hidden_features, sizes, bias):
            r = (shape.out_features,) if form == "mxd" else factory.resolve_rank(rank, shape, ring_ranks)
            count = factory.parameters_of if name == "parameters" else factory.multiplies
            total += count(shape, r)
        return total

    if cost(1) > budget:
        most = largest(lambda n: cost(1, (n,)) <= budget)
        raise _too_small(name, budget, least=cost(1), gate=in_features * sum(modes), modes=modes, most=most)
    if form == "mxd":
        return out_features
    rank = largest(lambda r: cost(r) <= budget)
    return rank if rounding == "floor" or cost(rank) == budget else rank + 1


def _budget(parameters: int | None, multiplies: int | None) -> tuple[str, int]:
    given = {"parameters": parameters, "multiplies": multiplies}
    chosen = [(name, value) for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise InputError(
            "a budget is one number",
            expected="parameters=... or multiplies=...",
            got=" and ".join(name for name, _ in chosen) or "neither",
            next_step="Pass exactly one of them.",
        )
    name, value = chosen[0]
    return name, positive_int(name, value)


def _shapes(i: int, o: int, hidden: int | None, modes: tuple[int, ...], bias: bool) -> tuple[Shape, ...]:
    i, o = positive_int("in_features", i), positive_int("out_features", o)
    if hidden is None:
        return (Shape(i, o, modes, bias),)
    hidden = positive_int("hidden_features", hidden)
    return Shape(i, hidden, modes, bias), Shape(hidden, o, modes, bias)


def largest(fits: Callable[[int], bool]) -> int:
    """Return the largest number >= 0 that fits, where everything below a number that fits, fits."""
    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _too_small(
    name: str, budget: int, *, least: int, gate: int, modes: tuple[int, ...], most: int
) -> InputError:
    limit = (
        f"at most {most:,} experts (or a sum of mode sizes of {most:,})" if most else "no number of experts"
    )
    return InputError(
        f"the budget of {name} must pay for the gate and for rank 1",
        expected=f"at least {least:,} {name} for n_experts={modes}; the gate alone takes {gate:,}",
        got=f"{budget:,}; it allows {limit}",
        next_step="Raise the budget, or use fewer experts or more modes, e.g. n_experts=(32, 64) for 2,048.",
    )
