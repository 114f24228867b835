"""Which dispatch a batch takes: by dtype, alignment, device and load."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .dispatch import Plan

GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ALIGNMENT = 16
"""Bytes that row strides must be multiples of for grouped_mm."""

LAUNCH_FLOPS = {"grouped_mm": 1e7, "loop": 1.5e7}
"""What the products of one expert cost beside their arithmetic, forward and backward, on a CPU in bfloat16.

Measured as the arithmetic on padding at which padded products stop to win, over eight sizes and six levels of
imbalance; the loop also pays for Python. In float32 and float64 the set-up is too cheap for padding to win.
"""


def grouped_mm_runs(dtype: torch.dtype, device: torch.device, *, dim: int, hidden_dim: int) -> bool:
    """Whether `torch.nn.functional.grouped_mm` can do both products and their gradients.

    Args:
        dtype: of rows and matrices.
        device: where they are.
        dim, hidden_dim: widths of the rows before and inside the experts.

    Example:
        >>> cpu = torch.device("cpu")
        >>> grouped_mm_runs(torch.float32, cpu, dim=32, hidden_dim=48)
        True
        >>> grouped_mm_runs(torch.float32, cpu, dim=30, hidden_dim=50)
        False
    """
    if not hasattr(F, "grouped_mm") or dtype not in GROUPED_DTYPES:
        return False
    if dim * dtype.itemsize % ALIGNMENT or hidden_dim * dtype.itemsize % ALIGNMENT:
        return False
    if torch.compiler.is_compiling() and dtype is not torch.bfloat16:
        return False
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)


def choose_backend(plan: Plan, dtype: torch.dtype, *, dim: int, hidden_dim: int, gated: bool = True) -> str:
    """Return the backend expected to be fastest for this batch.

    grouped_mm where its kernel takes dtype and widths, else the loop. On a CPU in bfloat16 padded products
    win where the arithmetic spent on padding costs less than setting up every expert's own products.

    Args:
        plan: of the batch.
        dtype: the computation's.
        dim, hidden_dim: widths.
        gated: whether the first product is twice as wide.
    """
    device = plan.ends.device
    runs = plan.order.shape[0] > 0 and grouped_mm_runs(dtype, device, dim=dim, hidden_dim=hidden_dim)
    exact = "grouped_mm" if runs else "loop"
    if dtype is torch.bfloat16 and device.type == "cpu" and not torch.compiler.is_compiling():
        counts = plan.counts()
        padding = len(counts) * max(counts) - sum(counts)
        row_flops = 6 * dim * hidden_dim * (3 if gated else 2)
        if sum(counts) and padding * row_flops < LAUNCH_FLOPS[exact] * sum(count > 0 for count in counts):
            return "padded"
    return exact
