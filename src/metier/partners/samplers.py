"""Whom to train with next: uniformly, by a bandit on returns, or by the capacity of behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError, non_negative, one_of, positive_int
from metier.core.checks import as_numbers
from metier.core.extras import naming_extras

from .measures.capacity import capacity_weights

with naming_extras():
    import jax
    import jax.numpy as jnp
    from jax import Array


@runtime_checkable
class PartnerSampler(Protocol):
    """Draw weights over partners that may follow what was earned with each; pure, for use under `jit`.

    A sampler is an immutable, hashable object; what changes is in the state, a pytree of arrays.
    """

    def start(self, n_partners: int) -> Any:
        """Return the state before anything was played."""

    def weights(self, state: Any) -> Array:
        """Return the draw weights, float32, shape (partners,), on the simplex."""

    def update(self, state: Any, returns: Array, episodes: Array) -> Any:
        """Return the state after some episodes.

        Args:
            state: The state before.
            returns: Mean return with each partner, shape (partners,); ignored where `episodes` is 0.
            episodes: Episodes played with each, shape (partners,).
        """


@dataclass(frozen=True, slots=True)
class UniformSampler:
    """Every partner with the same weight (the paper's).

    Example:
        >>> sampler = UniformSampler()
        >>> sampler.weights(sampler.start(4)).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """

    def start(self, n_partners: int) -> Array:
        """Return the weights themselves."""
        n = positive_int("n_partners", n_partners)
        return jnp.full(n, 1.0 / n, jnp.float32)

    def weights(self, state: Array) -> Array:
        """Return 1 / partners for each."""
        return state

    def update(self, state: Array, returns: Array, episodes: Array) -> Array:
        """Return the same state."""
        return state


class BanditState(NamedTuple):
    """Discounted sums per partner: of returns, and of the episodes behind them; shape (partners,)."""

    total: Array
    episodes: Array


@dataclass(frozen=True, slots=True)
class BanditSampler:
    r"""More of the partners with low returns (for a generalist) or with high ones (to find A+ in XP-min).

    w = (1 - exploration) softmax(-+ z / temperature) + exploration / partners, where z are the partners'
    discounted mean returns, centered and divided by their standard deviation over partners. A partner that
    was never played counts as the one most sought.

    Args:
        seek: "low" or "high" returns.
        temperature: Larger is nearer to uniform.
        exploration: Share drawn uniformly.
        memory: What is kept of the sums at each update; 1 forgets nothing.

    Raises:
        InputError: An unknown `seek`, or a number outside its range.

    Example:
        >>> sampler = BanditSampler(seek="low", exploration=0.2)
        >>> state = sampler.update(sampler.start(2), jnp.array([0.0, 1.0]), jnp.array([8, 8]))
        >>> print(*(f"{weight:.3f}" for weight in sampler.weights(state)))
        0.805 0.195

    Source: ours; LIPO's code also has a bandit over partners, whose rule the papers do not give.
    """

    seek: str = "low"
    temperature: float = 1.0
    exploration: float = 0.2
    memory: float = 0.9

    def __post_init__(self) -> None:
        one_of("seek", self.seek, ("low", "high"))
        ranges = {"temperature": (0.0, np.inf), "exploration": (0.0, 1.0), "memory": (0.0, 1.0)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not low < value <= high:
                raise InputError(
                    f"{name} of a bandit lies in its range",
                    expected=f"a number in ({low:g}, {high:g}]",
                    got=repr(value),
                    next_step="Leave it out for the default.",
                )

    def start(self, n_partners: int) -> BanditState:
        """Return empty sums."""
        n = positive_int("n_partners", n_partners)
        return BanditState(jnp.zeros(n, jnp.float32), jnp.zeros(n, jnp.float32))

    def weights(self, state: BanditState) -> Array:
        """Return the softmax of the standardized mean returns, mixed with the uniform weights."""
        played = state.episodes > 0
        mean = state.total / jnp.where(played, state.episodes, 1.0)
        sign = -1.0 if self.seek == "low" else 1.0
        most = jnp.max(jnp.where(played, sign * mean, -jnp.inf))
        sought = jnp.where(played, sign * mean, jnp.where(jnp.isfinite(most), most, 0.0))
        spread = sought.std()
        z = (sought - sought.mean()) / jnp.where(spread > 1e-8, spread, 1.0)
        soft = jax.nn.softmax(z / self.temperature)
        return (1.0 - self.exploration) * soft + self.exploration / soft.shape[0]

    def update(self, state: BanditState, returns: Array, episodes: Array) -> BanditState:
        """Return the sums after some episodes."""
        n = jnp.asarray(episodes, jnp.float32)
        gained = jnp.where(n > 0, n * returns, 0.0)
        return BanditState(self.memory * state.total + gained, self.memory * state.episodes + n)


@dataclass(frozen=True, slots=True)
class CapacitySampler:
    """Fixed weights under which behaviour tells most about the partner; `capacity_weights` makes them.

    Partners that do what others do share the weight of one. Labelled ours: the paper does not test it.

    Args:
        fixed: One weight per partner, on the simplex; a tuple, so that the sampler can be hashed.

    Raises:
        InputError: Weights off the simplex.

    Example:
        >>> sampler = CapacitySampler.from_counts([[9, 0], [8, 0], [0, 9]])
        >>> print(sampler.weights(sampler.start(3)).round(2))
        [0.25 0.25 0.5 ]
    """

    fixed: tuple[float, ...]

    def __post_init__(self) -> None:
        w = as_numbers("fixed", self.fixed)
        if w.ndim != 1 or not w.size or not np.isfinite(w).all() or w.min() < 0 or abs(w.sum() - 1) > 1e-6:
            raise InputError(
                "fixed draw weights lie on the simplex",
                expected="at least one weight, none negative, of sum 1",
                got=repr(self.fixed),
                next_step="Use CapacitySampler.from_counts(counts).",
            )
        object.__setattr__(self, "fixed", tuple(float(share) for share in w))

    @classmethod
    def from_counts(cls, counts: Any, *, smallest: float = 0.0) -> CapacitySampler:
        """Return the capacity-achieving weights of episodes by behaviour.

        Args:
            counts: Episodes by behaviour, shape (partners, behaviours).
            smallest: Least share of 1/partners that every partner keeps, 0 to 1.
        """
        if non_negative("smallest", smallest) > 1.0:
            raise InputError(
                "smallest is a share of the uniform weight",
                expected="a number from 0 to 1",
                got=repr(smallest),
                next_step="Pass smallest=1.0 for uniform weights.",
            )
        w: NDArray[np.float64] = capacity_weights(counts=counts)
        w = (1.0 - smallest) * w + smallest / len(w)
        return cls(tuple(float(share) for share in w))

    def start(self, n_partners: int) -> Array:
        """Return the weights.

        Raises:
            InputError: Another number of partners.
        """
        if n_partners != len(self.fixed):
            raise InputError(
                "a sampler with fixed weights has one per partner",
                expected=f"{len(self.fixed)} partners",
                got=f"{n_partners}",
                next_step="Make the weights from this population's own behaviours.",
            )
        return jnp.asarray(self.fixed, jnp.float32)

    def weights(self, state: Array) -> Array:
        """Return the fixed weights."""
        return state

    def update(self, state: Array, returns: Array, episodes: Array) -> Array:
        """Return the same state."""
        return state
