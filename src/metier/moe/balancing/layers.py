"""The state of the balanced layers: stacked tensors per shape, the sums of a step, and what is saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metier.core.checks import ensure
from metier.core.errors import InputError

SUMS = ("soft", "hard", "square", "folded")
COUNTS = ("tokens", "calls", "invalid")


def state_dtype(device: torch.device) -> torch.dtype:
    """Return float64 where the device has it: a slow average stalls in float32."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(slots=True)
class Block:
    """Layers with the same number of experts on one device, one row each.

    Attributes:
        names: Layer names, in the order of registration.
        n_experts: E.
        top_k: Experts per token, one per layer.
        ema: m, (L, E): loads as they are remembered.
        price: q, (L, E), float32: frozen between two steps.
        bias: b, (L, E), float32: frozen between two steps.
        sums: What the current step has added up, (L, 4 E + 3): soft loads, hard counts, squared gate
            values, remembered loads times tokens (price="paper" only), then tokens, calls, invalid tokens.
        histogram: Counts of cut - score per expert for the quantile rule, (L, E, bins); else no bins.
        tokens: Tokens seen by finished steps, one per layer.
        folds: How often `ema` took loads in, one per layer: in steps with tokens, or in forward passes where
            price="paper".
    """

    names: list[str]
    n_experts: int
    top_k: list[int]
    ema: Tensor
    price: Tensor
    bias: Tensor
    sums: Tensor
    histogram: Tensor
    tokens: list[int] = field(default_factory=list)
    folds: list[int] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.ema.device

    def part(self, name: str) -> Tensor:
        """Return one part of the sums: (L, E) for sums, (L,) for counts."""
        if name in COUNTS:
            return self.sums[..., len(SUMS) * self.n_experts + COUNTS.index(name)]
        start = SUMS.index(name) * self.n_experts
        return self.sums[..., start : start + self.n_experts]

    def clear(self) -> None:
        """Start a new step."""
        self.sums.zero_()
        self.histogram.zero_()

    def append(self, name: str, top_k: int, start: Tensor) -> None:
        """Add a layer whose remembered loads start at `start`."""
        grown = new_block(name, self.n_experts, top_k, start, self.device, self.bins)
        for key in ("names", "top_k", "tokens", "folds"):
            getattr(self, key).extend(getattr(grown, key))
        for key in ("ema", "price", "bias", "sums", "histogram"):
            setattr(self, key, torch.cat([getattr(self, key), getattr(grown, key)]))

    @property
    def bins(self) -> int:
        """Bins of the histogram, 0 without one."""
        return self.histogram.shape[-1]

    def to(self, device: torch.device) -> None:
        """Move the tensors."""
        dtype = state_dtype(device)
        for key in ("ema", "sums", "histogram"):
            setattr(self, key, getattr(self, key).to(device, dtype))
        self.price, self.bias = self.price.to(device), self.bias.to(device)


def new_block(name: str, n_experts: int, top_k: int, start: Tensor, device: torch.device, bins: int) -> Block:
    """Return a block that holds one layer."""
    dtype = state_dtype(device)
    zeros = torch.zeros(1, n_experts, device=device)
    width = len(SUMS) * n_experts + len(COUNTS)
    return Block(
        names=[name],
        n_experts=n_experts,
        top_k=[top_k],
        ema=start.to(device, dtype).reshape(1, -1).clone(),
        price=zeros,
        bias=zeros.clone(),
        sums=torch.zeros(1, width, device=device, dtype=dtype),
        histogram=torch.zeros(1, n_experts, bins, device=device, dtype=dtype),
        tokens=[0],
        folds=[0],
    )


@dataclass(slots=True)
class Layers:
    """All layers of a balancer, by name."""

    blocks: list[Block] = field(default_factory=list)
    rows: dict[str, tuple[Block, int]] = field(default_factory=dict)
    agreed: set[int] = field(default_factory=set)
    """Process groups, by id, whose ranks were found to have these layers."""

    @property
    def names(self) -> list[str]:
        """Layer names in the order of registration."""
        return list(self.rows)

    def add(
        self, name: str, n_experts: int, top_k: int, *, start: Tensor, device: torch.device, bins: int
    ) -> None:
        """Register a layer."""
        self.agreed.clear()
        for block in self.blocks:
            if block.n_experts == n_experts and block.device == device:
                block.append(name, top_k, start)
                self.rows[name] = (block, len(block.names) - 1)
                return
        block = new_block(name, n_experts, top_k, start, device, bins)
        self.blocks.append(block)
        self.rows[name] = (block, 0)

    def find(self, name: str) -> tuple[Block, int]:
        """Return a layer's block and row."""
        try:
            return self.rows[name]
        except KeyError:
            raise InputError(
                "a balancer knows its layers",
                expected=" | ".join(repr(k) for k in self.names[:6]) or "a layer registered with add_layer",
                got=repr(name),
                next_step=f"Call balancer.add_layer({name!r}, n_experts=..., top_k=...) first.",
            ) from None

    def move(self, name: str, device: torch.device) -> tuple[Block, int]:
        """Bring a layer to its router's device, with what was summed so far."""
        block, row = self.rows[name]
        if len(block.names) == 1:
            block.to(device)
            return block, row
        keep = [i for i in range(len(block.names)) if i != row]
        moved, rest = _rows(block, [row]), _rows(block, keep)
        moved.to(device)
        self.blocks[self.blocks.index(block)] = rest
        self.blocks.append(moved)
        for i, other in enumerate(rest.names):
            self.rows[other] = (rest, i)
        self.rows[name] = (moved, 0)
        return self.rows[name]


