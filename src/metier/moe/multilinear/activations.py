"""Gate activations: maps from logits to coefficients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metier.core.checks import one_of, positive_int

from .entmax import alpha_entmax, entmax15, sparsemax


@dataclass(frozen=True, slots=True)
class Entmax15:
    """Sparse probabilities by entmax-1.5.

    Example:
        >>> Entmax15()(torch.tensor([1.0, 0.0, -3.0]))
        tensor([0.8307, 0.1693, 0.0000])
    """

    simplex = True

    def __call__(self, logits: Tensor) -> Tensor:
        """Return coefficients (..., N) of logits (..., N)."""
        return entmax15(logits)


@dataclass(frozen=True, slots=True)
class AlphaEntmax:
    """Sparse probabilities by alpha-entmax, 1.1 <= alpha <= 2.

    Example:
        >>> AlphaEntmax(alpha=2.0)(torch.tensor([1.0, 0.0, -3.0]))
        tensor([1., 0., 0.])
    """

    alpha: float = 1.25

    simplex = True

    def __call__(self, logits: Tensor) -> Tensor:
        """Return coefficients (..., N) of logits (..., N)."""
        return alpha_entmax(logits, alpha=self.alpha)


@dataclass(frozen=True, slots=True)
class Sparsemax:
    """The projection onto the simplex.

    Example:
        >>> Sparsemax()(torch.tensor([0.6, 0.4, -1.0]))
        tensor([0.6000, 0.4000, 0.0000])
    """

    simplex = True

    def __call__(self, logits: Tensor) -> Tensor:
        """Return coefficients (..., N) of logits (..., N)."""
        return sparsemax(logits)


@dataclass(frozen=True, slots=True)
class Softmax:
    """Dense probabilities.

    Example:
        >>> Softmax()(torch.zeros(2))
        tensor([0.5000, 0.5000])
    """

    simplex = True

    def __call__(self, logits: Tensor) -> Tensor:
        """Return coefficients (..., N) of logits (..., N)."""
        return torch.softmax(logits, dim=-1)


@dataclass(frozen=True, slots=True)
class TopK:
    """Softmax over the k largest logits, zero elsewhere.

    Example:
        >>> TopK(k=2)(torch.tensor([1.0, 1.0, 0.0]))
        tensor([0.5000, 0.5000, 0.0000])
    """

    k: int = 8

    simplex = True

    def __call__(self, logits: Tensor) -> Tensor:
        """Return coefficients (..., N) of logits (..., N)."""
        k = min(self.k, logits.shape[-1])
        values, where = logits.topk(k, dim=-1)
        return torch.zeros_like(logits).scatter(-1, where, torch.softmax(values, dim=-1))


@dataclass(frozen=True, slots=True)
class ReluTopK:
    """The k largest logits where positive, zero elsewhere: the coefficients do not sum to 1.

    Example:
        >>> ReluTopK(k=2)(torch.tensor([3.0, -1.0, 2.0, 1.0]))
        tensor([3., 0., 2., 0.])

    Source: the gate of MxD (arXiv 2505.21364), which adds a gate bias.
    """

    k: int = 8

    simplex = False

    def __call__(self, logits: Tensor) -> Tensor:
        """Return coefficients (..., N) of logits (..., N)."""
        values, where = logits.topk(min(self.k, logits.shape[-1]), dim=-1)
        return torch.zeros_like(logits).scatter(-1, where, torch.relu(values))


GateActivation = Entmax15 | AlphaEntmax | Sparsemax | Softmax | TopK | ReluTopK

GATES: dict[str, Callable[..., GateActivation]] = {
    "entmax15": Entmax15,
    "alpha_entmax": AlphaEntmax,
    "sparsemax": Sparsemax,
    "softmax": Softmax,
    "topk": TopK,
    "relu_topk": ReluTopK,
}
"""Gate activations by name; each is called on logits (..., N)."""


def gate_activation(gate: str | GateActivation) -> GateActivation:
    """Return the gate activation of a name, or the one that is passed.

    Args:
        gate: "entmax15", "alpha_entmax", "sparsemax", "softmax", "topk", "relu_topk", or an object such as
            `moe.TopK(k=4)`.

    Returns:
        A callable from logits (..., N) to coefficients (..., N).

    Raises:
        InputError: The name is unknown, or k or alpha is out of range.

    Example:
        >>> gate_activation("topk")
        TopK(k=8)
    """
    if isinstance(gate, str):
        return GATES[one_of("gate", gate, GATES)]()
    if not isinstance(gate, GateActivation):
        one_of("gate", gate, GATES)
    if isinstance(gate, TopK | ReluTopK):
        positive_int("k", gate.k)
    if isinstance(gate, AlphaEntmax) and not 1.1 <= gate.alpha <= 2.0:
        alpha_entmax(torch.zeros(1), alpha=gate.alpha)
    return gate


def gate_to_dict(gate: GateActivation) -> dict[str, Any]:
    """Return a gate activation as plain values.

    Example:
        >>> gate_to_dict(TopK(k=4))
        {'name': 'topk', 'k': 4}
    """
    name = next(name for name, factory in GATES.items() if factory is type(gate))
    return {"name": name, **dataclasses.asdict(gate)}


def gate_from_dict(values: dict[str, Any]) -> GateActivation:
    """Return the gate activation that `gate_to_dict` described.

    Example:
        >>> gate_from_dict({"name": "topk", "k": 4})
        TopK(k=4)
    """
    settings = {key: value for key, value in values.items() if key != "name"}
    return gate_activation(GATES[one_of("gate", values["name"], GATES)](**settings))
