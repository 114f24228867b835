"""Keep JAX's CPU backend from hanging: dispatch computations one after the other."""

from __future__ import annotations

import logging

import jax

_LOG = logging.getLogger("metier")


def dispatch_in_turn() -> bool:
    """Turn asynchronous dispatch on CPU off; every trainer calls this first, `import metier` never does.

    With asynchronous dispatch, a population's training step was seen to wait for ever on CPU (jax 0.10.2, two
    or three members). JAX reads the setting when its CPU backend starts, at the first computation, and from
    no environment variable: call this before. Where that is too late, a message of logger "metier" says so.

    Returns:
        Whether the setting is in force.

    Example:
        >>> dispatch_in_turn() in (True, False)
        True
    """
    was_on = bool(jax.config.read("jax_cpu_enable_async_dispatch"))  # type: ignore[no-untyped-call]
    if was_on and _backend_started():
        _LOG.warning(
            "JAX has already started with asynchronous dispatch, with which training on CPU can hang; "
            "call metier.partners.dispatch_in_turn() before the first computation."
        )
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # type: ignore[no-untyped-call]
    return True


def _backend_started() -> bool:
    from jax._src import xla_bridge

    return bool(xla_bridge.backends_are_initialized())
