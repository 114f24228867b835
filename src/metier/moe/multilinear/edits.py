"""Edits of single experts: factors, additions to weights and biases, and extra rank-one components."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from metier.core.checks import ensure, finite_array

from .forms import Form

ExpertIndex = int | tuple[int, ...]


def joint_index(n: ExpertIndex, modes: tuple[int, ...]) -> tuple[int, ...]:
    """Return an expert's index in each mode, from a flat index or from a tuple.

    Raises:
        InputError: The index is out of range, or its length is not the number of modes.

    Example:
        >>> joint_index(11, (4, 8)), joint_index((1, 3), (4, 8))
        ((1, 3), (1, 3))
    """
    total = int(np.prod(modes))
    if isinstance(n, tuple | list):
        ensure(
            len(n) == len(modes),
            "an expert has one index per mode",
            expected=f"{len(modes)} for n_experts={modes}",
            got=f"{tuple(n)}",
            next_step="Pass a flat index, or one index per mode; several experts are a list: [1, 2].",
        )
        for index, size in zip(n, modes, strict=True):
            _check_range(index, size, modes)
        return tuple(int(index) for index in n)
    _check_range(n, total, modes)
    return tuple(int(i) for i in np.unravel_index(int(n), modes))


def _check_range(index: Any, size: int, modes: tuple[int, ...]) -> None:
    ensure(
        isinstance(index, int | np.integer) and not isinstance(index, bool) and 0 <= index < size,
        f"experts are counted from 0 (n_experts={modes})",
        expected=f"an index from 0 to {size - 1}",
        got=repr(index),
        next_step="Check the expert's index.",
    )


def flat_index(n: ExpertIndex, modes: tuple[int, ...]) -> int:
    """Return an expert's flat index.

    Example:
        >>> flat_index((1, 3), (4, 8))
        11
    """
    return int(np.ravel_multi_index(joint_index(n, modes), modes))


class Edits(nn.Module):
    """What a layer does beside its factors; linear in the coefficients of joint experts.

    Scales act on mixtures: mixture + sum_k (s_k - 1) a_{n_k} mixture_of(n_k). Additions are rank-one
    components: y += sum_j (u_j^T a) (v_j^T [x; 1]) w_j over joint coefficients a.

    Buffers: scale_index (K, E) and scale (K,); expert (J, N), into (J, I + 1), out (J, O).
    """

    scale_index: Tensor
    scale: Tensor
    expert: Tensor
    into: Tensor
    out: Tensor

    def __init__(self, n_scales: int, n_components: int, form: Form) -> None:
        super().__init__()
        like, shape = form.input_weight, form.shape
        kind: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        index = torch.zeros(n_scales, len(shape.n_experts), dtype=torch.long, device=like.device)
        self.register_buffer("scale_index", index)
        self.register_buffer("scale", torch.ones(n_scales, **kind))
        self.register_buffer("expert", torch.zeros(n_components, math.prod(shape.n_experts), **kind))
        self.register_buffer("into", torch.zeros(n_components, shape.in_features + 1, **kind))
        self.register_buffer("out", torch.zeros(n_components, shape.out_features, **kind))

    @classmethod
    def of(
        cls,
        form: Form,
        old: Edits | None,
        *,
        scale: Mapping[ExpertIndex, float] | None = None,
        weight: Mapping[ExpertIndex, Tensor] | None = None,
        bias: Mapping[ExpertIndex, Tensor] | None = None,
        components: Sequence[tuple[Tensor, Tensor, Tensor]] = (),
    ) -> Self:
        """Return a layer's old edits followed by new ones: scales first, then additions."""
        modes = form.shape.n_experts
        scales = {} if old is None else old.scales()
        rows = (
            [] if old is None else [(u, v, w) for u, v, w in zip(old.expert, old.into, old.out, strict=True)]
        )
        for n, factor in (scale or {}).items():
            index = joint_index(n, modes)
            scales[index] = scales.get(index, 1.0) * float(finite_array("scale", factor, ndim=0))
            rows = _scale_rows(rows, flat_index(n, modes), float(factor))
        for n, delta in (weight or {}).items():
            rows += _weight_components(form, flat_index(n, modes), delta)
        for n, shift in (bias or {}).items():
            rows.append(_bias_component(form, flat_index(n, modes), shift))
        rows += list(components)
        edits = cls(len(scales), len(rows), form)
        for k, (index, factor) in enumerate(scales.items()):
            edits.scale_index[k] = torch.tensor(index)
            edits.scale[k] = factor
        for j, (u, v, w) in enumerate(rows):
            edits.expert[j], edits.into[j], edits.out[j] = u, v, w
        return edits

    def scales(self) -> dict[tuple[int, ...], float]:
        """Return the factors by joint expert."""
        pairs = zip(self.scale_index.tolist(), self.scale.tolist(), strict=True)
        return {tuple(index): factor for index, factor in pairs}

    def forward(self, form: Form, x: Tensor, modes: tuple[Tensor, ...]) -> Tensor:
        """Return the edited layer's outputs."""
        y = form.apply_mixture(x, self._mixture(form, modes))
        if self.expert.shape[0] == 0:
            return y
        joint = modes[0]
        for mode in modes[1:]:
            joint = (joint.unsqueeze(-1) * mode.unsqueeze(-2)).flatten(-2)
        amount = (joint @ self.expert.T) * torch.nn.functional.linear(x, self.into[:, :-1], self.into[:, -1])
        return y + amount @ self.out

    def _mixture(self, form: Form, modes: tuple[Tensor, ...]) -> Tensor:
        if len(modes) == 1 and self.scale.shape[0]:
            # One mode: scale its coefficient, so that an expert switched off leaves exact zeros.
            factor = torch.ones_like(modes[0]).index_copy(
                -1, self.scale_index[:, 0], self.scale.to(modes[0].dtype).expand(*modes[0].shape[:-1], -1)
            )
            return form.mix((modes[0] * factor,))
        mixture = form.mix(modes)
        for k in range(self.scale.shape[0]):
            index = self.scale_index[k]
            amount = self.scale[k] - 1
            for mode, n in zip(modes, index, strict=True):
                amount = amount * mode.index_select(-1, n.unsqueeze(0)).squeeze(-1)
            part = self._mixture_of(form, index)
            mixture = mixture + amount.reshape(*amount.shape, *([1] * part.dim())) * part
        return mixture

    @staticmethod
    def _mixture_of(form: Form, index: Tensor) -> Tensor:
        rows = [
            torch.nn.functional.one_hot(n, size).to(form.input_weight.dtype)
            for n, size in zip(index, form.shape.n_experts, strict=True)
        ]
        return form.mix(rows)

    def expert_matrix(self, form: Form, index: tuple[int, ...], mixture: Tensor) -> tuple[Tensor, Tensor]:
        """Return W_n and b_n of an edited expert."""
        weight, bias = form.dense(mixture * self.scales().get(index, 1.0))
        bias = weight.new_zeros(weight.shape[-1]) if bias is None else bias
        amount = self.expert[:, flat_index(index, form.shape.n_experts)]
        added = (self.into * amount.unsqueeze(-1)).T @ self.out
        return weight + added[:-1], bias + added[-1]


