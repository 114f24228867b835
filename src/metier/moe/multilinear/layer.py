"""One layer of multilinear experts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from metier.core.checks import non_negative, one_of, positive_int
from metier.core.errors import InputError

from .activations import GateActivation, gate_from_dict, gate_to_dict
from .dense import start_from_dense
from .edits import Edits, ExpertIndex, flat_index, joint_index
from .forms import FORMS, Rank, Shape
from .forms.ranks import two_ranks
from .gates import NORMS, Gate, refuse_causal_batch_norm
from .initialization import generator_of, initialize_as_published, initialize_form, initialize_gate
from .sizes import check_coefficients, check_last, default_rank, expert_modes, joint_coefficients

INITS = ("scaled", "published")
MOST_DEVIATION = 1e4
"""Larger draws overflow float16."""


class MultilinearMoE(nn.Module):
    """A linear layer of N experts that are one factorized tensor: y = sum_n a_n(x) (x W_n + b_n).

    a(x) -> `gate`, W_n -> `expert_weight(n)`, b_n -> `expert_bias(n)`. The N experts are never built.

    Args:
        in_features: I.
        out_features: O.
        n_experts: N, or a tuple of mode sizes (N_1, ..., N_E): joint expert (n_1, ..., n_E) has coefficient
            a_1[n_1] ... a_E[n_E], and N = N_1 ... N_E experts cost as much as N_1 + ... + N_E.
        form: "cp", "tr" (tensor ring), "tt" (tensor train), "tucker" or "mxd".
        rank: The form's rank, or its tuple of ranks; None gives the factors the parameters of the dense layer
            (see `default_rank`; `rank_for_budget` counts the gate too).
        gate: "entmax15", "alpha_entmax", "sparsemax", "softmax", "topk", "relu_topk", a gate activation,
            or None for a layer that gets its coefficients from a block.
        norm: Normalization of the logits: "layer" per token, "batch" over all tokens, "none".
        bias: Whether experts have biases.
        ring_ranks: Inner ranks of "tr" and "tt", bounds of Tucker's expert ranks, where `rank` is a number.
        gate_features: Size of the gate input where it is not the layer's input.
        causal: Whether the layer stands in a causal model, where norm="batch" leaks later tokens.
        force: Allow norm="batch" in a causal model.
        init: "scaled" (the output scale of `nn.Linear` for every form, N and rank) or "published".
        noise: Standard deviation of an expert's initial deviation from the common matrix.
        gate_std: Standard deviation of the gate's initial weights; None means 1 / sqrt(gate_features), with
            init="published" it is 0.
        rng: Seed of the initial draws; None draws from torch's stream, as `nn.Linear` does.
        device: Where parameters live.
        dtype: Their dtype.

    Raises:
        InputError: A size, rank or name is out of range, or batch norm stands in a causal model.

    Example:
        >>> layer = MultilinearMoE(16, 8, n_experts=(4, 8), rank=6, rng=0)
        >>> layer(torch.zeros(2, 5, 16)).shape
        torch.Size([2, 5, 8])
        >>> layer.expert_weight((3, 7)).shape, layer.n_joint
        (torch.Size([16, 8]), 32)

    Source: arXiv 2402.12550 (NeurIPS 2024), section 3.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        n_experts: int | Sequence[int],
        form: str = "cp",
        rank: Rank | None = None,
        gate: str | GateActivation | None = "entmax15",
        norm: str = "layer",
        bias: bool = True,
        ring_ranks: tuple[int, int] = (4, 4),
        gate_features: int | None = None,
        causal: bool = False,
        force: bool = False,
        init: str = "scaled",
        noise: float = 1.0,
        gate_std: float | None = None,
        rng: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory = FORMS[one_of("form", form, FORMS)]
        modes, ring_ranks = expert_modes(n_experts), two_ranks(ring_ranks)
        self.in_features = positive_int("in_features", in_features)
        self.out_features = positive_int("out_features", out_features)
        self.n_experts, self.bias, self.causal = modes, bool(bias), causal
        one_of("norm", norm, NORMS)
        refuse_causal_batch_norm(norm, causal=causal, force=force, where="MultilinearMoE")
        shape = Shape(self.in_features, self.out_features, modes, self.bias)
        if rank is None:
            ranks = default_rank(factory, shape, ring_ranks)
        else:
            ranks = factory.resolve_rank(rank, shape, ring_ranks)
        features = self.in_features if gate_features is None else positive_int("gate_features", gate_features)
        self.gate: Gate | None = None
        if gate is not None:
            settings: dict[str, Any] = {"bias": has_gate_bias(gate), "device": device, "dtype": dtype}
            self.gate = Gate(features, modes, activation=gate, norm=norm, **settings)
        self.factors = factory(shape, ranks, device=device, dtype=dtype)
        self.edits: Edits | None
        self.register_module("edits", None)
        self.init, self.noise = one_of("init", init, INITS), _deviation("noise", noise)
        self.gate_std = None if gate_std is None else _deviation("gate_std", gate_std)
        if self.factors.input_weight.device.type != "meta":
            self.reset_parameters(rng)

    def reset_parameters(self, rng: int | None = None) -> None:
        """Draw all parameters anew, from torch's stream or from a seed."""
        draw = generator_of(rng)
        if self.gate is not None:
            std = self.gate_std or 0.0 if self.init == "published" else self.gate_std
            initialize_gate(self.gate, std=std, generator=draw)
        self.reset_factors(draw, gate=self.gate, gate_std=self.gate_std)

    def reset_factors(
        self, draw: torch.Generator | None, *, gate: Gate | None, gate_std: float | None
    ) -> None:
        """Draw the factors anew for the gate that will mix them, the layer's own or its block's."""
        if self.init == "published":
            initialize_as_published(self.factors, generator=draw)
        else:
            initialize_form(self.factors, gate, noise=self.noise, std=gate_std, generator=draw)

    @property
    def form(self) -> str:
        """Name of the factorization."""
        return self.factors.name

    @property
    def rank(self) -> Rank:
        """The rank of "cp" and "mxd", the tuple of ranks otherwise."""
        ranks = self.factors.ranks
        return ranks[0] if len(ranks) == 1 else ranks

    @property
    def n_joint(self) -> int:
        """Number of joint experts, the product of the mode sizes."""
        return math.prod(self.n_experts)

    def forward(
        self,
        x: Tensor,
        *,
        gate_input: Tensor | None = None,
        coefficients: Tensor | Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Return y (..., O) of x (..., I).

        Args:
            x: Inputs.
            gate_input: What the gate looks at instead of x, (..., gate_features).
            coefficients: Coefficients to use instead of the gate's, (..., N_e) per mode.
        """
        check_last("x", x, self.in_features)
        given = (
            self.coefficients(x if gate_input is None else gate_input)
            if coefficients is None
            else coefficients
        )
        modes = (given,) if isinstance(given, Tensor) else tuple(given)
        if coefficients is not None:
            check_coefficients(modes, self.n_experts)
        if self.edits is None:
            return self.factors.apply_mixture(x, self.factors.mix(modes))
        return self.edits(self.factors, x, modes)  # type: ignore[no-any-return]

    def coefficients(self, z: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the gate's coefficients of each mode, (..., N_e), for gate inputs z."""
        gate = self._own_gate()
        check_last("gate input", z, gate.in_features)
        return gate(z, mask)  # type: ignore[no-any-return]

    def _own_gate(self) -> Gate:
        if self.gate is None:
            raise InputError(
                "a layer without a gate is told its coefficients",
                expected="coefficients=..., as its block passes them",
                got="none, and gate=None",
                next_step="Call the block, or pass coefficients.",
            )
        return self.gate

    def gate_values(self, x: Tensor) -> Tensor:
        """Return the coefficients of all joint experts, (..., N), in the order of flat indices.

        Example:
            >>> layer = MultilinearMoE(6, 3, n_experts=(2, 5), norm="none", rank=2, rng=0)
            >>> layer.gate_values(torch.ones(6)).shape
            torch.Size([10])
        """
        return joint_coefficients(self.coefficients(x))

    def expert_weight(self, n: ExpertIndex) -> Tensor:
        """Return W_n (I, O): expert n maps x to x @ W_n + b_n; n is a flat index, or one index per mode."""
        return self._expert(n)[0]

    def expert_bias(self, n: ExpertIndex) -> Tensor:
        """Return b_n (O,), zeros where the layer has no bias."""
        return self._expert(n)[1]

    def _expert(self, n: ExpertIndex) -> tuple[Tensor, Tensor]:
        index = joint_index(n, self.n_experts)
        mixture = self.factors.mixture_of(index)
        if self.edits is not None:
            return self.edits.expert_matrix(self.factors, index, mixture)
        weight, bias = self.factors.dense(mixture)
        return weight, weight.new_zeros(self.out_features) if bias is None else bias

    @contextmanager
    def ablated(self, experts: ExpertIndex | Sequence[ExpertIndex]) -> Iterator[Self]:
        """Switch experts off inside the context; coefficients of the others are not renormalized.

        Args:
            experts: One expert or several, as flat indices or tuples with one index per mode.

        Example:
            >>> layer = MultilinearMoE(4, 2, n_experts=3, rank=2, rng=0)
            >>> with layer.ablated([0, 1, 2]):
            ...     print(layer(torch.ones(4)).tolist())
            [0.0, 0.0]
        """
        with self.scaled(experts, 0.0):
            yield self

    @contextmanager
    def scaled(self, experts: ExpertIndex | Sequence[ExpertIndex], factor: float) -> Iterator[Self]:
        """Multiply experts by a factor inside the context."""
        with self.edited(scale=dict.fromkeys(self._indices(experts), factor)):
            yield self

    @contextmanager
    def edited(
        self,
        *,
        scale: Mapping[ExpertIndex, float] | None = None,
        weight: Mapping[ExpertIndex, Tensor] | None = None,
        bias: Mapping[ExpertIndex, Tensor] | None = None,
    ) -> Iterator[Self]:
        """Edit experts inside the context; on leaving, everything is as before, bit for bit.

        Args:
            scale: Factors by expert.
            weight: What is added to W_n, (I, O), by expert.
            bias: What is added to b_n, (O,), by expert.

        Example:
            >>> layer = MultilinearMoE(4, 2, n_experts=3, rank=2, rng=0)
            >>> before = layer.expert_bias(1)
            >>> with layer.edited(bias={1: torch.ones(2)}):
            ...     torch.allclose(layer.expert_bias(1), before + 1)
            True
        """
        with in_place(self, Edits.of(self.factors, self.edits, scale=scale, weight=weight, bias=bias)):
            yield self

    def edit_(
        self,
        *,
        scale: Mapping[ExpertIndex, float] | None = None,
        weight: Mapping[ExpertIndex, Tensor] | None = None,
        bias: Mapping[ExpertIndex, Tensor] | None = None,
    ) -> Self:
        """Make edits permanent: they are saved with the layer. Arguments as in `edited`."""
        self.edits = Edits.of(self.factors, self.edits, scale=scale, weight=weight, bias=bias)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Make room for saved edits: torch ignores, without a word, the keys of a submodule that is None."""
        scales, rows = state_dict.get(f"{prefix}edits.scale"), state_dict.get(f"{prefix}edits.expert")
        if scales is not None and rows is not None:
            self.edits = Edits(scales.shape[0], rows.shape[0], self.factors)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _indices(self, experts: ExpertIndex | Sequence[ExpertIndex]) -> list[int]:
        if isinstance(experts, int | np.integer | tuple) or not isinstance(experts, Iterable):
            return [flat_index(experts, self.n_experts)]
        return [flat_index(n, self.n_experts) for n in experts]

    @classmethod
    def from_linear(cls, linear: nn.Module, *, n_experts: int | Sequence[int], **settings: Any) -> Self:
        """Return a layer that starts as a trained dense layer, or as its best approximation of the rank.

        Args:
            linear: `nn.Linear`, or transformers' `Conv1D` (whose weight is transposed).
            n_experts: As in the constructor.
            **settings: As in `warm_start`: form, rank (None keeps the function), gate, norm, bias,
                calibration inputs, noise, ...

        Example:
            >>> linear = torch.nn.Linear(6, 4)
            >>> layer = MultilinearMoE.from_linear(linear, n_experts=8)
            >>> x = torch.randn(5, 6)
            >>> torch.allclose(layer(x), linear(x), atol=1e-5)
            True
        """
        return start_from_dense(cls, linear, n_experts=n_experts, **settings)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values."""
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "n_experts": list(self.n_experts),
            "form": self.form,
            "rank": list(self.factors.ranks),
            "gate": None if self.gate is None else gate_to_dict(self.gate.activation),
            "norm": "none" if self.gate is None else self.gate.norm,
            "bias": self.bias,
            "gate_features": None if self.gate is None else self.gate.in_features,
            "causal": self.causal,
            "init": self.init,
            "noise": self.noise,
            "gate_std": self.gate_std,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **placement: Any) -> Self:
        """Build a new layer from `config()`; `placement` is device and dtype.

        Example:
            >>> layer = MultilinearMoE(4, 2, n_experts=3, form="tr", rank=2)
            >>> MultilinearMoE.from_config(layer.config()).rank
            (4, 4, 2)
        """
        known = dict(config)
        rank, gate = tuple(known.pop("rank")), known.pop("gate")
        gate = None if gate is None else gate_from_dict(gate)
        return cls(**known, rank=rank, gate=gate, force=True, **placement)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into a folder."""
        from .persistence import save_pretrained

        save_pretrained(self, folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: torch.device | str | None = None) -> Self:
        """Read a layer that `save_pretrained` wrote; no pickle is read."""
        from .persistence import load_pretrained

        return load_pretrained(cls, folder, device=device)

    def extra_repr(self) -> str:
        """Return the settings shown by `print`."""
        return (
            f"{self.in_features}, {self.out_features}, n_experts={self.n_experts}, form={self.form!r}, "
            f"rank={self.rank}, bias={self.bias}"
        )


@contextmanager
def in_place(layer: MultilinearMoE, edits: Edits) -> Iterator[None]:
    """Put edits in place inside the context, and put back what was there before, whatever happens inside.

    Warns:
        UserWarning: A permanent edit was made inside: it is undone on leaving.
    """
    before, layer.edits = layer.edits, edits
    try:
        yield
    finally:
        lost, layer.edits = layer.edits is not edits, before
        if lost:
            warnings.warn(
                "an edit that was made permanent inside a context is undone with it; make it outside.",
                stacklevel=6,
            )


def _deviation(name: str, value: float) -> float:
    """Return a standard deviation whose draws every dtype's exponent holds."""
    if non_negative(name, value) <= MOST_DEVIATION:
        return float(value)
    raise InputError(
        f"{name} is a standard deviation of initial weights",
        expected=f"0 to {MOST_DEVIATION:g}",
        got=value,
        next_step="Pass a number of the order of 1 or less.",
    )


def has_gate_bias(gate: str | GateActivation) -> bool:
    """Return whether the gate's logits have a bias: MxD's do."""
    return (isinstance(gate, str) and gate == "relu_topk") or type(gate).__name__ == "ReluTopK"
