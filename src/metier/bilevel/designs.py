"""Simulated instrumental-variable designs with known gradients: the grid on which warnings are scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Lasso, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor

from metier.core.parallel import map_tasks
from metier.core.rng import derive, derive_seed

from .arrays import Floats
from .estimate import HypergradientEstimate
from .losses import Squared
from .obigrad import OBiGrad
from .problem import BilevelProblem
from .sieve import SieveRidge
from .targets import AffineTarget

ROOT = 2.0
PROBLEM = BilevelProblem(Squared(AffineTarget(None, "T")), Squared("Y"))
OFFSET = 0.35
"""Where the gradient is taken: this far from its root, as in the paper's designs."""
COVERAGE = 0.90
"""Intervals of nominal 95 % that cover less often than this deserve a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IVDesign:
    """One cell: T = c f(X) + u, Y = 2 T - u + misspecification g(X) + e / 2, X standard normal in R^dim.

    f and g have unit variance and correlation 1/2; c^2 / (1 + c^2) is the first-stage R^2.

    Attributes:
        n: Rows.
        dim: Instruments.
        learner: A key of `LEARNERS`.
        strength: First-stage R^2.
        misspecification: Size of the direct effect of the instruments on Y; the target moves to the
            projection.
        shape: f: "linear", "quadratic", "sine" or "interaction".

    Example:
        >>> IVDesign(n=200, dim=3, learner="ridge", strength=0.5, misspecification=1.0, shape="linear").root
        2.5
    """

    n: int
    dim: int
    learner: str
    strength: float
    misspecification: float
    shape: str

    @property
    def slope(self) -> float:
        """c."""
        return float(np.sqrt(self.strength / (1.0 - self.strength)))

    @property
    def root(self) -> float:
        """Root of the population hypergradient: E[j m] / E[j^2]."""
        return ROOT + self.misspecification * 0.5 / self.slope

    @property
    def gradient(self) -> float:
        """The population hypergradient at the root plus `OFFSET`: E[j^2] times the offset."""
        return OFFSET * self.slope**2

    def draw(self, rng: np.random.Generator) -> tuple[Floats, dict[str, Floats]]:
        """Return X (n, dim) and the columns T and Y."""
        X = rng.normal(size=(self.n, self.dim))
        u, e = rng.normal(size=self.n), rng.normal(size=self.n)
        f = SHAPES[self.shape](X)
        g = 0.5 * f + np.sqrt(0.75) * X[:, 2]
        T = self.slope * f + u
        return X, {"T": T, "Y": ROOT * T - u + self.misspecification * g + 0.5 * e}


def _linear(X: Floats) -> Floats:
    return X[:, 0]


def _quadratic(X: Floats) -> Floats:
    return np.asarray((X[:, 0] + 0.5 * (X[:, 1] ** 2 - 1.0)) / np.sqrt(1.5))


def _sine(X: Floats) -> Floats:
    return np.asarray(np.sin(1.5 * X[:, 0]) / np.sqrt((1.0 - np.exp(-4.5)) / 2.0))


def _interaction(X: Floats) -> Floats:
    return np.asarray(X[:, 0] * (1.0 + X[:, 1]) / np.sqrt(2.0))


SHAPES = {"linear": _linear, "quadratic": _quadratic, "sine": _sine, "interaction": _interaction}


class TheoryLasso(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Lasso with alpha = sd(y) sqrt(2 log p / n) / 2, from the training rows.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> TheoryLasso().fit(X, X[:, 0]).predict(X).shape
        (50,)
    """

    def fit(self, X: Any, y: Any) -> TheoryLasso:
        """Fit on X (n, p) and y (n,)."""
        alpha = 0.5 * float(np.std(y)) * np.sqrt(2.0 * np.log(X.shape[1]) / len(y))
        self.model_ = Lasso(alpha=alpha).fit(X, y)
        return self

    def predict(self, X: Any) -> Floats:
        """Predict (n,)."""
        return np.asarray(self.model_.predict(X))


def _squares(X: Floats) -> Floats:
    return np.concatenate([X, X**2], axis=1)


LEARNERS = {
    "ridge": lambda: SieveRidge(penalty=1.0),
    "squares": lambda: SieveRidge(_squares),
    "shrunk": lambda: Ridge(500.0),
    "lasso": TheoryLasso,
    "nearest": lambda: KNeighborsRegressor(1),
    "neighbors": lambda: KNeighborsRegressor(15),
    "tree": lambda: DecisionTreeRegressor(min_samples_leaf=5, random_state=0),
}


