"""Tucker: a small core between factors of experts, inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from metier.core.checks import positive_int

from .base import Form, Rank, Shape, product, unflatten
from .ranks import many_ranks


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return (left.unsqueeze(-1) * right.unsqueeze(-2)).flatten(-2)


class Tucker(Form):
    """W[n, i, o] = sum_{p,q,s} Z[p, q, s] U1[n, p] U2[i, q] U3[o, s]; further expert modes are further p.

    Ranks (R_N1, ..., R_NE, R_I, R_O). Parameters: experts.e (N_e, R_Ne), input_weight (R_I, I), input_bias,
    core (R_O, R_I R_N1 ... R_NE), output_weight (O, R_O).

    Source: arXiv 2402.12550 names it; the parametrization with one product through the core is ours.
    """

    name: ClassVar[str] = "tucker"
    core: nn.Parameter
    output_weight: nn.Parameter

    @classmethod
    def resolve_rank(cls, rank: Rank, shape: Shape, ring_ranks: tuple[int, int]) -> tuple[int, ...]:
        """Return all ranks; a whole number is R_I = R_O, with expert ranks as small as a ring's."""
        e = len(shape.n_experts)
        if isinstance(rank, int | np.integer):
            r = positive_int("rank", rank)
            most = math.prod(ring_ranks) if e == 1 else max(ring_ranks)
            return (*(min(n, positive_int("ring_ranks", most)) for n in shape.n_experts), r, r)
        names = (*(f"R_N{i + 1}" for i in range(e)), "R_I", "R_O")
        return many_ranks(cls.name, rank, names)

    @classmethod
    def sizes(cls, shape: Shape, ranks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Return the parameters' shapes."""
        *of_experts, r_in, r_out = ranks
        experts = {
            f"experts.{e}": (n, r) for e, (n, r) in enumerate(zip(shape.n_experts, of_experts, strict=True))
        }
        return {
            **experts,
            "input_weight": (r_in, shape.in_features),
            "core": (r_out, r_in * math.prod(of_experts)),
            "output_weight": (shape.out_features, r_out),
        }

    @classmethod
    def bias_size(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return R_I."""
        return ranks[-2]

    @classmethod
    def multiplies(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return the multiplies of the factors and of the core."""
        *of_experts, r_in, r_out = ranks
        gates = sum(n * r for n, r in zip(shape.n_experts, of_experts, strict=True))
        return gates + r_in * shape.in_features + math.prod(ranks) + r_out * shape.out_features

    @classmethod
    def saved(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return the sizes of the mixture, of the projected input, of their outer product and its image."""
        *of_experts, r_in, r_out = ranks
        partial = [math.prod(of_experts[: i + 1]) for i in range(len(of_experts))]
        return sum(partial) + sum(of_experts[1:]) + r_in + r_in * partial[-1] + r_out

    def mix(self, coefficients: Sequence[Tensor]) -> Tensor:
        """Return the outer product over modes of a_e U_e, flattened."""
        return product((a @ u for a, u in zip(coefficients, self.experts, strict=True)), _outer)

    def mixture_of(self, index: tuple[int, ...]) -> Tensor:
        """Return the outer product over modes of the rows U_e[n_e], flattened."""
        return product((u[n] for u, n in zip(self.experts, index, strict=True)), _outer)

    def apply_mixture(self, x: Tensor, mixture: Tensor) -> Tensor:
        """Return U3 Z (f outer U2^T [x; 1])."""
        h = F.linear(x, self.input_weight, self.input_bias)
        return F.linear(F.linear(_outer(mixture, h), self.core), self.last_weight)

    def dense(self, mixture: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return U2 (sum_p f_p Z[p]) U3^T and its bias row."""
        core = unflatten(self.core, (-1, self.ranks[-2]))
        between = (mixture.unsqueeze(-2).unsqueeze(-2) @ core).squeeze(-2).transpose(-1, -2)
        right = between @ self.last_weight.T
        weight = self.input_weight.T @ right
        return weight, None if self.input_bias is None else self.input_bias @ right

    @property
    def last_weight(self) -> nn.Parameter:
        """U3 (O, R_O)."""
        return self.output_weight
