"""What an audit found: one entry per router, what the pooled loss hides, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metier.core import InformationResult
from metier.moe.attachment.builtin_losses import BuiltinLoss

from .loads import Loads

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

        return draw(self)
