"""Send tokens to their experts and back: sort once, then grouped, padded or looped products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def grouped_product(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Multiply each group of rows with its own matrix: `y_i = W_g x_i` for the rows i of group g.

    Args:
        rows: (S, in), sorted by group. Rows beyond `ends[-1]` belong to no group; their product is 0.
        weight: (E, out, in).
        ends: (E,) integers, where each group ends.

    Returns:
        (S, out).
    """
    if torch.compiler.is_compiling():
        return cast(Tensor, torch.ops.metier.grouped_product(rows, weight, ends))
    return _apply(_Product, rows, weight, ends.tolist())


def _apply(function: Any, *arguments: Any) -> Tensor:
    # torch leaves `Function.apply` without types.
    return cast(Tensor, function.apply(*arguments))


def _groups(ends: list[int]) -> Iterator[tuple[int, slice]]:
    start = 0
    for group, end in enumerate(ends):
        if end > start:
            yield group, slice(start, end)
        start = end


def _multiply(rows: Tensor, weight: Tensor, ends: list[int]) -> Tensor:
    out = rows.new_empty(rows.shape[0], weight.shape[1])
    out[ends[-1] :] = 0
    for group, part in _groups(ends):
        torch.mm(rows[part], weight[group].t(), out=out[part])
    return out


def _outer(left: Tensor, right: Tensor, ends: list[int]) -> Tensor:
    """(E, out, in) sums of outer products of (S, out) and (S, in) rows, by group; 0 where it is empty."""
    out = left.new_empty(len(ends), left.shape[1], right.shape[1])
    start = 0
    for group, end in enumerate(ends):
        if end > start:
            torch.mm(left[start:end].t(), right[start:end], out=out[group])
        else:
            out[group] = 0
        start = end
    return out


class _Product(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, ends: list[int]) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.ends = ends
        return _multiply(rows, weight, ends)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        # A gradient expanded from a sum has stride 0, which mm handles slowly.
        grad = grads[0].contiguous()
        to_rows, to_weight = ctx.needs_input_grad[:2]
        return (
            _apply(_Product, grad, weight.transpose(1, 2), ctx.ends) if to_rows else None,
            _apply(_Outer, grad, rows, ctx.ends) if to_weight else None,
            None,
        )


class _Outer(Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, ends: list[int]) -> Tensor:
        ctx.save_for_backward(left, right)
        ctx.ends = ends
        return _outer(left, right, ends)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        left, right = ctx.saved_tensors
        grad = grads[0].contiguous()
        return (
            _apply(_Product, right, grad, ctx.ends) if ctx.needs_input_grad[0] else None,
            _apply(_Product, left, grad.transpose(1, 2), ctx.ends) if ctx.needs_input_grad[1] else None,
            None,
        )


