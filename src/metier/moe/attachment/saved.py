"""A handle's state as a file: tensors in safetensors, the rest as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metier.core.errors import InputError

_SEPARATOR = "::"


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a nested state (dictionaries of tensors and plain values) to one file, in place at once.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "state.safetensors"
        >>> save_state({"a": {"layer.0": torch.ones(2)}, "steps": 3}, path)
        >>> load_state(path)
        {'a': {'layer.0': tensor([1., 1.])}, 'steps': 3}
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    plain = _split(state, (), tensors)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"metier": json.dumps(plain)})
    partial.replace(path)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote.

    Raises:
        InputError: The file is none of ours.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if "metier" not in metadata:
            raise InputError(
                "a balancer's file says what it holds",
                expected="a file written by metier",
                got=f"{path.name} without metier's header",
                next_step="Pass a checkpoint folder that BalancingCallback saved into.",
            )
        state: dict[str, Any] = json.loads(metadata["metier"])
        for key in file.keys():  # noqa: SIM118 (a file, not a dictionary)
            *parents, last = key.split(_SEPARATOR)
            place = state
            for parent in parents:
                place = place[parent]
            place[last] = file.get_tensor(key)
    return state


def _split(value: Any, path: tuple[str, ...], tensors: dict[str, torch.Tensor]) -> Any:
    """Return the plain part of a value; its tensors go to `tensors` under their path."""
    if not isinstance(value, Mapping):
        return value
    plain = {}
    for key, inner in value.items():
        if isinstance(inner, torch.Tensor):
            tensors[_SEPARATOR.join((*path, key))] = inner.detach().cpu().contiguous()
        else:
            plain[key] = _split(inner, (*path, key), tensors)
    return plain
