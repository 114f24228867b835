"""What the study `exponents` computes, one plain dictionary per cell."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from metier.core import derive_seed
from metier.multi_index import (
    Activation,
    as_activation,
    committee,
    committee_thresholds,
    exponents,
    hierarchical,
    nse_table,
    recovery_curve,
    simulate,
    step_activation,
    thresholds,
)

if TYPE_CHECKING:
    from metier_studies.exponents.study import ExponentsConfig

FACTORS = (0.5, 1.5, 3.0)
"""Sample ratios of the spectral simulation, as multiples of weak recovery."""

BELOW_ONSET = 30.0
DECAY = 1.0
ITERATIONS = 150
"""Of matrix AMP."""

ONSET_ITERATIONS = 200


def table() -> dict[str, Any]:
    """The exponents of every registered activation."""
    return {"rows": [row.to_dict() for row in nse_table()]}


@functools.lru_cache(maxsize=32)
def activation_of(name: str) -> Activation:
    """A registered name, or "step3" for a step activation; at unit variance, one object for each name."""
    if name.startswith("step"):
        return step_activation(int(name.removeprefix("step"))).normalized()
    return as_activation(name, normalize=True)


def curve(name: str) -> dict[str, Any]:
    """The exact weak-recovery curve over 5 decades with its local slopes, and the slope below the onset."""
    found = exponents(activation_of(name))
    beta = found.noise_sensitivity
    assert isinstance(beta, int)
    # Where c_{1,1} is not 0 weak recovery is trivial, but the curve of the second degree has its law still.
    onset = found.onset_snr
    start = min(onset / BELOW_ONSET, 1e-2)
    snrs = np.logspace(np.log10(start) - 0.5, 0.5, 45)
    exact = recovery_curve(found.activation, snrs=snrs)
    return {
        "beta": beta,
        "onset_snr": onset,
        "snrs": exact.snrs.tolist(),
        "weak_recovery": exact.weak_recovery.tolist(),
        "slope_snr": float(exact.local.x[0]),
        "slope": -float(exact.local.slope[0]),
        "error": float(exact.error.max()),
        "slopes": {"x": exact.local.x.tolist(), "y": (-exact.local.slope).tolist()},
    }


@functools.cache
def _spectral_onset(order: int, snr: float) -> float:
    """Weak recovery of a step activation: the same for every seed, and a second to compute."""
    return float(thresholds(activation_of(f"step{order}"), snr=snr).weak_recovery)


def predicted(config: ExponentsConfig) -> dict[str, Any]:
    """The sample ratios at which things must happen, fixed before anything is simulated."""
    units = activation_of(config.committee_activation)
    found = committee(units, n_units=config.committee_units, noise=config.committee_noise)
    matched = committee_thresholds(units, n_units=config.committee_units, noise=config.committee_noise)
    return {
        "spectral": _spectral_onset(config.spectral_order, config.spectral_snr),
        "committee": float(found.specialization),
        "committee_law": float(found.law),
        "committee_detection": float(found.it_detection),
        "committee_jump": float(matched.strong_recovery),
    }


def spectral(config: ExponentsConfig, seed: int, replicate: int) -> dict[str, Any]:
    """Overlaps of the optimal spectral estimator below and above weak recovery, and their limits."""
    at = _spectral_onset(config.spectral_order, config.spectral_snr)
    found = simulate.spectral(
        activation_of(f"step{config.spectral_order}"),
        snr=config.spectral_snr,
        sample_ratios=[factor * at for factor in FACTORS],
        dimension=config.spectral_dimension,
        n_seeds=1,
        rng=derive_seed(seed, "exponents", "spectral", replicate),
    )
    return {"overlaps": found.overlaps[:, 0].tolist(), "limits": found.theory.tolist()}


def committee_student(config: ExponentsConfig, ratio: float, seed: int, replicate: int) -> dict[str, Any]:
    """Bayes-optimal AMP on a committee at the given sample ratio."""
    found = simulate.committee_amp(
        activation_of(config.committee_activation),
        n_units=config.committee_units,
        noise=config.committee_noise,
        sample_ratio=ratio,
        dimension=config.committee_dimension,
        n_seeds=1,
        max_iterations=ITERATIONS,
        rng=derive_seed(seed, "exponents", "committee", replicate),
    )
    matched = found.specializations[0]
    return {
        "index": float(found.index[0]),
        "baseline": found.baseline.mean,
        "excess": float(found.excess[0]),
        "recovered": float(found.recovered[0]),
        "load": matched.assignment.load.tolist(),
        "information": matched.assignment.information,
        "rotated_information": matched.rotated_information.tolist(),
        "risk": float(found.excess_risk[0]),
        "rotated_risk": float(found.rotated_risk[0]),
    }


def onset_student(
    config: ExponentsConfig, dimension: int, ratio: float, seed: int, replicate: int
) -> dict[str, Any]:
    """What the ideal student of one dimension tells of the transition; ratios of one seed share a teacher."""
    found = simulate.committee_amp(
        activation_of(config.committee_activation),
        n_units=config.committee_units,
        noise=config.committee_noise,
        sample_ratio=ratio,
        dimension=dimension,
        n_seeds=1,
        max_iterations=ONSET_ITERATIONS,
        rng=derive_seed(seed, "exponents", "onset", dimension, replicate),
    )
    return {"excess": float(found.excess[0]), "recovered": float(found.recovered[0])}


def network(config: ExponentsConfig, ratio: float, seed: int, replicate: int) -> dict[str, Any]:
    """A two-layer network trained by Adam on the same kind of data."""
    found = simulate.train_student(
        config.committee_activation,
        n_units=config.committee_units,
        noise=config.committee_noise,
        sample_ratio=ratio,
        dimension=config.student_dimension,
        n_seeds=1,
        steps=3000,
        normalize=True,
        rng=derive_seed(seed, "exponents", "student", replicate),
    )
    return {
        "index": float(found.index[0]),
        "baseline": found.baseline.mean,
        "excess": float(found.excess[0]),
        "recovered": float(found.recovered[0]),
        "risk": float(found.excess_risk[0]),
        "null_risk": found.null_risk,
    }


def ladder(config: ExponentsConfig) -> dict[str, Any]:
    """The ladder of x^2 units of strength 1/k, with noise and without, and the loss down it."""
    noisy = hierarchical("square", decay=DECAY, noise=1.0, n_units=config.ladder_units)
    clean = hierarchical("square", decay=DECAY, noise=0.0, n_units=config.ladder_units)
    third = config.ladder_units // 3
    ratios = np.logspace(np.log10(noisy.weak_recovery[third]), np.log10(noisy.weak_recovery[-1] / 2.0), 9)
    loss = noisy.loss(ratios)
    slope = np.polyfit(np.log(ratios), np.log(loss), 1)[0]
    return {
        "ranks": noisy.ranks.tolist(),
        "noisy": noisy.weak_recovery.tolist(),
        "clean": clean.weak_recovery.tolist(),
        "noisy_slope": _end_slope(noisy.weak_recovery, third),
        "clean_slope": _end_slope(clean.weak_recovery, third),
        "noisy_exponent": noisy.ladder_exponent,
        "clean_exponent": clean.ladder_exponent,
        "ratios": ratios.tolist(),
        "loss": loss.tolist(),
        "loss_slope": -float(slope),
        "loss_exponent": noisy.loss_exponent,
    }


def _end_slope(values: np.ndarray[Any, np.dtype[np.float64]], start: int) -> float:
    """Slope between rank `start` and the last one, on logarithmic axes."""
    return float(np.log(values[-1] / values[start - 1]) / np.log(values.size / start))
