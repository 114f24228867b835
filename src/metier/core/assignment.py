"""Who does what: items assigned to specialists, hard or soft, and how divided the work is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import as_array, positive_int, simplex_rows
from .errors import InputError
from .nats import entropy

_ROWS = 65_536


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Assignment:
    """Items assigned to specialists; built by `from_labels` (hard) or `from_weights` (soft).

    With w_i the probability vector of item i over K specialists and H the entropy in nats:
    load = mean_i w_i, breadth = H(load), indecision = mean_i H(w_i), information = breadth - indecision.

    Attributes:
        n_items: Number of items.
        n_specialists: Number of specialists K; some may serve no item.

    Example:
        >>> a = Assignment.from_labels([0, 0, 1, 1])
        >>> a.load.tolist(), round(a.information, 4)
        ([0.5, 0.5], 0.6931)
        >>> a
        Assignment(4 items to 2 specialists, hard: breadth 0.693, indecision 0, information 0.693 nats)
    """

    n_specialists: int
    _labels: NDArray[np.int32] | None
    _weights: NDArray[np.floating[Any]] | None

    @classmethod
    def from_labels(cls, labels: ArrayLike, n_specialists: int | None = None) -> Assignment:
        """Assign each item to one specialist.

        Args:
            labels: Specialist of each item, integers 0..K-1, shape (items,).
            n_specialists: K; by default the largest label plus one.

        Returns:
            A hard assignment that stores one integer per item.

        Raises:
            InputError: A label is no integer, is negative, or is K or more; or there is no item.

        Example:
            >>> Assignment.from_labels([0, 2], n_specialists=4).load.tolist()
            [0.5, 0.0, 0.5, 0.0]
        """
        codes = _integer_labels(labels)
        largest = int(codes.max())
        K = largest + 1 if n_specialists is None else positive_int("n_specialists", n_specialists)
        if largest >= K:
            raise InputError(
                "labels number the specialists from 0",
                expected=f"labels below n_specialists={K}",
                got=f"{largest} for item {int(codes.argmax())}",
                next_step="Raise n_specialists or renumber the labels.",
            )
        return cls(K, _frozen(codes.astype(np.int32)), None)

    @classmethod
    def from_weights(cls, W: ArrayLike) -> Assignment:
        """Assign each item to the specialists by weight.

        Args:
            W: Weights, shape (items, specialists); each row is at least 0 and sums to 1 within 1e-6.
                Rows are not rescaled. float32 stays float32.

        Returns:
            A soft assignment with its own copy of the weights.

        Raises:
            InputError: A row is no probability vector; the message names it.

        Example:
            >>> a = Assignment.from_weights([[0.5, 0.5], [1.0, 0.0]])
            >>> a.labels.tolist(), a.load.tolist()
            ([0, 0], [0.75, 0.25])
        """
        weights = simplex_rows("the weights", W)
        return cls(weights.shape[1], None, _frozen(weights.copy()))

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self._weights if self._labels is None else self._labels)  # type: ignore[arg-type]

    @property
    def is_hard(self) -> bool:
        """Whether the assignment was built from labels."""
        return self._labels is not None

    @property
    def labels(self) -> NDArray[np.int32]:
        """Specialist of the largest weight per item, shape (items,); the lowest index wins ties."""
        if self._labels is not None:
            return self._labels
        return _frozen(np.argmax(self._soft, axis=1).astype(np.int32))

    @property
    def weights(self) -> NDArray[np.floating[Any]]:
        """Weights, shape (items, specialists); a hard assignment builds them on each call."""
        if self._labels is None:
            return self._soft
        dense = np.zeros((self.n_items, self.n_specialists))
        dense[np.arange(self.n_items), self._labels] = 1.0
        return _frozen(dense)

    @property
    def load(self) -> NDArray[np.float64]:
        """Mean weight of each specialist, shape (specialists,)."""
        if self._labels is not None:
            return np.bincount(self._labels, minlength=self.n_specialists) / self.n_items
        return np.asarray(self._soft.sum(axis=0, dtype=np.float64) / self.n_items)

    @property
    def breadth(self) -> float:
        """Entropy of the load in nats: how broadly the specialists are used."""
        return _nats(self.load)

    @property
    def indecision(self) -> float:
        """Mean entropy of the items' weights in nats: how undecided the assignment is."""
        if self._labels is not None:
            return 0.0
        starts = range(0, self.n_items, _ROWS)  # blocks keep the temporary float64 copy small
        return sum(_nats(self._soft[start : start + _ROWS]) for start in starts) / self.n_items

    @property
    def information(self) -> float:
        """Breadth minus indecision in nats: what the item tells about its specialist; never negative."""
        return max(0.0, self.breadth - self.indecision)

    def relabel(self, perm: ArrayLike) -> Assignment:
        """Renumber the specialists: old specialist k becomes `perm[k]`.

        Args:
            perm: A permutation of 0..K-1.

        Returns:
            A new assignment.

        Raises:
            InputError: `perm` is no permutation.

        Example:
            >>> Assignment.from_labels([0, 1, 2]).relabel([2, 0, 1]).labels.tolist()
            [2, 0, 1]
        """
        new = self._new_numbers(perm, "perm")
        if not np.array_equal(np.sort(new), np.arange(self.n_specialists)):
            raise InputError(
                "perm renumbers the specialists one to one",
                expected=f"each of 0..{self.n_specialists - 1} once",
                got=new.tolist(),
                next_step="Use merge() to join specialists.",
            )
        return self.merge(new)

    def merge(self, groups: ArrayLike) -> Assignment:
        """Join specialists: old specialist k becomes part of new specialist `groups[k]`.

        Args:
            groups: New number of each old specialist, shape (K,); every number 0..max is used.

        Returns:
            A new assignment; its information is never larger.

        Raises:
            InputError: Wrong length, a negative number, or a number that is left out.

        Example:
            >>> Assignment.from_labels([0, 1, 2, 2]).merge([0, 0, 1]).load.tolist()
            [0.5, 0.5]
        """
        new = self._new_numbers(groups, "groups")
        K = int(new.max()) + 1
        if (unused := np.setdiff1d(np.arange(K), new)).size:
            raise InputError(
                "groups number the new specialists from 0 without a gap",
                expected=f"every number 0..{K - 1}",
                got=f"no old specialist for {unused.tolist()}",
                next_step="Renumber the groups.",
            )
        if self._labels is not None:
            return Assignment(K, _frozen(new.astype(np.int32)[self._labels]), None)
        weights = np.zeros((self.n_items, K), dtype=self._soft.dtype)
        for old, k in enumerate(new):
            weights[:, k] += self._soft[:, old]
        return Assignment(K, None, _frozen(weights))

    def _new_numbers(self, numbers: ArrayLike, name: str) -> NDArray[np.int64]:
        new = _integer_labels(numbers, name)
        if new.size == self.n_specialists:
            return new
        raise InputError(
            f"{name} gives every specialist a new number",
            expected=f"{self.n_specialists} numbers",
            got=f"{new.size}",
            next_step=f"Pass one number per specialist as {name}.",
        )

    @property
    def _soft(self) -> NDArray[np.floating[Any]]:
        if self._weights is None:
            raise AttributeError("a hard assignment stores no weights")
        return self._weights

    def __repr__(self) -> str:
        kind = "hard" if self.is_hard else "soft"
        return (
            f"Assignment({self.n_items} items to {self.n_specialists} specialists, {kind}: breadth "
            f"{self.breadth:.3g}, indecision {self.indecision:.3g}, information {self.information:.3g} nats)"
        )


def _nats(rows: NDArray[np.floating[Any]]) -> float:
    return float(entropy(rows, axis=None, check=False))


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


def _integer_labels(labels: ArrayLike, name: str = "labels") -> NDArray[np.int64]:
    array = as_array(name, labels)
    if array.ndim != 1 or array.size == 0:
        got = f"shape {array.shape}"
    elif array.dtype.kind not in "iu":
        got = f"values of type {array.dtype}"
    elif array.min() < 0:
        got = f"{array.min()} at index {int(array.argmin())}"
    else:
        return array.astype(np.int64, copy=False)
    raise InputError(
        f"{name} number the specialists from 0",
        expected="a non-empty flat list of integers of at least 0",
        got=got,
        next_step=f"Code the {name} first, e.g. by numpy.unique(..., return_inverse=True)[1].",
    )
