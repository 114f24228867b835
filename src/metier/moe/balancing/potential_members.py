"""The members of the potential family, as their formulas have them (before rescaling)."""

# ruff: noqa: D102  -- what each raw_ method returns is said once, in Potential

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from metier.core.checks import ensure, one_of
from metier.core.errors import InputError

from .potentials import Potential


def _positive(name: str, value: float, *, low: float = 0.0, excluded: float | None = None) -> float:
    ensure(
        isinstance(value, int | float) and low < float(value) < float("inf") and value != excluded,
        f"{name} shapes the potential",
        expected=f"a finite number above {low:g}" + ("" if excluded is None else f", not {excluded:g}"),
        got=repr(value),
        next_step=f"Pass {name}={low + 1.1:g}, for example.",
    )
    return float(value)


class Shannon(Potential):
    """Negative Shannon entropy, sum p log p: its price is log(E p), the default.

    Args:
        target: Loads to aim for, shape (E,); None means 1/E each.

    Example:
        >>> Shannon().value(torch.tensor([0.5, 0.5])).item()
        0.0
    """

    def raw_value(self, loads: Tensor) -> Tensor:
        return torch.xlogy(loads, loads).sum(-1)

    def raw_gradient(self, loads: Tensor) -> Tensor:
        return 1.0 + loads.log()

    def raw_conjugate(self, prices: Tensor) -> Tensor:
        return (prices - 1.0).exp().sum(-1)

    def raw_inverse(self, prices: Tensor) -> Tensor:
        return (prices - 1.0).exp()

    def raw_curvature(self, n_experts: int) -> float:
        return float(n_experts)


class KullbackLeibler(Shannon):
    """KL(p || target): Shannon with target loads, with the conjugate of the simplex.

    Its conjugate is log sum pi e^q and its inverse the softmax pi e^q / sum pi e^q: both hold for prices
    with any constant added.

    Args:
        target: Loads to aim for, shape (E,); None means 1/E each.

    Example:
        >>> phi = KullbackLeibler(target=[0.75, 0.25])
        >>> [round(x, 6) for x in phi.inverse(torch.zeros(2)).tolist()]
        [0.75, 0.25]
    """

    simplex_only = True

    def conjugate(self, prices: Tensor) -> Tensor:
        """Return log sum pi e^q."""
        return torch.logsumexp(prices + self.target_loads(prices).log(), -1)

    def inverse(self, prices: Tensor) -> Tensor:
        """Return pi e^q / sum pi e^q."""
        return torch.softmax(prices + self.target_loads(prices).log(), -1)


class Quadratic(Potential):
    """(E/2) ||p - 1/E||^2: its price is E p - 1, the load relative to balance.

    Args:
        target: Loads to aim for, shape (E,); None means 1/E each.

    Example:
        >>> Quadratic().price(torch.tensor([0.75, 0.25])).tolist()
        [0.5, -0.5]
    """

    def raw_value(self, loads: Tensor) -> Tensor:
        n_experts = loads.shape[-1]
        return 0.5 * n_experts * ((loads - 1.0 / n_experts) ** 2).sum(-1)

    def raw_gradient(self, loads: Tensor) -> Tensor:
        return loads.shape[-1] * loads - 1.0

    def raw_conjugate(self, prices: Tensor) -> Tensor:
        return (prices**2).sum(-1) / (2 * prices.shape[-1]) + prices.mean(-1)

    def raw_inverse(self, prices: Tensor) -> Tensor:
        return (prices + 1.0) / prices.shape[-1]

    def raw_curvature(self, n_experts: int) -> float:
        return float(n_experts)


