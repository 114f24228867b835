"""A population: the parameters of all its members stacked, with what is needed to play and to save them."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metier.core import InputError, positive_int
from metier.partners.games.game import N_SEATS, Game, whole_game

from .actors import Actor, ActorPolicy
from .checkpoints import load_header, load_sizes, load_tree, save_tree
from .networks import Network
from .progress import Progress


@dataclass(frozen=True, slots=True)
class Population:
    """Policies of one shape, their parameters stacked: as a sequence, its members as `Policy` objects.

    `cross_play`, `evaluate` and the measures take it wherever they take a list of policies.

    Args:
        game: Name of the game it was trained for.
        actor: The shape of every member.
        params: The members' parameters, a leading member axis on every array.
        names: One name per member; empty numbers them.
        progress: What was reported while it was trained.

    Raises:
        InputError: No members, another number of names, or arrays that disagree about the number of members.

    Example:
        >>> from metier.partners.games import LeverGame
        >>> population = Population.fresh(LeverGame(), n_members=3, rng=0)
        >>> len(population), population.names[2]
        (3, 'member 2')
    """

    game: str
    actor: Actor
    params: Any
    names: tuple[str, ...] = ()
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        sizes = {int((*np.shape(leaf), 0)[0]) for leaf in jax.tree.leaves(self.params)}
        if len(sizes) != 1 or 0 in sizes:
            raise InputError(
                "a population has members, as many in every array",
                expected="one leading member axis of at least 1",
                got=f"leading sizes {sorted(sizes)}",
                next_step="Stack the parameters of at least one member.",
            )
        n = sizes.pop()
        if not self.names:
            object.__setattr__(self, "names", tuple(f"member {k}" for k in range(n)))
        elif len(self.names) != n:
            raise InputError(
                "names has one entry per member",
                expected=f"{n} names",
                got=f"{len(self.names)}",
                next_step="Leave names out to number the members.",
            )

    @classmethod
    def fresh(cls, game: Game, *, n_members: int, rng: int = 0, actor: Actor | None = None) -> Population:
        """Return untrained members for a game."""
        actor = actor or Actor.for_game(game)
        positive_int("rng", rng, minimum=0)
        keys = jax.random.split(jax.random.key(rng), positive_int("n_members", n_members))
        return cls(game.name, actor, _fresh_members(actor, keys))

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> ActorPolicy: ...
    @overload
    def __getitem__(self, index: slice) -> Population: ...
    def __getitem__(self, index: int | slice) -> ActorPolicy | Population:
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        if not isinstance(index, int | np.integer):
            raise InputError(
                "a member is asked for by its number, several by a slice",
                expected=f"a whole number from 0 to {len(self) - 1}, or a slice",
                got=repr(index),
                next_step="Use select([...]) for some members, names.index(name) for a name.",
            )
        if not -len(self) <= index < len(self):
            raise IndexError(f"member {index} of a population of {len(self)}")
        return ActorPolicy(jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), self.params), self.actor)

    def __iter__(self) -> Iterator[ActorPolicy]:
        return iter(self.policies())

    def policies(self) -> list[ActorPolicy]:
        """Return the members as policies."""
        return [self[index] for index in range(len(self))]

    def select(self, members: Sequence[int]) -> Population:
        """Return a population of some members, in the given order.

        Raises:
            InputError: No members, or numbers that no member has.
        """
        chosen = np.asarray(members)
        fits = chosen.ndim == 1 and chosen.size > 0 and np.issubdtype(chosen.dtype, np.integer)
        if not fits or chosen.min() < -len(self) or chosen.max() >= len(self):
            raise InputError(
                "members are selected by their numbers",
                expected=f"a list of at least one whole number from 0 to {len(self) - 1}",
                got=repr(members),
                next_step="Pass for example select([0]); numpy.flatnonzero(mask) makes numbers of a mask.",
            )
        params = jax.tree.map(lambda leaf: leaf[chosen], self.params)
        names = tuple(self.names[index] for index in chosen)
        return Population(self.game, self.actor, params, names, self.progress)

    def joined(self, other: Population) -> Population:
        """Return a population of the members of both.

        Raises:
            InputError: No population, or one for another game or of another shape.
        """
        if not isinstance(other, Population):
            raise InputError(
                "a population joins a population",
                expected="a metier.partners.Population",
                got=type(other).__name__,
                next_step="Pass their policies side by side as a list instead.",
            )
        if (self.game, self.actor) != (other.game, other.actor):
            raise InputError(
                "populations that join play the same game with networks of the same shape",
                expected=f"{self.game}, {self.actor}",
                got=f"{other.game}, {other.actor}",
                next_step="Pass their policies() side by side as a list instead.",
            )
        params = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), self.params, other.params)
        return Population(self.game, self.actor, params, self.names + other.names, self.progress)

    def check_game(self, game: Game) -> None:
        """Refuse a game that the members cannot play.

        Raises:
            InputError: Another name, or other sizes of observations or actions.
        """
        self._refuse_other_game(game, "a population")

    def _refuse_other_game(self, game: Game, who: str) -> None:
        whole_game(game)
        wanted = (game.name, game.observation_size, game.n_actions)
        network = self.actor.network
        mine = (self.game, network.n_inputs - N_SEATS - self.actor.n_latents, network.n_outputs)
        if wanted != mine:
            raise InputError(
                f"{who} plays the game it was trained for",
                expected="game {!r} with {} numbers observed and {} actions".format(*mine),
                got="game {!r} with {} numbers observed and {} actions".format(*wanted),
                next_step="Train a population for this game.",
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the population as one safetensors file, replaced in one move."""
        header = {
            "kind": "population",
            "game": self.game,
            "actor": asdict(self.actor),
            "names": list(self.names),
            "progress": self.progress.to_dict(),
        }
        save_tree(path, self.params, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str], game: Game | None = None) -> Population:
        """Read a population; with `game`, refuse one of another game.

        Raises:
            InputError: A missing or damaged file, one without a population, one that lacks a member or holds
                numbers that are not finite, or one of another game; the file is named.
        """
        header = load_header(path)
        if header.get("kind") != "population":
            raise InputError(
                "the file holds a population",
                expected="a file written by Population.save",
                got=f"kind {header.get('kind')!r} in {path}",
                next_step="Resume a training by passing its folder to the trainer instead.",
            )
        actor, names, progress = _described(header, path)
        _refuse_missing_members(names, path)
        keys = jax.random.split(jax.random.key(0), len(names))
        shapes = jax.eval_shape(jax.vmap(actor.init), keys)
        arrays = load_tree(path, shapes)
        _refuse_not_finite(arrays, names, path)
        population = cls(header["game"], actor, jax.tree.map(jnp.asarray, arrays), names, progress)
        if game is not None:
            population._refuse_other_game(game, f"the population of {path}")
        return population


