"""Forecast losses on the standardized scale, pointwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def huber(residual: Floats, delta: float = 1.0) -> Floats:
    """r^2/2 where |r| <= delta, else delta (|r| - delta/2)."""
    size = np.abs(residual)
    clipped = np.minimum(size, delta)
    return np.asarray(clipped * (size - 0.5 * clipped))


def pinball(residual: Floats, quantile: float) -> Floats:
    """max(q r, (q - 1) r) of r = y - forecast of the q-quantile."""
    return np.maximum(quantile * residual, (quantile - 1.0) * residual)


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastLoss:
    """What a forecast costs: `squared`, `huber` with its threshold, or `pinball` over quantiles.

    Args:
        name: "squared", "huber" or "pinball".
        delta: Huber threshold, in standard deviations of the series.
        quantiles: levels q of the pinball loss.
    """

    name: str
    delta: float = 1.0
    quantiles: tuple[float, ...] = ()

    def __call__(self, residual: Floats, offsets: Floats | None = None) -> Floats:
        """Loss of residuals y - x'theta; for pinball, averaged over the quantile forecasts.

        Args:
            residual: (...,).
            offsets: (Q, ...) broadcastable quantiles of the model's TRAIN residuals (pinball only).
        """
        if self.name == "squared":
            return residual * residual
        if self.name == "huber":
            return huber(residual, self.delta)
        if offsets is None:
            raise ValueError("pinball needs the residual quantiles of the model")
        total = pinball(residual - offsets[0], self.quantiles[0])
        for q, offset in zip(self.quantiles[1:], offsets[1:], strict=True):
            total += pinball(residual - offset, q)
        return np.asarray(total / len(self.quantiles))

    def of_quantiles(self, target: Floats, forecasts: Floats) -> Floats:
        """Mean pinball loss of quantile forecasts (..., Q) of `target` (...)."""
        parts = [pinball(target - forecasts[..., j], q) for j, q in enumerate(self.quantiles)]
        return np.asarray(np.mean(parts, axis=0))

    @property
    def from_sums(self) -> bool:
        """Whether one-step losses follow from the sufficient statistics alone."""
        return self.name == "squared"
