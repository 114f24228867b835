"""CP: every expert is a diagonal between a shared input factor and a shared output factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Form, Rank, Shape, product
from .ranks import one_rank


class CP(Form):
    """W[n, i, o] = sum_r U1[n, r] U2[i, r] U3[o, r]; further expert modes multiply U1.

    Parameters: experts.e (N_e, R), input_weight (R, I), input_bias (R,), output_weight (O, R).

    Source: arXiv 2402.12550, section 3.1.
    """

    name: ClassVar[str] = "cp"
    output_weight: nn.Parameter

    @classmethod
    def resolve_rank(cls, rank: Rank, shape: Shape, ring_ranks: tuple[int, int]) -> tuple[int, ...]:
        """Return (R,)."""
        return (one_rank("cp", rank),)

    @classmethod
    def sizes(cls, shape: Shape, ranks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Return the parameters' shapes."""
        (r,) = ranks
        experts = {f"experts.{e}": (n, r) for e, n in enumerate(shape.n_experts)}
        return {**experts, "input_weight": (r, shape.in_features), "output_weight": (shape.out_features, r)}

    @classmethod
    def bias_size(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return R."""
        return ranks[0]

    @classmethod
    def multiplies(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return R (N + I + O)."""
        return ranks[0] * (sum(shape.n_experts) + shape.in_features + shape.out_features)

    @classmethod
    def saved(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return 3 R, and for E > 1 modes the factors of their product."""
        e = len(shape.n_experts)
        return ranks[0] * (3 + (2 * (e - 1) if e > 1 else 0))

    def mix(self, coefficients: Sequence[Tensor]) -> Tensor:
        """Return f (..., R), the product over modes of a_e U_e."""
        return product((a @ u for a, u in zip(coefficients, self.experts, strict=True)), torch.mul)

    def mixture_of(self, index: tuple[int, ...]) -> Tensor:
        """Return the product over modes of the rows U_e[n_e]."""
        return product((u[n] for u, n in zip(self.experts, index, strict=True)), torch.mul)

    def apply_mixture(self, x: Tensor, mixture: Tensor) -> Tensor:
        """Return U3 (f * U2^T [x; 1])."""
        return F.linear(mixture * F.linear(x, self.input_weight, self.input_bias), self.last_weight)

    def dense(self, mixture: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return U2 diag(f) U3^T and its bias row."""
        scaled = mixture.unsqueeze(-2) * self.last_weight
        weight = self.input_weight.T @ scaled.transpose(-1, -2)
        return weight, None if self.input_bias is None else scaled @ self.input_bias

    @property
    def last_weight(self) -> nn.Parameter:
        """U3 (O, R)."""
        return self.output_weight