def _described(header: Mapping[str, Any], path: Any) -> tuple[Actor, tuple[str, ...], Progress]:
    """Return what a file's header says of its members."""
    try:
        actor, names = actor_from_dict(header["actor"]), tuple(map(str, header["names"]))
        progress = Progress.from_dict(header["progress"])
        if not names or not isinstance(header["game"], str):
            raise ValueError("no members or no game")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            "a population's file says what its members are",
            expected="entries 'game', 'actor', 'names' and 'progress' as Population.save writes them",
            got=f"{type(error).__name__}: {error}",
            next_step=f"{path} is damaged or of another version; save the population anew.",
        ) from error
    return actor, names, progress


def _refuse_missing_members(names: tuple[str, ...], path: Any) -> None:
    for array, size in load_sizes(path).items():
        if size != len(names):
            lacks = f", without {names[size]!r}" if size < len(names) else ""
            raise InputError(
                "a population's file holds every member that it names",
                expected=f"{len(names)} members in every array",
                got=f"{size} in array {array!r}{lacks}",
                next_step=f"{path} is damaged; use an earlier one or train anew.",
            )


def _refuse_not_finite(arrays: Any, names: tuple[str, ...], path: Any) -> None:
    for leaf in jax.tree.leaves(arrays):
        odd = np.flatnonzero(~np.isfinite(leaf).reshape(len(names), -1).all(axis=1))
        if odd.size:
            raise InputError(
                f"the parameters of {names[odd[0]]!r} are finite",
                expected="no NaN and no infinity",
                got="some",
                next_step=f"{path} is damaged, or its training diverged: lower the learning rate.",
            )


@functools.partial(jax.jit, static_argnums=0)
def _fresh_members(actor: Actor, keys: Array) -> Any:
    return jax.vmap(actor.init)(keys)


def actor_from_dict(values: Mapping[str, Any]) -> Actor:
    """Return the actor that `dataclasses.asdict` turned into plain values."""
    network = {**values["network"], "hidden": tuple(values["network"]["hidden"])}
    return Actor(Network(**network), values["n_latents"])