class Power(Potential):
    """sum p^r / r, r > 1: the more r, the more the fullest expert counts.

    Args:
        r: The power.
        target: Loads to aim for, shape (E,); None means 1/E each.

    Example:
        >>> Power(r=2).price(torch.tensor([0.75, 0.25])).tolist()
        [0.5, -0.5]
    """

    def __init__(self, *, r: float = 3.0, target: Any = None) -> None:
        super().__init__(target=target)
        self.r = _positive("r", r, low=1.0)

    def raw_value(self, loads: Tensor) -> Tensor:
        return (loads**self.r).sum(-1) / self.r

    def raw_gradient(self, loads: Tensor) -> Tensor:
        return loads ** (self.r - 1.0)

    def raw_conjugate(self, prices: Tensor) -> Tensor:
        dual = self.r / (self.r - 1.0)
        return (prices**dual).sum(-1) / dual

    def raw_inverse(self, prices: Tensor) -> Tensor:
        return prices ** (1.0 / (self.r - 1.0))

    def raw_curvature(self, n_experts: int) -> float:
        return (self.r - 1.0) * math.pow(n_experts, 2.0 - self.r)


class Tsallis(Potential):
    """Negative Tsallis entropy, (sum p^a - sum p) / (a - 1); a -> 1 is Shannon, a = 2 quadratic.

    Args:
        a: The order, above 0 and not 1.
        target: Loads to aim for, shape (E,); None means 1/E each.

    Example:
        >>> Tsallis(a=2).price(torch.tensor([0.75, 0.25])).tolist()
        [0.5, -0.5]
    """

    def __init__(self, *, a: float = 1.1, target: Any = None) -> None:
        super().__init__(target=target)
        self.a = _positive("a", a, excluded=1.0)

    def raw_value(self, loads: Tensor) -> Tensor:
        return (loads**self.a - loads).sum(-1) / (self.a - 1.0)

    def raw_gradient(self, loads: Tensor) -> Tensor:
        return (self.a * loads ** (self.a - 1.0) - 1.0) / (self.a - 1.0)

    def raw_conjugate(self, prices: Tensor) -> Tensor:
        return (self._power_base(prices) ** (self.a / (self.a - 1.0))).sum(-1)

    def raw_inverse(self, prices: Tensor) -> Tensor:
        return self._power_base(prices) ** (1.0 / (self.a - 1.0))

    def raw_curvature(self, n_experts: int) -> float:
        return self.a * math.pow(n_experts, 2.0 - self.a)

    def _power_base(self, prices: Tensor) -> Tensor:
        return ((self.a - 1.0) * prices + 1.0) / self.a


class LogBarrier(Potential):
    """-(1/E) sum log(E p): steep for experts that nearly die, and noisy for it.

    Args:
        target: Loads to aim for, shape (E,); None means 1/E each.

    Example:
        >>> [round(x, 3) for x in LogBarrier().price(torch.tensor([0.75, 0.25])).tolist()]
        [0.667, -0.667]
    """

    def raw_value(self, loads: Tensor) -> Tensor:
        return -(loads.shape[-1] * loads).log().mean(-1)

    def raw_gradient(self, loads: Tensor) -> Tensor:
        return -1.0 / (loads.shape[-1] * loads)

    def raw_conjugate(self, prices: Tensor) -> Tensor:
        return -(-prices).log().mean(-1) - 1.0

    def raw_inverse(self, prices: Tensor) -> Tensor:
        return -1.0 / (prices.shape[-1] * prices)

    def raw_curvature(self, n_experts: int) -> float:
        return float(n_experts)


class _Sharp(Potential):
    """A potential of tau p with tau = sharpness E."""

    def __init__(self, *, sharpness: float = 1.0, target: Any = None) -> None:
        super().__init__(target=target)
        self.sharpness = _positive("sharpness", sharpness)

    def _tau(self, like: Tensor) -> float:
        return self.sharpness * like.shape[-1]


