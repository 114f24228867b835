"""Cross-play minimization: members that do well with themselves and badly with each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metier.core import InputError, non_negative, one_of, positive_int
from metier.partners.games.game import N_SEATS, Game

from .actors import Actor
from .collect import Chunk, OneActor, Running, TwoActors, begin
from .loop import OnProgress, train
from .members import over_members
from .mixed_play import MixedActor
from .networks import Network
from .pairs import episode_means, find_closest, own_seat, pair_table, pick_pairs, running_success
from .population import Population
from .ppo import (
    PPO,
    advantages,
    critic_network,
    descend,
    fit_critic,
    minibatch_order,
    play,
)
from .self_play import SelfPlay, SelfPlayState, self_play_batch
from .xp_terms import Weights, scale_advantages, xp_min_loss


class XPMinState(NamedTuple):
    """Everything of a training by cross-play minimization.

    Attributes:
        own: Self-play's state: actors, critics, environments, keys; leading axes are members. Its `optimizer`
            also moves the classifiers.
        classifier: Parameters of q(z | o, a), by member; an empty dict without latents.
        pair_critic: Parameters of the critics of each pair and seating, leading axes (pairs, 2).
        pair_optimizer: Theirs.
        pair_running: The environments of each pair and seating.
        mixed_running: The environments of mixed play, by member; an empty tuple without it.
        seated: Newest mean return of each pair and seating, shape (pairs, 2).
        closest: A+ of each member, int32, shape (members,).
        success: Running share of each member's own episodes that succeed, shape (members,).
        key: Raw random key.
    """

    own: SelfPlayState
    classifier: Any
    pair_critic: Any
    pair_optimizer: Any
    pair_running: Running
    mixed_running: Any
    seated: Array
    closest: Array
    success: Array
    key: Array

    @property
    def params(self) -> Any:
        """Parameters of the actors."""
        return self.own.params


@dataclass(frozen=True, slots=True)
class XPMin:
    """The trainer of cross-play minimization; see `loop.Trainer` and `train_xp_min`."""

    game: Game
    actor: Actor
    ppo: PPO
    n_members: int
    xp_weight: float = 0.3
    mi_weight: float = 0.0
    mixed_play_weight: float = 0.0
    adv_norm: str = "separate"
    n_pairs: int = 0
    members: str = "vmap"
    xp_wait: float = 0.0

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration: self-play, both seatings of the pairs, mixed play."""
        mixed = self.n_members if self.mixed_play_weight else 0
        return (self.n_members + N_SEATS * self.n_pairs + mixed) * self.ppo.n_envs * self.ppo.n_steps

    @property
    def classifier(self) -> Network:
        """q: observation, seat and action probabilities in, latent's logits out."""
        inputs = self.actor.network.n_inputs - self.actor.n_latents + self.game.n_actions
        return Network(inputs, max(1, self.actor.n_latents), hidden=self.actor.network.hidden)

    def cross_weight(self, success: Array) -> Array:
        """Return a member's lambda_X by the share of its own episodes that succeed."""
        if not self.xp_wait:
            return jnp.full_like(success, self.xp_weight)
        return self.xp_weight * jnp.minimum(success / self.xp_wait, 1.0)

    def init(self, key: Array) -> XPMinState:
        """Return fresh members."""
        keys = jax.random.split(key, 5)
        own = SelfPlay(self.game, self.actor, self.ppo, self.n_members).init(keys[0])
        classifier: Any = {}
        if self.actor.n_latents:
            classifier = jax.vmap(self.classifier.init)(jax.random.split(keys[1], self.n_members))
        optimizer = self.ppo.optimizer()
        learned = {"actor": own.params, "classifier": classifier}
        own = own._replace(optimizer=jax.vmap(optimizer.init)(learned))
        pool = jax.vmap(self.game.reset)(jax.random.split(keys[2], self.ppo.n_envs))
        critic = critic_network(self.game.observation_size)

        def seating(key: Array) -> tuple[Any, Any, Running]:
            critic_key, start = jax.random.split(key)
            params = critic.init(critic_key)
            team = TwoActors(self.actor, self.actor)
            return params, optimizer.init(params), begin(self.game, team, pool, start, self.ppo.n_envs)

        n_pairs = self.n_members * (self.n_members - 1) // 2
        pairs = jax.vmap(jax.vmap(seating))(jax.random.split(keys[3], (n_pairs, N_SEATS)))
        mixed: Any = ()
        if self.mixed_play_weight:
            team = MixedActor(self.actor, self.game.horizon)
            mixed = jax.vmap(lambda k: begin(self.game, team, pool, k, self.ppo.n_envs))(
                jax.random.split(keys[4], self.n_members)
            )
        closest = (jnp.arange(self.n_members) + 1) % self.n_members
        return XPMinState(
            own, classifier, *pairs, mixed, jnp.zeros((n_pairs, N_SEATS)), closest, jnp.zeros(self.n_members),
            jax.random.key_data(key),
        )  # fmt: skip

    def iterate(self, state: XPMinState, pool: Any) -> tuple[XPMinState, dict[str, Array]]:
        """Let all members and pairs play, find who is closest to whom, and learn once."""
        key, pick, draws, mix, fit = jax.random.split(jax.random.wrap_key_data(state.key), 5)
        table = pair_table(self.n_members)
        picked = pick_pairs(pick, table, state.closest, self.n_pairs)
        pairs, pair_gain, pair_reports = self._play_pairs(state, pool, picked, draws, fit)
        seated = state.seated.at[picked].set(episode_means(pairs.chunk, state.seated[picked]))
        closest = find_closest(seated, table, picked)

        slots = jnp.zeros(len(table.first), jnp.int32).at[picked].set(jnp.arange(self.n_pairs))
        members = jnp.arange(self.n_members)
        slot = slots[jnp.asarray(table.of)[members, closest]]
        own_games = over_members(
            lambda slot, is_first: own_seat(pairs.chunk, pair_gain, slot, is_first), self.members
        )(slot, members < closest)

        def member(
            own: SelfPlayState,
            classifier: Any,
            games: Any,
            guest: Any,
            mixed: Any,
            success: Array,
            key: Array,
        ) -> Any:
            return self._member(own, classifier, games, guest, mixed, success, key, pool)

        guests = jax.tree.map(lambda leaf: leaf[closest], state.own.params)
        own, classifier, mixed, success, reports = over_members(member, self.members)(
            state.own, state.classifier, own_games, guests, state.mixed_running, state.success,
            jax.random.split(mix, self.n_members),
        )  # fmt: skip
        after = XPMinState(
            own, classifier, pairs.critic, pairs.optimizer, pairs.running, mixed, seated, closest, success,
            jax.random.key_data(key),
        )  # fmt: skip
        return after, {**reports, **pair_reports}

    def _play_pairs(self, state: XPMinState, pool: Any, picked: Array, draws: Array, fit: Array) -> Any:
        """Play the picked pairs in both seatings and fit their critics."""
        table, critic = pair_table(self.n_members), critic_network(self.game.observation_size)
        first, second = jnp.asarray(table.first)[picked], jnp.asarray(table.second)[picked]
        lefts, rights = jnp.stack([first, second], 1), jnp.stack([second, first], 1)
        team, ppo = TwoActors(self.actor, self.actor), self.ppo
        shape = (self.n_pairs, N_SEATS)

        def seating(left: Array, right: Array, now: Any, key: Array, fit: Array) -> Any:
            running, params, optimizer = now
            both = tuple(_pick(state.own.params, index) for index in (left, right))
            running, chunk = play(self.game, team, both, running, pool, key, ppo)
            gain, old = advantages(critic, params, chunk, ppo)
            params, optimizer, report = fit_critic(
                critic, params, optimizer, chunk, old, gain + old, minibatch_order(fit, ppo), ppo
            )
            return running, params, optimizer, chunk, gain, report["value_loss"]

        now = _pick((state.pair_running, state.pair_critic, state.pair_optimizer), picked)
        by_seating = over_members(seating, self.members)
        running, params, optimizer, chunk, gain, loss = over_members(by_seating, self.members)(
            lefts, rights, now, jax.random.split(draws, shape), jax.random.split(fit, shape)
        )
        old = (state.pair_running, state.pair_critic, state.pair_optimizer)
        kept = jax.tree.map(lambda all_, new: all_.at[picked].set(new), old, (running, params, optimizer))
        return _Pairs(chunk, *kept), gain, {"pair_value_loss": loss}

    def _member(
        self,
        own: SelfPlayState,
        classifier: Any,
        games: Any,
        guest: Any,
        mixed: Any,
        success: Array,
        key: Array,
        pool: Any,
    ) -> Any:
        """Let one member play with itself (and begin with a guest), and learn from all its games."""
        ppo, critic = self.ppo, critic_network(self.game.observation_size)
        next_key, draw, order_key = jax.random.split(jax.random.wrap_key_data(own.keys), 3)
        running, chunk = play(self.game, OneActor(self.actor), own.params, own.running, pool, draw, ppo)
        gain, old = advantages(critic, own.critic, chunk, ppo)
        order = minibatch_order(order_key, ppo)
        mixed_chunk = None
        if self.mixed_play_weight:
            team = MixedActor(self.actor, self.game.horizon)
            mixed, mixed_chunk = play(self.game, team, (own.params, guest), mixed, pool, key, ppo)
        success = running_success(success, chunk)
        batch, weights = self._batch(own, chunk, gain, games, mixed_chunk, self.cross_weight(success))

        def loss(learned: Any, part: Any) -> tuple[Array, dict[str, Array]]:
            return xp_min_loss(self, learned, part, weights)

        learned = {"actor": own.params, "classifier": classifier}
        learned, optimizer, reports = descend(loss, learned, own.optimizer, batch, order, ppo)
        value, critic_optimizer, more = fit_critic(
            critic, own.critic, own.critic_optimizer, chunk, old, gain + old, order, ppo
        )
        after = SelfPlayState(
            learned["actor"], optimizer, value, critic_optimizer, running, jax.random.key_data(next_key)
        )
        reports = {**reports, "value_loss": more["value_loss"]}
        return after, learned["classifier"], mixed, success, reports

    def _batch(
        self, own: SelfPlayState, chunk: Chunk, gain: Array, games: Any, mixed: Chunk | None, cross: Array
    ) -> tuple[Any, Weights]:
        """Return one member's batch (self-play, cross-play, mixed play), advantages scaled, and weights."""
        (*game_arrays, game_gain), game_hidden = games
        parts = [self_play_batch(chunk, gain), ((*game_arrays, game_gain), game_hidden)]
        masks: list[Array | None] = [None, None]
        if mixed is not None:
            critic = critic_network(self.game.observation_size)
            mixed_gain, _ = advantages(critic, own.critic, mixed, self.ppo)
            parts.append(self_play_batch(mixed._replace(seats=mixed.seats.seats), mixed_gain))
            masks.append(mixed.seats.is_own[..., None] * jnp.ones(N_SEATS))
        scaled, weights = scale_advantages(
            [part[0][-1] for part in parts], masks, [part[0][-2] for part in parts], self, cross
        )
        sequences = tuple(
            (*part[0][:-1], new, mask) for part, new, mask in zip(parts, scaled, masks, strict=True)
        )
        return (sequences, tuple(part[1] for part in parts)), weights


class _Pairs(NamedTuple):
    chunk: Chunk
    running: Running
    critic: Any
    optimizer: Any


def _pick(tree: Any, index: Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


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
    members: str = "vmap",
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
        members: "vmap" or "loop".
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
        ppo or PPO(),
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
