"""What an audit found: one entry per router, what the pooled loss hides, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metier.core import InformationResult
from metier.moe.attachment.builtin_losses import BuiltinLoss
from metier.moe.measures.metrics import gini, max_violation, normalized_entropy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Loads:
    """Loads of one router over a whole audit.

    Attributes:
        load: f, share of all choices per expert, (E,), sums to 1.
        gate: p, mean gate value per expert over all experts, (E,), sums to 1.
        max_vio: MaxVio E max f - 1 of the whole audit.
        batch_max_vio: Mean over the batches of each batch's own MaxVio.
        gate_max_vio: E max p - 1.
        gini: Gini index of f.
        cv: Coefficient of cv of f (population standard deviation over mean).
        entropy: H(f) / log E.
        gate_entropy: H(p) / log E.
        dead: Experts with f below min(0.01, 0.1 / E).
        zero: Experts that got no token at all.
        switch_value: E sum f p: 1 at balance, E at collapse on one expert.
    """

    load: NDArray[np.float64]
    gate: NDArray[np.float64]
    max_vio: float
    batch_max_vio: float
    gate_max_vio: float
    gini: float
    cv: float
    entropy: float
    gate_entropy: float
    dead: tuple[int, ...]
    zero: tuple[int, ...]
    switch_value: float


def loads_of(counts: list[NDArray[np.int64]], gates: NDArray[np.float64] | None, n_experts: int) -> Loads:
    """Return the figures of a router from its counts per batch and its summed gate values.

    Example:
        >>> loads = loads_of([np.array([3, 1])], np.array([2.0, 2.0]), 2)
        >>> loads.load.tolist(), loads.max_vio, loads.gini, loads.cv, loads.switch_value
        ([0.75, 0.25], 0.5, 0.25, 0.5, 1.0)
    """
    total = np.sum(counts, axis=0) if counts else np.zeros(n_experts, np.int64)
    load = _share(total)
    gate = _share(np.zeros(n_experts) if gates is None else gates)
    return Loads(
        load=load,
        gate=gate,
        max_vio=max_violation(load),
        batch_max_vio=float(np.mean([max_violation(_share(c)) for c in counts])) if counts else 0.0,
        gate_max_vio=max_violation(gate),
        gini=gini(load),
        cv=float(load.std() * n_experts),
        entropy=normalized_entropy(load),
        gate_entropy=normalized_entropy(gate),
        dead=tuple(np.flatnonzero(load < min(0.01, 0.1 / n_experts)).tolist()),
        zero=tuple(np.flatnonzero(total == 0).tolist()),
        switch_value=float(n_experts * (load * gate).sum()),
    )


def _share(values: NDArray[np.generic]) -> NDArray[np.float64]:
    sums = np.asarray(values, dtype=np.float64)
    return sums / sums.sum() if sums.sum() > 0 else np.full(sums.size, 1.0 / sums.size)


BALANCED = 0.5
SEVERE = 1.0
GATES_BALANCED = 0.3


def remedy(loads: Loads, *, called: bool, takes_bias: bool) -> str:
    """Return what to do about a router, in one line.

    The rules: MaxVio up to 0.5 without dead experts needs nothing. Where the mean gate values are even
    (their MaxVio is at most 0.3) and the choices are not, only something that acts on choices helps: a
    bias, or hard tracking. Where both are uneven, price the gate values.
    """
    if not called:
        return "never called: a fused kernel bypasses it, so it cannot be balanced; load without kernels"
    ill = _illness(loads)
    if ill is None:
        return "balanced: leave it alone"
    if loads.gate_max_vio <= GATES_BALANCED:
        cure = 'moe.balancer("phi_bias")' if takes_bias else 'moe.Balancer(track="hard")'
        return f"{ill}, though its mean gate values are even: moe.attach(model, {cure})"
    return f'{ill}: moe.attach(model, moe.balancer("phi"))'


def _illness(loads: Loads) -> str | None:
    dead = len(loads.dead)
    if dead:
        return f"{dead} of {loads.load.size} experts are dead"
    if loads.max_vio > SEVERE:
        return f"one expert gets {1 + loads.max_vio:.1f} times its share"
    return f"uneven (MaxVio {loads.max_vio:.2f})" if loads.max_vio > BALANCED else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterAudit:
    """What an audit found at one router.

    Attributes:
        name: The router's name.
        family: The family that reads it.
        top_k: Experts per token.
        tokens: Tokens that counted, padding left out; 0 if the router was never called.
        loads: Its loads and their figures.
        information: I(label; expert) with the null that permutes whole sequences; None without labels.
        information_given_token: I(label; expert | token id), likewise; None without labels or token ids.
        composition: Share of each label's choices per expert, (labels, E); None without labels.
        remedy: What to do, in one line.
    """

    name: str
    family: str
    top_k: int
    tokens: int
    loads: Loads
    information: InformationResult | None
    information_given_token: InformationResult | None
    composition: NDArray[np.float64] | None
    remedy: str

    @property
    def load(self) -> NDArray[np.float64]:
        """Share of all choices per expert, (E,)."""
        return self.loads.load

    @property
    def max_vio(self) -> float:
        """MaxVio of the whole audit."""
        return self.loads.max_vio

    @property
    def dead(self) -> tuple[int, ...]:
        """Dead experts."""
        return self.loads.dead

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        loads = self.loads
        informations = {"information": self.information, "given_token": self.information_given_token}
        return {
            "name": self.name,
            "family": self.family,
            "n_experts": int(loads.load.size),
            "top_k": self.top_k,
            "tokens": self.tokens,
            "load": loads.load.tolist(),
            "gate": loads.gate.tolist(),
            "max_vio": loads.max_vio,
            "batch_max_vio": loads.batch_max_vio,
            "gate_max_vio": loads.gate_max_vio,
            "gini": loads.gini,
            "cv": loads.cv,
            "entropy": loads.entropy,
            "gate_entropy": loads.gate_entropy,
            "dead": list(loads.dead),
            "zero": list(loads.zero),
            "switch_value": loads.switch_value,
            **{key: None if value is None else value.to_dict() for key, value in informations.items()},
            "composition": None if self.composition is None else self.composition.tolist(),
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What `moe.audit` found in a model.

    Attributes:
        layers: One entry per router, in the model's order.
        builtin_losses: Balancing losses that the model has of its own.
        pooled_value: The built-in loss's value over all routers pooled, divided by k: 1 is its optimum.
            None where the routers differ in size.
        mean_value: Mean over the routers of each router's own value, likewise 1 at balance.
        n_batches: Batches.
        n_sequences: Sequences.
        labels: The distinct labels, in the order of `composition`'s rows.
    """

    layers: tuple[RouterAudit, ...]
    builtin_losses: tuple[BuiltinLoss, ...]
    pooled_value: float | None
    mean_value: float
    n_batches: int
    n_sequences: int
    labels: tuple[Any, ...]

    @property
    def worst(self) -> RouterAudit:
        """The router with the largest MaxVio."""
        return max(self.layers, key=lambda layer: layer.max_vio)

    @property
    def hidden(self) -> str:
        """What the pooled built-in loss hides, in one line."""
        if self.pooled_value is None:
            return "routers of different sizes cannot be pooled"
        text = f"pooled over routers the built-in loss is {self.pooled_value:.3f} (1 is perfect)"
        worst = max(self.layers, key=lambda layer: layer.loads.switch_value)
        own = worst.loads.switch_value
        gap = self.mean_value - self.pooled_value
        verdict = f"; taken apart it is {self.mean_value:.3f}, and {own:.3f} at {worst.name}"
        return text + (verdict if gap > 0.01 else "; taken apart it is the same")

    def summary(self) -> str:
        """Return a few lines for people: one per router, then the model's own losses."""
        lines = [
            f"{len(self.layers)} routers, {self.layers[0].tokens} tokens of {self.n_sequences} sequences"
        ]
        for layer in self.layers:
            line = f"{layer.name}: MaxVio {layer.max_vio:.2f}, dead {len(layer.dead)}"
            info = layer.information_given_token or layer.information
            if info is not None:
                what = "label; expert | token" if layer.information_given_token else "label; expert"
                line += f", I({what}) {info.excess:+.3f} nats over chance (p = {info.p_value:.3g})"
            lines.append(f"{line}; {layer.remedy}")
        lines.append(self.hidden)
        lines += [loss.summary() for loss in self.builtin_losses]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {
            "layers": [layer.to_dict() for layer in self.layers],
            "builtin_losses": [loss.to_dict() for loss in self.builtin_losses],
            "pooled_value": self.pooled_value,
            "mean_value": self.mean_value,
            "hidden": self.hidden,
            "n_batches": self.n_batches,
            "n_sequences": self.n_sequences,
            "labels": [str(label) for label in self.labels],
        }

    def plot(self) -> Figure:
        """Return a picture: the loads of every router, and what each label uses in the worst one."""
        from .picture import draw

        labeled = [layer for layer in self.layers if layer.composition is not None]
        most = max(
            labeled, key=lambda layer: layer.information.excess if layer.information else 0.0, default=None
        )
        composition = None if most is None else (most.name, most.composition)
        return draw({layer.name: layer.load for layer in self.layers}, composition, self.labels)
