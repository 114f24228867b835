"""State dictionaries of a balancer: what is saved, and what must match on load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metier.core.errors import InputError
from metier.core.extras import naming_extras

from .layers import Layers

with naming_extras():
    import torch
    from torch import Tensor


VERSION = 2
"""2: `folds` counts the steps of lagged prices too, for the running mean of each layer."""
_TENSORS = ("ema", "price", "bias")
_NUMBERS = ("tokens", "folds")


def pack_state(layers: Layers, *, potential: str, track: str, steps: int) -> dict[str, Any]:
    """Return everything that the next step depends on: plain values, and tensors by layer name."""
    state: dict[str, Any] = {
        "version": VERSION,
        "potential": potential,
        "track": track,
        "steps": steps,
        "layers": layers.names,
        "n_experts": [block.n_experts for block, _ in layers.rows.values()],
        "top_k": [block.top_k[row] for block, row in layers.rows.values()],
    }
    for key in _NUMBERS:
        state[key] = [getattr(block, key)[row] for block, row in layers.rows.values()]
    for key in _TENSORS:
        state[key] = {name: getattr(b, key)[row].clone() for name, (b, row) in layers.rows.items()}
    return state


def unpack_state(state: Mapping[str, Any], layers: Layers, *, potential: str, track: str) -> int:
    """Check a state against this balancer, take it up, and return its number of steps."""
    mine = pack_state(layers, potential=potential, track=track, steps=0)
    _same_keys(state, mine)
    for key in ("version", "potential", "track", "layers", "n_experts", "top_k"):
        _same_value(key, state[key], mine[key])
    for key in _TENSORS:
        for name in layers.names:
            _good_tensor(key, name, state[key], mine[key][name])
    for i, (name, (block, row)) in enumerate(layers.rows.items()):
        for key in _TENSORS:
            getattr(block, key)[row].copy_(state[key][name])
        for key in _NUMBERS:
            getattr(block, key)[row] = int(state[key][i])
    return int(state["steps"])


def _same_keys(state: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    missing, unknown = sorted(set(mine) - set(state)), sorted(set(state) - set(mine))
    if missing or unknown:
        raise InputError(
            "a balancer's state has all its entries and no other",
            expected=", ".join(mine),
            got=f"missing {missing}, unknown {unknown}",
            next_step="Load what balancer.state_dict() returned, as a whole.",
        )


def _same_value(key: str, saved: Any, mine: Any) -> None:
    if saved == mine:
        return
    if isinstance(mine, list) and isinstance(saved, list) and len(saved) == len(mine):
        i = next(i for i in range(len(mine)) if saved[i] != mine[i])
        saved, mine, key = saved[i], mine[i], f"{key}[{i}]"
    elif isinstance(mine, list) and isinstance(saved, list):
        saved, mine = f"{len(saved)}: {saved[:3]}", f"{len(mine)}: {mine[:3]}"
    raise InputError(
        f"a state belongs to the same {key}",
        expected=repr(mine),
        got=repr(saved),
        next_step="Build the balancer and the model as they were when the state was saved.",
    )


def _good_tensor(key: str, name: str, saved: Any, mine: Tensor) -> None:
    tensor = saved.get(name) if isinstance(saved, Mapping) else None
    if isinstance(tensor, Tensor) and tensor.shape == mine.shape and bool(torch.isfinite(tensor).all()):
        return
    got = f"shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else repr(tensor)
    if isinstance(tensor, Tensor) and tensor.shape == mine.shape:
        got = "values that are not finite"
    raise InputError(
        f"{key} of layer {name!r} has one finite value per expert",
        expected=f"shape {tuple(mine.shape)}",
        got=got,
        next_step="Load what balancer.state_dict() returned, as a whole.",
    )
