"""Cross-play minimization: members that do well with themselves and badly with each other."""

from __future__ import annotations

from pathlib import Path

from metier.core import InputError, non_negative, one_of, positive_int
from metier.partners.games.game import Game

from .actors import Actor
from .loop import OnProgress, train
from .population import Population
from .ppo import PPO, ppo_or
from .xp_trainer import XPMin


def train_xp_min(
    game: Game,
    *,
    n_members: int,
    steps: int,
    xp_weight: float = 0.3,
    mi_weight: float = 0.0,
    mixed_play_weight: float = 0.0,
    rng: int = 0,
    xp_wait: float = 0.0,
    n_latents: int = 8,
    adv_norm: str = "separate",
    n_pairs: int | None = None,
    ppo: PPO | None = None,
    hidden: tuple[int, ...] = (64, 64),
    gru_units: int = 0,
    members: str = "auto",
    folder: str | Path | None = None,
    on_progress: OnProgress | None = None,
    reports: int = 10,
) -> Population:
    r"""Train members that earn much with themselves and little with the member they get on with best.

    Member A maximizes J_SP(A) - xp_weight J_XP(A, A+), A+ = argmax over the others B of J_XP(A, B), the mean
    return over both seatings; only A's own parameters move. Two additions: `mi_weight` times the information
    that a private latent z leaves in the actions (with both, this is LIPO), and `mixed_play_weight` times the
    return of self-play that goes on from states reached with A+.

    Args:
        game: The game.
        n_members: Members, at least 2.
        steps: Environment steps in all, of members and pairs together.
        xp_weight: lambda_X.
        mi_weight: lambda_MI; 0 has no latents.
        mixed_play_weight: lambda_MP.
        rng: Seed; the same seed gives the same bits.
        xp_wait: The success with itself at which a member's lambda_X is whole (ours): below, it is
            xp_weight s / xp_wait, s the running share of its own episodes that end with a behaviour, so
            that nobody is paid for failing who cannot yet succeed. 0 is the paper's constant.
        n_latents: Values of z, if mi_weight is not 0.
        adv_norm: "separate" (advantages of self-play and cross-play each normalized, for which the paper's
            weights were tuned) or "shared" (one scale: true to the objective).
        n_pairs: Pairs that play at each iteration, at least n_members: every member with its last A+, the
            rest at random. None plays all n_members (n_members - 1) / 2.
        ppo: Settings of the learning; None is `PPO()`.
        hidden: Sizes of the actors' dense layers.
        gru_units: Units of the actors' GRU; 0 for memoryless partners.
        members: "auto", "vmap" or "loop".
        folder: Where a checkpoint is kept and looked for.
        on_progress: Called with each report.
        reports: Reports spread over the training.

    Returns:
        The population, with its `progress`.

    Raises:
        InputError: Settings out of range, or a checkpoint of another training in the folder.

    Source: Charakorn et al., NeurIPS 2024, section 4; LIPO (ICLR 2023) for the latents. Signs are derived
        anew, see docs/partners.md.
    """
    positive_int("n_members", n_members, minimum=2)
    for name, value in (("xp_weight", xp_weight), ("mi_weight", mi_weight)):
        non_negative(name, value)
    non_negative("mixed_play_weight", mixed_play_weight)
    if non_negative("xp_wait", xp_wait) > 1.0:
        raise InputError(
            "xp_wait is a share of episodes",
            expected="a number from 0 to 1",
            got=repr(xp_wait),
            next_step="Pass 0 for a constant weight, a small share to spare only those who never succeed.",
        )
    one_of("adv_norm", adv_norm, ("separate", "shared"))
    latents = positive_int("n_latents", n_latents, minimum=2) if mi_weight else 0
    trainer = XPMin(
        game,
        Actor.for_game(game, hidden=hidden, gru_units=gru_units, n_latents=latents),
        ppo_or(ppo, PPO()),
        n_members,
        float(xp_weight),
        float(mi_weight),
        float(mixed_play_weight),
        adv_norm,
        _pairs_per_iteration(n_members, n_pairs),
        members,
        float(xp_wait),
    )
    names = ("xp_weight", "xp_wait", "mi_weight", "mixed_play_weight", "adv_norm", "n_pairs")
    settings = {name: getattr(trainer, name) for name in names}
    return train(
        trainer,
        steps=steps,
        rng=rng,
        folder=folder,
        on_progress=on_progress,
        reports=reports,
        settings=settings,
    ).population


def _pairs_per_iteration(n_members: int, n_pairs: int | None) -> int:
    most = n_members * (n_members - 1) // 2
    if n_pairs is None:
        return most
    if not min(n_members, most) <= positive_int("n_pairs", n_pairs) <= most:
        raise InputError(
            "every member plays with its closest at each iteration",
            expected=f"n_pairs from {min(n_members, most)} to {most}",
            got=repr(n_pairs),
            next_step="Pass n_pairs=None for all pairs.",
        )
    return n_pairs