def design_grid(*, shapes: tuple[str, ...], sizes: tuple[int, ...] = (200, 800)) -> list[IVDesign]:
    """Return every combination of size, dimension, learner, strength and misspecification.

    Example:
        >>> len(design_grid(shapes=("linear",)))
        168
    """
    axes = product(sizes, (3, 20), LEARNERS, (0.02, 0.2, 0.6), (0.0, 1.0), shapes)
    return [
        IVDesign(n=n, dim=p, learner=learner, strength=strength, misspecification=m, shape=shape)
        for n, p, learner, strength, m, shape in axes
    ]


def fit_design(design: IVDesign, *, seed: int, replicate: int) -> HypergradientEstimate:
    """Draw one replicate and return its gradient, with the warnings a user would see."""
    rng = derive(seed, "design", str(design), replicate)
    X, Z = design.draw(rng)
    learner: Any = LEARNERS[design.learner]()  # type: ignore[no-untyped-call]
    folds = derive_seed(seed, "folds", str(design), replicate)
    return OBiGrad(PROBLEM, learner=learner, rng=folds).fit(X, Z).hypergradient([design.root + OFFSET])


@dataclass(frozen=True, slots=True)
class CellScore:
    """Coverage of a cell's gradient intervals, and the share of its replicates with a warning.

    Attributes:
        design: The cell.
        coverage: Share of replicates whose 95 % interval holds the gradient.
        warned: Share of replicates with a warning.
        replicates: Their number.
    """

    design: IVDesign
    coverage: float
    warned: float
    replicates: int


def score_cell(design: IVDesign, *, replicates: int, seed: int = 0) -> CellScore:
    """Run a cell's replicates."""
    covered, warned = [], []
    for r in range(replicates):
        estimate = fit_design(design, seed=seed, replicate=r)
        low, high = estimate.interval(0.95)[0]
        covered.append(bool(low <= design.gradient <= high))
        warned.append(bool(estimate.warnings))
    return CellScore(design, float(np.mean(covered)), float(np.mean(warned)), replicates)


@dataclass(frozen=True, slots=True)
class WarningScore:
    """How warnings and coverage agree over cells; a cell is warned if most of its replicates are.

    Attributes:
        sensitivity: Share of warned cells among those that cover below 0.90.
        false_alarms: Share of warned cells among the others.
        n_low: Cells that cover below 0.90.
        n_other: The others.
        cells: Every cell.
    """

    sensitivity: float
    false_alarms: float
    n_low: int
    n_other: int
    cells: tuple[CellScore, ...]


def score_warnings(
    designs: list[IVDesign], *, replicates: int, seed: int = 0, backend: str = "serial"
) -> WarningScore:
    """Score the warnings of `OBiGrad.hypergradient` on a grid of designs.

    Args:
        designs: Cells, e.g. from `design_grid`.
        replicates: Replicates per cell; 200 put the standard error of a coverage of 0.9 at 0.02.
        seed: Seed of all draws.
        backend: As in `metier.core.map_tasks`.

    Example:
        >>> easy = IVDesign(n=200, dim=3, learner="ridge", strength=0.6, misspecification=0.0, shape="linear")
        >>> score_warnings([easy], replicates=5).false_alarms
        0.0
    """
    cells = map_tasks(partial(score_cell, replicates=replicates, seed=seed), designs, backend=backend)
    return summarize(cells)


def summarize(cells: list[CellScore]) -> WarningScore:
    """Return the shares over scored cells."""
    low = [cell for cell in cells if cell.coverage < COVERAGE]
    other = [cell for cell in cells if cell.coverage >= COVERAGE]
    return WarningScore(_share(low), _share(other), len(low), len(other), tuple(cells))


def _share(cells: list[CellScore]) -> float:
    return float(np.mean([cell.warned > 0.5 for cell in cells])) if cells else float("nan")


def rows_of_cells(cells: tuple[CellScore, ...]) -> Iterator[dict[str, Any]]:
    """Yield one plain row per cell, for tables and records."""
    for cell in cells:
        names = ("n", "dim", "learner", "strength", "misspecification", "shape")
        yield {
            **{name: getattr(cell.design, name) for name in names},
            "coverage": cell.coverage,
            "warned": cell.warned,
            "replicates": cell.replicates,
        }
