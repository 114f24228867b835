"""How well partners and a generalist work together: success rates, robustness, overfitness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core import InputError, non_negative
from metier.core.checks import as_array

from .table import whole_counts


@dataclass(frozen=True, slots=True)
class SuccessRates:
    """Success with each partner, and the harmonic mean that one bad partner cannot hide in.

    Attributes:
        harmonic_mean: HM of the smoothed rates (s_i + c) / (n_i + 2c).
        mean: Plain mean of the raw rates.
        minimum: Lowest raw rate.
        rates: Raw rates s_i / n_i, shape (partners,).
        smoothed: Smoothed rates, shape (partners,).
        stderr: Standard error of the harmonic mean, episodes drawn anew, by the delta method.
        smoothing: c.
        episodes: Episodes with each partner, shape (partners,).
    """

    harmonic_mean: float
    mean: float
    minimum: float
    rates: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    stderr: float
    smoothing: float
    episodes: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {
            name: value.tolist() if isinstance(value := getattr(self, name), np.ndarray) else value
            for name in self.__dataclass_fields__
        }


@dataclass(frozen=True, slots=True)
class Overfitness:
    """How far even an oracle generalist is from cooperating with a population.

    Attributes:
        value: O = 1 - HM of the success rates; 0 is a population anybody skilled can work with.
        stderr: Its standard error over episodes.
        rates: The `SuccessRates` behind it.
    """

    value: float
    stderr: float
    rates: SuccessRates

    @property
    def mean(self) -> float:
        """1 - the plain mean of the success rates."""
        return 1.0 - self.rates.mean

    @property
    def worst(self) -> float:
        """1 - the lowest success rate."""
        return 1.0 - self.rates.minimum

    def above(self, floor: Overfitness) -> tuple[float, float]:
        """Return O minus the oracle's own floor (O of oracle specialists), with its standard error.

        Example:
            >>> floor = overfitness([99, 98], [100, 100])
            >>> round(overfitness([50, 60], [100, 100]).above(floor)[0], 3)
            0.435
        """
        if not isinstance(floor, Overfitness):
            raise InputError(
                "the floor is an overfitness",
                expected="what overfitness(...) returns for oracle specialists",
                got=type(floor).__name__,
                next_step="Subtract a plain number from .value instead.",
            )
        return self.value - floor.value, float(np.hypot(self.stderr, floor.stderr))

    def summary(self) -> str:
        """Return one line for people."""
        return (
            f"overfitness {self.value:.3g} ± {self.stderr:.2g} "
            f"(mean {self.mean:.3g}, worst partner {self.worst:.3g}, {len(self.rates.rates)} partners)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {"value": self.value, "stderr": self.stderr, "mean": self.mean, "worst": self.worst} | {
            "rates": self.rates.to_dict()
        }


def success_rates(successes: ArrayLike, episodes: ArrayLike, *, smoothing: float = 0.5) -> SuccessRates:
    """Success rates with each partner and their harmonic mean: the robustness R of a generalist.

    Args:
        successes: Completed episodes with each partner, shape (partners,).
        episodes: Episodes with each partner, shape (partners,) or one number for all.
        smoothing: c in (s + c) / (n + 2c); 0 gives the raw harmonic mean, which is 0 if one partner never
            succeeds.

    Returns:
        The rates, their harmonic mean and its standard error.

    Raises:
        InputError: Counts that are negative, fractional, or larger than the episodes; an empty population.

    Example:
        >>> round(success_rates([100, 50], 100).harmonic_mean, 3)
        0.666
    """
    s = whole_counts("successes", successes, ndim=1)
    n = whole_counts("episodes", np.atleast_1d(as_array("episodes", episodes)), ndim=1)
    if n.shape not in ((1,), s.shape):
        raise InputError(
            "episodes belong to the partners",
            expected=f"one number for all, or one for each of {len(s)} partners",
            got=f"{len(n)} numbers",
            next_step="Pass as many numbers of episodes as successes.",
        )
    n = np.broadcast_to(n, s.shape)
    c = non_negative("smoothing", smoothing)
    _refuse(s, n)
    smoothed = (s + c) / (n + 2.0 * c)
    value = float(len(s) / np.sum(1.0 / smoothed)) if smoothed.all() else 0.0
    gradient = value**2 / (len(s) * np.maximum(smoothed, 1e-300) ** 2) if value else np.zeros(len(s))
    variance = smoothed * (1.0 - smoothed) / n
    return SuccessRates(
        harmonic_mean=value,
        mean=float(np.mean(s / n)),
        minimum=float(np.min(s / n)),
        rates=s / n,
        smoothed=smoothed,
        stderr=float(np.sqrt(np.sum(gradient**2 * variance))),
        smoothing=c,
        episodes=n.copy(),
    )


def overfitness(successes: ArrayLike, episodes: ArrayLike, *, smoothing: float = 0.5) -> Overfitness:
    """Overfitness O = 1 - HM over partners of an oracle generalist's success rates (s + c) / (n + 2c).

    The smoothing c keeps O finite and below 1 when one partner never succeeds. O cannot tell a private
    handshake from a state the generalist has not met; `handshake_index` can.

    Args:
        successes: Episodes the oracle generalist completed with each partner, shape (partners,).
        episodes: Episodes with each partner, shape (partners,) or one number for all.
        smoothing: c.

    Returns:
        O with its standard error, mean, worst partner and the rates.

    Raises:
        InputError: As `success_rates`.

    Example:
        >>> print(overfitness([200, 180, 0], 200).summary())
        overfitness 0.993 ± 0.01 (mean 0.367, worst partner 1, 3 partners)

    Source: Charakorn et al., NeurIPS 2024; smoothing and standard error are ours.
    """
    rates = success_rates(successes, episodes, smoothing=smoothing)
    return Overfitness(1.0 - rates.harmonic_mean, rates.stderr, rates)


def _refuse(s: NDArray[np.int64], n: NDArray[np.int64]) -> None:
    if not s.size:
        raise InputError(
            "success is counted with at least one partner",
            expected="one entry per partner",
            got="an empty population",
            next_step="Leave no population empty.",
        )
    wrong = np.flatnonzero((n < 1) | (s > n))
    if wrong.size:
        i = int(wrong[0])
        raise InputError(
            "successes are counted out of episodes",
            expected="at least one episode, and no more successes than episodes",
            got=f"{s[i]} of {n[i]} for partner {i}",
            next_step="Check the order of the two arguments.",
        )
