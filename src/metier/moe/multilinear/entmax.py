"""Sparse maps onto the simplex: entmax-1.5 and alpha-entmax without sorting, sparsemax."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metier.core.errors import InputError

CHUNK = 1 << 18
"""Elements that one thread works on at a time: 1 MiB of float32, so that all passes stay in cache."""

FAR = 1e3
"""Logits beyond this are shifted first; closer to 0, rounding of the root costs nothing."""

UNCHECKED_STEPS = 3
"""Newton steps before the first look at their size."""

TRACED_STEPS = 8
"""Newton steps where the number must be fixed; a further differentiable step follows."""


def entmax15(x: Tensor, dim: int = -1) -> Tensor:
    """Map logits to sparse probabilities by entmax-1.5, without sorting.

    p_n = max(0, x_n / 2 - tau)^2 with tau so that the p_n sum to 1. Newton's method on
    ||max(0, x/2 - t)||_2 = 1 climbs from below: the norm is convex in t, so that no step overshoots.

    Args:
        x: Logits, floating point. -inf masks an entry (p = 0); a row of -inf only becomes a row of zeros.
            Half precision is computed in float32.
        dim: Dimension that sums to 1.

    Returns:
        Probabilities of the shape and dtype of `x`, with exact zeros.

    Example:
        >>> entmax15(torch.tensor([1.0, 0.0, -3.0]))
        tensor([0.8307, 0.1693, 0.0000])

    Source: Peters, Niculae and Martins (2019) for the map; the iteration is ours.
    """
    return _simplex_map(x, 1.5, dim)


def alpha_entmax(x: Tensor, dim: int = -1, *, alpha: float) -> Tensor:
    """Map logits to sparse probabilities by alpha-entmax, 1 < alpha <= 2, without sorting below 2.

    p_n = max(0, (alpha - 1) x_n - tau)^(1 / (alpha - 1)); alpha = 1.5 is `entmax15`, 2 is `sparsemax`.

    Args:
        x: Logits, as in `entmax15`.
        dim: Dimension that sums to 1.
        alpha: Sparser the larger. Below 1.1 use softmax, which is the limit at 1.

    Returns:
        Probabilities of the shape and dtype of `x`.

    Raises:
        InputError: alpha is not in [1.1, 2].

    Example:
        >>> alpha_entmax(torch.tensor([1.0, 0.0, -3.0]), alpha=2.0)
        tensor([1., 0., 0.])

    Source: Peters, Niculae and Martins (2019).
    """
    if not 1.1 <= alpha <= 2.0:
        raise InputError(
            "alpha sets how sparse the probabilities are",
            expected="1.1 <= alpha <= 2",
            got=alpha,
            next_step="Use softmax for alpha = 1, or alpha=1.5.",
        )
    return sparsemax(x, dim) if alpha == 2.0 else _simplex_map(x, alpha, dim)


def sparsemax(x: Tensor, dim: int = -1) -> Tensor:
    """Project logits onto the simplex: p_n = max(0, x_n - tau).

    Args:
        x: Logits, as in `entmax15`.
        dim: Dimension that sums to 1.

    Returns:
        Probabilities of the shape and dtype of `x`.

    Example:
        >>> sparsemax(torch.tensor([0.6, 0.4, -1.0]))
        tensor([0.6000, 0.4000, 0.0000])

    Source: Martins and Astudillo (2016), Algorithm 1.
    """
    _check(x, dim)
    z = _wide(x).movedim(dim, -1)
    top = z.amax(-1, keepdim=True).detach()
    z = z - torch.where(top == -torch.inf, 0.0, top)
    ordered = z.detach().sort(-1, descending=True).values
    rank = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    count = ((1 + rank * ordered) > ordered.cumsum(-1)).sum(-1, keepdim=True)
    tau = (ordered.cumsum(-1).gather(-1, (count - 1).clamp_min(0)) - 1) / count.clamp_min(1)
    active = z > tau
    # With the support fixed, tau is linear in the logits: this is where its gradient comes from.
    tau = (torch.where(active, z, 0.0).sum(-1, keepdim=True) - 1) / count.clamp_min(1)
    return torch.where(active, z - tau, torch.where(z.isnan(), z, 0.0)).movedim(-1, dim).to(x.dtype)


def _check(x: Tensor, dim: int) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise InputError(
            "logits are a floating point tensor",
            expected="a torch.Tensor of float16, bfloat16, float32 or float64",
            got=str(x.dtype) if isinstance(x, Tensor) else type(x).__name__,
            next_step="Convert them with torch.as_tensor(x, dtype=torch.float32).",
        )
    if isinstance(dim, bool) or not isinstance(dim, int) or not -x.dim() <= dim < x.dim():
        raise InputError(
            "dim is a dimension of the logits",
            expected=f"a whole number from {-x.dim()} to {x.dim() - 1}"
            if x.dim()
            else "one dimension or more",
            got=f"dim={dim!r} for shape {tuple(x.shape)}",
            next_step="Pass dim=-1 for the last dimension.",
        )


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _traced() -> bool:
    """Whether a graph is being captured, or vmap/grad run: no loop may look at values then."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def _simplex_map(x: Tensor, alpha: float, dim: int) -> Tensor:
    _check(x, dim)
    z = _wide(x).movedim(dim, -1)
    p: Tensor = newton_map(z, alpha) if _traced() else _Entmax.apply(z, alpha)  # type: ignore[no-untyped-call]
    return p.movedim(-1, dim).to(x.dtype)


