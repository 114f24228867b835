"""How a generalist does with partners it may not know: robustness, handshakes, sabotage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import Estimate, InputError, as_generator, positive_int

from .games.game import N_SEATS, Game
from .measures.cooperation import Overfitness, SuccessRates, success_rates
from .pairing import policy_names
from .policies import ConstantPolicy, UniformPolicy
from .rollout import Episodes, play


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A generalist with each of some partners, half of the episodes in either seat.

    Attributes:
        names: The partners.
        rates: Success with each partner and their harmonic mean.
        returns: Mean return with each partner, shape (partners,).
        stderr: Standard error of the returns, shape (partners,).
        behaviours: Episodes by behaviour, shape (partners, behaviours).
    """

    names: tuple[str, ...]
    rates: SuccessRates
    returns: NDArray[np.float64]
    stderr: NDArray[np.float64]
    behaviours: NDArray[np.int64]

    @property
    def robustness(self) -> float:
        """Harmonic mean over partners of the (smoothed) success rates."""
        return self.rates.harmonic_mean

    @property
    def overfitness(self) -> Overfitness:
        """1 - robustness: the population's overfitness where the generalist is an oracle's."""
        return Overfitness(1.0 - self.rates.harmonic_mean, self.rates.stderr, self.rates)

    def summary(self) -> str:
        """Return one line per partner, and the harmonic mean."""
        width = max(len(name) for name in self.names)
        lines = [
            f"{name:{width}}  success {100 * rate:4.0f} %  return {value:.3g} ± {error:.2g}"
            for name, rate, value, error in zip(
                self.names, self.rates.rates, self.returns, self.stderr, strict=True
            )
        ]
        lines.append(f"robustness (harmonic mean) {self.robustness:.3g} ± {self.rates.stderr:.2g}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {
            "names": list(self.names),
            "returns": self.returns.tolist(),
            "stderr": self.stderr.tolist(),
            "behaviours": self.behaviours.tolist(),
            "rates": self.rates.to_dict(),
        }


def evaluate(
    generalist: Any,
    policies: Sequence[Any],
    game: Game,
    *,
    episodes: int,
    rng: int | np.random.Generator = 0,
    names: Sequence[str] | None = None,
    smoothing: float = 0.5,
) -> Evaluation:
    """Let a generalist play with each partner, half of the episodes in either seat.

    Args:
        generalist: A policy of any make.
        policies: The partners, of any make, or a `Population`.
        game: The game they play.
        episodes: Episodes with each partner, an even number (the paper has 200).
        rng: Seed or generator of starts and draws.
        names: One name per partner; None numbers them.
        smoothing: c in (s + c) / (n + 2c), so that one hopeless partner does not hide the others.

    Returns:
        Success rates, their harmonic mean, returns and behaviours per partner.

    Raises:
        InputError: No partners, an odd number of episodes, an object that is no policy, an illegal action.

    Example:
        >>> from metier.partners.games import MatrixGame
        >>> from metier.partners.policies import ConstantPolicy
        >>> partners = [ConstantPolicy(0), ConstantPolicy(9)]
        >>> evaluate(ConstantPolicy(0), partners, MatrixGame(), episodes=4, smoothing=0).rates.rates.tolist()
        [1.0, 0.0]
    """
    per_seat = _half(episodes)
    named = policy_names(policies, names)
    generator = as_generator(rng)
    played = [
        both_seats(generalist, policy, game, per_seat=per_seat, rng=generator, name=name)
        for policy, name in zip(policies, named, strict=True)
    ]
    returns = np.array([episodes.returns for episodes in played])
    return Evaluation(
        names=named,
        rates=success_rates([e.successes for e in played], episodes, smoothing=smoothing),
        returns=returns.mean(axis=1),
        stderr=returns.std(axis=1, ddof=1) / np.sqrt(returns.shape[1]),
        behaviours=np.array([e.counts(len(game.behaviours)) for e in played]),
    )


@dataclass(frozen=True, slots=True)
class HandshakeSplit:
    """Why cooperation fails: a missed handshake, or states the generalist cannot handle.

    Attributes:
        from_start: Success rate with the generalist from the start.
        after_prefix: Success rate where the partner's own mate plays the first steps and the generalist then
            takes over that seat, having watched it; episodes that ended before are left out.
        ended_before: Share of the episodes that ended before the generalist took over.
    """

    from_start: float
    after_prefix: float
    ended_before: float

    @property
    def handshake_index(self) -> float:
        """What the right beginning is worth: after_prefix - from_start."""
        return self.after_prefix - self.from_start

    @property
    def state_mismatch(self) -> float:
        """What fails even after the right beginning: 1 - after_prefix."""
        return 1.0 - self.after_prefix


