"""Study `exponents`: slopes, a spectral transition, a committee's students, a hierarchy's scaling law."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from metier.runs import Progress, Result, Run, Study

TITLE = "Exponents: how many samples does a direction, a committee, a hierarchy need?"
QUESTION = (
    "Do exponents that are certified in advance predict the measured slopes of weak recovery, the sample "
    "ratio at which a planted committee's students specialize, and the ladder of a hierarchy?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentsConfig:
    """What the study computes and simulates.

    Args:
        smooth: activations whose exact weak-recovery curve is followed, at unit variance.
        steps: exponents of the step activations followed beside them.
        spectral_order: exponent of the step activation whose spectral transition is simulated.
        spectral_snr: its signal-to-noise ratio, at unit variance.
        spectral_dimension, spectral_seeds: of the simulation.
        committee_units: of the planted committees.
        committee_activation: of the committee; at unit variance.
        committee_noise: variance of its noise.
        committee_factors: sample ratios of the ideal student, as multiples of the predicted one, increasing.
        committee_dimension, committee_seeds: of the ideal student (matrix AMP).
        onset_dimensions, onset_factors, onset_seeds: of the ideal students that find the sample ratio at
            which half of the seeds specialize, at each dimension and extrapolated in 1/d.
        student_factors: sample ratios of the networks, as multiples of the same predicted one.
        student_dimension, student_seeds: of the two-layer networks; 0 seeds train none.
        ladder_units: ranks of the hierarchy.
    """

    smooth: tuple[str, ...] = ("abs", "cos", "He4", "He3")
    steps: tuple[int, ...] = (3, 4)
    spectral_order: int = 3
    spectral_snr: float = 2.0
    spectral_dimension: int = 200
    spectral_seeds: int = 8
    committee_units: int = 2
    committee_activation: str = "cos(2*x) - 4*exp(-3/2)*cos(x)"
    committee_noise: float = 1.0
    committee_factors: tuple[float, ...] = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
    committee_dimension: int = 120
    committee_seeds: int = 8
    onset_dimensions: tuple[int, ...] = (60, 120, 240, 480)
    onset_factors: tuple[float, ...] = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
    onset_seeds: int = 12
    student_factors: tuple[float, ...] = (1.0, 3.0, 8.0)
    student_dimension: int = 100
    student_seeds: int = 4
    ladder_units: int = 1000


def run_study(config: ExponentsConfig, run: Run, progress: Progress) -> Result:
    """Certify, predict, then simulate; each part is a cell of its own."""
    from metier_studies.exponents import measures
    from metier_studies.exponents.findings import findings

    progress.stage("certifying the exponents of 27 activations")
    found: dict[str, Any] = {"table": run.cell("table", measures.table)}
    names = [*config.smooth, *(f"step{order}" for order in config.steps)]
    progress.stage("following the exact weak-recovery curves below the onset of their laws")
    found["curves"] = {
        name: run.cell(f"curve-{name}", partial(measures.curve, name))
        for name in progress.track(names, "curves", total=len(names))
    }
    progress.stage("fixing the predicted sample ratios, before any simulation")
    found["predicted"] = run.cell("predicted", partial(measures.predicted, config))
    progress.stage("finding the direction of a step activation by its best spectral matrix")
    seeds = range(config.spectral_seeds)
    found["spectral"] = [
        run.cell(f"spectral-{seed}", partial(measures.spectral, config, run.seed, seed))
        for seed in progress.track(seeds, "spectral", total=config.spectral_seeds)
    ]
    progress.stage("running the ideal student of a committee around the predicted ratio")
    found["committee"] = _per_factor(config, found["predicted"]["committee"], run, progress, "committee")
    progress.stage("finding the ratio at which half of the students specialize, at several dimensions")
    found["onset"] = _onset(config, found["predicted"]["committee"], run, progress)
    if config.student_seeds:
        progress.stage("training two-layer networks on the same kind of data")
        found["student"] = _per_factor(config, found["predicted"]["committee"], run, progress, "student")
    progress.stage("climbing the ladder of a hierarchy")
    found["ladder"] = run.cell("ladder", partial(measures.ladder, config))
    return findings(config, found, run, title=TITLE, question=QUESTION)


def _per_factor(
    config: ExponentsConfig, at: float, run: Run, progress: Progress, kind: str
) -> dict[str, list[dict[str, Any]]]:
    from metier_studies.exponents import measures

    work = {"committee": measures.committee_student, "student": measures.network}[kind]
    n_seeds = getattr(config, f"{kind}_seeds")
    out: dict[str, list[dict[str, Any]]] = {}
    for factor in getattr(config, f"{kind}_factors"):
        out[f"{factor:g}"] = [
            run.cell(f"{kind}-{factor:g}/seed-{seed}", partial(work, config, factor * at, run.seed, seed))
            for seed in progress.track(range(n_seeds), f"{kind} at {factor:g}", total=n_seeds)
        ]
    return out


def _onset(
    config: ExponentsConfig, at: float, run: Run, progress: Progress
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    from metier_studies.exponents import measures

    out: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for d in config.onset_dimensions:
        rungs = [(factor, seed) for factor in config.onset_factors for seed in range(config.onset_seeds)]
        found: dict[str, list[dict[str, Any]]] = {f"{factor:g}": [] for factor in config.onset_factors}
        for factor, seed in progress.track(rungs, f"students at d = {d}", total=len(rungs)):
            work = partial(measures.onset_student, config, d, factor * at, run.seed, seed)
            found[f"{factor:g}"].append(run.cell(f"onset-{d}-{factor:g}/seed-{seed}", work))
        out[str(d)] = found
    return out


STUDY = Study(
    name="exponents",
    family="multi_index",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": ExponentsConfig(
            spectral_dimension=160,
            spectral_seeds=8,
            committee_factors=(0.5, 1.0, 2.0, 5.0),
            committee_dimension=60,
            committee_seeds=4,
            onset_dimensions=(30, 60),
            onset_factors=(1.0, 2.0, 4.0),
            onset_seeds=3,
            student_seeds=0,
            ladder_units=400,
        ),
        "standard": ExponentsConfig(),
        "full": ExponentsConfig(
            spectral_dimension=400,
            spectral_seeds=20,
            committee_factors=(0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0),
            committee_dimension=600,
            committee_seeds=20,
            onset_dimensions=(120, 240, 480, 960),
            onset_seeds=24,
            student_factors=(0.6, 1.0, 1.5, 3.0, 5.0, 8.0),
            student_dimension=600,
            student_seeds=10,
        ),
    },
    run=run_study,
    claims=(
        "all-certified",
        "slope-abs",
        "slope-cos",
        "slope-he4",
        "slope-he3",
        "slope-step3",
        "slope-step4",
        "spectral-below",
        "spectral-limit",
        "committee-below",
        "committee-onset",
        "committee-above",
        "committee-half",
        "committee-jump",
        "ladder",
        "ladder-noiseless",
        "loss",
    ),
    paired_on=(
        "committee_units",
        "committee_activation",
        "committee_noise",
        "committee_factors",
        "onset_factors",
        "spectral_order",
        "spectral_snr",
    ),
)
