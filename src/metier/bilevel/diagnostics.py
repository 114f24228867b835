"""How far an estimate can be trusted: numbers, and the warnings they raise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import ndtr, ndtri

from .arrays import Floats
from .estimate import Diagnostics
from .products import dictionary, error_product, halves_product
from .quadratic import QuadraticRepeat
from .scores import Evaluation, Mean, Repeat, cluster_sums, mean_of_scores
from .setup import Setup

NOISE_SHARE = 0.6
"""How much of the noise of the product's estimate the estimate itself has beyond its standard error."""
HALVES_SHARE = 0.5
"""Fits on half of the rows vary more than the fit whose bias is estimated."""
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


def diagnose(
    setup: Setup, w: Floats, evaluations: list[Evaluation], repeat: Repeat, mean: Mean, number: int
) -> tuple[Diagnostics, tuple[str, ...]]:
    """Return the diagnostics of an estimate and its warnings.

    Args:
        setup: What the estimate was computed from.
        w: (d,) where.
        evaluations: One per repeat.
        repeat: The evaluator of the repeat whose covariance is reported.
        mean: The estimate.
        number: The number of that repeat.
    """
    evaluation = evaluations[number]
    stderr: Floats = np.sqrt(np.maximum(np.diag(mean.covariance), 1e-300))
    nowhere = np.full(len(w), np.nan)
    pairs = zip(evaluation.orthogonal, evaluation.plugin, strict=True)
    correction = evaluation.mean([a - b for a, b in pairs])
    plugin = evaluation.mean(evaluation.plugin).value
    values = np.array([e.mean(e.scores_of(setup.estimator)).value for e in evaluations])
    product, noise = _product(setup, evaluation, repeat, len(w))
    halves, bound = _halves(setup, w, repeat, len(w))
    product, noise = np.abs(product) / stderr, noise / stderr
    halves, bound = np.abs(halves) / stderr, bound / stderr
    calibration, calibration_z = _calibration(evaluation, len(w))
    condition, least, first_stage = _slope_numbers(evaluation)
    diagnostics = Diagnostics(
        r2={name: fit.r2() for name, fit in evaluation.fitted.items()},
        correction_ratio=float(np.linalg.norm(correction.value)) / max(float(np.linalg.norm(plugin)), 1e-300),
        correction_z=_z(correction),
        product_bias=product,
        product_noise=noise,
        halves_bias=halves,
        product_bound=bound,
        expected_coverage=expected_coverage(product, noise, halves),
        orthogonality=_orthogonality(evaluation, len(w)),
        calibration=calibration,
        calibration_z=calibration_z,
        fold_spread=_fold_spread(setup.estimator, evaluation, repeat, stderr),
        repeat_spread=values.std(axis=0, ddof=1) / stderr if len(values) > 1 else nowhere,
        min_curvature=evaluation.min_curvature,
        floored=evaluation.floored,
        flat=evaluation.flat,
        clusters=min(
            (int(s.clusters.max()) + 1 for s in evaluation.samples if s.clusters is not None), default=0
        ),
        condition=condition,
        least_eigenvalue=least,
        first_stage=first_stage,
        instrument_contrast=_contrast(evaluation, len(w)),
    )
    warnings = cautions(
        diagnostics,
        estimator=setup.estimator,
        used=set(evaluation.fitted) - {"residual"} if setup.estimator == "plugin" else set(evaluation.slopes),
        n=evaluation.samples[0].n,
        units=mean.n,
    )
    return diagnostics, (*setup.problem.caveats, *warnings)


def _z(mean: Mean) -> Floats:
    sd = np.sqrt(np.diag(mean.covariance))
    return np.divide(mean.value, sd, out=np.zeros_like(sd), where=sd > 0)


def expected_coverage(product: Floats, noise: Floats, halves: Floats) -> Floats:
    """Return what a 95 % interval covers, in numbers, if it is off by b and varies by sqrt(1 + v^2) errors.

    b is the larger of the two estimates of the bias, v = `NOISE_SHARE` x noise: the second-order terms that
    blur the product's estimate blur the gradient as well, and its standard error knows nothing of them.
    All in standard errors; NaN where nothing was estimated.

    Example:
        >>> zero = np.zeros(1)
        >>> [expected_coverage(np.array([b]), zero, zero).round(3).item() for b in (0.0, 0.7, 2.0)]
        [0.95, 0.892, 0.484]
    """
    bias, spread = np.fmax(product, HALVES_SHARE * halves), np.sqrt(1.0 + (NOISE_SHARE * noise) ** 2)
    quantile = ndtri(0.975)
    return np.asarray(ndtr((quantile - bias) / spread) - ndtr((-quantile - bias) / spread))


