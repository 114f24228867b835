"""Numbers that say how far an estimate can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri

from .arrays import Floats
from .cautions import HALVES_SHARE, NOISE_SHARE, cautions
from .crossfit import Mean, cluster_sums, mean_of_scores
from .estimate import Diagnostics
from .evaluation import Evaluation
from .products import dictionary, error_product, halves_product
from .quadratic import QuadraticRepeat

if TYPE_CHECKING:
    from .obigrad import OBiGrad


def diagnose(
    model: OBiGrad, w: Floats, evaluations: list[Evaluation], mean: Mean, kept: int
) -> tuple[Diagnostics, tuple[str, ...]]:
    """Return the diagnostics of an estimate and its warnings."""
    evaluation = evaluations[kept]
    stderr: Floats = np.sqrt(np.maximum(np.diag(mean.covariance), 1e-300))
    nowhere = np.full(len(w), np.nan)
    pairs = zip(evaluation.orthogonal, evaluation.plugin, strict=True)
    correction = evaluation.mean([a - b for a, b in pairs])
    plugin = evaluation.mean(evaluation.plugin).value
    values = np.array([e.mean(model._scores(e)).value for e in evaluations])
    product, noise = _product(model, evaluation, kept, len(w))
    halves, bound = _halves(model, w, kept, len(w))
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
        fold_spread=_fold_spread(model, evaluation, kept, stderr),
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
    found = cautions(
        diagnostics,
        estimator=model.estimator,
        used=set(evaluation.fitted) - {"residual"} if model.estimator == "plugin" else set(evaluation.slopes),
        n=evaluation.samples[0].n,
        units=mean.n,
    )
    return diagnostics, (*model.problem.caveats, *found)


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


def _product(model: OBiGrad, evaluation: Evaluation, kept: int, d: int) -> tuple[Floats, Floats]:
    """Return the summed products of nuisance errors that orthogonality leaves, and their noise."""
    codes = model.repeats_[kept].codes
    if codes is None or not evaluation.errors or not model.diagnose:
        return np.full(d, np.nan), np.full(d, np.nan)
    value, variance = np.zeros(d), np.zeros(d)
    sample = evaluation.samples[0]
    for left, right, curvature, fitted in evaluation.errors:
        om = np.ones(sample.n) if sample.weights is None else sample.weights / sample.weights.mean()
        residuals = np.column_stack([left, right]) * om[:, None]
        features = dictionary(sample.rows["X"], fitted, codes, residuals)
        part = error_product(residuals[:, :-1], residuals[:, -1], features, codes, curvature * om)
        value, variance = value + part.value, variance + part.noise**2
    return value, np.sqrt(variance)


def _halves(model: OBiGrad, w: Floats, kept: int, d: int) -> tuple[Floats, Floats]:
    """Fit the two nuisances of squared losses on halves of one fold's training rows."""
    repeat = model.repeats_[kept]
    if not model.diagnose or not isinstance(repeat, QuadraticRepeat) or repeat.external:
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


def _fold_spread(model: OBiGrad, evaluation: Evaluation, kept: int, stderr: Floats) -> Floats:
    """Return the spread of per-fold estimates over what sampling alone would give; 1 is usual."""
    codes = model.repeats_[kept].codes
    if codes is None or len(evaluation.samples) > 1:
        return np.full(len(stderr), np.nan)
    scores = model._scores(evaluation)[0]
    folds = [scores[codes == k].mean(axis=0) for k in range(int(codes.max()) + 1)]
    return np.asarray(np.std(folds, axis=0, ddof=1) / (stderr * np.sqrt(len(folds))))