# Opaque to torch.compile, which could not trace a loop over group sizes known only at run time.
@torch.library.custom_op("metier::grouped_product", mutates_args=())
def _product_op(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return _multiply(rows, weight, ends.tolist())


@torch.library.custom_op("metier::grouped_outer", mutates_args=())
def _outer_op(left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
    return _outer(left, right, ends.tolist())


@_product_op.register_fake
def _(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[1])


@_outer_op.register_fake
def _(left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
    return left.new_empty(ends.shape[0], left.shape[1], right.shape[1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _product_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    rows, weight, ends = ctx.saved_tensors
    grad = grad.contiguous()
    return _product_op(grad, weight.transpose(1, 2), ends), _outer_op(grad, rows, ends), None


def _outer_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    left, right, ends = ctx.saved_tensors
    grad = grad.contiguous()
    return _product_op(right, grad, ends), _product_op(left, grad.transpose(1, 2), ends), None


_product_op.register_autograd(_product_backward, setup_context=_keep)
_outer_op.register_autograd(_outer_backward, setup_context=_keep)


Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class ExpertWeights:
    """Two stacks of matrices (E, out, in), biases (E, out) or None, and the activation between."""

    up: Tensor
    down: Tensor
    up_bias: Tensor | None
    down_bias: Tensor | None
    activation: Activation


@dataclass(frozen=True, eq=False)
class Plan:
    """The (token, choice) pairs of a batch, sorted by expert.

    Args:
        order: (S,) pairs in order of their expert, S = N k; pair p is choice p mod k of token p div k.
        inverse: (S,) where each pair went.
        tokens: (S,) token of every sorted pair.
        experts: (S,) experts of the sorted pairs.
        ends: (E,) int32, where each expert's pairs end.
        top_k: k.
        may_drop: whether pairs may carry the sentinel E; those come after `ends[-1]`.
    """

    order: Tensor
    inverse: Tensor
    tokens: Tensor
    experts: Tensor
    ends: Tensor
    top_k: int
    may_drop: bool

    def counts(self) -> list[int]:
        """Pairs of every expert, on the host: waits for a CUDA device."""
        ends = self.ends.tolist()
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def make_plan(indices: Tensor, n_experts: int, *, may_drop: bool | None = None) -> Plan:
    """Sort the choices of a batch by expert; no waiting for the device.

    Args:
        indices: (N, k) expert of every choice; `n_experts` is the sentinel of a choice that is dropped.
        n_experts: E.
        may_drop: whether sentinels may occur. None looks for them, which waits for a CUDA device.
    """
    pairs = indices.reshape(-1)
    experts, order = torch.sort(pairs, stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.shape[0], device=order.device)
    bounds = torch.arange(n_experts, device=pairs.device, dtype=pairs.dtype)
    ends = torch.searchsorted(experts, bounds, right=True, out_int32=True)
    if may_drop is None:
        may_drop = bool(pairs.shape[0]) and int(experts[-1]) >= n_experts
    top_k = indices.shape[1]
    tokens = order if top_k == 1 else order // top_k
    return Plan(order, inverse, tokens, experts, ends, top_k, may_drop)


class _Permute(Function):
    """Rows in another order; the gradient goes back by the inverse order, without scattered additions."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return _apply(_Permute, grads[0], inverse, order), None, None


class _Spread(Function):
    """Each token's row once per choice, sorted by expert; the gradient sums over a token's choices."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tokens: Tensor, inverse: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(tokens, inverse)
        ctx.top_k = top_k
        return x.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        tokens, inverse = ctx.saved_tensors
        return _apply(_Gather, grads[0], tokens, inverse, ctx.top_k), None, None, None


class _Gather(Function):
    """The transpose of `_Spread`: sum the sorted rows of each token's choices."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, tokens: Tensor, inverse: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(tokens, inverse)
        ctx.top_k = top_k
        back = rows.index_select(0, inverse)
        return back if top_k == 1 else back.view(-1, top_k, back.shape[1]).sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        tokens, inverse = ctx.saved_tensors
        return _apply(_Spread, grads[0], tokens, inverse, ctx.top_k), None, None, None


class Sorted:
    """Rows sorted by expert; each product is one grouped or looped matrix product."""

    def __init__(self, plan: Plan, product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        self.plan, self.product = plan, product
        self.present = (plan.experts < plan.ends.shape[0])[:, None] if plan.may_drop else None

    def enter(self, x: Tensor) -> Tensor:
        """(N, D) tokens -> (S, D) rows."""
        p = self.plan
        rows = _apply(_Spread, x, p.tokens, p.inverse, p.top_k)
        # Of rows without an expert neither the product nor its gradient is defined: cut both.
        return rows if self.present is None else torch.where(self.present, rows, 0)

    def linear(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply every row with its expert's matrix."""
        out = self.product(rows, weight, self.plan.ends)
        if bias is None:
            return out
        if self.present is None:
            return out + bias[self.plan.experts]
        # Cut here too: behind these rows waits a gradient of garbage.
        own = bias[self.plan.experts.clamp(max=weight.shape[0] - 1)]
        return out + torch.where(self.present, own, 0)

    def leave(self, rows: Tensor) -> Tensor:
        """(S, D) rows -> (S, D) in the order of the pairs; 0 where a pair has no expert."""
        p = self.plan
        rows = rows if self.present is None else torch.where(self.present, rows, 0)
        return _apply(_Permute, rows, p.inverse, p.order)


class Padded:
    """Every expert's rows padded to the largest load: plain batched products, wasteful if unbalanced."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        counts = plan.counts()
        self.capacity, n_rows = max(counts), sum(counts)
        starts = F.pad(plan.ends[:-1], (1, 0))
        experts = plan.experts[:n_rows]
        within = torch.arange(n_rows, device=experts.device) - starts[experts]
        self.slots = experts * self.capacity + within

    def enter(self, x: Tensor) -> Tensor:
        """(N, D) tokens -> (E, capacity, D) rows."""
        p = self.plan
        rows = _apply(_Spread, x, p.tokens, p.inverse, p.top_k)
        shape = (p.ends.shape[0] * self.capacity, x.shape[1])
        filled = rows.new_zeros(shape).index_copy(0, self.slots, rows[: self.slots.shape[0]])
        return filled.view(p.ends.shape[0], self.capacity, x.shape[1])

    def linear(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply every expert's rows with its matrix."""
        if bias is None:
            return torch.bmm(rows, weight.transpose(1, 2))
        return torch.baddbmm(bias[:, None], rows, weight.transpose(1, 2))

    def leave(self, rows: Tensor) -> Tensor:
        """(E, capacity, D) rows -> (S, D) in the order of the pairs; 0 where a pair has no expert."""
        p = self.plan
        out = rows.flatten(0, 1).index_select(0, self.slots)
        out = F.pad(out, (0, 0, 0, p.order.shape[0] - out.shape[0])) if p.may_drop else out
        return _apply(_Permute, out, p.inverse, p.order)


def _grouped_mm(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    # The kernel refuses gradients of stride 0, which sums expand to.
    return _apply(_Dense, F.grouped_mm(rows, weight.transpose(1, 2), offs=ends))


class _Dense(Function):
    """The identity, with a gradient laid out densely."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].contiguous()


BACKENDS: dict[str, Callable[[Plan], Sorted | Padded]] = {
    "grouped_mm": lambda plan: Sorted(plan, _grouped_mm),
    "padded": Padded,
    "loop": lambda plan: Sorted(plan, grouped_product),
}
"""Names that `dispatch=` takes, besides "auto"."""


def dispatch(
    x: Tensor, indices: Tensor, *, weights: Tensor, experts: ExpertWeights, backend: str, plan: Plan
) -> Tensor:
    """Sum each token's experts: `y_n = sum_j weights[n, j] f_(indices[n, j])(x_n)`.

    Args:
        x: (N, D) tokens, of the dtype of the experts' matrices.
        indices: (N, k) experts; E drops a choice.
        weights: (N, k) gate values.
        experts: the matrices.
        backend: one of `BACKENDS`.
        plan: of these indices.

    Returns:
        (N, D) in the dtype of `x`.
    """
    layout = BACKENDS[backend](plan)
    hidden = layout.linear(layout.enter(x), experts.up, experts.up_bias)
    rows = layout.leave(layout.linear(experts.activation(hidden), experts.down, experts.down_bias))
    choices = rows.view(*indices.shape, x.shape[1])
    if plan.may_drop:
        weights = weights.masked_fill(indices >= plan.ends.shape[0], 0)
    return (choices * weights.to(choices.dtype)[..., None]).sum(1)
