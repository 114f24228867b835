"""A stack of feed-forward experts, SwiGLU or GELU, in any dtype, and the dispatch that suits a batch."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metier.core.checks import one_of, positive_int
from metier.core.errors import InputError

from .dispatch import BACKENDS, Activation, ExpertWeights, Plan, dispatch, make_plan

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


def swiglu(hidden: Tensor) -> Tensor:
    """Return `silu(gate) * up` of the two halves of the last dimension.

    Example:
        >>> swiglu(torch.tensor([0.0, 3.0])).tolist()
        [0.0]
    """
    gate, up = hidden.chunk(2, dim=-1)
    return F.silu(gate) * up


ACTIVATIONS: dict[str, Activation] = {"swiglu": swiglu, "gelu": F.gelu}


class Experts(nn.Module):
    r"""E feed-forward networks, each token computed by its own k of them.

    With gate values w and chosen experts e: `y_n = sum_j w[n, j] f_{e[n, j]}(x_n)`. SwiGLU:
    `f(x) = D (silu(G x) * U x)`, with G above U in `gate_up_proj`; GELU: `f(x) = D gelu(U x + b) + c`.
    Matrices are packed as in transformers: `gate_up_proj` (E, 2 hidden, dim), `down_proj` (E, dim, hidden).

    Args:
        dim: width of the tokens.
        hidden_dim: width inside an expert.
        n_experts: E.
        activation: "swiglu" | "gelu".
        bias: whether both products have a bias.
        dispatch: "auto", or one of "grouped_mm", "padded", "loop".
        device, dtype: of the parameters.

    Raises:
        InputError: a width or count is not a positive integer, or a name is unknown.

    Example:
        >>> experts = Experts(8, 16, n_experts=4)
        >>> x, indices = torch.randn(5, 8), torch.tensor([[0, 1], [1, 2], [3, 0], [0, 2], [1, 3]])
        >>> experts(x, indices, torch.full((5, 2), 0.5)).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        n_experts: int,
        activation: str = "swiglu",
        bias: bool = False,
        dispatch: str = "auto",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.hidden_dim = positive_int("dim", dim), positive_int("hidden_dim", hidden_dim)
        self.n_experts = positive_int("n_experts", n_experts)
        self.activation_name = one_of("activation", activation, ACTIVATIONS)
        self.activation = ACTIVATIONS[self.activation_name]
        self.dispatch = one_of("dispatch", dispatch, ("auto", *BACKENDS))
        self.gated = self.activation_name == "swiglu"
        wide = 2 * hidden_dim if self.gated else hidden_dim
        make = {"device": device, "dtype": dtype}
        self._up_name = "gate_up_proj" if self.gated else "up_proj"
        self.register_parameter(self._up_name, nn.Parameter(torch.empty(n_experts, wide, dim, **make)))
        self.down_proj = nn.Parameter(torch.empty(n_experts, dim, hidden_dim, **make))
        self.register_parameter(
            f"{self._up_name}_bias", nn.Parameter(torch.empty(n_experts, wide, **make)) if bias else None
        )
        self.register_parameter(
            "down_proj_bias", nn.Parameter(torch.empty(n_experts, dim, **make)) if bias else None
        )
        self.reset_parameters()

    @property
    def up(self) -> Tensor:
        """(E, 2 hidden, dim) or (E, hidden, dim): the first product's matrices."""
        return self.get_parameter(self._up_name)

    @property
    def up_bias(self) -> Tensor | None:
        """(E, 2 hidden) or (E, hidden), or None."""
        return cast("Tensor | None", getattr(self, f"{self._up_name}_bias"))

    @property
    def down_bias(self) -> Tensor | None:
        """(E, dim), or None."""
        return cast("Tensor | None", getattr(self, "down_proj_bias"))  # noqa: B009

    def reset_parameters(self) -> None:
        """Draw every matrix and bias uniformly within 1 / sqrt(inputs), as `nn.Linear` does."""
        for name, parameter in self.named_parameters():
            inputs = self.hidden_dim if name.startswith("down") else self.dim
            nn.init.uniform_(parameter, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))

    def forward(self, x: Tensor, indices: Tensor, weights: Tensor, *, may_drop: bool | None = None) -> Tensor:
        """Return every token's weighted sum over its experts.

        Args:
            x: (N, dim) tokens, of any float dtype; computed in that of the experts or of autocast. On a CPU
                float16 is computed in float32, which is both faster and closer.
            indices: (N, k) experts; the id `n_experts` drops a choice (absent under expert parallelism).
            weights: (N, k) gate values.
            may_drop: whether that id may occur; None looks, which waits for a CUDA device.

        Returns:
            (N, dim), of the dtype of `x`, or of autocast where that is on.

        Raises:
            InputError: shapes do not fit, or an id is out of range.
        """
        self._check(x, indices, weights)
        kind = x.device.type
        autocast = torch.is_autocast_enabled(kind)
        out_dtype = torch.get_autocast_dtype(kind) if autocast else x.dtype
        compute = out_dtype if autocast else self.down_proj.dtype
        if compute is torch.float16 and kind == "cpu":
            compute = torch.float32
        plan = make_plan(indices, self.n_experts, may_drop=may_drop)
        backend = self.dispatch
        if backend == "auto":
            backend = choose_backend(
                plan, compute, dim=self.dim, hidden_dim=self.hidden_dim, gated=self.gated
            )
        with torch.autocast(kind, enabled=False):
            y = dispatch(
                x.to(compute),
                indices,
                weights=weights,
                experts=self._weights(compute),
                backend=backend,
                plan=plan,
            )
        return y.to(out_dtype)

    def extra_repr(self) -> str:
        """The sizes, for `print`."""
        return (
            f"dim={self.dim}, hidden_dim={self.hidden_dim}, n_experts={self.n_experts}, "
            f"activation={self.activation_name!r}, dispatch={self.dispatch!r}"
        )

    def _weights(self, dtype: torch.dtype) -> ExpertWeights:
        up_bias, down_bias = self.up_bias, self.down_bias
        return ExpertWeights(
            up=self.up.to(dtype),
            down=self.down_proj.to(dtype),
            up_bias=None if up_bias is None else up_bias.to(dtype),
            down_bias=None if down_bias is None else down_bias.to(dtype),
            activation=self.activation,
        )

    def _check(self, x: Tensor, indices: Tensor, weights: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise InputError(
                "tokens are rows of the experts' width",
                expected=f"(N, {self.dim})",
                got=f"shape {tuple(x.shape)}",
                next_step="Flatten the batch to one row per token.",
            )
        if indices.ndim != 2 or indices.shape[0] != x.shape[0] or weights.shape != indices.shape:
            raise InputError(
                "every token has its choices and their gate values",
                expected=f"indices and weights of shape ({x.shape[0]}, k)",
                got=f"{tuple(indices.shape)} and {tuple(weights.shape)}",
                next_step="Pass what the router returned for these tokens.",
            )
        # A check of the values waits for the device; a CPU has nothing to wait for.
        if indices.numel() and indices.device.type == "cpu" and not torch.compiler.is_compiling():
            low, high = int(indices.min()), int(indices.max())
            if low < 0 or high > self.n_experts:
                raise InputError(
                    "expert ids are in range",
                    expected=f"0 to {self.n_experts - 1}, or {self.n_experts} to drop a choice",
                    got=f"ids from {low} to {high}",
                    next_step="Route with a router of as many experts.",
                )
