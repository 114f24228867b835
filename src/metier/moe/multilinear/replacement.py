"""What a replacement did, layer by layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ReplacedLayer:
    """One replaced module.

    Attributes:
        name: Its name in the model.
        kind: "linear", "mlp" or "glu".
        rank: Ranks by projection ("linear", "up", "down", "activated").
        parameters_before: Parameters of the dense module.
        parameters: Parameters now, gate included.
        weight_error: Relative error of weights by projection.
        output_error: Relative root mean squared error of each projection's outputs on the calibration
            inputs of the dense model; empty without calibration.
        notes: What changed beside the weights.
        config: Constructor arguments of the new module.
    """

    name: str
    kind: str
    rank: dict[str, tuple[int, ...]]
    parameters_before: int
    parameters: int
    weight_error: dict[str, float]
    output_error: dict[str, float]
    notes: tuple[str, ...]
    config: dict[str, Any]

    def summary(self) -> str:
        """Return one line for people."""
        errors = ", ".join(f"{role} {error:.1e}" for role, error in self.weight_error.items())
        outputs = ", ".join(f"{role} {error:.1e}" for role, error in self.output_error.items())
        share = self.parameters / self.parameters_before
        sizes = f"{self.parameters_before:,} -> {self.parameters:,} parameters ({share:.2f})"
        parts = [f"{self.name}: {self.kind}, {sizes}, weight error {errors}"]
        parts += [f"output error {outputs}"] if outputs else []
        return "; ".join([*parts, *self.notes])


@dataclass(frozen=True, slots=True)
class Replacement:
    """What `replace` did, layer by layer; `to_dict()` is a plan that `rebuild` follows.

    Attributes:
        layers: The replaced modules in the model's order.
    """

    layers: tuple[ReplacedLayer, ...]

    def summary(self) -> str:
        """Return one line per layer and a total."""
        before = sum(layer.parameters_before for layer in self.layers)
        after = sum(layer.parameters for layer in self.layers)
        total = f"{len(self.layers)} replaced: {before:,} -> {after:,} parameters ({after / before:.2f})"
        return "\n".join([*(layer.summary() for layer in self.layers), total])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"layers": [asdict(layer) for layer in self.layers]}