def _product(setup: Setup, evaluation: Evaluation, repeat: Repeat, d: int) -> tuple[Floats, Floats]:
    """Return the summed products of nuisance errors that orthogonality leaves, and their noise."""
    codes = repeat.codes
    if codes is None or not evaluation.errors or not setup.diagnose:
        return np.full(d, np.nan), np.full(d, np.nan)
    value, variance = np.zeros(d), np.zeros(d)
    sample = evaluation.samples[0]
    om = sample.relative_weights
    for left, right, curvature, fitted in evaluation.errors:
        residuals = np.column_stack([left, right]) * om[:, None]
        features = dictionary(sample.rows["X"], fitted, codes, residuals)
        part = error_product(residuals[:, :-1], residuals[:, -1], features, codes, curvature * om)
        value, variance = value + part.value, variance + part.noise**2
    return value, np.sqrt(variance)


def _halves(setup: Setup, w: Floats, repeat: Repeat, d: int) -> tuple[Floats, Floats]:
    """Fit the two nuisances of squared losses on halves of one fold's training rows."""
    if not setup.diagnose or not isinstance(repeat, QuadraticRepeat) or repeat.external:
        return np.full(d, np.nan), np.full(d, np.nan)
    fits = repeat.half_fits(w)
    return halves_product(*fits) if fits is not None else (np.full(d, np.nan), np.full(d, np.nan))


def _slope_numbers(evaluation: Evaluation) -> tuple[float, float, float]:
    """Return condition and least eigenvalue of S, and the first-stage F of its weakest direction."""
    S = evaluation.slope
    if S is None or not np.isfinite(S).all():
        return float("nan"), float("nan"), float("nan")
    values, vectors = np.linalg.eigh((S + S.T) / 2.0)
    size = np.abs(values)
    condition = float(size.max() / max(size.min(), 1e-300))
    least = float(values[0] / max(size.max(), 1e-300))
    fit = evaluation.fitted.get("jacobian")
    if fit is None:
        return condition, least, float("nan")
    sample, strengths = evaluation.samples[0], []
    for v in vectors.T:
        a, b = fit.prediction @ v, fit.response @ v
        mean = mean_of_scores((2.0 * a * b - a * a)[:, None], sample.weights, sample.clusters)
        signed = float(mean.value[0] / max(np.sqrt(mean.covariance[0, 0]), 1e-300))
        strengths.append(signed * abs(signed))
    return condition, least, float(min(strengths))


def _orthogonality(evaluation: Evaluation, d: int) -> Floats:
    """Return the largest z of the slopes along the fitted nuisances."""
    if not evaluation.slopes:
        return np.full(d, np.nan)
    sample = evaluation.samples[0]
    means = [mean_of_scores(rows, sample.weights, sample.clusters) for rows in evaluation.slopes.values()]
    zs = np.array([_z(mean) for mean in means])
    return np.asarray(zs[np.argmax(np.abs(zs), axis=0), np.arange(d)])


def _calibration(evaluation: Evaluation, d: int) -> tuple[Floats, Floats]:
    """Return the slope of each output of the jacobian's response on its fit, and its z against 1."""
    fit, sample = evaluation.fitted.get("jacobian"), evaluation.samples[0]
    if fit is None:
        return np.full(d, np.nan), np.full(d, np.nan)
    p, om = fit.prediction, np.ones(len(fit.prediction)) if fit.weight is None else fit.weight
    center = om @ p / om.sum()
    power = om @ (p - center) ** 2
    power = np.where(power > 0, power, np.nan)
    slope = om @ ((p - center) * fit.response) / power
    error = fit.response - fit.response.mean(axis=0) - slope * (p - center)
    rows = (p - center) * error if fit.weight is None else (p - center) * error * om[:, None]
    sums = rows if sample.clusters is None else cluster_sums(rows, sample.clusters)
    return slope, (slope - 1.0) * power / np.sqrt((sums**2).sum(axis=0))


def _contrast(evaluation: Evaluation, d: int) -> Floats:
    if evaluation.instrument is None:
        return np.full(d, np.nan)
    rows = [a - b for a, b in zip(evaluation.orthogonal, evaluation.instrument, strict=True)]
    return _z(evaluation.mean(rows))


def _fold_spread(estimator: str, evaluation: Evaluation, repeat: Repeat, stderr: Floats) -> Floats:
    """Return the spread of per-fold estimates over what sampling alone would give; 1 is usual."""
    codes = repeat.codes
    if codes is None or len(evaluation.samples) > 1:
        return np.full(len(stderr), np.nan)
    scores = evaluation.scores_of(estimator)[0]
    folds = [scores[codes == k].mean(axis=0) for k in range(int(codes.max()) + 1)]
    return np.asarray(np.std(folds, axis=0, ddof=1) / (stderr * np.sqrt(len(folds))))


def r2_limit(n: int) -> float:
    """Return -1 / sqrt(n): a nuisance with less out-of-fold R^2 is worse than a constant by what matters.

    -R^2 is a lower bound of its squared error over the variance of its response, and products of two such
    errors must vanish faster than n^-1/2. A small positive R^2 says nothing: the truth may be a constant.
    """
    return -1.0 / float(np.sqrt(n))


