"""What every factorized form offers: mix the experts first, then apply the mixture to the input."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

Rank = int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes that fix a form's parameters.

    Attributes:
        in_features: I.
        out_features: O.
        n_experts: Sizes of the expert modes.
        bias: Whether experts have biases.

    Example:
        >>> Shape(8, 4, (2, 3), True).slots
        9
    """

    in_features: int
    out_features: int
    n_experts: tuple[int, ...]
    bias: bool

    @property
    def slots(self) -> int:
        """Input slots: I, plus one for the bias."""
        return self.in_features + int(self.bias)


class Form(nn.Module, ABC):
    """A factorization of the expert tensor W (N_1, ..., N_E, I + 1, O).

    `mix` turns gate coefficients into a small mixture, `apply` maps an input through that mixture. A mixture
    is linear in each mode's coefficients, so experts can be scaled or removed there exactly.
    """

    name: ClassVar[str]
    shape: Shape
    experts: nn.ParameterList
    input_weight: nn.Parameter
    input_bias: nn.Parameter | None

    @classmethod
    @abstractmethod
    def resolve_rank(cls, rank: Rank, shape: Shape, ring_ranks: tuple[int, int]) -> tuple[int, ...]:
        """Return the full tuple of ranks of `rank`, or raise InputError."""

    @classmethod
    @abstractmethod
    def sizes(cls, shape: Shape, ranks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter, bias excluded, by name; experts are "experts.0", ..."""

    @classmethod
    @abstractmethod
    def bias_size(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return the length of the bias slot of the input factor."""

    @classmethod
    @abstractmethod
    def multiplies(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return the multiplies per token in matrix products, gate excluded."""

    @classmethod
    @abstractmethod
    def saved(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return how many numbers per token autograd keeps, gate coefficients and input excluded."""

    @classmethod
    def parameters_of(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return the number of parameters, gate excluded."""
        bias = cls.bias_size(shape, ranks) if shape.bias else 0
        return bias + sum(math.prod(size) for size in cls.sizes(shape, ranks).values())

    def __init__(
        self,
        shape: Shape,
        ranks: tuple[int, ...],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.ranks = shape, ranks
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        sizes = self.sizes(shape, ranks)
        modes = [size for key, size in sizes.items() if key.startswith("experts.")]
        self.experts = nn.ParameterList(nn.Parameter(torch.empty(size, **kind)) for size in modes)
        for key, size in sizes.items():
            if not key.startswith("experts."):
                setattr(self, key, nn.Parameter(torch.empty(size, **kind)))
        bias = nn.Parameter(torch.empty(self.bias_size(shape, ranks), **kind)) if shape.bias else None
        self.input_bias = bias

    @abstractmethod
    def mix(self, coefficients: Sequence[Tensor]) -> Tensor:
        """Return the mixture of coefficients (..., N_e) of each mode."""

    @abstractmethod
    def mixture_of(self, index: tuple[int, ...]) -> Tensor:
        """Return the mixture of one joint expert: `mix` at one-hot coefficients, without the product."""

    @abstractmethod
    def apply_mixture(self, x: Tensor, mixture: Tensor) -> Tensor:
        """Return outputs (..., O) of inputs (..., I) under mixtures (..., *)."""

    @abstractmethod
    def dense(self, mixture: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return a mixture as weight (..., I, O) and bias (..., O)."""

    @property
    @abstractmethod
    def last_weight(self) -> nn.Parameter:
        """The factor that carries the output's scale."""


def product(parts: Iterable[Tensor], times: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Fold the parts of the expert modes into one mixture."""
    result: Tensor = reduce(times, parts)
    return result


def unflatten(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Split the last dimension into `sizes`; one of them may be -1."""
    return x.reshape(*x.shape[:-1], *sizes)