class LogSumExp(_Sharp):
    """log(sum e^(tau p)) / tau with tau = sharpness E: a smooth maximum load, what MaxVio measures.

    Its gradient is a softmax, so `conjugate` and `inverse` hold for gradients that sum to their scale.

    Args:
        sharpness: tau / E.
        target: Loads to aim for, shape (E,); None means 1/E each.

    Example:
        >>> [round(x, 3) for x in LogSumExp().price(torch.tensor([0.75, 0.25])).tolist()]
        [0.241, -0.241]
    """

    simplex_only = True

    def __init__(self, *, sharpness: float = 4.0, target: Any = None) -> None:
        super().__init__(sharpness=sharpness, target=target)

    def raw_value(self, loads: Tensor) -> Tensor:
        return torch.logsumexp(self._tau(loads) * loads, -1) / self._tau(loads)

    def raw_gradient(self, loads: Tensor) -> Tensor:
        return torch.softmax(self._tau(loads) * loads, -1)

    def raw_conjugate(self, prices: Tensor) -> Tensor:
        return torch.xlogy(prices, prices).sum(-1) / self._tau(prices)

    def raw_inverse(self, prices: Tensor) -> Tensor:
        loads = prices.log() / self._tau(prices)
        return loads + (1.0 - loads.sum(-1, keepdim=True)) / prices.shape[-1]

    def raw_curvature(self, n_experts: int) -> float:
        return self.sharpness

    def second_derivatives(self, loads: Tensor) -> Tensor:
        """Return c tau softmax(tau p): the Hessian's diagonal without its negative rank-one part."""
        return self.scale(loads.shape[-1]) * self._tau(loads) * self.raw_gradient(loads)


class LogCosh(_Sharp):
    """sum log cosh(tau d) / tau^2, d = p - 1/E, tau = sharpness E: quadratic near balance, then linear.

    A large `sharpness` makes the price a sign, as in loss-free balancing.

    Args:
        sharpness: tau / E.
        target: Loads to aim for, shape (E,); None means 1/E each.

    Example:
        >>> [round(x, 3) for x in LogCosh().price(torch.tensor([0.75, 0.25])).tolist()]
        [0.462, -0.462]
    """

    def raw_value(self, loads: Tensor) -> Tensor:
        tau = self._tau(loads)
        x = tau * (loads - 1.0 / loads.shape[-1])
        # log cosh x = |x| + log(1 + e^(-2|x|)) - log 2 does not overflow.
        return (x.abs() + softplus(-2.0 * x.abs()) - _LOG_2).sum(-1) / tau**2

    def raw_gradient(self, loads: Tensor) -> Tensor:
        tau = self._tau(loads)
        return torch.tanh(tau * (loads - 1.0 / loads.shape[-1])) / tau

    def raw_conjugate(self, prices: Tensor) -> Tensor:
        x = self._tau(prices) * prices
        entropy = torch.xlogy(1.0 + x, 1.0 + x) + torch.xlogy(1.0 - x, 1.0 - x)
        return entropy.sum(-1) / (2.0 * self._tau(prices) ** 2) + prices.mean(-1)

    def raw_inverse(self, prices: Tensor) -> Tensor:
        tau = self._tau(prices)
        return torch.atanh(tau * prices) / tau + 1.0 / prices.shape[-1]

    def raw_curvature(self, n_experts: int) -> float:
        return 1.0


