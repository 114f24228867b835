"""What the activation itself tells of its field: G(q) = Cov(sigma(z), sigma(z')) at correlation q."""

from __future__ import annotations

import numpy as np

from .overlap import OverlapFunction, refined
from .posterior import Array, Link, posterior, prior

_ZERO_SHARE = 1e-26


class SignalChannel:
    """G'(q) = sum_k k b_k q^(k-1) = E_V[(E[(z - omega)/(1 - q) sigma])^2]: F / snr as snr -> 0."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def overlap(self, overlaps: Array, level: int) -> Array:
        """G'(q), (1, n_overlaps)."""
        law = posterior(self.link, overlaps, level)
        return np.asarray((law.outer * (law.slope * law.values).sum(axis=-1) ** 2).sum(axis=-1)[None, :])

    def onset(self, level: int) -> Array:
        """G''(0) = (E[sigma (z^2 - 1)])^2, (1,)."""
        values, _, curvature = prior(self.link, level)
        mean_square = float(np.abs(curvature) @ values**2)
        onset = float(curvature @ values) ** 2
        return np.array([onset if onset > _ZERO_SHARE * mean_square else 0.0])


def signal_function(link: Link, *, rtol: float = 1e-9) -> OverlapFunction:
    """G' as a series: its integral is G, G(1) = Var sigma; `power` is 1 where E[sigma z] = 0."""
    return refined(SignalChannel(link), rtol=rtol)


def excess_risk(function: OverlapFunction, variance: float, overlaps: Array) -> Array:
    """v - G(q) = sum_k b_k (1 - q^k): risk of the best prediction at overlap q beyond the noise."""
    q = np.asarray(overlaps, dtype=float)
    x = np.minimum(-np.log1p(-np.minimum(q, 1 - 1e-15)), function.edges[-1])
    risk = variance - function.accumulated(x.ravel()).reshape(x.shape)
    # Past the table what is left shrinks at least like sqrt(1 - q), the rate of a jump in sigma.
    left = np.sqrt(np.minimum((1 - q) * np.exp(function.edges[-1]), 1.0))
    return np.asarray(np.maximum(risk, 0.0) * left)
