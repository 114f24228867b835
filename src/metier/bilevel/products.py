"""How large is the bias that orthogonality leaves? Products of nuisance errors, estimated in two ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrays import Floats
from .crossfit import Codes

MOST_FEATURES = 40
ROWS_PER_FEATURE = 4
CLIP = 2.5


@dataclass(frozen=True, slots=True)
class Product:
    """An estimated mean product of two nuisance errors, (d,), with the standard deviation of its noise."""

    value: Floats
    noise: Floats


def dictionary(X: Floats, fitted: Floats, codes: Codes) -> Floats:
    """Return features (n, P) in which misfit is looked for: the fits, then x, x^2, x^3, then products of x.

    Columns come in the order of their correlation with the fits of the same fold, which know nothing of the
    fold's own outcomes; up to one feature per `ROWS_PER_FEATURE` rows of a fold.
    """
    room = int(max(3, min(MOST_FEATURES, np.bincount(codes).min() // ROWS_PER_FEATURE)))
    x = _scaled(X) if X.dtype.kind == "f" else np.zeros((len(X), 0))
    # Scaled fold by fold: a center over all folds would carry a fold's own noise into its features.
    blocks, order = [], np.argsort(codes, kind="stable")
    for k in range(int(codes.max()) + 1):
        own = _scaled(fitted[codes == k])
        blocks.append(
            np.concatenate([own, *_powers_and_products(x[codes == k], own, room)], axis=1)[:, :room]
        )
    psi = np.empty((len(X), blocks[0].shape[1]))
    psi[order] = np.concatenate(blocks)
    return np.column_stack([np.ones(len(X)), psi])


def _powers_and_products(x: Floats, own: Floats, room: int) -> tuple[Floats, Floats]:
    """Return powers of the columns, most relevant ones first, and products of two of the first."""
    together = np.stack([np.abs(own.T @ _scaled(part)).max(axis=0) for part in (x, x**2)]) if x.size else x
    x = x[:, np.argsort(-together.max(axis=0), kind="stable")][:, :room]
    powers = np.stack([x, x**2, x**3 / CLIP], axis=2).reshape(len(x), -1)
    first, second = np.triu_indices(x.shape[1], 1)
    nearest = np.argsort(first + second, kind="stable")[:room]
    return powers, x[:, first[nearest]] * x[:, second[nearest]]


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
    span. A fold's own Gram matrix of P features shrinks it by about 1 - P / rows, which is divided out.

    Source: the second-order influence function of Robins et al.; its use as a warning is ours.
    """
    d, P = left.shape[1], features.shape[1]
    total, variance, pairs = np.zeros(d), np.zeros(d), 0.0
    for k in range(int(codes.max()) + 1):
        rows = codes == k
        psi, e, f = features[rows], left[rows], right[rows]
        gram = (psi * curvature[rows, None]).T @ psi / len(psi)
        projected = psi @ np.linalg.pinv(gram, rcond=1e-6, hermitian=True)
        own = (projected * psi).sum(axis=1)
        total += (psi.T @ e).T @ (projected.T @ f) - (own * f) @ e
        variance += _pair_variance(psi, projected, own, e, f)
        pairs += len(f) * (len(f) - 1) * max(1.0 - P / len(f), 0.25)
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
