"""What a training by cross-play minimization keeps from one iteration to the next."""

from __future__ import annotations

from typing import Any, NamedTuple

from jax import Array

from .collect import Running
from .self_play import SelfPlayState


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