def _scale_rows(
    rows: list[tuple[Tensor, Tensor, Tensor]], n: int, factor: float
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Scale expert n inside earlier additions too: an expert switched off takes its additions along."""
    scaled = []
    for u, v, w in rows:
        u = u.clone()
        u[n] = u[n] * factor
        scaled.append((u, v, w))
    return scaled


def _one_hot(form: Form, n: int) -> Tensor:
    u = form.input_weight.new_zeros(math.prod(form.shape.n_experts))
    u[n] = 1.0
    return u


def _weight_components(form: Form, n: int, delta: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return a change of W_n as rank-one components, by its singular value decomposition."""
    _check_shape("weight", delta, (form.shape.in_features, form.shape.out_features))
    like, u = form.input_weight, _one_hot(form, n)
    left, values, right = torch.linalg.svd(delta.detach().double(), full_matrices=False)
    nonzero = values > values.max() * 1e-14 if values.numel() else values > 0
    pad = left.new_zeros(1)
    return [
        (u, torch.cat([left[:, j] * values[j], pad]).to(like), right[j].to(like))
        for j in torch.nonzero(nonzero).flatten().tolist()
    ]


def _bias_component(form: Form, n: int, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    _check_shape("bias", shift, (form.shape.out_features,))
    like = form.input_weight
    v = like.new_zeros(form.shape.in_features + 1)
    v[-1] = 1.0
    return _one_hot(form, n), v, shift.detach().to(like)


def _check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    ensure(
        isinstance(value, Tensor) and bool(torch.isfinite(value).all()),
        f"{name} says what is added to an expert",
        expected=f"a tensor of shape {shape} of finite numbers",
        got="NaN or infinity" if isinstance(value, Tensor) else type(value).__name__,
        next_step="Convert it with torch.as_tensor, or check how it was computed.",
    )
    ensure(
        tuple(value.shape) == shape,
        f"{name} says what is added to an expert",
        expected=f"a tensor of shape {shape}",
        got=f"shape {tuple(value.shape)}",
        next_step="Transpose or reshape it.",
    )
