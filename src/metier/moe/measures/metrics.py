"""Figures of how evenly experts are used: MaxVio, Gini, CV, normalized entropy, dead experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import ensure, finite_array, open_fraction

FIGURES = ("max_vio", "gini", "cv", "entropy", "dead", "zero")
_WORST_IS_LOW = ("entropy", "gate_entropy")


@dataclass(frozen=True, slots=True)
class RoutingMetrics:
    """How evenly the experts of each layer are used, f = counts / sum of counts.

    Attributes:
        layers: Layer names.
        max_vio: E max f - 1, in [0, E / k - 1]: how much fuller the fullest expert is than the mean.
        gini: 2 sum_i i f_(i) / E - (E + 1) / E with f ascending, in [0, 1 - 1 / E].
        cv: Standard deviation of f over its mean.
        entropy: H(f) / log E, 1 at balance.
        dead: Experts with f below the dead share.
        zero: Experts that were never chosen.
        gate_entropy: H(p) / log E of the mean gate values, or None where they were not given.

    Example:
        >>> m = routing_metrics([[10, 10, 10, 10], [40, 0, 0, 0]])
        >>> m.max_vio, m.zero
        ((0.0, 3.0), (0, 3))
        >>> print(m.summary())
        2 layers: MaxVio 1.50 (worst 3.00), Gini 0.38 (0.75), entropy 0.50 (0.00), dead 1.5 (3)
    """

    layers: tuple[str, ...]
    max_vio: tuple[float, ...]
    gini: tuple[float, ...]
    cv: tuple[float, ...]
    entropy: tuple[float, ...]
    dead: tuple[int, ...]
    zero: tuple[int, ...]
    gate_entropy: tuple[float, ...] | None = None

    @property
    def mean(self) -> dict[str, float]:
        """Means over the layers, by figure."""
        return {name: float(np.mean(values)) for name, values in self._figures().items()}

    @property
    def worst(self) -> dict[str, float]:
        """The worst layer, by figure: the least entropy, the most of everything else."""
        return {
            name: float(min(values) if name in _WORST_IS_LOW else max(values))
            for name, values in self._figures().items()
        }

    def to_dict(self) -> dict[str, float]:
        """Return mean and worst under "figure/mean" and "figure/worst": as many keys for any model."""
        mean, worst = self.mean, self.worst
        return {
            f"{name}/{kind}": (mean if kind == "mean" else worst)[name]
            for name in mean
            for kind in ("mean", "worst")
        }

    def per_layer(self) -> dict[str, dict[str, float]]:
        """Return every figure of every layer, by layer name."""
        figures = self._figures()
        return {
            layer: {name: float(values[i]) for name, values in figures.items()}
            for i, layer in enumerate(self.layers)
        }

    def summary(self) -> str:
        """Return one line for people."""
        mean, worst = self.mean, self.worst
        count = f"{len(self.layers)} layer{'s' if len(self.layers) > 1 else ''}"
        return (
            f"{count}: MaxVio {mean['max_vio']:.2f} (worst {worst['max_vio']:.2f}), "
            f"Gini {mean['gini']:.2f} ({worst['gini']:.2f}), "
            f"entropy {mean['entropy']:.2f} ({worst['entropy']:.2f}), "
            f"dead {mean['dead']:g} ({worst['dead']:g})"
        )

    def _figures(self) -> dict[str, tuple[float, ...]]:
        names = [*FIGURES, *(["gate_entropy"] if self.gate_entropy is not None else [])]
        return {name: getattr(self, name) for name in names}


def routing_metrics(counts: Any, *, gates: Any = None, dead_share: float | None = None) -> RoutingMetrics:
    r"""Say how evenly experts are used, from how often each was chosen.

    Counts of one step give the batch figures, counts over a whole evaluation set the global ones.

    Args:
        counts: Times each expert was chosen: (E,), (layers, E), or a mapping from layer to (E,).
        gates: Sums or means of the gate values over all experts, in the same form; adds `gate_entropy`.
        dead_share: f below which an expert counts as dead; None means min(0.01, 0.1 / E).

    Returns:
        Figures per layer, with `mean`, `worst`, `to_dict()` and `summary()`.

    Raises:
        InputError: Counts are negative, not finite or all zero in a layer (it is named).

    Example:
        >>> m = routing_metrics([40, 40, 0, 0])
        >>> m.max_vio, m.gini, m.cv, m.entropy
        ((1.0,), (0.5,), (1.0,), (0.5,))
    """
    loads = _shares("counts", counts)
    figures: dict[str, list[float]] = {name: [] for name in FIGURES}
    for f in loads.values():
        n_experts = f.size
        limit = min(0.01, 0.1 / n_experts) if dead_share is None else open_fraction("dead_share", dead_share)
        values = (max_violation(f), gini(f), float(f.std() * n_experts), normalized_entropy(f))
        for name, value in zip(FIGURES, (*values, int((f < limit).sum()), int((f == 0).sum())), strict=True):
            figures[name].append(value)
    gate_entropy = None
    if gates is not None:
        shares = _shares("gates", gates)
        ensure(
            list(shares) == list(loads),
            "gates and counts are of the same layers",
            expected=", ".join(loads),
            got=", ".join(shares),
            next_step="Pass gates in the same form as counts.",
        )
        gate_entropy = tuple(normalized_entropy(p) for p in shares.values())
    return RoutingMetrics(
        layers=tuple(loads),
        gate_entropy=gate_entropy,
        **{name: tuple(values) for name, values in figures.items()},  # type: ignore[arg-type]
    )


def max_violation(f: NDArray[np.float64]) -> float:
    """Return E max f - 1.

    Example:
        >>> max_violation(np.array([0.5, 0.5, 0.0, 0.0]))
        1.0
    """
    return float(f.size * f.max() - 1.0)


def gini(f: NDArray[np.float64]) -> float:
    """Return the Gini coefficient of shares.

    Example:
        >>> gini(np.array([1.0, 0.0, 0.0, 0.0]))
        0.75
    """
    ordered, n = np.sort(f), f.size
    return float(2.0 * (np.arange(1, n + 1) @ ordered) / n - (n + 1) / n)


def normalized_entropy(f: NDArray[np.float64]) -> float:
    """Return H(f) / log E.

    Example:
        >>> normalized_entropy(np.array([0.5, 0.5, 0.0, 0.0]))
        0.5
    """
    positive = f[f > 0]
    return float(abs(-(positive @ np.log(positive)) / np.log(f.size)))


def _shares(name: str, counts: Any) -> dict[str, NDArray[np.float64]]:
    rows = counts if isinstance(counts, Mapping) else _numbered(name, counts)
    shares = {}
    for layer, row in rows.items():
        values = finite_array(f"{name} of {layer}", _to_numpy(row), ndim=1)
        ensure(
            values.size >= 2 and values.min() >= 0 and values.sum() > 0,
            f"{name} of {layer} say how often each expert was chosen",
            expected="at least two numbers of at least 0, not all 0",
            got=f"{values.size} numbers from {values.min(initial=0.0):g}, sum {values.sum():g}",
            next_step="Count over a batch in which this layer was called.",
        )
        shares[str(layer)] = values / values.sum()
    return shares


def _numbered(name: str, counts: Any) -> dict[str, Any]:
    table = finite_array(name, _to_numpy(counts))
    ensure(
        table.ndim in (1, 2) and 0 not in table.shape,
        f"{name} are one number per expert, or a table of layers x experts",
        expected="shape (E,) or (layers, E)",
        got=f"shape {table.shape}",
        next_step="Pass a mapping from layer to counts where layers have different experts.",
    )
    table = np.atleast_2d(table)
    return {f"layer_{i}": row for i, row in enumerate(table)}


def _to_numpy(values: Any) -> Any:
    # A tensor may be on a device, need a gradient, or have a dtype that NumPy does not have.
    return values.detach().double().cpu().numpy() if hasattr(values, "detach") else values
