"""Gates: from an input to coefficients of the experts, one set per expert mode."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metier.core.checks import one_of
from metier.core.errors import InputError

from .activations import GateActivation, gate_activation

NORMS = ("layer", "batch", "none")
EPS = 1e-5


class Gate(nn.Module):
    """Coefficients a_e = phi(norm(G_e^T z)) for every expert mode e, in one matrix product.

    The product runs in the input's dtype; normalization and activation run in float32 (float64 stays).

    Args:
        in_features: I, size of the gate input.
        n_experts: Sizes N_e of the expert modes.
        activation: phi, a name or a gate activation.
        norm: "layer" normalizes each token's logits within each mode; "batch" each logit over all tokens of a
            batch (which couples examples, and later tokens with earlier ones); "none" leaves them.
        bias: Whether logits have a bias (MxD's gate has one; "layer" and "batch" need none).

    Attributes:
        weight: (N_1 + ... + N_E, I).

    Example:
        >>> gate = Gate(4, (2, 3), activation="softmax", norm="none")
        >>> [tuple(a.shape) for a in gate(torch.zeros(5, 4))]
        [(5, 2), (5, 3)]

    Source: arXiv 2402.12550, section 3; float32 and the single product are ours.
    """

    def __init__(
        self,
        in_features: int,
        n_experts: tuple[int, ...],
        *,
        activation: str | GateActivation = "entmax15",
        norm: str = "layer",
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.n_experts = in_features, n_experts
        self.activation = gate_activation(activation)
        self.norm = one_of("norm", norm, NORMS)
        total = sum(n_experts)
        self.weight = nn.Parameter(torch.empty(total, in_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(total, device=device, dtype=dtype)) if bias else None
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        self.batch_norm: nn.Module | None = None
        if norm == "batch":
            self.batch_norm = nn.BatchNorm1d(total, eps=EPS, affine=False, device=device, dtype=wide)
        if norm == "layer" and 2 in n_experts:
            warnings.warn(
                "layer norm over 2 logits leaves +1 and -1: the gate of a mode of 2 experts becomes almost "
                'one-hot and gets almost no gradient. Use norm="none" or a mode of 3 or more experts.',
                stacklevel=4,
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move and cast, but keep the running statistics of batch norm in float32 or wider."""
        names = () if self.batch_norm is None else ("running_mean", "running_var")
        before = {name: getattr(self.batch_norm, name) for name in names}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in before.items():
            cast = getattr(self.batch_norm, name)
            if cast.dtype in (torch.float16, torch.bfloat16):
                setattr(self.batch_norm, name, value.to(cast.device, torch.float32))
        return self

    def logits(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return the normalized logits of each mode, (..., N_e), in float32 or wider."""
        raw = self._raw(z)
        return tuple(self._normalize(mode) for mode in torch.split(raw, list(self.n_experts), dim=-1))

    def _raw(self, z: Tensor) -> Tensor:
        raw = F.linear(z, self.weight, self.bias)
        raw = raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw
        if self.batch_norm is not None:
            raw = _batch_norm(self.batch_norm, raw)
        return raw

    def _equal_modes(self, z: Tensor) -> Tensor:
        """Return the coefficients of modes of one size, (..., E, N_e), in one pass over all modes."""
        raw = self._raw(z)
        stacked = raw.reshape(*raw.shape[:-1], len(self.n_experts), self.n_experts[0])
        return self.activation(self._normalize(stacked)).to(z.dtype)

    def _normalize(self, mode: Tensor) -> Tensor:
        return F.layer_norm(mode, mode.shape[-1:], eps=EPS) if self.norm == "layer" else mode

    def forward(self, z: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the coefficients of each mode, (..., N_e), in the dtype of `z`.

        Args:
            z: (..., I).
            mask: Which experts may be used, booleans that broadcast to (..., N_1 + ... + N_E); the
                coefficients of the others are exactly 0 and the rest still sums to 1. Where no expert of a
                mode may be used, all its coefficients are 0.
        """
        if mask is None and len(self.n_experts) > 1 and len(set(self.n_experts)) == 1:
            return tuple(self._equal_modes(z).unbind(-2))
        logits = self.logits(z)
        if mask is None:
            return tuple(self.activation(mode).to(z.dtype) for mode in logits)
        masks = torch.split(mask, list(self.n_experts), dim=-1)
        pairs = zip(logits, masks, strict=True)
        return tuple(_masked(self.activation, mode, allowed).to(z.dtype) for mode, allowed in pairs)

    def extra_repr(self) -> str:
        """Return the settings shown by `print`."""
        return f"{self.in_features}, {self.n_experts}, activation={self.activation}, norm={self.norm!r}"


def _masked(activation: GateActivation, logits: Tensor, allowed: Tensor) -> Tensor:
    none = ~allowed.any(-1, keepdim=True)
    # A row that is masked as a whole gets finite logits first: its gradients must not be NaN.
    safe = logits.masked_fill(~allowed, -torch.inf).masked_fill(none, 0.0)
    return activation(safe).masked_fill(none, 0.0)


def _batch_norm(norm: Any, raw: Tensor) -> Tensor:
    """Normalize over all leading dimensions; one row in training has no variance to normalize by."""
    rows = raw.reshape(-1, raw.shape[-1])
    if norm.training and rows.shape[0] < 2:
        if rows.shape[0] == 1:
            warnings.warn(
                "batch norm of a single row in training: the running statistics are used instead.",
                stacklevel=6,
            )
        mean, variance = norm.running_mean, norm.running_var
        return F.batch_norm(rows, mean, variance, training=False, eps=norm.eps).reshape(raw.shape)
    return norm(rows).reshape(raw.shape)  # type: ignore[no-any-return]


def refuse_causal_batch_norm(norm: str, *, causal: bool, force: bool, where: str) -> None:
    """Refuse batch norm where later tokens must not reach earlier ones.

    Raises:
        InputError: norm is "batch", the model is causal, and `force` is off.

    Example:
        >>> refuse_causal_batch_norm("layer", causal=True, force=False, where="layer 0")
    """
    if norm == "batch" and causal and not force:
        raise InputError(
            f"a causal model must not see later tokens ({where})",
            expected='norm="layer" or "none"',
            got='norm="batch", whose statistics run over all tokens of a sequence in training',
            next_step='Use norm="layer", or pass force=True to accept the leak.',
        )
