"""The blocks that are compared, each with the one size that spends a budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metier import moe
from metier.core import InputError
from metier.core.extras import naming_extras

with naming_extras():
    import torch
    from torch import nn


MODES: dict[int, tuple[int, ...]] = {4: (4,), 16: (16,), 64: (64,), 256: (16, 16), 1024: (32, 32)}
"""Expert modes by number of experts; one mode would make the gate of 256 experts dearer than the block."""
FORMS = ("cp", "tr", "mxd")
SPARSE_EXPERTS, SPARSE_TOP_K = 8, 2
BUDGETS = ("parameters", "multiplies")


@dataclass(frozen=True, slots=True)
class Arm:
    """One kind of block I -> H -> I.

    Args:
        words: for people.
        kind: "dense", "low_rank", "sparse" or a form of `moe.MultilinearMLP`.
        modes: expert modes of a multilinear block.
        knob: what the budget decides: "hidden" or "rank".
    """

    words: str
    kind: str
    modes: tuple[int, ...] = ()
    knob: str = "hidden"

    @property
    def n_experts(self) -> int:
        """Number of experts, 1 for dense blocks."""
        return SPARSE_EXPERTS if self.kind == "sparse" else math.prod(self.modes)


def _arms() -> dict[str, Arm]:
    found = {
        "dense": Arm("dense", "dense"),
        "low_rank": Arm("low-rank dense", "low_rank", knob="rank"),
        "sparse": Arm(f"sparse, {SPARSE_TOP_K} of {SPARSE_EXPERTS}", "sparse"),
    }
    for form in FORMS:
        for n, modes in MODES.items():
            sizes = " x ".join(map(str, modes))
            words = f"{form}, {n:,} experts" + (f" ({sizes})" if len(modes) > 1 else "")
            found[f"{form}-{n}"] = Arm(words, form, modes, "hidden" if form == "mxd" else "rank")
    found["cp-1024-flat"] = Arm("cp, 1,024 experts in one mode", "cp", (1024,), "rank")
    return found


ARMS = _arms()


def build(arm: Arm, *, dim: int, hidden: int, size: int, rng: int | None = None, device: Any = None) -> Any:
    """The block of an arm with its knob at `size`; the other size is the dense block's."""
    if arm.kind == "dense":
        return nn.Sequential(
            nn.Linear(dim, size, device=device), nn.GELU(), nn.Linear(size, dim, device=device)
        )
    if arm.kind == "low_rank":
        return nn.Sequential(
            nn.Linear(dim, size, bias=False, device=device),
            nn.Linear(size, hidden, device=device),
            nn.GELU(),
            nn.Linear(hidden, size, bias=False, device=device),
            nn.Linear(size, dim, device=device),
        )
    if arm.kind == "sparse":
        return moe.SparseMoE(
            dim,
            size,
            n_experts=SPARSE_EXPERTS,
            top_k=SPARSE_TOP_K,
            activation="gelu",
            bias=True,
            balancer=None if device == "meta" else moe.balancer("phi"),
            device=device,
        )
    return moe.MultilinearMLP(
        dim,
        size if arm.knob == "hidden" else hidden,
        n_experts=arm.modes,
        form=arm.kind,
        rank=size if arm.knob == "rank" else None,
        rng=rng,
        device=device,
    )


def cost(arm: Arm, *, dim: int, hidden: int, size: int) -> dict[str, int]:
    """Parameters of the block, and multiplies per image."""
    block = build(arm, dim=dim, hidden=hidden, size=size, device="meta")
    parameters = sum(p.numel() for p in block.parameters())
    if arm.kind == "sparse":
        multiplies = dim * SPARSE_EXPERTS + SPARSE_TOP_K * 2 * dim * size
    elif arm.modes:
        multiplies = moe.cost_of(block).multiplies
    else:
        multiplies = sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Linear))
    return {"parameters": parameters, "multiplies": multiplies}


def size_for(arm: Arm, *, dim: int, hidden: int, budget: str) -> int:
    """The largest size within what the dense block with `hidden` units costs.

    Args:
        arm: which block.
        dim, hidden: of the dense block.
        budget: "parameters" or "multiplies".

    Raises:
        InputError: not even size 1 fits; it says why.
    """
    allowed = cost(ARMS["dense"], dim=dim, hidden=hidden, size=hidden)[budget]
    if arm.modes and arm.knob == "rank":
        given: dict[str, int] = {budget: allowed}
        return moe.rank_for_budget(
            dim,
            dim,
            n_experts=arm.modes,
            form=arm.kind,
            hidden_features=hidden,
            **given,  # type: ignore[arg-type]
        )
    best = _largest(lambda size: cost(arm, dim=dim, hidden=hidden, size=size)[budget] <= allowed)
    if best == 0:
        least = cost(arm, dim=dim, hidden=hidden, size=1)[budget]
        raise InputError(
            f"the block {arm.words} fits the budget of {budget}",
            expected=f"at least {least:,} {budget}",
            got=f"{allowed:,}",
            next_step="Raise the budget, or use fewer experts.",
        )
    return best


def _largest(fits: Callable[[int], bool]) -> int:
    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def reproducible(seed: int, make: Callable[[], nn.Module]) -> nn.Module:
    """Build a module with torch's stream at `seed`, and leave that stream as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
