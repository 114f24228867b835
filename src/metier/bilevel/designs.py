"""Simulated instrumental-variable designs with known gradients: the grid on which warnings are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Lasso, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor

from metier.core.checks import positive_int
from metier.core.parallel import map_tasks
from metier.core.rng import derive, derive_seed

from .arrays import Floats
from .diagnostics import OPENINGS
from .estimate import HypergradientEstimate
from .loss_families import Squared
from .obigrad import OBiGrad
from .setup import BilevelProblem
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


SHAPES: dict[str, Callable[[Floats], Floats]] = {
    "linear": lambda X: X[:, 0],
    "quadratic": lambda X: (X[:, 0] + 0.5 * (X[:, 1] ** 2 - 1.0)) / np.sqrt(1.5),
    "sine": lambda X: np.sin(1.5 * X[:, 0]) / np.sqrt((1.0 - np.exp(-4.5)) / 2.0),
    "interaction": lambda X: X[:, 0] * (1.0 + X[:, 1]) / np.sqrt(2.0),
}
"""First stages f of unit variance."""


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


def _waves(X: Floats) -> Floats:
    return np.concatenate([X, *(f(k * X) for k in (1.0, 2.0) for f in (np.sin, np.cos))], axis=1)


def _pairs(X: Floats) -> Floats:
    first, second = np.triu_indices(X.shape[1])
    return np.concatenate([X, X[:, first] * X[:, second]], axis=1)


def _right(X: Floats) -> Floats:
    """Columns that span every regression of the grid."""
    return np.column_stack([X, *(shape(X) for name, shape in SHAPES.items() if name != "linear")])


LEARNERS = {
    "right": lambda: SieveRidge(_right, penalty=1.0),
    "ridge": lambda: SieveRidge(penalty=1.0),
    "squares": lambda: SieveRidge(_squares),
    "waves": lambda: SieveRidge(_waves, penalty=1.0),
    "pairs": lambda: SieveRidge(_pairs, penalty=1.0),
    "tuned": lambda: SieveRidge(_pairs),
    "shrunk": lambda: Ridge(500.0),
    "lasso": TheoryLasso,
    "nearest": lambda: KNeighborsRegressor(1),
    "neighbors": lambda: KNeighborsRegressor(15),
    "tree": lambda: DecisionTreeRegressor(min_samples_leaf=20, random_state=0),
}


SUITS = {
    "linear": ("right", "ridge", "squares", "waves", "pairs", "tuned", "lasso"),
    "quadratic": ("right", "squares", "pairs", "tuned"),
    "sine": ("right", "waves"),
    "interaction": ("right", "pairs", "tuned"),
}
"""Learners whose columns come near the first stage of a shape."""


def design_grid(
    *,
    shapes: tuple[str, ...],
    sizes: tuple[int, ...],
    strengths: tuple[float, ...],
    cells: int | None = None,
    seed: int = 0,
    suited: bool = False,
) -> list[IVDesign]:
    """Return combinations of size, dimension (3 or 10), learner, strength and misspecification (0 or 1).

    Args:
        shapes: Keys of `SHAPES`.
        sizes: Rows.
        strengths: First-stage R^2s.
        cells: How many combinations to draw; None for all.
        seed: Seed of the draw.
        suited: Keep the learners that suit the shape (`SUITS`).

    Example:
        >>> axes = {"shapes": ("linear",), "sizes": (200, 800), "strengths": (0.1, 0.5)}
        >>> len(design_grid(**axes)), len(design_grid(**axes, cells=7)), len(design_grid(**axes, suited=True))
        (176, 7, 112)
    """
    axes = product(sizes, (3, 10), LEARNERS, strengths, (0.0, 1.0), shapes)
    grid = [
        IVDesign(n=n, dim=p, learner=learner, strength=strength, misspecification=m, shape=shape)
        for n, p, learner, strength, m, shape in axes
        if not suited or learner in SUITS[shape]
    ]
    if cells is None:
        return grid
    drawn = derive(seed, "cells").permutation(len(grid))[: positive_int("cells", cells)]
    return [grid[k] for k in np.sort(drawn)]


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
        expected: Median of the coverage that the diagnostics expect.
        kinds: Share of its replicates with each warning of `cautions.OPENINGS`.
    """

    design: IVDesign
    coverage: float
    warned: float
    replicates: int
    expected: float = float("nan")
    kinds: dict[str, float] = field(default_factory=dict)

    @property
    def side(self) -> str:
        """ "below", "above" or "straddles": where Wilson's 95 % interval of the coverage lies about 0.90."""
        low, high = wilson(self.coverage, self.replicates)
        return "below" if high < COVERAGE else "above" if low >= COVERAGE else "straddles"

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 0.90 out."""
        return self.side != "straddles"


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of n.

    Example:
        >>> [round(end, 3) for end in wilson(0.9, 200)]
        [0.851, 0.934]
    """
    z = 1.959964
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return float(center - half), float(center + half)


def score_cell(
    design: IVDesign, *, replicates: int, seed: int = 0, look_every: int | None = None
) -> CellScore:
    """Run a cell's replicates; with `look_every`, stop where its side of 0.90 is clear.

    Args:
        design: The cell.
        replicates: Most replicates.
        seed: Seed of all draws.
        look_every: After so many replicates at a time, stop if Wilson's 95 % interval of the coverage leaves
            0.90 out; None runs all.

    Example:
        >>> failing = IVDesign(
        ...     n=200, dim=3, learner="nearest", strength=0.1, misspecification=0.0, shape="linear"
        ... )
        >>> score_cell(failing, replicates=40, look_every=10).replicates
        10
    """
    covered: list[bool] = []
    estimates: list[HypergradientEstimate] = []
    for r in range(replicates):
        estimate = fit_design(design, seed=seed, replicate=r)
        low, high = estimate.interval(0.95)[0]
        covered.append(bool(low <= design.gradient <= high))
        estimates.append(estimate)
        if look_every and len(covered) % look_every == 0 and _score(design, covered, estimates).is_clear:
            break
    return _score(design, covered, estimates)


def _score(
    design: IVDesign, covered: Sequence[bool], estimates: Sequence[HypergradientEstimate]
) -> CellScore:
    kinds = {
        kind: float(np.mean([any(text.startswith(start) for text in e.warnings) for e in estimates]))
        for kind, start in OPENINGS.items()
    }
    return CellScore(
        design,
        coverage=float(np.mean(covered)),
        warned=float(np.mean([bool(e.warnings) for e in estimates])),
        replicates=len(covered),
        expected=float(np.nanmedian([e.diagnostics.expected_coverage[0] for e in estimates])),
        kinds=kinds,
    )


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


def summarize(cells: Sequence[CellScore]) -> WarningScore:
    """Return the shares over scored cells."""
    low = [cell for cell in cells if cell.coverage < COVERAGE]
    other = [cell for cell in cells if cell.coverage >= COVERAGE]
    return WarningScore(_share(low), _share(other), len(low), len(other), tuple(cells))


def _share(cells: list[CellScore]) -> float:
    return float(np.mean([cell.warned > 0.5 for cell in cells])) if cells else float("nan")
