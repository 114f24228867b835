"""Features of the treatment: what the structural function is linear in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from metier.bilevel.arrays import Floats
from metier.core.checks import one_of
from metier.core.errors import InputError

N_KNOTS = 5
N_HARMONICS = 3


class FeatureMap(Protocol):
    """Phi in g_w(t) = Phi(t)'w: fitted once on the treatment, then applied to any values of it."""

    def fit(self, treatment: Floats, names: Sequence[str]) -> tuple[str, ...]:
        """Learn ranges and knots; return the names of the features."""

    def transform(self, treatment: Floats) -> Floats:
        """Return the features (n, d) of treatments (n, m)."""


class LinearFeatures:
    """One feature per treatment column: the column itself."""

    def fit(self, treatment: Floats, names: Sequence[str]) -> tuple[str, ...]:
        """Return the column names."""
        return tuple(names)

    def transform(self, treatment: Floats) -> Floats:
        """Return the treatment itself."""
        return treatment


class SplineFeatures:
    """Cubic B-splines per treatment column, knots at its quantiles, linear beyond them.

    Args:
        n_knots: knots per column, the ends included.
    """

    def __init__(self, n_knots: int = N_KNOTS) -> None:
        self.n_knots = n_knots

    def fit(self, treatment: Floats, names: Sequence[str]) -> tuple[str, ...]:
        """Place the knots."""
        from sklearn.preprocessing import SplineTransformer

        _needs_values(treatment, names, self.n_knots, "spline")
        self._transformer = SplineTransformer(
            n_knots=self.n_knots, degree=3, knots="quantile", include_bias=False, extrapolation="linear"
        ).fit(treatment)
        per_column = self._transformer.n_features_out_ // len(names)
        return tuple(f"{name}:spline{k + 1}" for name in names for k in range(per_column))

    def transform(self, treatment: Floats) -> Floats:
        """Evaluate the splines."""
        return np.asarray(self._transformer.transform(treatment), dtype=np.float64)


class FourierFeatures:
    """sin(k u) and cos(k u) per column, u the treatment scaled to [-pi/2, pi/2]: half a period.

    Args:
        n_harmonics: largest k.
    """

    def __init__(self, n_harmonics: int = N_HARMONICS) -> None:
        self.n_harmonics = n_harmonics

    def fit(self, treatment: Floats, names: Sequence[str]) -> tuple[str, ...]:
        """Learn the range."""
        _needs_values(treatment, names, 2 * self.n_harmonics + 1, "fourier")
        low, high = treatment.min(axis=0), treatment.max(axis=0)
        self._middle, self._width = (low + high) / 2.0, high - low
        waves = [(k, wave) for k in range(1, self.n_harmonics + 1) for wave in ("sin", "cos")]
        return tuple(f"{name}:{wave}{k}" for name in names for k, wave in waves)

    def transform(self, treatment: Floats) -> Floats:
        """Evaluate the waves."""
        u = np.pi * (treatment - self._middle) / self._width
        parts = [
            wave(k * u[:, j])
            for j in range(u.shape[1])
            for k in range(1, self.n_harmonics + 1)
            for wave in (np.sin, np.cos)
        ]
        return np.column_stack(parts)


@dataclass(slots=True)
class UserFeatures:
    """A callable (n, m) -> (n, d), or an object with `fit` and `transform`."""

    source: Any

    def fit(self, treatment: Floats, names: Sequence[str]) -> tuple[str, ...]:
        """Fit a copy of the transformer, and name the features."""
        if hasattr(self.source, "transform"):
            from sklearn.base import clone

            self.source = clone(self.source, safe=False).fit(treatment)
        features = self.transform(treatment)
        if hasattr(self.source, "get_feature_names_out"):
            try:
                return tuple(map(str, self.source.get_feature_names_out(list(names))))
            except (TypeError, ValueError, AttributeError):
                pass
        return tuple(f"feature{k + 1}" for k in range(features.shape[1]))

    def transform(self, treatment: Floats) -> Floats:
        """Evaluate, and check the shape."""
        apply = self.source.transform if hasattr(self.source, "transform") else self.source
        features = np.asarray(apply(treatment), dtype=np.float64)
        if features.ndim == 1:
            features = features[:, None]
        if features.ndim != 2 or len(features) != len(treatment) or not np.isfinite(features).all():
            raise InputError(
                "features map treatments (n, m) to numbers (n, d)",
                expected=f"{len(treatment)} rows of finite numbers",
                got=f"shape {features.shape}, {int((~np.isfinite(features)).sum())} not finite",
                next_step="Correct the callable or the transformer.",
            )
        return features


FEATURES: dict[str, Callable[[], FeatureMap]] = {
    "linear": LinearFeatures,
    "spline": SplineFeatures,
    "fourier": FourierFeatures,
}


def make_features(features: Any) -> FeatureMap:
    """Return the feature map of a name, a callable, a transformer, or a map itself.

    Example:
        >>> make_features("linear").fit(np.zeros((3, 1)), ["educ"])
        ('educ',)
    """
    if isinstance(features, LinearFeatures | SplineFeatures | FourierFeatures):
        return features
    if isinstance(features, str) or not (callable(features) or hasattr(features, "transform")):
        return FEATURES[one_of("features", features, FEATURES)]()
    return UserFeatures(features)


def _needs_values(treatment: Floats, names: Sequence[str], least: int, kind: str) -> None:
    for name, column in zip(names, treatment.T, strict=True):
        distinct = len(np.unique(column))
        if distinct < least:
            raise InputError(
                f"{kind} features need a treatment with many values",
                expected=f"at least {least} distinct values",
                got=f"{distinct} in {name!r}",
                next_step='Use features="linear" for it.',
            )
