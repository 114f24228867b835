"""Find the balancing losses that a model or its trainer already adds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from metier.core.errors import InputError

COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef", "aux_loss_alpha", "load_balancing_loss_coef")


@dataclass(frozen=True, slots=True)
class BuiltinLoss:
    """A balancing loss of the model's own.

    Attributes:
        where: The module that adds it.
        coefficient: Name of its coefficient.
        value: The coefficient.
        active: Whether the model adds it in training: its configuration asks for the router logits.

    Example:
        >>> BuiltinLoss("MixtralForCausalLM", "router_aux_loss_coef", 0.02, False).summary()
        'MixtralForCausalLM has router_aux_loss_coef=0.02; off, because output_router_logits=False'
    """

    where: str
    coefficient: str
    value: float
    active: bool

    def summary(self) -> str:
        """Return one line for people."""
        text = f"{self.where} has {self.coefficient}={self.value:g}"
        return f"{text}; on" if self.active else f"{text}; off, because output_router_logits=False"

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return asdict(self)


def builtin_losses(model: nn.Module) -> list[BuiltinLoss]:
    """Return the balancing losses that the model's own forward pass adds or can add.

    Args:
        model: Any model; wrappers (PEFT, compiled, data parallel) are looked through.

    Returns:
        One entry per module that has a loss of its own and a non-zero coefficient.

    Example:
        >>> from torch import nn
        >>> builtin_losses(nn.Linear(2, 2))
        []
    """
    configured = [(module, vars(module).get("config")) for module in model.modules()]
    return [
        BuiltinLoss(type(module).__name__, name, value, _asked(config))
        for module, config in configured
        for name in (COEFFICIENTS if config is not None else ())
        if (value := _coefficient(module, config, name))
    ]


def _coefficient(module: nn.Module, config: Any, name: str) -> float:
    # The coefficient that counts is the module's, for configurations carry names that no code reads;
    # multimodal models read it from their text configuration.
    value = vars(module).get(name)
    if value is None and type(module).__name__.endswith("ForConditionalGeneration"):
        value = getattr(getattr(config, "text_config", None), name, None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _asked(config: Any) -> bool:
    configs = (config, getattr(config, "text_config", None))
    return any(getattr(part, "output_router_logits", False) is True for part in configs)


def refuse_builtin_losses(model: nn.Module) -> None:
    """Refuse a model that already balances itself in training.

    Raises:
        InputError: A built-in balancing loss is on; it is named with what turns it off.
    """
    for loss in builtin_losses(model):
        if loss.active:
            raise _twice(loss, "config.output_router_logits=True")


def refuse_requested_loss(model: nn.Module) -> None:
    """Refuse a call that asks for the router logits, which turns the built-in loss on.

    Raises:
        InputError: The model has a non-zero coefficient.
    """
    for loss in builtin_losses(model):
        raise _twice(loss, "output_router_logits=True in the call")


def _twice(loss: BuiltinLoss, cause: str) -> InputError:
    return InputError(
        "a model is balanced once",
        expected="no balancing loss beside the balancer",
        got=f"{loss.where} adds its own: {loss.coefficient}={loss.value:g} with {cause}",
        next_step="Set model.config.output_router_logits=False (in TRL: router_aux_loss_coef=0.0), "
        f"or set the module's {loss.coefficient}=0 if you need the logits.",
    )
