"""Start a multilinear layer from a trained dense layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from .activations import GateActivation
from .dense import start_from_dense
from .forms import Rank
from .layer import MultilinearMoE

L = TypeVar("L", bound=MultilinearMoE)


def warm_start(
    linear: nn.Module,
    *,
    n_experts: int | Sequence[int],
    form: str = "cp",
    rank: Rank | None = None,
    gate: str | GateActivation = "entmax15",
    norm: str = "layer",
    bias: bool | None = None,
    calibration: torch.Tensor | None = None,
    noise: float = 0.0,
    ring_ranks: tuple[int, int] = (4, 4),
    layer_type: type[L] = MultilinearMoE,  # type: ignore[assignment]
    rng: int | None = None,
    **settings: Any,
) -> L:
    """Return a multilinear layer that starts as a dense one.

    All experts start equal to the dense layer's best approximation of the rank, so that any gate whose
    coefficients sum to 1 gives its outputs; gate and experts part as training moves them.

    Args:
        linear: `nn.Linear` or transformers' `Conv1D`.
        n_experts: As in `MultilinearMoE`.
        form: As there.
        rank: As there, but None stands for the least rank that keeps the function.
        gate: As there; "relu_topk" does not sum to 1, and a warning says so.
        norm: As there.
        bias: As there; None follows the dense layer.
        calibration: Inputs (..., I) of the dense layer: the truncation then has the least squared error of
            outputs on them (a whitened decomposition) instead of the least squared error of weights.
        noise: Standard deviation of the experts' relative deviations, whose mean over experts is 0; above 0
            the function is kept for equal coefficients only.
        ring_ranks: As in `MultilinearMoE`.
        layer_type: Class of the result.
        rng: Seed of the gate and the noise.
        **settings: gate_features, gate_std, causal, force, as in `MultilinearMoE`.

    Raises:
        InputError: The module is no dense layer, or a setting is out of range.

    Example:
        >>> linear = nn.Linear(6, 4)
        >>> layer = warm_start(linear, n_experts=(2, 3), norm="none", form="tr")
        >>> x = torch.randn(5, 6)
        >>> torch.allclose(layer(x), linear(x), atol=1e-5)
        True

    Source: ours; data-aware truncation as in whitened SVD compression.
    """
    return start_from_dense(
        layer_type,
        linear,
        n_experts=n_experts,
        form=form,
        rank=rank,
        gate=gate,
        norm=norm,
        bias=bias,
        calibration=calibration,
        noise=noise,
        ring_ranks=ring_ranks,
        rng=rng,
        **settings,
    )
