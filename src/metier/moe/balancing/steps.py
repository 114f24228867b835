"""A finished step: reduced over ranks and checked, its effect on the layers, and what it looked like."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from metier.core.checks import ensure
from metier.core.errors import InputError
from metier.moe.measures.metrics import RoutingMetrics, routing_metrics

from .bias_rules import StepLoads, histogram_quantile
from .layers import Block, Layers
from .memory import Memory
from .potentials import FLOOR, Potential


def reduce_step(
    layers: Layers, group: Any, *, setting: str, injected: int, arrived: int
) -> tuple[dict[str, float], int]:
    """Sum the step's counts over the ranks of `group`, in one all-reduce, and check them.

    Returns:
        Tokens of the step by layer, and the number of ranks.

    Raises:
        InputError: The group is not ours, the ranks' balancers differ, a layer was never called, gate values
            were not finite or no probabilities, or injected gradients never arrived. The counts are then
            those of this rank, as before.
    """
    process_group, world = _resolve_group(group)
    if world > 1 and id(process_group) not in layers.agreed:
        _agree(layers, process_group)
    ensure(
        bool(layers.rows),
        "a balancer has layers to balance",
        expected="moe.attach, moe.SparseMoE(balancer=...) or add_layer before the first step",
        got="no layer",
        next_step="Attach the balancer to the model first.",
    )
    mark = float(_fingerprint(setting, layers))
    extra = torch.tensor([mark, float(injected), float(arrived)], dtype=torch.float64)
    if world == 1:
        return _checked(layers, extra, mark, world), world
    local = [piece.clone() for piece in _pieces(layers)]
    extra = _all_reduce(layers, extra, process_group)
    try:
        return _checked(layers, extra, mark, world), world
    except InputError:
        for piece, counts in zip(_pieces(layers), local, strict=True):
            piece.copy_(counts)
        raise


def _checked(layers: Layers, extra: Tensor, mark: float, world: int) -> dict[str, float]:
    """Return the tokens of every layer; all that is needed comes to the host in one copy per device."""
    columns: dict[str, list[float]] = {}
    for block in layers.blocks:
        finite = block.sums.isfinite().all(-1)
        table = torch.stack([block.part("tokens"), block.part("calls"), block.part("invalid"), finite])
        columns.update(zip(block.names, table.T.tolist(), strict=True))
    marks, injected, arrived = extra.tolist()
    ensure(
        marks == world * mark,
        "the ranks' balancers are alike",
        expected="the same settings on every rank",
        got="a rank with others",
        next_step="Build the balancer by the same code on every rank.",
    )
    rows, names = {name: columns[name] for name in layers.names}, layers.names
    silent = [name for name, (_, calls, _, _) in rows.items() if calls == 0]
    ensure(
        not silent,
        "every balanced router is called between two steps",
        expected="a call in training mode, outside of recomputation",
        got="none at all" if len(silent) == len(names) else f"none at {_listed(silent)}",
        next_step="Is the model in train mode, and does a fused kernel bypass the router?",
    )
    ill = [name for name, (_, _, invalid, _) in rows.items() if invalid]
    ensure(
        not ill,
        "gate values are probabilities",
        expected="rows of at least 0 that sum to 1 (within 1e-3), without NaN",
        got=f"other rows at {_listed(ill)}",
        next_step="Pass raw logits= instead, or normalize each row of probs=.",
    )
    broken = [name for name, row in rows.items() if not row[3]]
    ensure(
        not broken,
        "router logits are finite",
        expected="no NaN and no +infinity",
        got=f"non-finite gate values at {_listed(broken)}",
        next_step="Lower the learning rate or skip this batch; balancer.discard() drops its counts.",
    )
    ensure(
        bool(arrived) or not injected,
        "an injected loss is differentiated",
        expected="a backward pass through what inject returned",
        got=f"{int(injected)} injections and no backward pass",
        next_step="Use inject's result in the model in place of the scores, and step after backward.",
    )
    return {name: row[0] for name, row in rows.items()}


def _agree(layers: Layers, group: Any) -> None:
    """Raise on every rank where the ranks' layers differ, before sums of unlike lengths would meet.

    Four numbers, of the same length on any rank; asked once for these layers and this group.
    """
    mine = [float(len(layers.rows)), float(_fingerprint("", layers))]
    device = _device(layers.blocks, group)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    ends = torch.tensor([*mine, *(-x for x in mine)], dtype=dtype, device=device)
    dist.all_reduce(ends, op=dist.ReduceOp.MAX, group=group)
    most, highest, fewest, lowest = ends.tolist()
    ensure(
        highest == -lowest and most == -fewest,
        "the ranks' balancers have the same layers",
        expected="the same layers in the same order on every rank",
        got=f"{len(layers.rows)} on this rank, {int(-fewest)} to {int(most)} on the ranks"
        if most != -fewest
        else f"{len(layers.rows)} on every rank, with other names, experts, top_k or rules",
        next_step="Register all layers on every rank; under pipeline parallelism, one group per stage.",
    )
    layers.agreed.add(id(group))


def _resolve_group(group: Any) -> tuple[Any, int]:
    ready = dist.is_available() and dist.is_initialized()
    if group is False or (group is None and not ready):
        return None, 1
    ensure(
        ready,
        "a group needs torch.distributed",
        expected="an initialized default process group",
        got=f"group={group!r} without one",
        next_step="Call torch.distributed.init_process_group first, or step() without a group.",
    )
    if hasattr(group, "get_group"):
        group = group.get_group()
    # A rank outside the group holds a marker object instead of it.
    outside = group is not None and not isinstance(group, dist.ProcessGroup)
    ensure(
        not outside and dist.get_rank(group) >= 0,
        "a rank steps with a group that it belongs to",
        expected="the process group of the ranks that saw different tokens, this one among them",
        got=f"group={group!r} on rank {dist.get_rank()}",
        next_step="Pass the data-parallel group of this rank.",
    )
    return group, dist.get_world_size(group)


def _fingerprint(setting: str, layers: Layers) -> int:
    shapes = [(name, b.n_experts, b.top_k[row], b.bins) for name, (b, row) in layers.rows.items()]
    digest = hashlib.sha256(f"{setting} {shapes}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _pieces(layers: Layers) -> list[Tensor]:
    """Return views of every layer's counts, by layer: blocks may differ in order between ranks."""
    rows = layers.rows.values()
    return [piece for block, row in rows for piece in (block.sums[row], block.histogram[row].flatten())]


