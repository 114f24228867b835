"""How large is the bias that orthogonality leaves? Products of nuisance errors, estimated in two ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrays import Floats
from .crossfit import Codes

MOST_FEATURES = 30
ROWS_PER_FEATURE = 4
CLIP = 2.5


@dataclass(frozen=True, slots=True)
class Product:
    """An estimated mean product of two nuisance errors, (d,), with the standard deviation of its noise."""

    value: Floats
    noise: Floats


def dictionary(X: Floats, fitted: Floats, codes: Codes) -> Floats:
    """Return features (n, P) in which misfit is looked for: the fits themselves, x and squares, products.

    The features come in this order up to one per `ROWS_PER_FEATURE` rows of a fold; columns of x are scaled.
    """
    room = int(max(3, min(MOST_FEATURES, np.bincount(codes).min() // ROWS_PER_FEATURE)))
    # Scaled fold by fold: a center over all folds would carry a fold's own noise into its features.
    own = np.empty_like(fitted)
    for k in range(int(codes.max()) + 1):
        own[codes == k] = _scaled(fitted[codes == k])
    parts = [own]
    if X.dtype.kind == "f":
        x = _scaled(X)
        first, second = np.triu_indices(x.shape[1], 1)
        few = slice(0, room)
        # x_1, x_1^2, x_2, x_2^2, ...: curvature comes before the last columns where room is short.
        pairs = np.stack([x[:, few], x[:, few] ** 2], axis=2).reshape(len(x), -1)
        parts += [pairs, x[:, first[few]] * x[:, second[few]]]
    psi = np.concatenate(parts, axis=1)[:, :room]
    return np.column_stack([np.ones(len(X)), psi])


def _scaled(x: Floats) -> Floats:
    """Return columns in standard deviations, clipped, because long tails would drown the pairs."""
    sd = x.std(axis=0)
    out: Floats = np.clip((x - x.mean(axis=0)) / np.where(sd > 0, sd, 1.0), -CLIP, CLIP)
    return out


def error_product(left: Floats, right: Floats, features: Floats, codes: Codes, curvature: Floats) -> Product:
    r"""Return the estimate of E[E[left | x] H^-1 E[right | x]] on the span of the features.

    left (n, d) and right (n,) are gradients of two nuisances' risks at out-of-fold fits, whose conditional
    means are H times the errors. Only pairs of different rows of one fold enter, because the fits of a fold
    know nothing of its rows: a U-statistic of order two, without bias but for what the features do not
    span.

    Source: the second-order influence function of Robins et al.; its use as a warning is ours.
    """
    d = left.shape[1]
    total, variance, pairs = np.zeros(d), np.zeros(d), 0
    for k in range(int(codes.max()) + 1):
        rows = codes == k
        psi, e, f = features[rows], left[rows], right[rows]
        gram = (psi * curvature[rows, None]).T @ psi / len(psi)
        projected = psi @ np.linalg.pinv(gram, rcond=1e-6, hermitian=True)
        own = (projected * psi).sum(axis=1)
        total += (psi.T @ e).T @ (projected.T @ f) - (own * f) @ e
        variance += _pair_variance(psi, projected, own, e, f)
        pairs += len(f) * (len(f) - 1)
    return Product(total / pairs, np.sqrt(np.maximum(variance, 0.0)) / pairs)


def _pair_variance(psi: Floats, projected: Floats, own: Floats, e: Floats, f: Floats) -> Floats:
    """Return the sum over pairs of (e_i f_j K_ij)^2 + e_i f_i e_j f_j K_ij^2 with K = psi Omega^-1 psi'."""
    out = np.empty(e.shape[1])
    squared_f = (projected * (f * f)[:, None]).T @ psi
    for k, column in enumerate(e.T):
        both = (projected * (column * f)[:, None]).T @ psi
        crossed = ((projected * (column * column)[:, None]).T @ psi * squared_f.T).sum()
        out[k] = crossed + (both * both.T).sum() - 2.0 * ((column * f * own) ** 2).sum()
    return out


def halves_product(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Return a quarter of the mean product of two fits' differences, and of their root mean squares' product.

    Args:
        first, second: (left (n, d), right (n,)) as fitted on either half, predicted at the same new rows.
    """
    left, right = first[0] - second[0], first[1] - second[1]
    bound = np.sqrt((left**2).mean(axis=0) * (right**2).mean())
    # Half for the two fits' variances, half again for the full training size of a root-n fit.
    product: Floats = (left * right[:, None]).mean(axis=0) / 4.0
    return product, bound / 4.0
