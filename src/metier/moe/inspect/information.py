"""How much experts tell about classes, with the null that chance sets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from metier.core.checks import finite_array
from metier.core.mutual_information import InformationResult, information


def class_information(
    coefficients: Tensor | ArrayLike,
    classes: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    permutations: int = 199,
    rng: int = 0,
) -> InformationResult:
    """Return the information in nats between classes and experts, with its permutation null.

    Args:
        coefficients: Gate values (n, N), rows summing to 1.
        classes: Class of each row, (n,).
        groups: Independent unit of each row (document, image), within which the class is constant.
        permutations: Number of permutations of the null.
        rng: Seed.

    Returns:
        The information with its null: with many experts chance alone gives a positive value.

    Example:
        >>> a = np.eye(2)[[0, 1] * 20]
        >>> round(class_information(a, ["cat", "dog"] * 20).value, 4)
        0.6931

    Source: `metier.information`; its use for experts is ours.
    """
    values: Any = (
        coefficients.detach().cpu().double().numpy() if isinstance(coefficients, Tensor) else coefficients
    )
    weights = finite_array("coefficients", values, ndim=2)
    # Half-precision gates sum to 1 only to three digits.
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return information(classes, weights, groups=groups, permutations=permutations, rng=rng)
