"""Tensor ring and tensor train: every expert is a small matrix inside a chain of cores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metier.core.checks import positive_int

from .base import Form, Rank, Shape, product, unflatten
from .ranks import many_ranks


class TensorRing(Form):
    """W[n, i, o] = trace(C1[:, n, :] C2[:, i, :] C3[:, o, :]); further expert modes are further cores.

    Ranks (r_1, ..., r_{E+1}, r_last): expert core e is r_e x N_e x r_{e+1}, the input core
    r_{E+1} x (I + 1) x r_last, the output core r_last x O x r_1. Parameters: experts.e (N_e, r_e r_{e+1}),
    input_weight (r_{E+1} r_last, I), input_bias, output_weight (O, r_1 r_last).

    Source: arXiv 2402.12550, section 3.1; chains for any E are ours.
    """

    name: ClassVar[str] = "tr"
    output_weight: nn.Parameter

    @classmethod
    def resolve_rank(cls, rank: Rank, shape: Shape, ring_ranks: tuple[int, int]) -> tuple[int, ...]:
        """Return (r_1, ..., r_{E+1}, r_last); a whole number is r_last, the others alternate `ring_ranks`."""
        e = len(shape.n_experts)
        if isinstance(rank, int | np.integer):
            inner = tuple(positive_int("ring_ranks", ring_ranks[i % 2]) for i in range(e + 1))
            return (*inner, positive_int("rank", rank))
        return many_ranks(cls.name, rank, tuple(f"r{i + 1}" for i in range(e + 2)))

    @classmethod
    def sizes(cls, shape: Shape, ranks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Return the parameters' shapes."""
        experts = {f"experts.{e}": (n, ranks[e] * ranks[e + 1]) for e, n in enumerate(shape.n_experts)}
        return {
            **experts,
            "input_weight": (ranks[-2] * ranks[-1], shape.in_features),
            "output_weight": (shape.out_features, ranks[0] * ranks[-1]),
        }

    @classmethod
    def bias_size(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return r_{E+1} r_last."""
        return ranks[-2] * ranks[-1]

    @classmethod
    def multiplies(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return the multiplies of the cores, of their chain, and of the ring's two long factors."""
        r1, last, inner = ranks[0], ranks[-1], ranks[-2]
        cores = sum(n * ranks[e] * ranks[e + 1] for e, n in enumerate(shape.n_experts))
        chain = sum(r1 * ranks[e] * ranks[e + 1] for e in range(1, len(shape.n_experts)))
        return (
            cores
            + chain
            + inner * last * shape.in_features
            + r1 * inner * last
            + r1 * last * shape.out_features
        )

    @classmethod
    def saved(cls, shape: Shape, ranks: tuple[int, ...]) -> int:
        """Return the sizes of the mixture, of the projected input and of their product."""
        r1, last, inner = ranks[0], ranks[-1], ranks[-2]
        chain = sum(ranks[e] * ranks[e + 1] + r1 * ranks[e] for e in range(1, len(shape.n_experts)))
        return r1 * inner + inner * last + r1 * last + chain

    def mix(self, coefficients: Sequence[Tensor]) -> Tensor:
        """Return A (..., r_1, r_{E+1}), the product over modes of sum_n a_e[n] C_e[:, n, :]."""
        pairs = zip(coefficients, self.experts, strict=True)
        return product((self._core(a @ c, e) for e, (a, c) in enumerate(pairs)), torch.matmul)

    def mixture_of(self, index: tuple[int, ...]) -> Tensor:
        """Return the product over modes of the slices C_e[:, n_e, :]."""
        pairs = zip(self.experts, index, strict=True)
        return product((self._core(c[n], e) for e, (c, n) in enumerate(pairs)), torch.matmul)

    def _core(self, flat: Tensor, mode: int) -> Tensor:
        return unflatten(flat, (self.ranks[mode], self.ranks[mode + 1]))

    def apply_mixture(self, x: Tensor, mixture: Tensor) -> Tensor:
        """Return M3^T vec(A B) with B = C2 [x; 1]."""
        b = unflatten(F.linear(x, self.input_weight, self.input_bias), self.ranks[-2:])
        return F.linear((mixture @ b).flatten(-2), self.last_weight)

    def dense(self, mixture: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return M2 (A^T kron I) M3 and its bias row."""
        last = self.ranks[-1]
        m3 = unflatten(self.last_weight, (self.ranks[0], last))
        right = torch.einsum("...pq,ops->...qso", mixture, m3).flatten(-3, -2)
        weight = self.input_weight.T @ right
        return weight, None if self.input_bias is None else self.input_bias @ right

    @property
    def last_weight(self) -> nn.Parameter:
        """M3 (O, r_1 r_last): M3[o, (p, s)] = C3[s, o, p]."""
        return self.output_weight


class TensorTrain(TensorRing):
    """A tensor ring whose first rank is 1: all experts lie in r_2 dimensions.

    Source: arXiv 2402.12550, appendix; as a form of its own, ours.
    """

    name: ClassVar[str] = "tt"

    @classmethod
    def resolve_rank(cls, rank: Rank, shape: Shape, ring_ranks: tuple[int, int]) -> tuple[int, ...]:
        """Return (1, r_2, ..., r_{E+1}, r_last); a whole number is r_last, the others are `ring_ranks[1]`."""
        e = len(shape.n_experts)
        if isinstance(rank, int | np.integer):
            inner = positive_int("ring_ranks", ring_ranks[1])
            return (1, *([inner] * e), positive_int("rank", rank))
        if isinstance(rank, tuple | list) and len(rank) == e + 2 and rank[0] == 1:
            rank = rank[1:]
        return (1, *many_ranks(cls.name, rank, tuple(f"r{i + 2}" for i in range(e + 1))))
