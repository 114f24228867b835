"""The warnings that diagnostics raise, each with its limit and what to do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .arrays import Floats
from .estimate import Diagnostics

NOISE_SHARE = 0.6
"""How much of the noise of the product's estimate the estimate itself has beyond its standard error."""
HALVES_SHARE = 0.5
"""Fits on half of the rows vary more than the fit whose bias is wanted."""
EXPECTED_COVERAGE = 0.915
"""A 95 % interval expected to cover less deserves a warning.

All limits here were chosen on other seeds than the study `bilevel-warnings` scores; this one is the least
at which each of 213 designs that covered below 0.85 was warned of in most of its data sets.
"""
CLEARED = 0.93
"""From this expected coverage on, a large correction is debiasing at work."""
CORRECTION_Z = 5.0
"""The correction is of first order in the errors of the nuisances, what it leaves of second order: where
these are a tenth off, five standard errors of correction leave half a standard error of bias. It warns
where the expected coverage does not say that the fits are closer than that."""
ORTHOGONALITY_Z = 5.0
"""Along a nuisance that is a tenth off, five standard errors of slope move the estimate by half of one."""
CONTRAST_Z = 3.0
"""Two estimates that agree where the jacobian is right differ this much in one case of 370."""
OPENINGS = {
    "products of nuisance errors": "nuisance errors multiply",
    "calibration of the jacobian": "the fitted jacobian is miscalibrated",
    "out-of-fold fit": "a constant predicts",
    "correction": "the correction is large",
    "orthogonality self-test": "the orthogonality self-test fails",
    "contrast with the adjoint as instrument": "the adjoint used as an instrument",
}
"""How the warning of each diagnostic of a gradient of squared losses begins."""
CALIBRATION = 0.3
CALIBRATION_Z = 2.0
FIRST_STAGE = 10.0
REPEAT_SPREAD = 1.0
CONDITION = 1e8
FLOORED = 0.05
"""Share of rows at the curvature's floor."""
FEW_CLUSTERS = 20
"""Below this many clusters a cluster-robust error is itself a guess (Cameron and Miller, 2015: 20 to 50)."""


def r2_limit(n: int) -> float:
    """Return -1 / sqrt(n): a nuisance with less out-of-fold R^2 is worse than a constant by what matters.

    -R^2 is a lower bound of its squared error over the variance of its response, and products of two such
    errors must vanish faster than n^-1/2. A small positive R^2 says nothing: the truth may be a constant.
    """
    return -1.0 / float(np.sqrt(n))


def cautions(found: Diagnostics, *, estimator: str, used: set[str], n: int, units: int) -> Iterator[str]:
    """Yield the warnings of a gradient.

    Args:
        found: Its diagnostics.
        estimator: As in `OBiGrad`.
        used: Nuisances whose errors reach the estimate.
        n: Rows.
        units: Independent units, rows or clusters.
    """
    yield from _of_products(found)
    yield from _of_fits(found, units, used)
    yield from _of_tests(found, estimator)
    yield from _of_data(found, n)


def _of_products(found: Diagnostics) -> Iterator[str]:
    if (found.expected_coverage < EXPECTED_COVERAGE).any():
        k = int(np.nanargmin(found.expected_coverage))
        bias = np.fmax(found.product_bias, HALVES_SHARE * found.halves_bias)[k]
        yield (
            f"nuisance errors multiply to a bias of about {bias:.2g} standard errors, known to "
            f"{found.product_noise[k]:.2g}: expect 95 % intervals to cover in "
            f"{100 * found.expected_coverage[k]:.0f} %; use learners that fit better, or more rows"
        )
    off = (np.abs(found.calibration - 1.0) > CALIBRATION) & (np.abs(found.calibration_z) > CALIBRATION_Z)
    if off.any():
        slope = found.calibration[np.argmax(np.where(off, np.abs(found.calibration - 1.0), 0.0))]
        yield (
            f"the fitted jacobian is miscalibrated (slope {slope:.2g} in place of 1): it is "
            f"{'shrunk' if slope > 1 else 'fitted to noise'}, and errors of the other nuisance enter at "
            "first order; tune its penalty or smoothing"
        )


