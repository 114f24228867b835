"""A small sparse language model of bytes: hashed n-gram embeddings, attention, mixtures of experts."""

from __future__ import annotations

import math

from metier import moe
from metier.core.extras import naming_extras
from metier_studies.moe_balancing.corpus import VOCABULARY

with naming_extras():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F


ORDERS = (2, 3, 4)
PRIME = 1_000_003


class HashedEmbedding(nn.Module):
    """The sum of a byte's embedding and those of the 2-, 3- and 4-grams that end there, by hash.

    Source: byte n-gram hash embeddings, Byte Latent Transformer, arXiv 2412.09871, section 3.2.1.
    """

    def __init__(self, dim: int, *, buckets: int) -> None:
        super().__init__()
        self.buckets = buckets
        self.bytes = nn.Embedding(VOCABULARY, dim)
        self.grams = nn.ModuleList(nn.Embedding(buckets, dim) for _ in ORDERS)
        for table in (self.bytes, *self.grams):
            nn.init.normal_(table.weight, std=0.5 / math.sqrt(dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) bytes -> (B, T, dim)."""
        embedded: Tensor = self.bytes(tokens)
        key, shifted = tokens, tokens
        for table in self.grams:
            shifted = F.pad(shifted[:, :-1], (1, 0))
            key = key * PRIME + shifted + 1
            embedded = embedded + table(key % self.buckets)
        return embedded


class Block(nn.Module):
    """Causal attention and a mixture of experts, each on normalized input and added to it."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        hidden: int,
        n_experts: int,
        top_k: int,
        balancer: moe.Balancer | None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_experts = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.moe = moe.SparseMoE(dim, hidden, n_experts=n_experts, top_k=top_k, balancer=balancer)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, dim)."""
        batch, length, dim = x.shape
        qkv = self.qkv(self.before_attention(x)).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.transpose(1, 3).unbind(2)
        mixed = F.scaled_dot_product_attention(rotate(q, rotation), rotate(k, rotation), v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        served: Tensor = self.moe(self.before_experts(x))
        return x + served


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn pairs of channels by their position (rotary embedding); x (B, heads, T, d), rotation (2, "
    "T, d / 2)."""
    cosine, sine = rotation
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)


class SparseLanguageModel(nn.Module):
    """Predict the next byte.

    Args:
        dim, heads, layers: of the transformer.
        hidden, n_experts, top_k: of each mixture.
        length: longest window.
        buckets: of each n-gram table.
        balancer: shared by all layers; None balances nothing.
    """

    def __init__(
        self,
        *,
        dim: int,
        heads: int,
        layers: int,
        hidden: int,
        n_experts: int,
        top_k: int,
        length: int,
        buckets: int,
        balancer: moe.Balancer | None = None,
    ) -> None:
        super().__init__()
        self.embedding = HashedEmbedding(dim, buckets=buckets)
        self.blocks = nn.ModuleList(
            Block(dim, heads=heads, hidden=hidden, n_experts=n_experts, top_k=top_k, balancer=balancer)
            for _ in range(layers)
        )
        self.norm = nn.RMSNorm(dim)
        self.head = nn.Linear(dim, VOCABULARY, bias=False)
        nn.init.normal_(self.head.weight, std=0.5 / math.sqrt(dim))
        width = dim // heads
        angles = torch.outer(torch.arange(length), 10_000.0 ** (-torch.arange(0, width, 2) / width))
        self.register_buffer("rotation", torch.stack([angles.cos(), angles.sin()]), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) bytes -> (B, T, 256) logits of the byte after each."""
        x = self.embedding(tokens)
        rotation = self.get_buffer("rotation")[:, : tokens.shape[1]]
        for block in self.blocks:
            x = block(x, rotation)
        logits: Tensor = self.head(self.norm(x))
        return logits