def newton_map(x: Tensor, alpha: float = 1.5, *, steps: int | None = None) -> Tensor:
    """Map logits (..., N) by alpha-entmax in plain operations: traceable and exportable.

    `steps` Newton steps run on detached values; one more with gradients gives the exact Jacobian.

    Example:
        >>> newton_map(torch.tensor([1.0, 0.0, -3.0]))
        tensor([0.8307, 0.1693, 0.0000])

    Source: ours.
    """
    power = 1 / (alpha - 1)
    top = x.detach().amax(-1, keepdim=True)
    y = (alpha - 1) * (x - torch.where(top == -torch.inf, 0.0, top))
    fixed = y.detach()
    t = torch.full_like(top, -1.0)
    for _ in range(traced_steps(x.shape[-1], alpha) if steps is None else steps):
        t = t + _newton_step(torch.relu(fixed - t), power)
    r = torch.relu(y - t)
    slope = power * _power(r.detach(), power - 1).sum(-1, keepdim=True)
    # Away from the root a plain step may overshoot the last entry; at the root it only carries gradients.
    t = t + (_power(r, power).sum(-1, keepdim=True) - 1) / slope.clamp_min(1e-30) * (top > -torch.inf)
    return _power(torch.relu(y - t), power)


def traced_steps(n: int, alpha: float) -> int:
    """Newton steps that reach float32 accuracy for `n` entries."""
    return TRACED_STEPS + 4 * (n > 4096) + 4 * (alpha != 1.5)


def _power(r: Tensor, power: float) -> Tensor:
    return r * r if power == 2 else r if power == 1 else r**power


def _newton_step(r: Tensor, power: float) -> Tensor:
    """Return the step of Newton's method on ||r||_power = 1: at least 0 where the norm is at least 1."""
    total = _power(r, power).sum(-1, keepdim=True)
    slope = _power(r, power - 1).sum(-1, keepdim=True).clamp_min(1e-30)
    return (total - total ** (1 - 1 / power)) / slope


