"""One iteration of cross-play minimization: members and pairs play, A+ is found, everybody learns."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metier.partners.games.game import N_SEATS, Game, reset_pool

from .actors import Actor
from .collect import Chunk, OneActor, Running, TwoActors, begin
from .members import over_members
from .mixed_play import MixedActor
from .networks import Network
from .pairs import episode_means, find_closest, own_seat, pair_table, pick_pairs, running_success
from .ppo import PPO, advantages, critic_network, descend, fit_critic, minibatch_order, play
from .self_play import SelfPlay, SelfPlayState, self_play_batch
from .xp_state import XPMinState
from .xp_terms import Weights, scale_advantages, xp_min_loss


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
    members: str = "auto"
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
        pool = reset_pool(self.game, keys[2], self.ppo.n_envs)
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

        guests = jax.tree.map(lambda leaf: leaf[closest], state.own.params)
        turn = over_members(functools.partial(self._member, pool), self.members)
        own, classifier, mixed, success, reports = turn(
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
        pool: Any,
        own: SelfPlayState,
        classifier: Any,
        games: Any,
        guest: Any,
        mixed: Any,
        success: Array,
        key: Array,
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
