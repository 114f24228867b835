"""One all-reduce per optimizer step, and what must hold before anything is changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from metier.core.errors import InputError
from metier.core.extras import naming_extras

from .layers import Block, Layers

with naming_extras():
    import torch
    import torch.distributed as dist
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What the host knows of a reduced step, per layer name."""

    tokens: dict[str, float]
    world: int


def reduce_step(layers: Layers, group: Any, *, setting: str, injected: int, arrived: int) -> StepFacts:
    """Sum the step's counts over the ranks of `group`, in one all-reduce, and check them.

    Raises:
        InputError: The group is not ours, the ranks' balancers differ, a layer was never called, gate values
            were not finite or no probabilities, or injected gradients never arrived. The counts are then
            those of this rank, as before.
    """
    process_group, world = _resolve_group(group)
    if world > 1 and id(process_group) not in layers.agreed:
        _agree(layers, process_group)
    if not layers.rows:
        raise InputError(
            "a balancer has layers to balance",
            expected="moe.attach, moe.SparseMoE(balancer=...) or add_layer before the first step",
            got="no layer",
            next_step="Attach the balancer to the model first.",
        )
    mark = float(_fingerprint(setting, layers))
    extra = torch.tensor([mark, float(injected), float(arrived)], dtype=torch.float64)
    if world == 1:
        return _checked(layers, extra, mark, world)
    local = [piece.clone() for piece in _pieces(layers)]
    extra = _all_reduce(layers, extra, process_group)
    try:
        return _checked(layers, extra, mark, world)
    except InputError:
        for piece, counts in zip(_pieces(layers), local, strict=True):
            piece.copy_(counts)
        raise


def _checked(layers: Layers, extra: Tensor, mark: float, world: int) -> StepFacts:
    facts = _facts(layers, extra)
    if facts["mark"] != world * mark:
        raise InputError(
            "the ranks' balancers are alike",
            expected="the same settings on every rank",
            got="a rank with others",
            next_step="Build the balancer by the same code on every rank.",
        )
    _check(layers.names, facts)
    return StepFacts(tokens=dict(zip(layers.names, facts["tokens"], strict=True)), world=world)


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
    if highest == -lowest and most == -fewest:
        layers.agreed.add(id(group))
        return
    got = (
        f"{len(layers.rows)} on this rank, {int(-fewest)} to {int(most)} on the ranks"
        if most != -fewest
        else f"{len(layers.rows)} on every rank, with other names, experts, top_k or rules"
    )
    raise InputError(
        "the ranks' balancers have the same layers",
        expected="the same layers in the same order on every rank",
        got=got,
        next_step="Register all layers on every rank; under pipeline parallelism, one group per stage.",
    )


def _resolve_group(group: Any) -> tuple[Any, int]:
    ready = dist.is_available() and dist.is_initialized()
    if group is False or (group is None and not ready):
        return None, 1
    if not ready:
        raise InputError(
            "a group needs torch.distributed",
            expected="an initialized default process group",
            got=f"group={group!r} without one",
            next_step="Call torch.distributed.init_process_group first, or step() without a group.",
        )
    if hasattr(group, "get_group"):
        group = group.get_group()
    # A rank outside the group holds a marker object instead of it.
    outside = group is not None and not isinstance(group, dist.ProcessGroup)
    if outside or dist.get_rank(group) < 0:
        raise InputError(
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
    pieces = []
    for block, row in layers.rows.values():
        pieces.append(block.sums[row])
        if block.histogram is not None:
            pieces.append(block.histogram[row].view(-1))
    return pieces


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


def _facts(layers: Layers, extra: Tensor) -> dict[str, Any]:
    """Bring tokens, calls, invalid and finite of every layer to the host in one copy per device."""
    columns: dict[str, list[float]] = {}
    for block in layers.blocks:
        finite = block.sums.isfinite().all(-1)
        table = torch.stack([block.part("tokens"), block.part("calls"), block.part("invalid"), finite])
        columns.update(zip(block.names, table.T.tolist(), strict=True))
    mark, injected, arrived = extra.tolist()
    rows = [columns[name] for name in layers.names]
    return {
        "tokens": [row[0] for row in rows],
        "calls": [row[1] for row in rows],
        "invalid": [row[2] for row in rows],
        "finite": [row[3] for row in rows],
        "mark": mark,
        "injected": injected,
        "arrived": arrived,
    }


def _check(names: list[str], facts: dict[str, Any]) -> None:
    silent = [name for name, calls in zip(names, facts["calls"], strict=True) if calls == 0]
    if silent:
        raise InputError(
            "every balanced router is called between two steps",
            expected="a call in training mode, outside of recomputation",
            got="none at all" if len(silent) == len(names) else f"none at {_listed(silent)}",
            next_step="Is the model in train mode, and does a fused kernel bypass the router?",
        )
    ill = [name for name, count in zip(names, facts["invalid"], strict=True) if count]
    if ill:
        raise InputError(
            "gate values are probabilities",
            expected="rows of at least 0 that sum to 1 (within 1e-3), without NaN",
            got=f"other rows at {_listed(ill)}",
            next_step="Pass raw logits= instead, or normalize each row of probs=.",
        )
    broken = [name for name, finite in zip(names, facts["finite"], strict=True) if not finite]
    if broken:
        raise InputError(
            "router logits are finite",
            expected="no NaN and no +infinity",
            got=f"non-finite gate values at {_listed(broken)}",
            next_step="Lower the learning rate or skip this batch; balancer.discard() drops its counts.",
        )
    if facts["injected"] and not facts["arrived"]:
        raise InputError(
            "an injected loss is differentiated",
            expected="a backward pass through what inject returned",
            got=f"{int(facts['injected'])} injections and no backward pass",
            next_step="Use inject's result in the model in place of the scores, and step after backward.",
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"layer{'s' if len(names) > 1 else ''} {', '.join(map(repr, names[:3]))}{more}"
