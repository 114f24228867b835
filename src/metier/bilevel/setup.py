"""What an estimate is computed from, checked once: the problem, its data, and how nuisances are fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from metier.core.checks import ensure, finite_array, label_codes, positive_int
from metier.core.errors import InputError
from metier.core.rng import derive_seed

from .arrays import Codes, Floats, Rows, two_dimensional
from .loss_families import Squared
from .losses import Loss, TorchLoss
from .sieve import SieveRidge, is_tuned
from .targets import AffineTarget, ColumnTarget, as_target

NUISANCES = ("h", "adjoint", "jacobian", "adjoint_jacobian", "residual", "outcome")


@dataclass(frozen=True, slots=True)
class BilevelProblem:
    """F(w) = E[l_out(w, h_w(X), Z)] with h_w(x) = argmin_v E[l_in(w, v, Z) | X = x].

    Args:
        inner_loss: l_in: a `Loss`, or a torch function of one row (w, v, row) -> scalar.
        outer_loss: l_out: the same.
        n_outputs: q, the length of v; None asks the inner loss.

    Raises:
        InputError: A loss is neither.

    Example:
        >>> from metier.bilevel import AffineTarget, Squared
        >>> problem = BilevelProblem(Squared(AffineTarget(None, "T")), Squared("Y"))
        >>> problem.is_quadratic, problem.is_affine
        (True, True)

    Source: the paper, equation (1), for squared losses; general pointwise losses are ours.
    """

    inner_loss: Loss
    outer_loss: Loss
    n_outputs: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("inner_loss", "outer_loss"):
            object.__setattr__(self, name, _as_loss(name, getattr(self, name)))
        if self.n_outputs is not None:
            positive_int("n_outputs", self.n_outputs)

    @property
    def is_quadratic(self) -> bool:
        """Whether both losses are squared and the outer target does not move with w."""
        inner, outer = self.inner_loss, self.outer_loss
        return (
            isinstance(inner, Squared)
            and isinstance(outer, Squared)
            and inner.weight is None
            and outer.weight is None
            and isinstance(as_target(outer.target), ColumnTarget)
            and self.n_outputs in (None, 1)
        )

    @property
    def is_affine(self) -> bool:
        """Whether it is quadratic and the inner target is an `AffineTarget`."""
        target = getattr(self.inner_loss, "target", None)
        return self.is_quadratic and isinstance(target, AffineTarget)

    def outputs(self, rows: Rows) -> int:
        """Return q."""
        return self.inner_loss.n_outputs(rows) if self.n_outputs is None else self.n_outputs

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the chosen losses cost."""
        if self.inner_loss.smooth:
            return ()
        return (
            "the inner loss has kinks: its third derivative misses them, so the score is orthogonal in h "
            "only up to the density of residuals at the kinks; LogCosh is the smooth choice",
        )