class _Entmax(torch.autograd.Function):
    """alpha-entmax over the last dimension that saves its probabilities and nothing else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        p = torch.empty_like(x, memory_format=torch.contiguous_format)
        rows, source = p.view(-1, x.shape[-1]), x.reshape(-1, x.shape[-1])
        for part in _chunks(rows):
            _fill(source[part], rows[part], alpha)
        ctx.save_for_backward(p)
        ctx.alpha = alpha
        return p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        dx = torch.empty_like(p)
        rows, source, target = (t.reshape(-1, p.shape[-1]) for t in (p, grad, dx))
        parts = _chunks(rows)
        room = torch.empty_like(rows[parts[0]]) if parts else rows
        for part in parts:
            g = _slope(rows[part], ctx.alpha, room[: rows[part].shape[0]])
            out = torch.mul(source[part], g, out=target[part])
            shift = out.sum(-1, keepdim=True).div_(g.sum(-1, keepdim=True).clamp_min_(1e-30))
            out.addcmul_(g, shift, value=-1.0)
        return dx, None


def _slope(p: Tensor, alpha: float, out: Tensor) -> Tensor:
    """Write p^(2 - alpha) on the support, the derivative of p by its logit, into `out`."""
    if alpha == 1.5:
        # sqrt of many zeros is five times slower than this in the vector mathematics of MKL.
        return torch.clamp_min(p, torch.finfo(p.dtype).tiny, out=out).rsqrt_().mul_(p)
    return torch.pow(p, 2 - alpha, out=out).masked_fill_(p == 0, 0.0)


def _chunks(rows: Tensor) -> list[slice]:
    """Row ranges that fit in cache on a CPU; elsewhere all rows at once."""
    n, width = rows.shape
    step = (
        max(1, CHUNK * torch.get_num_threads() // max(width, 1)) if rows.device.type == "cpu" else max(n, 1)
    )
    return [slice(start, start + step) for start in range(0, n, step)]


def _fill(x: Tensor, out: Tensor, alpha: float) -> None:
    """Write alpha-entmax of the rows of `x` into `out`, which first holds max(0, y - t)."""
    power, n = 1 / (alpha - 1), x.shape[-1]
    top = x.amax(-1, keepdim=True)
    top.masked_fill_(top == -torch.inf, 0.0)
    if x.device.type != "cpu" or float(top.abs().max()) > FAR:
        # Beside large logits the root, top - 1 or so, is rounded; beyond 1e7 it would be top itself.
        x = x - top
        top = torch.zeros_like(top)
    # The root lies between top - 1 and top - N^(-1/power); standard normal logits have theirs near the guess.
    least = top * (alpha - 1) - 1.0
    t = least.clamp_min(normal_root(n) if power == 2 else -torch.inf).minimum(least + (1 - n ** (-1 / power)))
    _residual(x, t, alpha, out)
    # The norm is convex: wherever it starts, the first step ends below the root, or at it.
    t = torch.maximum(t + _step(out, power), least)
    _residual(x, t, alpha, out)
    # Reading a value stalls an accelerator, and costs little beside a pass on a CPU.
    on_cpu, close = x.device.type == "cpu", 1e-4 if x.dtype == torch.float32 else 1e-8
    for done in range(2, 101 if on_cpu else traced_steps(n, alpha) + 2):
        # Rounding may make a last step negative, which would lift exact zeros.
        step = _step(out, power).clamp_min_(0.0)
        # max(0, max(0, y - t) - step) = max(0, y - (t + step)).
        out.sub_(step).relu_()
        if on_cpu and done >= UNCHECKED_STEPS and float(step.max()) <= close:
            break
    if power == 2:
        out.mul_(out)
    else:
        out.pow_(power)
    # A norm over thousands of entries is good to six digits; the sum makes up for what it missed.
    out.div_(out.sum(-1, keepdim=True).clamp_min_(1e-30))


def _residual(x: Tensor, t: Tensor, alpha: float, out: Tensor) -> None:
    torch.add(-t, x, alpha=alpha - 1, out=out).relu_()


def _step(r: Tensor, power: float) -> Tensor:
    if power != 2:
        return _newton_step(r, power)
    norm = torch.linalg.vector_norm(r, dim=-1, keepdim=True)
    step: Tensor = (norm * (norm - 1)).div_(r.sum(-1, keepdim=True).clamp_min_(1e-30))
    return step


@functools.lru_cache(maxsize=64)
def normal_root(n: int) -> float:
    """Return tau with n E[max(0, z / 2 - tau)^2] = 1 for standard normal z: where to start on unit logits.

    Example:
        >>> round(normal_root(2048), 3)
        1.176
    """
    low, high = -2.0, 6.0
    for _ in range(40):
        c = low + high  # twice the middle
        tail, density = math.erfc(c / math.sqrt(2)) / 2, math.exp(-c * c / 2) / math.sqrt(2 * math.pi)
        above = n * ((1 + c * c) * tail - c * density) / 4 > 1
        low, high = (c / 2, high) if above else (low, c / 2)
    return low
