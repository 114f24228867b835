"""Layers and blocks on disk: config.json beside model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from metier.core.checks import ensure

FORMAT = 1

M = TypeVar("M", bound=nn.Module)


def save_pretrained(module: nn.Module, folder: str | Path) -> None:
    """Write a module's config and tensors, edits included."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    config = {"format": FORMAT, "class": type(module).__name__, "config": module.config()}  # type: ignore[operator]
    state = {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def load_pretrained(cls: type[M], folder: str | Path, *, device: torch.device | str | None = None) -> M:
    """Read a module that `save_pretrained` wrote.

    Raises:
        InputError: The folder holds no such module, or one of another class.
    """
    path = Path(folder)
    ensure(
        (path / "config.json").is_file() and (path / "model.safetensors").is_file(),
        "a saved layer is a folder of two files",
        expected="config.json and model.safetensors",
        got=f"{path} without them",
        next_step="Pass the folder that save_pretrained wrote.",
    )
    saved = json.loads((path / "config.json").read_text(encoding="utf-8"))
    ensure(
        saved.get("class") == cls.__name__ and saved.get("format") == FORMAT,
        "a saved layer is read by its own class",
        expected=f"{cls.__name__}, format {FORMAT}",
        got=f"{saved.get('class')}, format {saved.get('format')}",
        next_step=f"Call {saved.get('class')}.from_pretrained.",
    )
    with safe_open(path / "model.safetensors", framework="pt") as tensors:
        name = next(key for key in sorted(tensors.keys()) if key.endswith("input_weight"))
        dtype = tensors.get_tensor(name).dtype
    state = load_file(path / "model.safetensors", device=str(device or "cpu"))
    # Built without values: reading a layer draws nothing from torch's stream.
    module: M = cls.from_config(saved["config"], device="meta", dtype=dtype)  # type: ignore[attr-defined]
    module.to_empty(device=device or "cpu")
    module.load_state_dict(state)
    return module