def _of_fits(found: Diagnostics, units: int, used: set[str]) -> Iterator[str]:
    limit = r2_limit(units)
    bad = {name: r2 for name, r2 in found.r2.items() if name in used and r2 < limit}
    if bad:
        each = ", ".join(f"{name} {r2:.2g}" for name, r2 in sorted(bad.items()))
        yield (
            f"a constant predicts unseen rows better than a fitted nuisance (out-of-fold R2: {each}; limit "
            f"{limit:.2g}): smooth or penalize its learner more"
        )


def _of_tests(found: Diagnostics, estimator: str) -> Iterator[str]:
    z = _largest(found.correction_z)
    if estimator == "plugin" and abs(z) > CONTRAST_Z:
        yield (
            f"the plug-in is biased: the correction it lacks has z {z:.2g} (limit {CONTRAST_Z:g}); use "
            'estimator="obigrad"'
        )
    elif estimator != "plugin" and abs(z) > CORRECTION_Z and not (found.expected_coverage >= CLEARED).all():
        yield (
            f"the correction is large (z {z:.2g}, limit {CORRECTION_Z:g}): with nuisances a tenth off it "
            "leaves half a standard error of bias; use learners that fit better, or more rows"
        )
    z = _largest(found.orthogonality)
    if abs(z) > ORTHOGONALITY_Z:
        yield (
            f"the orthogonality self-test fails (z {z:.2g}, limit {ORTHOGONALITY_Z:g}): the estimate still "
            "moves along a fitted nuisance, so that another one misses what it could explain; use a richer "
            "learner"
        )
    z = _largest(found.instrument_contrast)
    if abs(z) > CONTRAST_Z:
        remedy = ', or estimator="obigrad"' if estimator == "adjoint_instrument" else ""
        yield (
            f"the adjoint used as an instrument gives another estimate (z {z:.2g}, limit {CONTRAST_Z:g}): "
            "the fitted jacobian misses what the residual depends on, and the residual's fit alone makes up "
            f"for it; use a richer learner for the jacobian{remedy}"
        )


def _largest(z: Floats) -> float:
    """Return the entry of largest absolute value, 0 where none is known."""
    known = np.nan_to_num(z)
    return float(known[np.argmax(np.abs(known))])


def _of_data(found: Diagnostics, n: int) -> Iterator[str]:
    if (found.repeat_spread > REPEAT_SPREAD).any():
        yield (
            f"estimates move by {np.nanmax(found.repeat_spread):.2g} standard errors between draws of folds: "
            "raise repeats, or use steadier learners"
        )
    if found.floored > FLOORED * n:
        yield (
            f"the fitted curvature hit its floor in {found.floored} rows: use a steadier learner for it, "
            "or an inner loss with more curvature"
        )
    if found.flat:
        yield (
            f"{found.flat} rows have no curvature, yet the tuned penalty counts them as rows it is tuned on: "
            "pass SieveRidge(basis, penalty=number)"
        )
    if 0 < found.clusters < FEW_CLUSTERS:
        yield (
            f"the standard error rests on {found.clusters} clusters (below {FEW_CLUSTERS}) and is likely too "
            "small: collect more clusters, or read intervals as too short"
        )


def root_warnings(found: Diagnostics) -> Iterator[str]:
    """Yield what concerns a root alone: a gradient needs no instruments that identify one."""
    if found.first_stage < FIRST_STAGE:
        yield (
            f"the instruments are weak (effective first-stage F {max(found.first_stage, 0):.3g}, below "
            f"{FIRST_STAGE:g}): the root's interval is not to be trusted; use a weak-instrument set"
        )
    if found.condition > CONDITION:
        yield (
            f"the Jacobian of the hypergradient is nearly singular (condition {found.condition:.2g}): "
            "drop collinear treatments"
        )
