"""`--set key=value` for `metier iv`: parameters of `IVBilevel`, learners by name, what to do with gaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_type_hints

from metier.core import InputError
from metier.studies.base import nearest, parse_value

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
    hints = get_type_hints(IVSettings)
    known = [field.name for field in fields(IVSettings)]
    values = {}
    for key, text in texts.items():
        if key in OPTIONS:
            raise InputError(
                f"{key} has an option of its own",
                expected=f"{OPTIONS[key]} VALUE",
                got=f"--set {key}={text}",
                next_step=f"Write {OPTIONS[key]} {text}.",
            )
        if key not in known:
            raise InputError(
                f"metier iv has no setting {key!r}",
                expected="one of " + ", ".join(known),
                got=repr(key),
                next_step=nearest(key, known),
            )
        values[key] = parse_value(text, hints[key], key=key)
    return replace(IVSettings(), **values)


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
