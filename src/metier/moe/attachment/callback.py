"""Balance a model that the Trainer of transformers trains, and save the balancer with its checkpoints."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from metier.core.checks import ensure
from metier.core.errors import InputError
from metier.core.extras import require
from metier.moe.balancing.balancer import Balancer

from .handle import Attachment, attach
from .routers import RouterFamily

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
        ensure(
            "metier" in metadata,
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


FILE = "balancer.safetensors"


@functools.cache
def _as_trainer_callback(cls: type) -> Any:
    """Return `cls` as a subclass of `transformers.TrainerCallback`, which is loaded only here."""
    base = require("transformers").TrainerCallback
    return cls if issubclass(cls, base) else type(cls.__name__, (cls, base), {"__doc__": cls.__doc__})


class BalancingCallback:
    """A `transformers.TrainerCallback` that attaches a balancer while a Trainer trains.

    It steps the balancer, logs its figures, saves it with every checkpoint and resumes it.

    Works with gradient accumulation (one balancing step per optimizer step) and data parallelism (one
    all-reduce per step). Without `tokens_per_step` every micro-batch counts as its mean and the balancer's
    `loss_scale` is 1 / the number of the step's micro-batches: `gradient_accumulation_steps`, or what is
    left for the last step of an epoch (a loader without a length does not tell, and is taken to have all).
    Its state is written into each checkpoint as `balancer.safetensors` and taken up when the Trainer resumes
    from one.

    Args:
        balancer: Fresh, from `moe.balancer(...)`.
        tokens_per_step: Tokens of an optimizer step over all micro-batches and ranks, padding not counted.
        families: Router families of your own.
        bake_bias: Whether a trained selection bias stays in force when training ends.
        prefix: What the names of logged figures start with.

    Attributes:
        handle: The handle while training, None before.

    Raises:
        InputError: In training: fp16 (its moving loss scale cannot reach the injected gradient), a
            checkpoint without the balancer's state, or what `moe.attach` refuses.

    Example:
        >>> from metier import moe
        >>> callback = moe.BalancingCallback(moe.balancer("phi"))
        >>> callback.handle is None
        True

    Source: ours.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Return a callback that the Trainer knows as one of its own."""
        known: type[Self] = _as_trainer_callback(cls)  # type: ignore[arg-type]
        return object.__new__(known)

    def __init__(
        self,
        balancer: Balancer,
        *,
        tokens_per_step: int | None = None,
        families: Iterable[RouterFamily] = (),
        bake_bias: bool = True,
        prefix: str = "balancing/",
    ) -> None:
        super().__init__()
        self.balancer, self.tokens_per_step, self.families = balancer, tokens_per_step, tuple(families)
        self.bake_bias, self.prefix = bake_bias, prefix
        self.handle: Attachment | None = None
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attach to the model; take up the state of the checkpoint that training resumes from."""
        model: nn.Module = kwargs["model"]
        ensure(
            not args.fp16,
            "the injected gradient needs a constant loss scale",
            expected="bf16 or fp32",
            got="fp16=True, whose scaler changes the scale as it goes",
            next_step="Train with bf16=True, or in a loop of your own that sets balancer.loss_scale.",
        )
        trainer_loss = getattr(args, "router_aux_loss_coef", 0.0)
        # TRL's trainers ask MoE models for the built-in loss unless this is 0, and add it themselves.
        ensure(
            not trainer_loss,
            "a model is balanced once",
            expected="no balancing loss beside the balancer",
            got=lambda: (
                f"{type(args).__name__}.router_aux_loss_coef={trainer_loss:g}, which the trainer adds"
            ),
            next_step="Set router_aux_loss_coef=0.0 in the trainer's arguments.",
        )
        if self._means:
            self.balancer.loss_scale = 1.0 / args.gradient_accumulation_steps
        elif args.world_size > 1:
            # Gradients are averaged over ranks, while tokens_per_step counts the tokens of all ranks.
            self.balancer.loss_scale = float(args.world_size)
        self.handle = attach(
            model, self.balancer, tokens_per_step=self.tokens_per_step, families=self.families
        )
        if state.global_step > 0:
            self.handle.load_state_dict(load_state(_saved_file(args, state)))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note at which step the epoch begins; training may resume in its middle."""
        steps = _steps_per_epoch(args, kwargs.get("train_dataloader"))
        done = state.global_step % steps if steps and not args.ignore_data_skip else 0
        self._first_step = state.global_step - done

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Divide by the micro-batches of this step: the last one of an epoch may have fewer."""
        loader = kwargs.get("train_dataloader")
        steps, most = _steps_per_epoch(args, loader), args.gradient_accumulation_steps
        last = steps is not None and state.global_step - self._first_step == steps - 1
        if self._means:
            left = len(loader) - (steps - 1) * most if last and loader is not None and steps else most
            self.balancer.loss_scale = 1.0 / left

    @property
    def _means(self) -> bool:
        """Whether every micro-batch counts as its mean."""
        return self.tokens_per_step is None and self.balancer.tokens_per_step is None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Finish the balancer's step."""
        if self.handle is not None:
            self.handle.step()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the balancer's figures to what is logged."""
        logs = kwargs.get("logs")
        if self.handle is not None and logs is not None and "loss" in logs:
            figures = {f"{self.prefix}{key}": value for key, value in self.handle.metrics().items()}
            logs.update(figures)
            state.log_history[-1].update(figures)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the balancer's state into the checkpoint."""
        if self.handle is not None and state.is_world_process_zero:
            save_state(self.handle.state_dict(), _checkpoint(args, state) / FILE)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Detach."""
        if self.handle is not None:
            self.handle.detach(bake_bias=self.bake_bias)


def _steps_per_epoch(args: Any, loader: Any) -> int | None:
    """Return the optimizer steps of an epoch, or None where the loader does not know its length."""
    try:
        return max(1, math.ceil(len(loader) / int(args.gradient_accumulation_steps)))
    except TypeError:
        return None


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _saved_file(args: Any, state: Any) -> Path:
    """Return the balancer's file of the checkpoint that training resumes from."""
    folders = [_checkpoint(args, state)]
    if isinstance(args.resume_from_checkpoint, str):
        folders.insert(0, Path(args.resume_from_checkpoint))
    saved = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    if saved is not None:
        return saved
    raise InputError(
        "training resumes with the balancer's state",
        expected=f"{FILE} in {' or '.join(str(folder) for folder in folders)}",
        got="no such file",
        next_step="Pass args.resume_from_checkpoint=FOLDER if the checkpoint lies elsewhere, or start anew.",
    )
