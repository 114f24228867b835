"""What a dense layer gives factors to start from: truncated or data-aware singular value decomposition."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from metier.core.checks import ensure, non_negative, one_of
from metier.core.errors import InputError
from metier.core.rng import derive_seed

from .activations import GateActivation, gate_activation
from .forms import FORMS, Form, MxD, Rank, TensorRing, Tucker
from .forms.ranks import two_ranks
from .initialization import fill_normal, generator_of
from .sizes import expert_modes

RIDGE = 1e-6
"""Share of the mean second moment that is added to each input direction of a calibration."""


class _Factorized(Protocol):
    @property
    def factors(self) -> Form:
        """The factors to fill."""
        ...


L = TypeVar("L", bound=_Factorized)


def dense_weight(linear: nn.Module, *, where: str = "the layer") -> tuple[Tensor, Tensor | None]:
    """Return weight (O, I) and bias (O,) of `nn.Linear` or transformers' `Conv1D`.

    Raises:
        InputError: The module is neither.

    Example:
        >>> weight, bias = dense_weight(nn.Linear(3, 2))
        >>> weight.shape, bias.shape
        (torch.Size([2, 3]), torch.Size([2]))
    """
    if isinstance(linear, nn.Linear):
        return linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
    if type(linear).__name__ == "Conv1D" and isinstance(getattr(linear, "nf", None), int):
        weight, bias = linear.weight, linear.bias
        if isinstance(weight, Tensor) and weight.dim() == 2 and isinstance(bias, Tensor):
            return weight.detach().T, bias.detach()
    raise InputError(
        f"a warm start begins from a dense layer ({where})",
        expected="nn.Linear, or the Conv1D of transformers",
        got=type(linear).__name__,
        next_step="Pass the linear layer inside it.",
    )


def second_moment(inputs: Tensor, *, bias: bool) -> Tensor:
    """Return E[z z^T] of inputs (..., I) in float64, with a one appended to z where there is a bias.

    Example:
        >>> second_moment(torch.tensor([[1.0], [3.0]]), bias=True)
        tensor([[5., 2.],
                [2., 1.]], dtype=torch.float64)
    """
    rows = torch.as_tensor(inputs).detach()
    rows = rows.reshape(-1, rows.shape[-1]).double()
    ensure(
        rows.numel() > 0 and bool(torch.isfinite(rows).all()),
        "calibration inputs show what the layer sees",
        expected="at least one row, all finite",
        got="no row" if not rows.numel() else "NaN or infinity",
        next_step="Pass inputs (..., I) from your data.",
    )
    if bias:
        rows = torch.cat([rows, rows.new_ones(rows.shape[0], 1)], dim=1)
    return rows.T @ rows / rows.shape[0]


def full_rank(form: str, size_in: int, size_out: int, ring: tuple[int, int]) -> Rank | None:
    """Return the least rank at which a warm start keeps the function; `size_in` counts the bias slot.

    Example:
        >>> full_rank("cp", 9, 6, (4, 4)), full_rank("tr", 9, 6, (4, 4))
        (6, 2)
    """
    needed = min(size_in, size_out)
    if form == "tr":
        return -(-needed // min(ring))
    return None if form == "mxd" else needed


def start_from_dense(
    layer_type: Callable[..., L],
    linear: nn.Module,
    *,
    n_experts: int | Sequence[int],
    form: str = "cp",
    rank: Rank | None = None,
    gate: str | GateActivation = "entmax15",
    norm: str = "layer",
    bias: bool | None = None,
    calibration: Tensor | None = None,
    noise: float = 0.0,
    ring_ranks: tuple[int, int] = (4, 4),
    rng: int | None = None,
    **settings: Any,
) -> L:
    """Return a layer of `layer_type` that starts as a dense one; arguments as in `warm_start`."""
    weight, offset = dense_weight(linear)
    has_bias = offset is not None if bias is None else bias
    _check_bias(offset, has_bias)
    modes, ring_ranks = expert_modes(n_experts), two_ranks(ring_ranks)
    form, slots = one_of("form", form, FORMS), weight.shape[1] + int(has_bias)
    if rank is None:
        rank = full_rank(form, slots, weight.shape[0], ring_ranks)
    if not gate_activation(gate).simplex:
        warnings.warn(
            f"the coefficients of gate {gate!r} do not sum to 1: the dense function is not kept.",
            stacklevel=3,
        )
    layer = layer_type(
        weight.shape[1],
        weight.shape[0],
        n_experts=modes,
        form=form,
        rank=rank,
        gate=gate,
        norm=norm,
        bias=has_bias,
        ring_ranks=ring_ranks,
        rng=rng,
        device=weight.device,
        dtype=weight.dtype,
        **settings,
    )
    moment = None if calibration is None else second_moment(calibration, bias=has_bias)
    ensure(
        moment is None or len(moment) == slots,
        "calibration inputs are inputs of the dense layer",
        expected=f"(..., {weight.shape[1]})",
        got=lambda: f"shape {tuple(calibration.shape)}",  # type: ignore[union-attr]
        next_step="Pass what the layer itself sees, not the model's inputs.",
    )
    fill_from_dense(layer.factors, weight, offset, moment=moment, noise=noise, generator=noise_generator(rng))
    return layer


def _check_bias(offset: Tensor | None, has_bias: bool) -> None:
    ensure(
        offset is None or has_bias,
        "a layer without biases cannot start from one with them",
        expected="bias=True, or None",
        got="bias=False for a dense layer with bias",
        next_step="Leave bias out.",
    )


@torch.no_grad()
def fill_from_dense(
    form: Form,
    weight: Tensor,
    offset: Tensor | None,
    *,
    moment: Tensor | None = None,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> None:
    """Set factors so that every expert is the truncated dense layer; the gate stays.

    Args:
        form: Factors whose ranks stay; components beyond the dense layer's rank start at output 0.
        weight: (O, I).
        offset: (O,) or None.
        moment: Second moment of the inputs as `second_moment` returns it, for a data-aware truncation.
        noise: As in `warm_start`.
        generator: Stream of the noise; torch's own if left out.
    """
    shape, sigma = form.shape, non_negative("noise", noise)
    _fill_experts(form, sigma, generator)
    if isinstance(form, MxD):
        form.input_weight.copy_(weight)
        if form.input_bias is not None:
            form.input_bias.copy_(torch.zeros_like(form.input_bias) if offset is None else offset)
        return
    dense = _with_bias(weight, offset, shape.bias)
    into, out = truncated(dense, _components(form), moment=moment)
    k, n = into.shape[0], _components(form)
    form.input_weight[:k] = into[:, : shape.in_features].to(form.input_weight)
    if form.input_bias is not None:
        form.input_bias[:k] = into[:, -1].to(form.input_bias)
    form.last_weight[:, :k] = out.to(form.last_weight)
    form.last_weight[:, k:n] = 0.0


def _with_bias(weight: Tensor, offset: Tensor | None, bias: bool) -> Tensor:
    dense = weight.double()
    if not bias:
        return dense
    column = dense.new_zeros(dense.shape[0]) if offset is None else offset.double()
    return torch.cat([dense, column.unsqueeze(1)], dim=1)


def _components(form: Form) -> int:
    """Return how many rank-one components of a dense matrix the form can hold in all experts at once."""
    if isinstance(form, TensorRing):
        return min(form.ranks[:-1]) * form.ranks[-1]
    return min(form.ranks[-2:]) if isinstance(form, Tucker) else form.ranks[0]


def truncated(dense: Tensor, rank: int, *, moment: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return factors (k, I) and (O, k) whose product is the best approximation of `dense` (O, I), k <= rank.

    Without `moment` the error is that of the weights; with E[z z^T] = L L^T it is that of the outputs:
    dense L is truncated and L undone.

    Example:
        >>> into, out = truncated(torch.eye(3).double(), 3)
        >>> torch.allclose(out @ into, torch.eye(3).double())
        True
    """
    if moment is None:
        left, values, right = torch.linalg.svd(dense, full_matrices=False)
    else:
        # Where all inputs are 0 any ridge does: the truncation is then that of the weights.
        mean = moment.diagonal().mean()
        ridge = torch.where(mean > 0, RIDGE * mean, 1.0)
        unit = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
        root = torch.linalg.cholesky((moment + ridge * unit).to(dense))
        left, values, right = torch.linalg.svd(dense @ root, full_matrices=False)
        right = torch.linalg.solve_triangular(root.mT, right.mT, upper=True).mT
    k = min(rank, values.numel())
    scale = values[:k].sqrt()
    return scale.unsqueeze(1) * right[:k], left[:, :k] * scale


