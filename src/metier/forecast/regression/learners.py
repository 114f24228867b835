"""Base models by name, fitted per cluster after the ridge path has chosen the partition."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metier.core.checks import one_of
from metier.core.errors import InputError
from metier.core.rng import as_generator
from metier.forecast.regression.base_model import (
    MAX_SEED,
    FittedLearner as FittedLearner,
    Floats,
    Learner as Learner,
    Scale,
    no_quantiles,
    training_arrays,
)
from metier.forecast.regression.boosting import LightGBMFit as LightGBMFit, LightGBMLearner as LightGBMLearner


@dataclass(frozen=True, slots=True)
class SklearnLearner:
    """Any regressor with scikit-learn's `fit`, `predict` and `get_params`; it is cloned for every fit.

    Every parameter that ends in ``random_state`` is drawn from `rng`, in pipelines too.

    Example:
        >>> from sklearn.linear_model import LinearRegression
        >>> x = np.arange(5.0)[:, None]
        >>> SklearnLearner(LinearRegression()).fit(x, 2 * x[:, 0], rng=0).predict(x).round(6).tolist()
        [0.0, 2.0, 4.0, 6.0, 8.0]
    """

    estimator: Any
    scale: Scale = "standard"

    @property
    def name(self) -> str:
        """The estimator's class."""
        return type(self.estimator).__name__

    def fit(self, X: Floats, y: Floats, *, rng: int | np.random.Generator) -> SklearnFit:
        """Fit a clone on X (n, d) and y (n,).

        Raises:
            InputError: shapes do not match or values are not finite.
        """
        from sklearn.base import clone

        X, y = training_arrays(X, y)
        model, generator = clone(self.estimator), as_generator(rng)
        seeded = sorted(key for key in model.get_params() if key.split("__")[-1] == "random_state")
        if seeded:
            model.set_params(**{key: int(generator.integers(MAX_SEED)) for key in seeded})
        return SklearnFit(model.fit(X, y))


@dataclass(frozen=True, slots=True)
class SklearnFit:
    """A fitted scikit-learn regressor."""

    model: Any
    quantiles: tuple[float, ...] = ()

    def predict(self, X: Floats) -> Floats:
        """(n,) point forecasts."""
        forecast = np.asarray(self.model.predict(X), dtype=np.float64)
        if forecast.size != len(X):
            raise InputError(
                f"{type(self.model).__name__} must predict one number per row",
                expected=f"shape ({len(X)},)",
                got=f"shape {forecast.shape}",
                next_step="Use a regressor with a single output.",
            )
        return forecast.reshape(len(X))

    def predict_quantiles(self, X: Floats) -> Floats:
        """Refused: scikit-learn's regressors give a point forecast only."""
        raise no_quantiles(type(self.model).__name__)

    def to_bytes(self) -> bytes:
        """Refused: the only general form is a pickle, which could run code when read."""
        raise InputError(
            "saved forecasters hold no pickles",
            expected="model='ridge' or a 'lightgbm' model, which have a text form",
            got=type(self.model).__name__,
            next_step="Fit again with one of these, or keep the fitted forecaster in memory.",
        )


_LIGHTGBM_OBJECTIVES: dict[str, str] = {"squared": "regression", "huber": "huber", "pinball": "quantile"}


def _lightgbm(loss: str, quantiles: Sequence[float], delta: float) -> Learner:
    levels = tuple(quantiles) if loss == "pinball" else ()
    return LightGBMLearner(objective=_LIGHTGBM_OBJECTIVES[loss], quantiles=levels, delta=delta)


LEARNERS: dict[str, Callable[[str, Sequence[float], float], Learner | None]] = {
    "ridge": lambda loss, quantiles, delta: None,
    "lightgbm": _lightgbm,
    "lightgbm-poisson": lambda loss, quantiles, delta: LightGBMLearner(objective="poisson"),
    "lightgbm-tweedie": lambda loss, quantiles, delta: LightGBMLearner(objective="tweedie"),
}
"""Name to factory of (loss, quantiles, delta); None stands for the ridge path."""


def resolve_learner(
    model: Any, *, loss: str = "squared", quantiles: Sequence[float] = (), delta: float = 1.0
) -> Learner | None:
    """The base model that `model` means.

    Args:
        model: "ridge", "lightgbm" (its objective follows the loss), "lightgbm-poisson", "lightgbm-tweedie"
            (both forecast the mean of a count or amount, whatever the loss), a `Learner`, or a regressor with
            scikit-learn's interface.
        loss: "squared", "huber" or "pinball".
        quantiles: levels under "pinball".
        delta: Huber threshold in standard deviations.

    Returns:
        A learner, or None for "ridge", whose fits come from sums alone.

    Raises:
        InputError: an unknown name, or an object without `fit`, `predict` and `get_params`.

    Example:
        >>> resolve_learner("ridge") is None
        True
        >>> resolve_learner("lightgbm", loss="pinball", quantiles=(0.1, 0.9)).objective
        'quantile'
    """
    one_of("loss", loss, _LIGHTGBM_OBJECTIVES)
    if isinstance(model, str):
        return LEARNERS[one_of("model", model, LEARNERS)](loss, quantiles, delta)
    if isinstance(model, type):
        raise _not_a_model(f"the class {model.__name__}", f"Pass an instance, {model.__name__}(...).")
    if isinstance(model, Learner) and hasattr(model, "scale"):
        return model
    if all(callable(getattr(model, part, None)) for part in ("fit", "predict", "get_params")):
        return SklearnLearner(model)
    raise _not_a_model(f"an object of type {type(model).__name__}", "Pass one of these.")


def load_fitted(content: bytes) -> FittedLearner:
    """Read a fitted learner from `FittedLearner.to_bytes`; nothing in it is run.

    Raises:
        InputError: the content is of another kind.
        MissingExtraError: LightGBM is not installed.

    Example:
        >>> x = np.arange(50.0)[:, None]
        >>> fit = LightGBMLearner(n_trees=3).fit(x, x[:, 0], rng=0)
        >>> bool((load_fitted(fit.to_bytes()).predict(x) == fit.predict(x)).all())
        True
    """
    try:
        decoded = json.loads(content)
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict) or decoded.get("kind") != "lightgbm":
        raise InputError(
            "a saved model must be one that metier wrote",
            expected="JSON of kind 'lightgbm'",
            got=repr(content[:40]),
            next_step="Save the forecaster again.",
        )
    return LightGBMFit.from_dict(decoded)


def _not_a_model(got: str, next_step: str) -> InputError:
    return InputError(
        "model is a name or a regressor",
        expected=", ".join(repr(name) for name in LEARNERS)
        + ", or an object with fit, predict and get_params",
        got=got,
        next_step=next_step,
    )
