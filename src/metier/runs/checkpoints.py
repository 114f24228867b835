"""Atomic checkpoints: arrays as safetensors, the rest as JSON, a checksum over both. No pickle is read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metier.core.errors import InputError
from metier.runs.atomic import fsync_folder
from metier.runs.journal import to_json_value

CHECKPOINT_VERSION = 1
_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes:
        step: the step it was saved at.
        arrays: the arrays by name.
        state: the JSON state, with any generator state as `Generator.bit_generator.state` gave it.
        skipped: folders of newer checkpoints that were damaged, each with its reason.
    """

    step: int
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]
    skipped: tuple[str, ...] = field(default=())


def save_checkpoint(
    folder: str | os.PathLike[str],
    step: int,
    *,
    arrays: Mapping[str, np.ndarray],
    state: Mapping[str, Any],
    keep: int = 2,
) -> Path:
    """Save `folder/step-N`, whole or not at all, and drop all but the newest `keep`.

    Args:
        folder: the folder of checkpoints; made if missing.
        step: N, at least 0.
        arrays: NumPy arrays by name.
        state: JSON values, for example `{"rng": rng.bit_generator.state}`; integers of any size survive.
        keep: how many checkpoints to keep, at least 1.

    Returns:
        The folder of the new checkpoint.

    Raises:
        InputError: a negative step, `keep` below 1, or state that JSON cannot hold.
        OSError: the disk is full or read-only; the older checkpoints are then untouched.
    """
    if step < 0 or keep < 1:
        raise InputError(
            "a checkpoint has a step and at least one is kept",
            expected="step >= 0 and keep >= 1",
            got=f"step={step}, keep={keep}",
            next_step="Correct the call.",
        )
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    target, temporary = root / f"step-{step}", root / f".step-{step}.tmp"
    for leftover in root.glob(".step-*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    try:
        _write_files(temporary, arrays, to_json_value(dict(state), what="checkpoint state"))
        # A folder cannot replace a full one; whoever saves a step again replaces a damaged or equal one.
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_folder(root)
    for _, old in _steps(root)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _write_files(folder: Path, arrays: Mapping[str, np.ndarray], state: Any) -> None:
    from safetensors.numpy import save

    contents = {
        "arrays.safetensors": save({name: np.ascontiguousarray(array) for name, array in arrays.items()}),
        "state.json": json.dumps(state, allow_nan=False).encode(),
    }
    seal = {
        "version": CHECKPOINT_VERSION,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    contents["seal.json"] = json.dumps(seal).encode()
    for name, content in contents.items():
        with (folder / name).open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
    fsync_folder(folder)


def _steps(root: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of every checkpoint, newest first."""
    found = [(int(m[1]), path) for path in root.iterdir() if (m := _STEP.fullmatch(path.name))]
    return sorted(found, reverse=True)


def latest_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint | None:
    """Return the newest checkpoint that verifies, or None if there is none at all.

    Args:
        folder: the folder of checkpoints; it may be missing.

    Returns:
        The checkpoint, its `skipped` naming newer ones that were damaged; None for a fresh start.

    Raises:
        InputError: a checkpoint of another version, or every checkpoint is damaged.
    """
    root = Path(folder)
    skipped: list[str] = []
    for step, path in _steps(root) if root.is_dir() else []:
        reason = _damage(path)
        if reason is None:
            return _load(path, step, tuple(skipped))
        skipped.append(f"{path.name}: {reason}")
    if skipped:
        raise InputError(
            "at least one checkpoint must be whole",
            expected=f"a verified checkpoint in {root}",
            got="; ".join(skipped),
            next_step="Delete that folder to start from the beginning.",
        )
    return None


def _damage(path: Path) -> str | None:
    """Return why a checkpoint does not verify, or None."""
    try:
        seal = json.loads((path / "seal.json").read_bytes())
        version, digests = seal["version"], dict(seal["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return "no readable seal"
    if version != CHECKPOINT_VERSION:
        raise InputError(
            "a checkpoint is read by the version that wrote it",
            expected=f"checkpoint version {CHECKPOINT_VERSION} in {path}",
            got=f"version {version!r}",
            next_step="Start anew in another folder, or use the metier release that made it.",
        )
    for name in ("arrays.safetensors", "state.json"):
        try:
            content = (path / name).read_bytes()
        except OSError:
            return f"{name} is missing"
        if hashlib.sha256(content).hexdigest() != digests.get(name):
            return f"{name} is truncated or altered"
    return None


def _load(path: Path, step: int, skipped: tuple[str, ...]) -> Checkpoint:
    from safetensors.numpy import load

    arrays = load((path / "arrays.safetensors").read_bytes())
    state = json.loads((path / "state.json").read_bytes())
    return Checkpoint(step=step, arrays=dict(arrays), state=state, skipped=skipped)