def handshake_split(
    generalist: Any,
    partner: Any,
    game: Game,
    *,
    prefix_steps: int,
    episodes: int,
    rng: int | np.random.Generator = 0,
) -> HandshakeSplit:
    """Split overfitness into handshake and competence, by letting a partner's own mate play the beginning.

    Args:
        generalist: A policy of any make.
        partner: The partner; its own mate is itself in the other seat.
        game: The game they play.
        prefix_steps: Steps that the own mate plays before the generalist takes over.
        episodes: Episodes of each kind, an even number, half with the partner in either seat.
        rng: Seed or generator of starts and draws.

    Returns:
        Both success rates, and how many episodes ended too early.

    Raises:
        InputError: As `evaluate`; or no episode lasts longer than the prefix.

    Source: ours; the paper's overfitness cannot tell the two apart.
    """
    per_seat = _half(episodes)
    positive_int("prefix_steps", prefix_steps)
    generator = as_generator(rng)
    plain = both_seats(generalist, partner, game, per_seat=per_seat, rng=generator, name="the partner")
    taken = _joined(
        [
            play(
                partner,
                partner,
                game,
                episodes=per_seat,
                rng=generator,
                names=("the partner", "the partner"),
                takeover=(prefix_steps, seat, generalist),
            )
            for seat in range(N_SEATS)
        ]
    )
    late = taken.lengths > prefix_steps
    if not late.any():
        raise InputError(
            "the generalist takes over while the game still goes on",
            expected="episodes longer than prefix_steps",
            got=f"none of {episodes} longer than {prefix_steps} steps",
            next_step="Pass a smaller prefix_steps.",
        )
    return HandshakeSplit(
        from_start=plain.successes / episodes,
        after_prefix=float((taken.behaviours[late] >= 0).mean()),
        ended_before=float(1.0 - late.mean()),
    )


def sabotage_gap(
    generalist: Any, partner: Any, game: Game, *, episodes: int, rng: int | np.random.Generator = 0
) -> Estimate:
    """Return with a generalist minus that with the better of two know-nothings; below 0 is sabotage.

    The know-nothings are a mate that always takes action 0 and one that draws actions at random.

    Args:
        generalist: A policy of any make, best an oracle's.
        partner: The partner.
        game: The game they play.
        episodes: Episodes of each kind, an even number.
        rng: Seed or generator of starts and draws.

    Returns:
        The gap with its interval over episodes.

    Source: ours.
    """
    per_seat = _half(episodes)
    generator = as_generator(rng)
    mates = {
        "the generalist": generalist,
        "the idle mate": ConstantPolicy(0),
        "the random mate": UniformPolicy(game.n_actions),
    }
    returns = {
        called: both_seats(
            mate, partner, game, per_seat=per_seat, rng=generator, called=called, name="the partner"
        ).returns
        for called, mate in mates.items()
    }
    own = returns.pop("the generalist")
    best = max(returns.values(), key=lambda values: float(values.mean()))
    stderr = float(np.sqrt((own.var(ddof=1) + best.var(ddof=1)) / episodes))
    return Estimate.from_stderr(
        float(own.mean() - best.mean()), stderr, n=episodes, method="two samples of episodes"
    )


def both_seats(
    generalist: Any,
    partner: Any,
    game: Game,
    *,
    per_seat: int,
    rng: np.random.Generator,
    name: str,
    called: str = "the generalist",
) -> Episodes:
    """Return the episodes of a generalist with one partner, `per_seat` in either seat."""
    here, there = (called, name), (name, called)
    return _joined(
        [
            play(generalist, partner, game, episodes=per_seat, rng=rng, names=here),
            play(partner, generalist, game, episodes=per_seat, rng=rng, names=there),
        ]
    )


def _joined(parts: list[Episodes]) -> Episodes:
    return Episodes(
        np.concatenate([part.returns for part in parts]),
        np.concatenate([part.behaviours for part in parts]),
        np.concatenate([part.lengths for part in parts]),
    )


def _half(episodes: int) -> int:
    if positive_int("episodes", episodes, minimum=2) % 2:
        raise InputError(
            "episodes are shared between the two seats",
            expected="an even number",
            got=f"{episodes}",
            next_step=f"Pass episodes={episodes + 1}.",
        )
    return episodes // 2
