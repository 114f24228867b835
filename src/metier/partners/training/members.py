"""One function over all members: side by side, one after the other, or spread over devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metier.core import one_of

WAYS = ("auto", "vmap", "loop")


def over_members(fn: Callable[..., Any], way: str = "auto") -> Callable[..., Any]:
    """Return `fn` of one member as a function of all, with a leading member axis on every argument.

    "vmap" computes them side by side, "loop" one after the other; both are part of the caller's `jit` and
    agree up to rounding. "auto" is "loop" on a single CPU, whose caches hold one member's work and not that
    of all, and "vmap" on accelerators and where members are spread over devices.

    Example:
        >>> import jax.numpy as jnp
        >>> over_members(lambda x: 2 * x, "loop")(jnp.arange(3)).tolist()
        [0, 2, 4]
    """
    way = one_of("members", way, WAYS)
    if way == "vmap" or (way == "auto" and (jax.device_count() > 1 or jax.default_backend() != "cpu")):
        return jax.vmap(fn)
    return lambda *args: jax.lax.map(lambda member: fn(*member), args)


def spread(tree: Any, n_members: int) -> Any:
    """Place everything with a leading member axis on all devices, members in equal shares.

    Nothing happens with one device, or where members do not divide among the devices evenly.
    """
    devices = jax.devices()
    if len(devices) == 1 or n_members % len(devices):
        return tree
    mesh = Mesh(np.array(devices), ("members",))
    split = NamedSharding(mesh, PartitionSpec("members"))  # type: ignore[no-untyped-call]
    whole = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]

    def place(leaf: Any) -> Any:
        has_members = np.ndim(leaf) > 0 and np.shape(leaf)[0] == n_members
        return jax.device_put(leaf, split if has_members else whole)

    return jax.tree.map(place, tree)