class PseudoHuber(Potential):
    """sum delta^2 (sqrt(1 + (d / delta)^2) - 1), d = p - 1/E, delta = width / E.

    Args:
        width: E delta, the relative load where quadratic turns to linear.
        target: Loads to aim for, shape (E,); None means 1/E each.

    Example:
        >>> [round(x, 3) for x in PseudoHuber().price(torch.tensor([0.75, 0.25])).tolist()]
        [0.447, -0.447]
    """

    def __init__(self, *, width: float = 1.0, target: Any = None) -> None:
        super().__init__(target=target)
        self.width = _positive("width", width)

    def raw_value(self, loads: Tensor) -> Tensor:
        delta = self.width / loads.shape[-1]
        ratio = (loads - 1.0 / loads.shape[-1]) / delta
        # sqrt(1 + x^2) - 1 = x^2 / (sqrt(1 + x^2) + 1) does not cancel near balance.
        return (delta**2 * ratio**2 / ((1.0 + ratio**2).sqrt() + 1.0)).sum(-1)

    def raw_gradient(self, loads: Tensor) -> Tensor:
        delta = self.width / loads.shape[-1]
        d = loads - 1.0 / loads.shape[-1]
        return d / (1.0 + (d / delta) ** 2).sqrt()

    def raw_conjugate(self, prices: Tensor) -> Tensor:
        delta = self.width / prices.shape[-1]
        return (delta**2 - delta * (delta**2 - prices**2).sqrt()).sum(-1) + prices.mean(-1)

    def raw_inverse(self, prices: Tensor) -> Tensor:
        delta = self.width / prices.shape[-1]
        return prices / (1.0 - (prices / delta) ** 2).sqrt() + 1.0 / prices.shape[-1]

    def raw_curvature(self, n_experts: int) -> float:
        return 1.0


class Softplus(_Sharp):
    """sum log(1 + e^(tau p)) / tau with tau = sharpness E.

    Args:
        sharpness: tau / E.
        target: Loads to aim for, shape (E,); None means 1/E each.

    Example:
        >>> round(Softplus().curvature(8), 6)
        8.0
    """

    def raw_value(self, loads: Tensor) -> Tensor:
        return softplus(self._tau(loads) * loads, threshold=40.0).sum(-1) / self._tau(loads)

    def raw_gradient(self, loads: Tensor) -> Tensor:
        return torch.sigmoid(self._tau(loads) * loads)

    def raw_conjugate(self, prices: Tensor) -> Tensor:
        entropy = torch.xlogy(prices, prices) + torch.xlogy(1.0 - prices, 1.0 - prices)
        return entropy.sum(-1) / self._tau(prices)

    def raw_inverse(self, prices: Tensor) -> Tensor:
        return torch.logit(prices) / self._tau(prices)

    def raw_curvature(self, n_experts: int) -> float:
        at_uniform = torch.sigmoid(torch.tensor(self.sharpness, dtype=torch.float64))
        return self.sharpness * n_experts * float(at_uniform * (1.0 - at_uniform))


_LOG_2 = 0.6931471805599453

POTENTIALS: MappingProxyType[str, Callable[..., Potential]] = MappingProxyType(
    {
        "shannon": Shannon,
        "quadratic": Quadratic,
        "power": Power,
        "tsallis": Tsallis,
        "log_barrier": LogBarrier,
        "log_sum_exp": LogSumExp,
        "log_cosh": LogCosh,
        "pseudo_huber": PseudoHuber,
        "softplus": Softplus,
        "kl": KullbackLeibler,
    }
)
"""The potentials by name; each takes its parameters and `target` as keywords."""


def resolve_potential(potential: str | Potential, *, target: Any = None) -> Potential:
    """Return a potential from its name or as it is, with other target loads where they are given.

    Args:
        potential: A name in `moe.POTENTIALS`, or a `Potential`.
        target: Loads to aim for, shape (E,).

    Returns:
        The potential.

    Raises:
        InputError: The name is not known, or it is no potential.

    Example:
        >>> resolve_potential("tsallis").identity()
        'Tsallis(a=1.1)'
    """
    if isinstance(potential, Potential):
        return potential if target is None else potential.with_target(target)
    if isinstance(potential, str):
        return POTENTIALS[one_of("potential", potential, POTENTIALS)](target=target)
    raise InputError(
        "a potential is a name or a moe.Potential",
        expected=" | ".join(repr(name) for name in POTENTIALS) + " | a subclass of moe.Potential",
        got=repr(potential),
        next_step="Subclass moe.Potential with one method, raw_value(loads).",
    )
