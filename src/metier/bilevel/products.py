"""How large is the bias that orthogonality leaves? Products of nuisance errors, estimated in two ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrays import Codes, Floats

MOST_FEATURES = 40
ROWS_PER_FEATURE = 4
CLIP = 2.5
MOST_COLUMNS = 120
"""Of more columns only the first are looked at in pairs."""


@dataclass(frozen=True, slots=True)
class Product:
    """An estimated mean product of two nuisance errors, (d,), with the standard deviation of its noise."""

    value: Floats
    noise: Floats


def dictionary(X: Floats, fitted: Floats, codes: Codes, residuals: Floats) -> Floats:
    """Return features (n, P) in which misfit is looked for, up to one per `ROWS_PER_FEATURE` rows of a fold.

    First the fits; then those powers and products of two columns that the residuals of the *other* folds
    call for (see `surprises`); then x, x^2, x^3 in the order of the columns' correlation with the fits of
    the same fold, which know nothing of the fold's own outcomes; then products of the first columns.

    Args:
        X: (n, p) covariates; other than floating ones have no powers.
        fitted: (n, m) out-of-fold fits.
        codes: (n,) folds.
        residuals: (n, k) risk gradients at the fits.
    """
    room = int(max(3, min(MOST_FEATURES, np.bincount(codes).min() // ROWS_PER_FEATURE)))
    x = _scaled(X) if X.dtype.kind == "f" else np.zeros((len(X), 0))
    called = surprises(x, residuals, codes)
    # Scaled fold by fold: a center over all folds would carry a fold's own noise into its features.
    blocks, order = [], np.argsort(codes, kind="stable")
    for k, surprising in enumerate(called):
        own, rows = _scaled(fitted[codes == k]), x[codes == k]
        names = dict.fromkeys([*surprising[: room // 2], *_usual(rows, own, room)])
        chosen = [_column(rows, name) for name in list(names)[:room]]
        blocks.append(np.column_stack([own, *chosen])[:, :room])
    psi = np.empty((len(X), blocks[0].shape[1]))
    psi[order] = np.concatenate(blocks)
    return np.column_stack([np.ones(len(X)), psi])


Name = tuple[int, ...]
"""Columns multiplied with each other: (3,) is x_3, (3, 3) its square, (1, 3) x_1 x_3."""


def _column(x: Floats, name: Name) -> Floats:
    out: Floats = np.prod(x[:, name], axis=1)
    return out / CLIP if len(name) == 3 else out


def _usual(x: Floats, own: Floats, room: int) -> list[Name]:
    """Return powers of the columns, most relevant ones first, and products of two of the first."""
    if not x.size:
        return []
    together = np.stack([np.abs(own.T @ _scaled(part)).max(axis=0) for part in (x, x**2)])
    ranks = [int(i) for i in np.argsort(-together.max(axis=0), kind="stable")[:room]]
    powers: list[Name] = [(i,) * power for i in ranks for power in (1, 2, 3)]
    first, second = np.triu_indices(len(ranks), 1)
    nearest = np.argsort(first + second, kind="stable")[:room]
    return powers + [tuple(sorted((ranks[first[k]], ranks[second[k]]))) for k in nearest]


def surprises(x: Floats, residuals: Floats, codes: Codes) -> list[list[Name]]:
    """Return per fold the powers and products that residuals of the other folds correlate with.

    Each is tested by itself, z = sum psi e / sqrt(sum psi^2 e^2), against the largest z that so many tests
    find by chance, sqrt(2 log tests), and one more: a specification test with room for all pairs of
    columns, of which the estimate of a product has room for few. The largest come first.

    Args:
        x: (n, p) columns in standard deviations.
        residuals: (n, k) risk gradients at out-of-fold fits.
        codes: (n,) folds.
    """
    n_folds, p = int(codes.max()) + 1, min(x.shape[1], MOST_COLUMNS)
    if not p:
        return [[] for _ in range(n_folds)]
    names: list[Name] = [(i,) * power for power in (1, 2, 3) for i in range(p)]
    first, second = np.triu_indices(p, 1)
    names += list(zip(first.tolist(), second.tolist(), strict=True))
    sums = np.array([_moments(x[codes == k, :p], residuals[codes == k]) for k in range(n_folds)])
    others = sums.sum(axis=0) - sums
    z = np.abs(others[:, 0]) / np.sqrt(np.maximum(others[:, 1], 1e-300))
    largest = z.max(axis=1)
    limit = np.sqrt(2.0 * np.log(max(len(names) * residuals.shape[1], 2))) + 1.0
    return [[names[i] for i in np.argsort(-row, kind="stable")[: (row > limit).sum()]] for row in largest]


def _moments(x: Floats, residuals: Floats) -> Floats:
    """Return sum psi e and sum psi^2 e^2, (2, k, tests), without a column per pair."""
    pairs = np.triu_indices(x.shape[1], 1)
    powers = np.concatenate([part - part.mean(axis=0) for part in (x, x**2, x**3)], axis=1)
    squares, square = powers**2, x**2
    out = []
    for e in residuals.T:
        crossed, spread = x.T @ (x * e[:, None]), square.T @ (square * (e * e)[:, None])
        out.append(
            (
                np.concatenate([e @ powers, crossed[pairs]]),
                np.concatenate([(e * e) @ squares, spread[pairs]]),
            )
        )
    return np.asarray(out).transpose(1, 0, 2)


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
