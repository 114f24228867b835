"""Products of sorted rows with one matrix per group: a loop over groups, differentiable to any order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
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
        product: Tensor = torch.ops.metier.grouped_product(rows, weight, ends)
        return product
    return _apply(_Product, rows, weight, ends.tolist())


def _apply(function: Any, *arguments: Any) -> Tensor:
    # torch leaves `Function.apply` without types.
    result: Tensor = function.apply(*arguments)
    return result


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
