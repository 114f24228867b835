"""What a finished step looked like: loads, gate values, the dual gap beside its floor."""

from __future__ import annotations

from dataclasses import dataclass

from metier.core.extras import naming_extras

from .layers import Block, part_of
from .metrics import RoutingMetrics, routing_metrics
from .potentials import FLOOR, Potential

with naming_extras():
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class BlockReport:
    """The reduced sums of a block, and the loads its prices came from.

    Attributes:
        names: Layer names.
        top_k: Experts per token.
        n_experts: E.
        sums: The step's sums over all ranks.
        before: Remembered loads before the step, (L, E).
        noise: eta' such that Cov m = eta' Cov p, per layer.
    """

    names: tuple[str, ...]
    top_k: tuple[int, ...]
    n_experts: int
    sums: Tensor
    before: Tensor
    noise: tuple[float, ...]

    def part(self, name: str) -> Tensor:
        """Return one part of the sums."""
        return part_of(self.sums, name, self.n_experts)


@dataclass(frozen=True, slots=True)
class StepReport:
    """Figures of the last finished step, computed when they are asked for.

    Attributes:
        blocks: The layers' sums.
        names: Layer names in the order of registration.
        hard: Whether the memory tracks choices.
        potential: The balancer's potential.
    """

    blocks: tuple[BlockReport, ...]
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
            gap = self.potential.bregman(loads.clamp_min(floor), block.before.clamp_min(floor))
            noise = torch.tensor(block.noise, dtype=loads.dtype, device=loads.device)
            curvature = self.potential.second_derivatives(loads.clamp_min(floor))
            least = (curvature * variance / (2.0 * tokens)).sum(-1) * (1.0 + noise)
            pairs = torch.stack([gap, least], -1).tolist()
            gaps.update({name: (pair[0], pair[1]) for name, pair in zip(block.names, pairs, strict=True)})
        return {name: gaps[name] for name in self.names}

    def _loads(self, block: BlockReport, tokens: Tensor) -> tuple[Tensor, Tensor]:
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
        pairs = list(self.dual_gap().values())
        figures["dual_gap/mean"] = sum(gap for gap, _ in pairs) / len(pairs)
        figures["dual_gap/worst"] = max(gap for gap, _ in pairs)
        figures["dual_gap_floor/mean"] = sum(floor for _, floor in pairs) / len(pairs)
        figures["dual_gap_floor/worst"] = max(floor for _, floor in pairs)
        return figures


def block_report(block: Block, before: Tensor, noise: list[float]) -> BlockReport:
    """Keep what a report needs of a block before its sums are cleared."""
    return BlockReport(
        names=tuple(block.names),
        top_k=tuple(block.top_k),
        n_experts=block.n_experts,
        sums=block.sums.clone(),
        before=before,
        noise=tuple(noise),
    )