def _as_loss(name: str, loss: Loss | Callable[..., Any]) -> Loss:
    if isinstance(loss, Loss):
        return loss
    if callable(loss):
        return TorchLoss(loss)
    raise InputError(
        f"{name} is a loss",
        expected="a Loss such as Squared(...), or a torch function (w, v, row) -> scalar",
        got=type(loss).__name__,
        next_step="See metier.bilevel.Squared, Logistic, CustomLoss.",
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of one sample: covariates as the learners get them, and named columns as the losses get them."""

    X: Any
    rows: dict[str, NDArray[Any]]
    weights: Floats | None
    clusters: Codes | None

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.rows["X"])

    @property
    def relative_weights(self) -> Floats:
        """Weights of mean 1, (n,)."""
        return np.ones(self.n) if self.weights is None else self.weights / self.weights.mean()

    def weighted(self, columns: Floats) -> Floats:
        """Return columns (n, d) times the weights of mean 1."""
        return columns if self.weights is None else columns * self.relative_weights[:, None]

    def weights_of(self, index: Any) -> Floats | None:
        """Return the weights of some rows."""
        return None if self.weights is None else self.weights[index]


def check_sample(X: Any, Z: Mapping[str, Any], *, weights: Any = None, groups: Any = None) -> Sample:
    """Return a checked sample.

    Raises:
        InputError: Wrong lengths, NaN, covariates without variation, weights that are not positive.
    """
    covariates, numbers = _covariates(X)
    n = len(numbers)
    rows: dict[str, NDArray[Any]] = {"X": numbers}
    for name, values in Z.items():
        rows[name] = finite_array(f"Z[{name!r}]", values)
        _check_length(f"Z[{name!r}]", len(rows[name]) if rows[name].ndim else -1, n)
    om = None if weights is None else finite_array("weights", weights, ndim=1)
    if om is not None:
        _check_length("weights", om.size, n)
        ensure(
            (om > 0).all(),
            "weights are positive",
            expected="numbers above 0",
            got=lambda: f"{om.min():g} in row {int(np.argmin(om))}",
            next_step="Drop rows of weight 0 before fitting.",
        )
    clusters = None if groups is None else label_codes("groups", groups)[0]
    if clusters is not None:
        _check_length("groups", clusters.size, n)
    return Sample(covariates, rows, om, clusters)


def _covariates(X: Any) -> tuple[Any, NDArray[Any]]:
    """Return what learners get (frames with text stay frames) and an array for the losses."""
    if hasattr(X, "iloc") and not all(
        np.issubdtype(t, np.number) or t == np.bool_ for t in X.dtypes if isinstance(t, np.dtype)
    ):
        return X, np.asarray(X)
    numbers = two_dimensional(finite_array("X", X.to_numpy() if hasattr(X, "to_numpy") else X))
    ensure(
        numbers.ndim == 2 and 0 not in numbers.shape,
        "X is a table of covariates",
        expected="rows and at least one column",
        got=f"shape {numbers.shape}",
        next_step="Pass X as (n, p).",
    )
    ensure(
        len(numbers) == 1 or not (numbers == numbers[0]).all(),
        "the inner problem needs covariates (instruments) that vary",
        expected="at least one column of X with two values",
        got=f"{numbers.shape[1]} constant column(s)",
        next_step="Pass the instruments or states as X.",
    )
    return numbers, numbers


def _check_length(name: str, got: int, n: int) -> None:
    ensure(
        got == n,
        f"{name} has one entry per row of X",
        expected=f"{n} rows",
        got="a single number" if got < 0 else got,
        next_step="Pass data of the same rows, in the same order.",
    )


def check_outer_sample(outer: Mapping[str, Any]) -> Sample:
    """Return the outer sample from a dict of "X", columns, and optionally "weights" and "groups"."""
    ensure(
        "X" in outer,
        "the outer sample has covariates",
        expected='a dict with "X" and the columns of the outer loss',
        got=", ".join(map(str, outer)) or "an empty dict",
        next_step='Pass outer={"X": X_outer, "Y": y_outer}.',
    )
    columns = {name: values for name, values in outer.items() if name not in ("X", "weights", "groups")}
    return check_sample(outer["X"], columns, weights=outer.get("weights"), groups=outer.get("groups"))


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
    given = learner if isinstance(learner, Mapping) else dict.fromkeys(NUISANCES, learner)
    _check_names(given, "learner")
    default = SieveRidge()
    filled = {name: default if given.get(name) is None else given[name] for name in NUISANCES}
    for name, one in filled.items():
        ensure(
            hasattr(one, "fit") or hasattr(one, "fit_risk"),
            f"the learner of nuisance {name!r} is a regressor",
            expected="an object with fit and predict, as in scikit-learn",
            got=type(one).__name__,
            next_step="Pass an instance, such as RandomForestRegressor().",
        )
        # Checks the penalty, too.
        is_tuned(one)
    # One copy per learner, because nuisances of the same object share their fits.
    copies = {id(one): seeded(one, seed) for one in filled.values()}
    return {name: copies[id(one)] for name, one in filled.items()}


def _check_names(names: Mapping[str, Any], what: str) -> None:
    for name in names:
        ensure(
            name in NUISANCES,
            f"{what} goes by the names of nuisances",
            expected=" | ".join(NUISANCES),
            got=repr(name),
            next_step="Rename the key.",
        )


class External:
    """Predictions that come from outside: arrays, or functions of (w, X)."""

    def __init__(self, predictions: Mapping[str, Any] | None, X: Any) -> None:
        self.given = dict(predictions or {})
        _check_names(self.given, "external_predictions")
        self.X = X

    def __contains__(self, name: str) -> bool:
        return name in self.given

    def __bool__(self) -> bool:
        return bool(self.given)

    def at(self, name: str, w: Floats, shape: tuple[int, ...]) -> Floats:
        """Return the prediction of a nuisance at w in a shape."""
        given = self.given[name]
        values = np.asarray(given(w, self.X) if callable(given) else given, dtype=np.float64)
        ensure(
            values.size == np.prod(shape) and len(values) == shape[0],
            f"external prediction of {name!r}",
            expected=f"shape {shape}",
            got=values.shape,
            next_step="Predict every row out of fold, in the order of X.",
        )
        ensure(
            np.isfinite(values).all(),
            f"external prediction of {name!r} is finite",
            expected="no NaN and no infinity",
            got=lambda: f"{int((~np.isfinite(values)).sum())} such values",
            next_step="Predict every row out of fold.",
        )
        return values.reshape(shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A checked problem with its data and the way its nuisances are fitted; see `OBiGrad` for the choices.

    Attributes:
        problem: The problem.
        sample: The inner sample.
        outer: The outer sample, where it is another one.
        learner: The learner as the user passed it.
        learners: A learner with fixed random states for every nuisance.
        external: Predictions from outside.
        folds: Number of folds, or the fold of every row.
        generator: Draws the folds.
        seed: Seed of all draws within a fold.
        estimator, repeats, residual, inner_class, nested, diagnose, backend: As in `OBiGrad`.
    """

    problem: BilevelProblem
    sample: Sample
    outer: Sample | None
    learner: Any
    learners: dict[str, Any]
    external: External
    folds: Any
    generator: np.random.Generator
    seed: int
    estimator: str
    repeats: int
    residual: str
    inner_class: str
    nested: bool
    diagnose: bool
    backend: str

    @property
    def is_scalar(self) -> bool:
        """Whether both losses are squared and h has one value per row."""
        return self.problem.is_quadratic and self.problem.outputs(self.sample.rows) == 1

    @property
    def is_quadratic(self) -> bool:
        """Whether two regressions make the score: squared losses of one sample."""
        return self.is_scalar and self.outer is None and "adjoint" not in self.external

    @property
    def is_restricted(self) -> bool:
        """Whether the sieve itself is the class of inner solutions."""
        return self.inner_class == "restricted"
