"""Who learned what: overlaps of student and teacher units, matched one to one; their spread over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core.assignment import Assignment
from metier.core.checks import ensure, finite_array, positive_int
from metier.core.errors import InputError
from metier.core.rng import as_generator


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, standard deviation over seeds, standard error of the mean, and how many seeds.

    Example:
        >>> print(spread(np.array([1.0, 2.0, 3.0])))
        2.000 (sd 1.000, se 0.577, 3 seeds)
    """

    mean: float
    sd: float
    stderr: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} (sd {self.sd:.3f}, se {self.stderr:.3f}, {self.n} seeds)"


def spread(values: NDArray[np.float64]) -> Spread:
    """Return the mean of one number per seed with its finite-size spread; nan spread for a single seed."""
    n = int(values.size)
    sd = float(np.std(values, ddof=1)) if n > 1 else math.nan
    return Spread(float(np.mean(values)), sd, sd / math.sqrt(n), n)


Floats = NDArray[np.float64]


ROTATIONS = 200
ROTATION_SEED = 527


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The specialization index under a null: its mean and its standard deviation over draws."""

    mean: float
    sd: float
    draws: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Specialization:
    """How student units (rows) share teacher directions (columns).

    Args:
        overlaps: M_jk = |cos(student_j, teacher_k)|, shape (n_student, n_teacher).
        matched: the (student, teacher) pairs that maximize the summed overlap (Hungarian method).
        index: mean of M over matched pairs minus its mean over all others: 1 for a perfect student, near 0
            for one that learned nothing.
        span: cosines of an orthonormal basis of the student's span with the teacher's units,
            (rank, n_teacher).
        subspace_error: mean sin^2 of the principal angles between the two spans, over the smaller span.
        assignment: units x directions, weights M_jk^2 / sum_k M_jk^2.
    """

    overlaps: Floats
    matched: tuple[tuple[int, int], ...]
    index: float
    span: Floats
    subspace_error: float
    assignment: Assignment

    @property
    def rotated(self) -> Baseline:
        """The index of random rotations of the student's units within their own span.

        Two units that learned the right span and nothing else have a mean of (4/pi)(sqrt 2 - 1) = 0.527,
        not 0. The draws are fixed, so that equal weights have equal nulls.
        """
        values = [_matched(np.abs(mixing @ self.span))[2] for mixing in self.rotations(ROTATIONS)]
        return Baseline(mean=float(np.mean(values)), sd=float(np.std(values, ddof=1)), draws=ROTATIONS)

    @property
    def rotated_information(self) -> Floats:
        """The information of the assignment for each of those rotations, in nats."""
        squares = [(mixing @ self.span) ** 2 for mixing in self.rotations(ROTATIONS)]
        return np.array([_assignment(found).information for found in squares])

    def rotations(self, draws: int) -> list[Floats]:
        """Unit rows in an orthonormal basis of the span, (n_student, rank) per draw, uniformly rotated."""
        generator, (size, rank) = np.random.default_rng(ROTATION_SEED), (len(self.overlaps), len(self.span))
        drawn = (
            random_rotation(rank, generator) if size == rank else generator.standard_normal((size, rank))
            for _ in range(draws)
        )
        return [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in drawn]

    def summary(self) -> str:
        """Return the two numbers in one line."""
        return (
            f"specialization index {self.index:.3f} (rotations of its span {self.rotated.mean:.3f}), "
            f"subspace error {self.subspace_error:.3f}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return {
            "overlaps": self.overlaps.tolist(),
            "matched": [list(pair) for pair in self.matched],
            "index": self.index,
            "rotated": {"mean": self.rotated.mean, "sd": self.rotated.sd},
            "subspace_error": self.subspace_error,
            "load": self.assignment.load.tolist(),
        }


def specialization(student: ArrayLike, teacher: ArrayLike) -> Specialization:
    """Match student units to teacher directions and say how specialized they are.

    Signs and orders of units do not matter. Usable on any pair of weight matrices, experts' included.

    Args:
        student: (n_student, dimension) weight rows.
        teacher: (n_teacher, dimension) weight rows.

    Returns:
        The overlaps, the matching, the specialization index, the subspace error and the assignment.

    Raises:
        InputError: shapes that do not fit, or a row that is all 0.

    Example:
        >>> teacher = np.eye(3, 10)
        >>> found = specialization(-2 * teacher[[1, 2, 0]], teacher)
        >>> round(found.index, 6), found.matched, abs(round(found.subspace_error, 6))
        (1.0, ((0, 1), (1, 2), (2, 0)), 0.0)

    Source: ours.
    """
    a, b = _rows("student", student), _rows("teacher", teacher)
    ensure(
        a.shape[1] == b.shape[1],
        "student and teacher see the same inputs",
        expected=f"{b.shape[1]} columns, as the teacher has",
        got=f"{a.shape[1]} columns in the student",
        next_step="Transpose one of them.",
    )
    overlaps = np.abs(a @ b.T)
    rows, columns, index = _matched(overlaps)
    return Specialization(
        overlaps=overlaps,
        matched=tuple((int(i), int(k)) for i, k in zip(rows, columns, strict=True)),
        index=index,
        span=np.linalg.qr(a.T)[0].T @ b.T,
        subspace_error=_subspace_error(a, b),
        assignment=_assignment(overlaps**2),
    )


def _assignment(squares: Floats) -> Assignment:
    weights = squares + 1e-300
    return Assignment.from_weights(weights / weights.sum(axis=1, keepdims=True))


def _matched(overlaps: Floats) -> tuple[Any, Any, float]:
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-overlaps)
    mask = np.zeros(overlaps.shape, dtype=bool)
    mask[rows, columns] = True
    rest = float(overlaps[~mask].mean()) if not mask.all() else 0.0
    return rows, columns, float(overlaps[mask].mean()) - rest


def random_rotation(size: int, rng: np.random.Generator) -> Floats:
    """Return an orthogonal matrix (size, size), uniform over all of them."""
    basis, triangle = np.linalg.qr(rng.standard_normal((size, size)))
    return np.asarray(basis * np.sign(np.diag(triangle)))


def _rows(name: str, value: ArrayLike) -> Floats:
    rows = finite_array(name, value, ndim=2)
    norms = np.linalg.norm(rows, axis=1)
    if not rows.size or not (norms > 0).all():
        which = int(np.flatnonzero(norms == 0)[0]) if rows.size else 0
        raise InputError(
            f"each {name} unit has a direction",
            expected="rows that are not all 0",
            got=f"row {which} of norm 0" if rows.size else "no rows",
            next_step="Drop that unit.",
        )
    return np.asarray(rows / norms[:, None])


def _subspace_error(a: Floats, b: Floats) -> float:
    basis_a, basis_b = np.linalg.qr(a.T)[0], np.linalg.qr(b.T)[0]
    cosines = np.linalg.svd(basis_a.T @ basis_b, compute_uv=False)
    return float(np.mean(1.0 - np.clip(cosines, 0.0, 1.0) ** 2))


def random_baseline(
    n_student: int, n_teacher: int, *, dimension: int, draws: int = 200, rng: int | np.random.Generator = 0
) -> Baseline:
    """Return the specialization index of independent random units: matching alone makes it positive.

    Example:
        >>> found = random_baseline(4, 4, dimension=200, draws=50)
        >>> 0.0 < found.mean < 0.1
        True

    Source: ours.
    """
    generator = as_generator(rng)
    count = positive_int("draws", draws, minimum=2)
    values = [
        specialization(
            generator.standard_normal((n_student, dimension)),
            generator.standard_normal((n_teacher, dimension)),
        ).index
        for _ in range(count)
    ]
    return Baseline(mean=float(np.mean(values)), sd=float(np.std(values, ddof=1)), draws=count)


class SpecializedRun:
    """The numbers per seed of a run that holds `specializations`."""

    __slots__ = ()

    specializations: tuple[Specialization, ...]

    @property
    def index(self) -> Floats:
        """Specialization index per seed."""
        return np.array([found.index for found in self.specializations])

    @property
    def excess(self) -> Floats:
        """Index per seed above the mean of random rotations of the same span: telling units apart."""
        return np.array([found.index - found.rotated.mean for found in self.specializations])

    @property
    def subspace_error(self) -> Floats:
        """Subspace error per seed."""
        return np.array([found.subspace_error for found in self.specializations])

    @property
    def recovered(self) -> Floats:
        """1 - subspace error per seed."""
        return 1.0 - self.subspace_error

    @property
    def spread(self) -> Spread:
        """Mean and spread of the index."""
        return spread(self.index)