def _rows(block: Block, rows: list[int]) -> Block:
    index = torch.tensor(rows, device=block.device)
    return Block(
        names=[block.names[i] for i in rows],
        n_experts=block.n_experts,
        top_k=[block.top_k[i] for i in rows],
        ema=block.ema[index],
        price=block.price[index],
        bias=block.bias[index],
        sums=block.sums[index],
        histogram=block.histogram[index],
        tokens=[block.tokens[i] for i in rows],
        folds=[block.folds[i] for i in rows],
    )


VERSION = 2
"""2: `folds` counts the steps of lagged prices too, for the running mean of each layer."""
_TENSORS = ("ema", "price", "bias")
_NUMBERS = ("tokens", "folds")


def pack_state(layers: Layers, *, potential: str, track: str, steps: int) -> dict[str, Any]:
    """Return everything that the next step depends on: plain values, and tensors by layer name."""
    state: dict[str, Any] = {
        "version": VERSION,
        "potential": potential,
        "track": track,
        "steps": steps,
        "layers": layers.names,
        "n_experts": [block.n_experts for block, _ in layers.rows.values()],
        "top_k": [block.top_k[row] for block, row in layers.rows.values()],
    }
    for key in _NUMBERS:
        state[key] = [getattr(block, key)[row] for block, row in layers.rows.values()]
    for key in _TENSORS:
        state[key] = {name: getattr(b, key)[row].clone() for name, (b, row) in layers.rows.items()}
    return state


def unpack_state(state: Mapping[str, Any], layers: Layers, *, potential: str, track: str) -> int:
    """Check a state against this balancer, take it up, and return its number of steps."""
    mine = pack_state(layers, potential=potential, track=track, steps=0)
    _same_keys(state, mine)
    for key in ("version", "potential", "track", "layers", "n_experts", "top_k"):
        _same_value(key, state[key], mine[key])
    for key in _TENSORS:
        for name in layers.names:
            _good_tensor(key, name, state[key], mine[key][name])
    for i, (name, (block, row)) in enumerate(layers.rows.items()):
        for key in _TENSORS:
            getattr(block, key)[row].copy_(state[key][name])
        for key in _NUMBERS:
            getattr(block, key)[row] = int(state[key][i])
    return int(state["steps"])


def _same_keys(state: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    missing, unknown = sorted(set(mine) - set(state)), sorted(set(state) - set(mine))
    ensure(
        not (missing or unknown),
        "a balancer's state has all its entries and no other",
        expected=", ".join(mine),
        got=f"missing {missing}, unknown {unknown}",
        next_step="Load what balancer.state_dict() returned, as a whole.",
    )


def _same_value(key: str, saved: Any, mine: Any) -> None:
    if saved == mine:
        return
    if isinstance(mine, list) and isinstance(saved, list) and len(saved) == len(mine):
        i = next(i for i in range(len(mine)) if saved[i] != mine[i])
        saved, mine, key = saved[i], mine[i], f"{key}[{i}]"
    elif isinstance(mine, list) and isinstance(saved, list):
        saved, mine = f"{len(saved)}: {saved[:3]}", f"{len(mine)}: {mine[:3]}"
    raise InputError(
        f"a state belongs to the same {key}",
        expected=repr(mine),
        got=repr(saved),
        next_step="Build the balancer and the model as they were when the state was saved.",
    )


def _good_tensor(key: str, name: str, saved: Any, mine: Tensor) -> None:
    tensor = saved.get(name) if isinstance(saved, Mapping) else None
    fits = isinstance(tensor, Tensor) and tensor.shape == mine.shape
    got = f"shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else repr(tensor)
    ensure(
        fits and bool(torch.isfinite(tensor).all()),  # type: ignore[arg-type]
        f"{key} of layer {name!r} has one finite value per expert",
        expected=f"shape {tuple(mine.shape)}",
        got="values that are not finite" if fits else got,
        next_step="Load what balancer.state_dict() returned, as a whole.",
    )
