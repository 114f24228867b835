"""Learners and external predictions by nuisance name, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import clone

from metier.core.errors import InputError
from metier.core.rng import derive_seed

from .arrays import Floats
from .sieve import SieveRidge, checked_penalty

NUISANCES = ("h", "adjoint", "jacobian", "adjoint_jacobian", "residual", "outcome")


def seeded(learner: Any, seed: int) -> Any:
    """Return the learner, or a copy whose free random states are fixed: refits must not draw anew.

    Example:
        >>> from sklearn.tree import DecisionTreeRegressor
        >>> seeded(DecisionTreeRegressor(), 3).random_state == seeded(DecisionTreeRegressor(), 3).random_state
        True
    """
    free = _free_states(learner)
    if not free:
        return learner
    # scikit-learn takes 32 bits.
    return clone(learner).set_params(**{k: derive_seed(seed, "learner", k) % 2**32 for k in free})


def _free_states(learner: Any) -> list[str]:
    """Names of the random states that nobody has fixed."""
    params = learner.get_params(deep=True) if hasattr(learner, "get_params") else {}
    return [k for k, value in params.items() if value is None and k.rpartition("__")[2] == "random_state"]


def draws(learner: Any) -> bool:
    """Whether a learner, or one of a dict of learners, draws from a random state that nobody has fixed.

    Example:
        >>> from sklearn.tree import DecisionTreeRegressor
        >>> draws({"h": DecisionTreeRegressor()}), draws(DecisionTreeRegressor(random_state=0)), draws(None)
        (True, False, False)
    """
    learners = learner.values() if isinstance(learner, Mapping) else [learner]
    return any(_free_states(one) for one in learners)


def learners_by_nuisance(learner: Any, *, seed: int = 0) -> dict[str, Any]:
    """Return a learner for every nuisance: one for all, or a dict whose gaps a tuned `SieveRidge` fills."""
    if isinstance(learner, Mapping):
        _known(learner, "learner")
        chosen = {name: learner.get(name) for name in NUISANCES}
    else:
        chosen = dict.fromkeys(NUISANCES, learner)
    default = SieveRidge()
    filled = {name: default if one is None else one for name, one in chosen.items()}
    for name, one in filled.items():
        if not (hasattr(one, "fit") or hasattr(one, "fit_risk")):
            raise InputError(
                f"the learner of nuisance {name!r} is a regressor",
                expected="an object with fit and predict, as in scikit-learn",
                got=type(one).__name__,
                next_step="Pass an instance, such as RandomForestRegressor().",
            )
        if isinstance(one, SieveRidge):
            checked_penalty(one.penalty)
    # One copy per learner, because nuisances of the same object share their fits.
    copies = {id(one): seeded(one, seed) for one in filled.values()}
    return {name: copies[id(one)] for name, one in filled.items()}


def _known(names: Mapping[str, Any], what: str) -> None:
    for name in names:
        if name not in NUISANCES:
            raise InputError(
                f"{what} goes by the names of nuisances",
                expected=" | ".join(NUISANCES),
                got=repr(name),
                next_step="Rename the key.",
            )


class External:
    """Predictions that come from outside: arrays, or functions of (w, X)."""

    def __init__(self, predictions: Mapping[str, Any] | None, X: Any) -> None:
        self.given = dict(predictions or {})
        _known(self.given, "external_predictions")
        self.X = X

    def __contains__(self, name: str) -> bool:
        return name in self.given

    def __bool__(self) -> bool:
        return bool(self.given)

    def moves(self, name: str) -> bool:
        """Whether the prediction is a function of w."""
        return callable(self.given[name])

    def at(self, name: str, w: Floats, shape: tuple[int, ...]) -> Floats:
        """Return the prediction of a nuisance at w in a shape."""
        given = self.given[name]
        values = np.asarray(given(w, self.X) if callable(given) else given, dtype=np.float64)
        if values.size != np.prod(shape) or len(values) != shape[0]:
            raise InputError(
                f"external prediction of {name!r}",
                expected=f"shape {shape}",
                got=f"{values.shape}",
                next_step="Predict every row out of fold, in the order of X.",
            )
        if not np.isfinite(values).all():
            raise InputError(
                f"external prediction of {name!r} is finite",
                expected="no NaN and no infinity",
                got=f"{int((~np.isfinite(values)).sum())} such values",
                next_step="Predict every row out of fold.",
            )
        return values.reshape(shape)
