"""Who uses an expert: load, support and top inputs, collected while a model runs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from metier.core.checks import ensure, positive_int
from metier.moe.multilinear.gates import Gate
from metier.moe.multilinear.sizes import joint_coefficients


@dataclass(frozen=True, slots=True, eq=False)
class Usage:
    """How the experts of one gate were used.

    Attributes:
        layer: Name of the gate's layer or block in the model.
        rows: Rows (tokens, images) seen.
        load: Mean coefficient of each joint expert, (N,).
        support: Mean number of experts with a positive coefficient per row.
        largest: Largest coefficient of each expert, (N,).
        top_values: The k largest coefficients of each expert, (N, k), descending; -inf where there are fewer.
        top_rows: Their row numbers in the order in which rows went through the gate, (N, k); -1 where fewer.
    """

    layer: str
    rows: int
    load: Tensor
    support: float
    largest: Tensor
    top_values: Tensor
    top_rows: Tensor

    def dead(self, threshold: float = 1e-6) -> list[int]:
        """Return experts whose coefficient never exceeded `threshold`."""
        return torch.nonzero(self.largest <= threshold).flatten().tolist()

    @property
    def breadth(self) -> float:
        """Entropy of the load in nats: log N if all experts carry the same."""
        share = self.load.double()[self.load > 0]
        share = share / share.sum()
        return float(-(share * share.log()).sum())

    def summary(self) -> str:
        """Return one line for people."""
        n, dead = len(self.load), len(self.dead())
        return (
            f"{self.layer}: {n} experts over {self.rows:,} rows, {self.support:.1f} used per row, "
            f"{dead} dead, largest load {float(self.load.max()):.3f}, breadth {self.breadth:.2f} nats"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, top inputs included."""
        return {
            "layer": self.layer,
            "rows": self.rows,
            "load": self.load.tolist(),
            "support": self.support,
            "dead": self.dead(),
            "breadth": self.breadth,
            "top_values": [[v for v in row if v > -torch.inf] for row in self.top_values.tolist()],
            "top_rows": [[r for r in row if r >= 0] for row in self.top_rows.tolist()],
        }


class _Tally:
    """Running sums of one gate, O(N k) numbers whatever the number of rows."""

    def __init__(self, name: str, n: int, k: int) -> None:
        self.name, self.k, self.rows, self.counted = name, k, 0, 0
        self.load = torch.zeros(n, dtype=torch.float64)
        self.support = 0.0
        self.top_values = torch.full((n, k), -torch.inf)
        self.top_rows = torch.full((n, k), -1, dtype=torch.long)

    def add(self, joint: Tensor, mask: Tensor | None) -> None:
        rows = torch.arange(self.rows, self.rows + joint.shape[0])
        self.rows += joint.shape[0]
        if mask is not None:
            ensure(
                mask.shape[0] == joint.shape[0],
                f"the mask of only(...) has one entry per row that goes through {self.name}",
                expected=f"{joint.shape[0]} entries",
                got=f"{mask.shape[0]}",
                next_step="Call only(mask) before every batch, only(None) where none is padded.",
            )
            joint, rows = joint[mask], rows[mask]
        self.counted += joint.shape[0]
        if not joint.shape[0]:
            return
        self.load += joint.sum(0, dtype=torch.float64)
        self.support += float((joint > 0).sum())
        values = torch.cat([self.top_values, joint.T], dim=1)
        names = torch.cat([self.top_rows, rows.expand(joint.shape[1], -1)], dim=1)
        # Stable: of equal coefficients the earlier row stays, whatever the size of batches.
        order = values.sort(dim=1, descending=True, stable=True).indices[:, : self.k]
        self.top_values, self.top_rows = values.gather(1, order), names.gather(1, order)

    def usage(self) -> Usage:
        counted = max(self.counted, 1)
        largest = self.top_values[:, 0].clamp_min(0.0)
        used = self.top_values > 0
        return Usage(
            layer=self.name,
            rows=self.counted,
            load=(self.load / counted).float(),
            support=self.support / counted,
            largest=largest,
            top_values=self.top_values.masked_fill(~used, -torch.inf),
            top_rows=self.top_rows.masked_fill(~used, -1),
        )


class ExpertWatch:
    """Collects the use of every multilinear gate in a model while it is open; see `watch`."""

    def __init__(self, model: nn.Module, *, k: int = 9, layers: Iterable[str] | None = None) -> None:
        names = None if layers is None else set(layers)
        gates = {name.removesuffix(".gate"): m for name, m in model.named_modules() if isinstance(m, Gate)}
        gates = {("layer" if name == "gate" else name): gate for name, gate in gates.items()}
        ensure(
            bool(gates) and (names is None or names <= set(gates)),
            "there are multilinear layers to watch",
            expected=", ".join(gates) or "a model that holds multilinear layers",
            got=", ".join(sorted(names or ())) or type(model).__name__,
            next_step="Pass the model after moe.replace, or names from the list.",
        )
        self._gates = {name: gate for name, gate in gates.items() if names is None or name in names}
        self._k = positive_int("k", k)
        self._mask: Tensor | None = None
        self._tallies: dict[str, _Tally] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        for name, gate in self._gates.items():
            self._tallies.setdefault(name, _Tally(name, math.prod(gate.n_experts), self._k))
            self._hooks.append(gate.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _hook(self, name: str) -> Any:
        def add(module: nn.Module, args: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            flat = tuple(a.detach().reshape(-1, a.shape[-1]).float().cpu() for a in output)
            self._tallies[name].add(joint_coefficients(flat), self._mask)

        return add

    def only(self, mask: Tensor | None) -> None:
        """Count only the rows of the coming batches where `mask` is true, e.g. an attention mask.

        Rows that are not counted keep their numbers.
        """
        self._mask = None if mask is None else mask.detach().reshape(-1).bool().cpu()

    def usage(self) -> dict[str, Usage]:
        """Return what was seen so far, by layer."""
        return {name: tally.usage() for name, tally in self._tallies.items()}


def watch(model: nn.Module, *, k: int = 9, layers: Iterable[str] | None = None) -> ExpertWatch:
    """Watch the experts of a model while it runs: load, support and the top rows of each.

    Args:
        model: Any model with multilinear layers or blocks.
        k: How many top rows to keep per expert; memory is O(N k) per gate, whatever the number of rows.
        layers: Names of layers to watch; all if left out.

    Returns:
        A context manager; run batches inside it, then call `usage()`.

    Raises:
        InputError: There is no such layer.

    Example:
        >>> from metier.moe import MultilinearMoE
        >>> layer = MultilinearMoE(4, 2, n_experts=3, rank=2, rng=0)
        >>> with watch(layer, k=2) as seen:
        ...     for start in range(0, 30, 10):
        ...         _ = layer(torch.randn(10, 4))
        >>> seen.usage()["layer"].rows
        30

    Source: ours.
    """
    return ExpertWatch(model, k=k, layers=layers)
