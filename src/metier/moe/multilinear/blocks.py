"""Feed-forward blocks of multilinear layers that share one gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metier.core.checks import ensure, one_of, positive_int

from .activations import GateActivation, gate_from_dict, gate_to_dict
from .edits import ExpertIndex
from .forms import Rank
from .gates import Gate, refuse_causal_batch_norm
from .initialization import generator_of, initialize_gate
from .layer import MultilinearMoE, has_gate_bias
from .sizes import check_last, expert_modes, joint_coefficients

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda h: F.gelu(h, approximate="tanh"),
    "quick_gelu": lambda h: h * torch.sigmoid(1.702 * h),
    "relu": F.relu,
    "relu_squared": lambda h: F.relu(h).square(),
    "silu": F.silu,
    "tanh": torch.tanh,
    "identity": lambda h: h,
}
"""Elementwise activations of blocks by name; "gelu" is exact."""


class _Block(nn.Module):
    """Layers with one gate that looks at the block's input."""

    layer_names: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int | None = None,
        *,
        n_experts: int | Sequence[int],
        form: str = "cp",
        rank: Rank | Mapping[str, Rank] | None = None,
        gate: str | GateActivation = "entmax15",
        norm: str = "layer",
        bias: bool | Mapping[str, bool] = True,
        activation: str = "gelu",
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
        self.in_features = positive_int("in_features", in_features)
        self.hidden_features = positive_int("hidden_features", hidden_features)
        self.out_features = (
            in_features if out_features is None else positive_int("out_features", out_features)
        )
        self.n_experts, self.causal, self.gate_std = expert_modes(n_experts), causal, gate_std
        self.activation = one_of("activation", activation, ACTIVATIONS)
        refuse_causal_batch_norm(norm, causal=causal, force=force, where=type(self).__name__)
        self.gate = Gate(
            self.in_features if gate_features is None else positive_int("gate_features", gate_features),
            self.n_experts,
            activation=gate,
            norm=norm,
            bias=has_gate_bias(gate),
            device=device,
            dtype=dtype,
        )
        ranks, biases = _per_layer("rank", rank, self.layer_names), _per_layer("bias", bias, self.layer_names)
        for name in self.layer_names:
            size_in = self.hidden_features if name == "down" else self.in_features
            size_out = self.out_features if name == "down" else self.hidden_features
            layer = MultilinearMoE(
                size_in,
                size_out,
                n_experts=self.n_experts,
                form=form,
                rank=ranks[name],
                gate=None,
                bias=biases[name],
                ring_ranks=ring_ranks,
                causal=causal,
                init=init,
                noise=noise,
                device=torch.device("meta"),
                dtype=dtype,
            )
            setattr(self, name, layer)
        # Layers get memory where the gate has it, and values once the gate that mixes them is known.
        if self.gate.weight.device.type != "meta":
            for layer in self.layers():
                layer.to_empty(device=self.gate.weight.device)
            self.reset_parameters(rng)

    def layers(self) -> tuple[MultilinearMoE, ...]:
        """Return the block's layers in the order of their use."""
        return tuple(getattr(self, name) for name in self.layer_names)

    def reset_parameters(self, rng: int | None = None) -> None:
        """Draw all parameters anew, from torch's stream or from a seed."""
        draw = generator_of(rng)
        published = self.layers()[0].init == "published"
        std = self.gate_std or 0.0 if published else self.gate_std
        initialize_gate(self.gate, std=std, generator=draw)
        for layer in self.layers():
            layer.reset_factors(draw, gate=self.gate, gate_std=self.gate_std)

    @property
    def form(self) -> str:
        """Name of the factorization."""
        return self.layers()[0].form

    @property
    def n_joint(self) -> int:
        """Number of joint experts."""
        return self.layers()[0].n_joint

    def coefficients(self, z: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the shared coefficients of each mode, (..., N_e), for block inputs z."""
        check_last("gate input", z, self.gate.in_features)
        return self.gate(z, mask)  # type: ignore[no-any-return]

    def gate_values(self, x: Tensor) -> Tensor:
        """Return the shared coefficients of all joint experts, (..., N)."""
        return joint_coefficients(self.coefficients(x))

    @contextmanager
    def ablated(self, experts: ExpertIndex | Sequence[ExpertIndex]) -> Iterator[Self]:
        """Switch experts off in every layer of the block, inside the context."""
        with self.scaled(experts, 0.0):
            yield self

    @contextmanager
    def scaled(self, experts: ExpertIndex | Sequence[ExpertIndex], factor: float) -> Iterator[Self]:
        """Multiply experts by a factor in every layer of the block, inside the context."""
        with ExitStack() as stack:
            for layer in self.layers():
                stack.enter_context(layer.scaled(experts, factor))
            yield self

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values."""
        layers = dict(zip(self.layer_names, self.layers(), strict=True))
        return {
            "in_features": self.in_features,
            "hidden_features": self.hidden_features,
            "out_features": self.out_features,
            "n_experts": list(self.n_experts),
            "form": self.form,
            "rank": {name: list(layer.factors.ranks) for name, layer in layers.items()},
            "gate": gate_to_dict(self.gate.activation),
            "norm": self.gate.norm,
            "bias": {name: layer.bias for name, layer in layers.items()},
            "activation": self.activation,
            "gate_features": self.gate.in_features,
            "causal": self.causal,
            "init": self.layers()[0].init,
            "noise": self.layers()[0].noise,
            "gate_std": self.gate_std,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **placement: Any) -> Self:
        """Build a new block from `config()`; `placement` is device and dtype."""
        known = dict(config)
        known["rank"] = {name: tuple(rank) for name, rank in known["rank"].items()}
        return cls(**{**known, "gate": gate_from_dict(known["gate"])}, force=True, **placement)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into a folder."""
        from .persistence import save_pretrained

        save_pretrained(self, folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: torch.device | str | None = None) -> Self:
        """Read a block that `save_pretrained` wrote; no pickle is read."""
        from .persistence import load_pretrained

        return load_pretrained(cls, folder, device=device)

    def extra_repr(self) -> str:
        """Return the settings shown by `print`."""
        return f"activation={self.activation!r}"


class MultilinearMLP(_Block):
    """A two-layer block: y = down(activation(up(x; a)); a), one gate a(x) for both layers.

    Args:
        in_features: I.
        hidden_features: H.
        out_features: O; I if left out.
        n_experts: As in `MultilinearMoE`.
        form: As in `MultilinearMoE`.
        rank: One rank for both layers, or a dict with the keys "up" and "down"; None as in `MultilinearMoE`.
        gate: As in `MultilinearMoE`.
        norm: As in `MultilinearMoE`.
        bias: For both layers, or a dict with the keys "up" and "down".
        activation: "gelu" (exact), "gelu_tanh", "quick_gelu", "relu", "relu_squared", "silu", "tanh" or
            "identity".
        ring_ranks, gate_features, causal, force, init, noise, gate_std: As in `MultilinearMoE`.
        rng, device, dtype: As in `MultilinearMoE`.

    Raises:
        InputError: As in `MultilinearMoE`.

    Example:
        >>> block = MultilinearMLP(8, 32, n_experts=16, rank=4, rng=0)
        >>> block(torch.zeros(2, 8)).shape
        torch.Size([2, 8])

    Source: the code of arXiv 2402.12550: exact GELU, one gate from the block's input.
    """

    layer_names = ("up", "down")
    up: MultilinearMoE
    down: MultilinearMoE

    def forward(
        self, x: Tensor, *, gate_input: Tensor | None = None, coefficients: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Return y (..., O); `gate_input` is what the gate sees where x was normalized before the block."""
        a = (
            self.coefficients(x if gate_input is None else gate_input)
            if coefficients is None
            else coefficients
        )
        hidden = ACTIVATIONS[self.activation](self.up(x, coefficients=a))
        return self.down(hidden, coefficients=a)  # type: ignore[no-any-return]


class MultilinearGLU(_Block):
    """A gated linear unit: y = down(activation(activated(x; a)) * up(x; a); a), one gate a(x) for all three.

    Args:
        in_features: I.
        hidden_features: H.
        out_features: O; I if left out.
        n_experts: As in `MultilinearMoE`.
        form: As in `MultilinearMoE`.
        rank: One rank for all layers, or a dict with the keys "activated", "up" and "down".
        gate: As in `MultilinearMoE`.
        norm: As in `MultilinearMoE`.
        bias: For all layers, or a dict by layer.
        activation: As in `MultilinearMLP`.
        ring_ranks, gate_features, causal, force, init, noise, gate_std: As in `MultilinearMoE`.
        rng, device, dtype: As in `MultilinearMoE`.

    Raises:
        InputError: As in `MultilinearMoE`.

    Example:
        >>> block = MultilinearGLU(8, 32, n_experts=16, rank=4, activation="silu", bias=False, rng=0)
        >>> block(torch.zeros(2, 8)).shape
        torch.Size([2, 8])

    Source: ours, for the blocks of Llama-like models.
    """

    layer_names = ("activated", "up", "down")
    activated: MultilinearMoE
    up: MultilinearMoE
    down: MultilinearMoE

    def forward(
        self, x: Tensor, *, gate_input: Tensor | None = None, coefficients: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Return y (..., O); `gate_input` is what the gate sees where x was normalized before the block."""
        a = (
            self.coefficients(x if gate_input is None else gate_input)
            if coefficients is None
            else coefficients
        )
        hidden = ACTIVATIONS[self.activation](self.activated(x, coefficients=a)) * self.up(x, coefficients=a)
        return self.down(hidden, coefficients=a)  # type: ignore[no-any-return]


def _per_layer(name: str, value: Any, layers: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return dict.fromkeys(layers, value)
    ensure(
        set(value) == set(layers),
        f"{name} is given for all layers of a block, or for each",
        expected=" and ".join(repr(layer) for layer in layers),
        got=" and ".join(repr(key) for key in value),
        next_step=f"Pass one value, or a dict with the keys {list(layers)}.",
    )
    return dict(value)
