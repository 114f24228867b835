"""Gradient-boosted trees as a base model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metier.core.checks import one_of
from metier.core.errors import InputError
from metier.core.extras import require
from metier.core.rng import as_generator
from metier.forecast.regression.base_model import MAX_SEED, Floats, Scale, no_quantiles, training_arrays

ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class LightGBMLearner:
    """Gradient-boosted trees, silent and repeatable for any number of threads.

    Under ``objective="quantile"`` one model is fitted for each level, and one for the median as point
    forecast.

    Args:
        objective: "regression", "huber", "quantile", "poisson" or "tweedie".
        quantiles: levels for "quantile".
        delta: Huber threshold on the training scale.
        n_trees: boosting rounds.
        params: further LightGBM parameters, which win over ours.
        n_threads: threads of one fit; one, since fits of several clusters run side by side.

    Example:
        >>> x = np.linspace(0, 1, 200)[:, None]
        >>> fit = LightGBMLearner(n_trees=20).fit(x, x[:, 0], rng=0)
        >>> bool(np.abs(fit.predict(x) - x[:, 0]).max() < 0.2)
        True

    Source:
        Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017.
    """

    objective: str = "regression"
    quantiles: tuple[float, ...] = ()
    delta: float = 1.0
    n_trees: int = 100
    params: dict[str, Any] = field(default_factory=dict)
    n_threads: int = 1

    def __post_init__(self) -> None:
        one_of("objective", self.objective, ("regression", "huber", "quantile", "poisson", "tweedie"))
        if (self.objective == "quantile") != bool(self.quantiles):
            raise InputError(
                "quantiles belong to objective='quantile'",
                expected="both or neither",
                got=f"objective={self.objective!r} with quantiles={self.quantiles}",
                next_step="Pass quantiles=(0.1, 0.5, 0.9), or change the objective.",
            )

    @property
    def name(self) -> str:
        """As in `resolve_learner`."""
        return f"lightgbm-{self.objective}" if self.scale == "mean" else "lightgbm"

    @property
    def scale(self) -> Scale:
        """Count objectives learn on targets divided by the mean, the others on standardized ones."""
        return "mean" if self.objective in ("poisson", "tweedie") else "standard"

    def fit(self, X: Floats, y: Floats, *, rng: int | np.random.Generator) -> LightGBMFit:
        """Fit on X (n, d) and y (n,); count objectives need y >= 0.

        Raises:
            InputError: shapes do not match, values are not finite, or counts are negative.
            MissingExtraError: LightGBM is not installed.
        """
        lightgbm = require("lightgbm")
        X, y = training_arrays(X, y)
        if self.scale == "mean":
            # A zero that was standardized and brought back is zero but for rounding.
            y = np.where((y < 0) & (y > -ROUNDING), 0.0, y)
        if self.scale == "mean" and (y < 0).any():
            raise InputError(
                f"model={self.name!r} is for counts and amounts",
                expected="targets of at least 0",
                got=f"a smallest target of {y.min():.6g} on the training scale",
                next_step="Use model='lightgbm' for series with negative values.",
            )
        seed = int(as_generator(rng).integers(MAX_SEED))
        if self.scale == "mean" and not y.any():
            return LightGBMFit(models=(), constant=0.0)
        levels = tuple(sorted({*self.quantiles, 0.5})) if self.objective == "quantile" else (None,)
        models = tuple(self._train(lightgbm, X, y, level, seed) for level in levels)
        return LightGBMFit(
            models=models, quantiles=self.quantiles, levels=tuple(q for q in levels if q is not None)
        )

    def _train(self, lightgbm: Any, X: Floats, y: Floats, level: float | None, seed: int) -> Any:
        alpha = {"huber": self.delta, "quantile": level}.get(self.objective)
        params = {
            "objective": self.objective,
            **({} if alpha is None else {"alpha": alpha}),
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.n_threads,
            "verbosity": -1,
            **self.params,
        }
        return lightgbm.train(params, lightgbm.Dataset(X, y), num_boost_round=self.n_trees)


@dataclass(frozen=True, slots=True, kw_only=True)
class LightGBMFit:
    """Fitted boosters: one, or one for each quantile level; none where every target was zero."""

    models: tuple[Any, ...]
    quantiles: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()
    constant: float = 0.0

    def predict(self, X: Floats) -> Floats:
        """(n,) point forecasts; the median under quantile objectives."""
        if not self.models:
            return np.full(len(X), self.constant)
        model = self.models[self.levels.index(0.5) if self.levels else 0]
        return np.asarray(model.predict(np.asarray(X, dtype=np.float64)))

    def predict_quantiles(self, X: Floats) -> Floats:
        """(n, Q) quantiles, sorted along the levels so that they do not cross."""
        if not self.quantiles:
            raise no_quantiles("lightgbm")
        X = np.asarray(X, dtype=np.float64)
        every = np.sort(np.column_stack([model.predict(X) for model in self.models]), axis=1)
        return np.asarray(every[:, [self.levels.index(q) for q in self.quantiles]])

    def to_bytes(self) -> bytes:
        """LightGBM's own text form inside JSON."""
        texts = [model.model_to_string() for model in self.models]
        content = {
            "kind": "lightgbm",
            "models": texts,
            "quantiles": self.quantiles,
            "levels": self.levels,
            "constant": self.constant,
        }
        return json.dumps(content).encode()

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> LightGBMFit:
        """Read what `to_bytes` wrote, already decoded."""
        lightgbm = require("lightgbm")
        return cls(
            models=tuple(lightgbm.Booster(model_str=text) for text in content["models"]),
            quantiles=tuple(content["quantiles"]),
            levels=tuple(content["levels"]),
            constant=float(content["constant"]),
        )