def _all_reduce(layers: Layers, extra: Tensor, group: Any) -> Tensor:
    """Sum every layer's counts and `extra` in one call."""
    pieces = _pieces(layers)
    device = _device(layers.blocks, group)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    flat = torch.cat([piece.to(device, dtype) for piece in [*pieces, extra]])
    dist.all_reduce(flat, group=group)
    start = 0
    for piece in pieces:
        piece.copy_(flat[start : start + piece.numel()])
        start += piece.numel()
    return flat[start:]


def _device(blocks: list[Block], group: Any) -> torch.device:
    device = blocks[0].device if blocks else torch.device("cpu")
    # A rank that saw no token keeps its state on the CPU, which NCCL cannot reduce.
    if device.type == "cpu" and str(dist.get_backend(group)) == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"layer{'s' if len(names) > 1 else ''} {', '.join(map(repr, names[:3]))}{more}"


@dataclass(frozen=True, slots=True)
class StepReport:
    """Figures of the last finished step, computed when they are asked for.

    Attributes:
        blocks: The layers with the step's sums over all ranks, and with the loads its prices came from.
        noise: By layer eta' such that Cov m = eta' Cov p for the remembered loads m.
        names: Layer names in the order of registration.
        hard: Whether the memory tracks choices.
        potential: The balancer's potential.
    """

    blocks: tuple[Block, ...]
    noise: dict[str, float]
    names: tuple[str, ...]
    hard: bool
    potential: Potential

    def table(self, name: str) -> dict[str, Tensor]:
        """Return one part of the sums by layer, on the host; layers without tokens are left out."""
        rows = {}
        for block in self.blocks:
            part, tokens = block.part(name).cpu(), block.part("tokens").tolist()
            rows.update({n: part[i] for i, n in enumerate(block.names) if tokens[i] > 0})
        return {name: rows[name] for name in self.names if name in rows}

    def counts(self) -> dict[str, Tensor]:
        """Return how often each expert was chosen, by layer."""
        return {name: row for name, row in self.table("hard").items() if float(row.sum()) > 0}

    def routing(self) -> RoutingMetrics | None:
        """Return the batch figures, or None where no token was seen."""
        counts, gates = self.counts(), self.table("soft")
        return routing_metrics(counts, gates={name: gates[name] for name in counts}) if counts else None

    def dual_gap(self) -> dict[str, tuple[float, float]]:
        r"""Return by layer the divergence of the step's loads from the remembered ones, and its floor.

        The floor is what independent tokens would give: sum_e h_e Var_e (1 + eta') / (2 n), with h the second
        derivatives of the potential, Var_e the variance of a token's load, eta' = eta / (2 - eta). For
        Shannon with soft loads this is chi / (n (2 - eta)). A gap far above it: batches unlike each other,
        or drift.
        """
        gaps: dict[str, tuple[float, float]] = {}
        for block in self.blocks:
            tokens = block.part("tokens").clamp_min(1.0)[:, None]
            loads, variance = self._loads(block, tokens)
            floor = FLOOR / block.n_experts
            gap = self.potential.bregman(loads.clamp_min(floor), block.ema.clamp_min(floor))
            noise = torch.tensor(
                [self.noise[name] for name in block.names], dtype=loads.dtype, device=loads.device
            )
            curvature = self.potential.second_derivatives(loads.clamp_min(floor))
            least = (curvature * variance / (2.0 * tokens)).sum(-1) * (1.0 + noise)
            pairs = torch.stack([gap, least], -1).tolist()
            gaps.update({name: (pair[0], pair[1]) for name, pair in zip(block.names, pairs, strict=True)})
        return {name: gaps[name] for name in self.names}

    def _loads(self, block: Block, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the step's loads and the variance of one token's load."""
        if self.hard:
            counts = block.part("hard")
            loads = counts / counts.sum(-1, keepdim=True).clamp_min(1.0)
            top_k = torch.tensor(block.top_k, dtype=loads.dtype, device=loads.device)[:, None]
            return loads, (loads / top_k - loads**2).clamp_min(0.0)
        loads = block.part("soft") / tokens
        return loads, (block.part("square") / tokens - loads**2).clamp_min(0.0)

    def to_dict(self) -> dict[str, float]:
        """Return mean and worst of every figure, in as many keys for any number of layers."""
        routing = self.routing()
        figures = {} if routing is None else routing.to_dict()
        gaps, floors = zip(*self.dual_gap().values(), strict=True)
        for name, values in (("dual_gap", gaps), ("dual_gap_floor", floors)):
            figures |= {f"{name}/mean": sum(values) / len(values), f"{name}/worst": max(values)}
        return figures


@dataclass(frozen=True, slots=True)
class BlockUpdate:
    """Moves loads, prices and biases by a step's reduced sums.

    Attributes:
        potential: Whose gradient is the price.
        memory: The weight of a step among the remembered loads.
        track: "soft" remembers gate values, "hard" choices.
        price_mode: "lagged", or "paper", whose loads were folded in the forward pass.
        bias_rule: How selection biases move; None where there are none.
        bias_strength: How far.
    """

    potential: Potential
    memory: Memory
    track: str
    price_mode: str
    bias_rule: Callable[..., Tensor] | None
    bias_strength: float

    @torch.no_grad()
    def apply(
        self, block: Block, step_tokens: dict[str, float], world: int, noise: dict[str, float]
    ) -> Block:
        """Change `block`, add to `noise`, and return a copy with the step's sums and the old loads."""
        before = replace(
            block,
            names=list(block.names),
            top_k=list(block.top_k),
            ema=block.ema.clone(),
            sums=block.sums.clone(),
        )
        counts = block.part("hard")
        hard = counts / counts.sum(-1, keepdim=True).clamp_min(1.0)
        tokens = [step_tokens[name] for name in block.names]
        # Of the running mean: steps that had tokens for this layer, whenever it was added.
        earlier = block.folds
        weights = [self.memory.weight(tokens=n, steps=t) for n, t in zip(tokens, earlier, strict=True)]
        self._move_loads(block, hard, weights, world=world)
        # Not in place: a graph that is still waiting for its backward pass holds the old prices.
        block.price = self.potential.price(block.ema).to(block.price.dtype)
        if self.bias_rule is not None:
            self._move_bias(block, hard, self.bias_rule)
        noise |= {name: self._noise(w, t) for name, w, t in zip(block.names, weights, earlier, strict=True)}
        block.tokens = [old + round(n) for old, n in zip(block.tokens, tokens, strict=True)]
        if self.price_mode == "lagged":
            block.folds = [old + (n > 0) for old, n in zip(earlier, tokens, strict=True)]
        return before

    def _move_loads(self, block: Block, hard: Tensor, weights: list[float], *, world: int) -> None:
        tokens = block.part("tokens")[:, None]
        if self.price_mode == "paper":
            folded = block.part("folded") / tokens.clamp_min(1.0)
            if world > 1:
                block.ema.copy_(torch.where(tokens > 0, folded, block.ema))
            return
        eta = torch.tensor(weights, dtype=block.ema.dtype, device=block.device)[:, None]
        target = block.part("soft") / tokens.clamp_min(1.0) if self.track == "soft" else hard
        known = target.sum(-1, keepdim=True) > 0
        block.ema.add_(eta * known * (target - block.ema))

    def _move_bias(self, block: Block, hard: Tensor, rule: Callable[..., Tensor]) -> None:
        aim = self.potential.target_loads(block.ema)
        quantile = None
        if block.bins:
            top_k = torch.tensor(block.top_k, dtype=hard.dtype, device=hard.device)[:, None]
            quantile = histogram_quantile(block.histogram, (top_k * aim).clamp_max(1.0))
        loads = StepLoads(hard=hard, ema=block.ema, target=aim, quantile=quantile)
        old = block.bias.to(hard.dtype)
        bias = rule(old, loads, strength=self.bias_strength, potential=self.potential)
        bias = bias - bias.mean(-1, keepdim=True)
        chosen = hard.sum(-1, keepdim=True) > 0
        block.bias.copy_(torch.where(chosen, bias, old))

    def _noise(self, weight: float, earlier: int) -> float:
        """Return eta' such that Cov m = eta' Cov p for independent steps."""
        if self.memory.running:
            return 1.0 / max(earlier, 1)
        return weight / (2.0 - weight)