def noise_generator(rng: int | None, *labels: str) -> torch.Generator | None:
    """Return the stream of the noise that belongs to a seed: another one than that of the gate.

    Example:
        >>> noise_generator(None) is None
        True
    """
    return None if rng is None else generator_of(derive_seed(rng, "warm start", *labels))


def _fill_experts(form: Form, sigma: float, generator: torch.Generator | None) -> None:
    """Set every expert to the common matrix, plus relative noise whose mean over experts is 0."""
    for e, experts in enumerate(form.experts):
        pattern = _pattern(form, e)
        draw = torch.zeros_like(experts)
        if sigma:
            fill_normal(draw, 0.0, sigma, generator)
        experts.copy_(pattern * (1.0 + draw - draw.mean(0)))


def _pattern(form: Form, mode: int) -> Tensor:
    experts = form.experts[mode]
    if isinstance(form, TensorRing):
        return torch.eye(form.ranks[mode], form.ranks[mode + 1]).flatten().to(experts)
    if isinstance(form, Tucker):
        first = torch.zeros(experts.shape[1]).to(experts)
        first[0] = 1.0
        if mode == 0:
            _identity_core(form)
        return first
    return torch.ones(experts.shape[1]).to(experts)


def _identity_core(form: Tucker) -> None:
    r_in, r_out = form.ranks[-2:]
    form.core[:, :r_in] = torch.eye(r_out, r_in).to(form.core)


def effective_weight(form: Form) -> Tensor:
    """Return the dense layer (O, I + 1) that factors are at equal coefficients, bias column included.

    Example:
        >>> from metier.moe import MultilinearMoE
        >>> effective_weight(MultilinearMoE(3, 2, n_experts=4, rank=2).factors).shape
        torch.Size([2, 4])
    """
    like = form.input_weight
    equal = [torch.full((n,), 1 / n, dtype=like.dtype, device=like.device) for n in form.shape.n_experts]
    weight, bias = form.dense(form.mix(equal))
    column = weight.new_zeros(form.shape.out_features) if bias is None else bias
    return torch.cat([weight.T, column.unsqueeze(1)], dim=1).detach()
