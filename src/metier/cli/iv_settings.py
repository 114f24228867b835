"""`--set key=value` for `metier iv`: parameters of `IVBilevel`, learners by name, what to do with gaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from metier.cli.settings import parse_settings

LearnerName = Literal["default", "ridge", "lasso", "forest", "boosting"]
ControlName = Literal["linear", "ridge", "lasso", "forest", "boosting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IVSettings:
    """What `--set` reaches.

    Args:
        estimator: as in `IVBilevel`.
        folds, repeats: of cross-fitting.
        learner: regression on instruments and controls.
        control_learner: regression on the controls.
        missing: what to do with rows that lack a value.
    """

    estimator: Literal["obigrad", "plugin", "adjoint_instrument"] = "obigrad"
    folds: int = 5
    repeats: int = 1
    learner: LearnerName = "default"
    control_learner: ControlName = "linear"
    missing: Literal["fail", "drop"] = "fail"


OPTIONS = {
    "features": "--features",
    "rng": "--seed",
    "outcome": "--outcome",
    "treatment": "--treatment",
    "instruments": "--instruments",
    "controls": "--controls",
    "weights": "--weights",
    "groups": "--groups",
    "level": "--level",
}


def iv_settings(texts: Mapping[str, str]) -> IVSettings:
    """Parse the texts by their types.

    Raises:
        InputError: an unknown key (with its neighbors), one that has its own option, or an unreadable value.

    Example:
        >>> iv_settings({"folds": "10", "learner": "forest"}).learner
        'forest'
    """
    types = get_type_hints(IVSettings)
    return IVSettings(**parse_settings(texts, types, options=OPTIONS, owner="metier iv has no setting"))


def make_learner(name: str, *, seed: int) -> Any:
    """Return a scikit-learn regressor by its name; "default" and "linear" are None, the door's own."""
    return None if name in ("default", "linear") else LEARNERS[name](seed)


def _ridge(seed: int) -> Any:
    import numpy as np
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-4, 4, 17)))


def _lasso(seed: int) -> Any:
    from sklearn.linear_model import LassoCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LassoCV(cv=5, random_state=seed))


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(n_estimators=200, min_samples_leaf=20, random_state=seed)


def _boosting(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_depth=4, learning_rate=0.05, random_state=seed)


LEARNERS: dict[str, Callable[[int], Any]] = {
    "ridge": _ridge,
    "lasso": _lasso,
    "forest": _forest,
    "boosting": _boosting,
}
