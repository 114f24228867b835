"""MxD: one full weight whose outputs are scaled by the mixture of the experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metier.core.errors import InputError

from .base import Form, Rank, Shape, product


class MxD(Form):
    """W[n, i, o] = C[n, o] D[i, o]: CP with rank O and the identity as output factor.

    Parameters: experts.e (N_e, O), input_weight (O, I), input_bias (O,).

    Source: arXiv 2505.21364.
    """

    name: ClassVar[str] = "mxd"

    @classmethod
    def resolve_rank(cls, rank: Rank, shape: Shape, ring_ranks: tuple[int, int]) -> tuple[int, ...]:
        """Return (O,), the only rank there is."""
        if rank not in (shape.out_features, (shape.out_features,)):
            raise InputError(
                'form="mxd" has full rank',
                expected=f"rank=None, or out_features = {shape.out_features}",
                got=f"rank={rank}",
                next_step='Leave rank out, or use form="cp".',
            )
        return (shape.out_features,)

    @classmethod
    def sizes(cls, shape: Shape, ranks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Return the parameters' shapes."""
        experts = {f"experts.{e}": (n, shape.out_features) for e, n in enumerate(shape.n_experts)}
        return {**experts, "input_weight": (shape.out_features, shape.in_features)}

    @classmethod
    def bias_size(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return O."""
        return shape.out_features

    @classmethod
    def multiplies(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return O (N + I)."""
        return shape.out_features * (sum(shape.n_experts) + shape.in_features)

    @classmethod
    def saved(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return 2 O, and for E > 1 modes the factors of their product."""
        e = len(shape.n_experts)
        return shape.out_features * (2 + (2 * (e - 1) if e > 1 else 0))

    def mix(self, coefficients: Sequence[Tensor]) -> Tensor:
        """Return f (..., O), the product over modes of a_e C_e."""
        return product((a @ c for a, c in zip(coefficients, self.experts, strict=True)), torch.mul)

    def mixture_of(self, index: tuple[int, ...]) -> Tensor:
        """Return the product over modes of the rows C_e[n_e]."""
        return product((c[n] for c, n in zip(self.experts, index, strict=True)), torch.mul)

    def apply_mixture(self, x: Tensor, mixture: Tensor) -> Tensor:
        """Return f * D^T [x; 1]."""
        return mixture * F.linear(x, self.input_weight, self.input_bias)

    def dense(self, mixture: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return D diag(f) and its bias row."""
        weight = self.input_weight.T * mixture.unsqueeze(-2)
        return weight, None if self.input_bias is None else mixture * self.input_bias

    @property
    def last_weight(self) -> nn.Parameter:
        """C_1 (N_1, O): the experts carry the output's scale."""
        first: nn.Parameter = self.experts[0]
        return first