def cautions(numbers: Diagnostics, *, estimator: str, used: set[str], n: int, units: int) -> Iterator[str]:
    """Yield the warnings of a gradient.

    Args:
        numbers: Its diagnostics.
        estimator: As in `OBiGrad`.
        used: Nuisances whose errors reach the estimate.
        n: Rows.
        units: Independent units, rows or clusters.
    """
    yield from _of_products(numbers)
    yield from _of_fits(numbers, units, used)
    yield from _of_tests(numbers, estimator)
    yield from _of_data(numbers, n)


def _of_products(numbers: Diagnostics) -> Iterator[str]:
    if (numbers.expected_coverage < EXPECTED_COVERAGE).any():
        k = int(np.nanargmin(numbers.expected_coverage))
        bias = np.fmax(numbers.product_bias, HALVES_SHARE * numbers.halves_bias)[k]
        yield (
            f"nuisance errors multiply to a bias of about {bias:.2g} standard errors, known to "
            f"{numbers.product_noise[k]:.2g}: expect 95 % intervals to cover in "
            f"{100 * numbers.expected_coverage[k]:.0f} %; use learners that fit better, or more rows"
        )
    off = (np.abs(numbers.calibration - 1.0) > CALIBRATION) & (np.abs(numbers.calibration_z) > CALIBRATION_Z)
    if off.any():
        slope = numbers.calibration[np.argmax(np.where(off, np.abs(numbers.calibration - 1.0), 0.0))]
        yield (
            f"the fitted jacobian is miscalibrated (slope {slope:.2g} in place of 1): it is "
            f"{'shrunk' if slope > 1 else 'fitted to noise'}, and errors of the other nuisance enter at "
            "first order; tune its penalty or smoothing"
        )


def _of_fits(numbers: Diagnostics, units: int, used: set[str]) -> Iterator[str]:
    limit = r2_limit(units)
    bad = {name: r2 for name, r2 in numbers.r2.items() if name in used and r2 < limit}
    if bad:
        each = ", ".join(f"{name} {r2:.2g}" for name, r2 in sorted(bad.items()))
        yield (
            f"a constant predicts unseen rows better than a fitted nuisance (out-of-fold R2: {each}; limit "
            f"{limit:.2g}): smooth or penalize its learner more"
        )


def _of_tests(numbers: Diagnostics, estimator: str) -> Iterator[str]:
    z = _largest(numbers.correction_z)
    if estimator == "plugin" and abs(z) > CONTRAST_Z:
        yield (
            f"the plug-in is biased: the correction that it leaves out has z {z:.2g} (limit "
            f'{CONTRAST_Z:g}); use estimator="obigrad"'
        )
    elif estimator != "plugin" and abs(z) > CORRECTION_Z and not (numbers.expected_coverage >= CLEARED).all():
        yield (
            f"the correction is large (z {z:.2g}, limit {CORRECTION_Z:g}): with nuisances a tenth off it "
            "leaves half a standard error of bias; use learners that fit better, or more rows"
        )
    z = _largest(numbers.orthogonality)
    if abs(z) > ORTHOGONALITY_Z:
        yield (
            f"the orthogonality self-test fails (z {z:.2g}, limit {ORTHOGONALITY_Z:g}): the estimate still "
            "moves along a fitted nuisance, so that another one misses what it could explain; use a richer "
            "learner"
        )
    z = _largest(numbers.instrument_contrast)
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


def _of_data(numbers: Diagnostics, n: int) -> Iterator[str]:
    if (numbers.repeat_spread > REPEAT_SPREAD).any():
        yield (
            f"estimates move by {np.nanmax(numbers.repeat_spread):.2g} standard errors between draws "
            "of folds: raise repeats, or use steadier learners"
        )
    if numbers.floored > FLOORED * n:
        yield (
            f"the fitted curvature hit its floor in {numbers.floored} rows: use a steadier learner for it, "
            "or an inner loss with more curvature"
        )
    if numbers.flat:
        yield (
            f"{numbers.flat} rows have no curvature, yet the tuned penalty counts them as rows "
            "it is tuned on: pass SieveRidge(basis, penalty=number)"
        )
    if 0 < numbers.clusters < FEW_CLUSTERS:
        yield (
            f"the standard error rests on {numbers.clusters} clusters (below {FEW_CLUSTERS}) and is likely "
            "too small: collect more clusters, or read intervals as too short"
        )


def root_warnings(numbers: Diagnostics) -> Iterator[str]:
    """Yield what concerns a root alone: a gradient needs no instruments that identify one."""
    if numbers.first_stage < FIRST_STAGE:
        yield (
            f"the instruments are weak (effective first-stage F {max(numbers.first_stage, 0):.3g}, below "
            f"{FIRST_STAGE:g}): the root's interval is not to be trusted; use a weak-instrument set"
        )
    if numbers.condition > CONDITION:
        yield (
            f"the Jacobian of the hypergradient is nearly singular (condition {numbers.condition:.2g}): "
            "drop collinear treatments"
        )
