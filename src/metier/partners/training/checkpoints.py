"""Pytrees of arrays as safetensors files: whole or not there, refused where they do not fit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from metier.core import InputError

HEADER = "metier.partners"


def save_tree(path: str | os.PathLike[str], tree: Any, header: Mapping[str, Any]) -> Path:
    """Write a pytree of arrays and a header of plain values; a file of that name is replaced in one move.

    Args:
        path: The file; its folder is made.
        tree: Arrays.
        header: What a reader must know or check, as JSON takes it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(_flat(tree), temporary, metadata={HEADER: json.dumps(dict(header))})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a file's header.

    Raises:
        InputError: No such file, a damaged file, or one that metier.partners did not write.
    """
    return _read(path)[0]


def load_sizes(path: str | os.PathLike[str]) -> dict[str, int]:
    """Return the leading size of every array of a file, 0 for scalars.

    Raises:
        InputError: As `load_header`.
    """
    return {name: array.shape[0] if array.ndim else 0 for name, array in _read(path)[1].items()}


def load_tree(path: str | os.PathLike[str], like: Any) -> Any:
    """Return the arrays of a file in the structure of `like`, a pytree of arrays or shapes.

    Raises:
        InputError: As `load_header`; or arrays are missing, left over, or of other shapes or types.
    """
    found = _read(path)[1]
    wanted = {_name(place): leaf for place, leaf in jax.tree_util.tree_flatten_with_path(like)[0]}
    if found.keys() != wanted.keys():
        odd = sorted(found.keys() ^ wanted.keys())[0]
        raise InputError(
            "a checkpoint has the arrays that its header promises",
            expected=f"{len(wanted)} arrays" + (f", {odd!r} among them" if odd in wanted else ""),
            got=f"{len(found)} arrays" + (f", {odd!r} among them" if odd in found else ""),
            next_step=f"{path} is from another version or another training; train anew.",
        )
    for name, leaf in wanted.items():
        if found[name].shape != np.shape(leaf) or found[name].dtype != leaf.dtype:
            raise InputError(
                f"array {name!r} of a checkpoint has the size of this training",
                expected=f"{leaf.dtype} of shape {np.shape(leaf)}",
                got=f"{found[name].dtype} of shape {found[name].shape}",
                next_step=f"Use the settings that {path} was trained with, or another folder.",
            )
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted])


def check_header(header: Mapping[str, Any], wanted: Mapping[str, Any], *, path: Any) -> None:
    """Refuse a header that differs, naming the first entry that does.

    Raises:
        InputError: An entry of `wanted` is missing or different.
    """
    for name, value in wanted.items():
        if header.get(name) != json.loads(json.dumps(value)):
            raise InputError(
                f"a checkpoint has the same {name}",
                expected=repr(value),
                got=repr(header.get(name)),
                next_step=f"{path} belongs to another training: name another folder or the same settings.",
            )


def _flat(tree: Any) -> dict[str, NDArray[Any]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    # Not ascontiguousarray, which gives scalars an axis.
    return {_name(place): np.asarray(leaf, order="C") for place, leaf in leaves}


def _name(place: Any) -> str:
    return jax.tree_util.keystr(place)


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    if not isinstance(path, str | os.PathLike) or not Path(path).is_file():
        raise InputError(
            "a checkpoint exists",
            expected="a file written by metier.partners",
            got=f"no file {path}",
            next_step="Check the path.",
        )
    try:
        with safe_open(path, framework="numpy") as file:
            header = dict(json.loads((file.metadata() or {})[HEADER]))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            "a checkpoint is a whole safetensors file written by metier.partners",
            expected=f"a header {HEADER!r} and all its arrays",
            got=f"{type(error).__name__}: {error}",
            next_step=f"{path} is damaged or of another program; use an earlier checkpoint or train anew.",
        ) from error
    return header, arrays
