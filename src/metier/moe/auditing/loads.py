"""The figures of one router's loads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.moe.balancing.metrics import gini, max_violation, normalized_entropy


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
