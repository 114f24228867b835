"""Study `forecast-gate`: how often does each gate adopt specialists, with regimes and without?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from metier.runs import Progress, Result, Run, Study

TITLE = "Forecasting: does the gate keep one model where there is nothing to divide?"
QUESTION = (
    "How often does each gate adopt specialists on panels without regimes, from which known gain on does it "
    "find them, and are the regimes it finds the true ones?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """What the study simulates.

    Args:
        loss: of the panels without regimes and of the power curve.
        homogeneous_seeds: panels without regimes, per size.
        separations: of the three regimes of the power curve.
        power_seeds: panels per separation; the same innovations at every separation.
        both_seeds: of these panels, how many are also divided on TRAIN and VAL (squared loss only).
        recovery_loss: of the panels with two and four regimes.
        recovery_seeds: panels per such design.
        noise_seeds: panels that differ in the shape of their noise only.
        n_test: TEST steps.
    """

    loss: Literal["squared", "huber"] = "squared"
    homogeneous_seeds: int = 200
    separations: tuple[float, ...] = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5)
    power_seeds: int = 100
    both_seeds: int = 60
    recovery_loss: Literal["squared", "huber"] = "huber"
    recovery_seeds: int = 20
    noise_seeds: int = 20
    n_test: int = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One design with one setting of the forecaster; `key` is its name in the journal."""

    key: str
    design: str
    n_seeds: int
    loss: str
    separation: float | None = None
    anomalies: bool = False
    assign_on: str = "val"
    lags: int = 8
    n_clusters: int = 4


HOMOGENEOUS = ("homogeneous", "small_homogeneous")
POWER_DESIGN = "weak"


def cases(config: GateConfig) -> Iterator[Case]:
    """Every case of the study, the panels without regimes first."""
    for design in HOMOGENEOUS:
        plain = Case(key=design, design=design, n_seeds=config.homogeneous_seeds, loss=config.loss)
        yield from _with_both(plain, config)
    for separation in config.separations:
        plain = Case(
            key=f"power-{separation:g}",
            design=POWER_DESIGN,
            n_seeds=config.power_seeds,
            loss=config.loss,
            separation=separation,
        )
        yield from _with_both(plain, config)
    regimes = Case(key="strong", design="strong", n_seeds=config.recovery_seeds, loss=config.recovery_loss)
    yield regimes
    yield replace(regimes, key="medium", design="medium")
    yield replace(regimes, key="medium-anomalies", design="medium", anomalies=True)
    noise = Case(
        key="noise-pinball",
        design="noise_shape",
        n_seeds=config.noise_seeds,
        loss="pinball",
        lags=4,
        n_clusters=2,
    )
    yield noise
    yield replace(noise, key="noise-huber", loss="huber")
    yield replace(noise, key="noise-control", design="noise_shape_control")


def _with_both(case: Case, config: GateConfig) -> Iterator[Case]:
    """A case, and where the loss has sums its first panels assigned on TRAIN and VAL."""
    yield case
    if config.loss == "squared":
        yield replace(case, key=f"both-{case.key}", n_seeds=config.both_seeds, assign_on="both")


def run_study(config: GateConfig, run: Run, progress: Progress) -> Result:
    """Run every trial as a cell of its own, then state what they show."""
    trials: dict[str, list[dict[str, Any]]] = {}
    for case in cases(config):
        progress.stage(_aim(case))
        seeds = progress.track(range(case.n_seeds), case.key, total=case.n_seeds)
        trials[case.key] = [_trial(case, k, config, run) for k in seeds]
    from metier_studies.forecast_gate.findings import findings

    return findings(config, trials, run, title=TITLE, question=QUESTION)


def _trial(case: Case, replicate: int, config: GateConfig, run: Run) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        from metier.core import derive_seed
        from metier_studies.forecast_gate.trials import run_trial

        return run_trial(
            case.design,
            seed=derive_seed(run.seed, run.study, "replicate", replicate),
            loss=case.loss,
            lags=case.lags,
            n_clusters=case.n_clusters,
            assign_on=case.assign_on,
            separation=case.separation,
            anomalies=case.anomalies,
            n_test=config.n_test,
        )

    trial: dict[str, Any] = run.cell(f"{case.key}/seed-{replicate}", work)
    return trial


def _aim(case: Case) -> str:
    """What a case is for, in one line."""
    if case.assign_on == "both":
        return f"{case.key}: the same panels, the series assigned on TRAIN and VAL"
    if case.design in HOMOGENEOUS:
        return f"{case.key}: panels without regimes, where adopting is an error"
    if case.separation is not None:
        return f"three regimes at separation {case.separation:g}: how often are they adopted?"
    if case.design.startswith("noise"):
        return f"{case.key}: series that differ in the shape of their noise, or not at all"
    return f"{case.key}: are the regimes found, and is their gain?"


STUDY = Study(
    name="forecast-gate",
    family="forecast",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": GateConfig(
            homogeneous_seeds=4,
            separations=(0.25, 0.5),
            power_seeds=3,
            both_seeds=3,
            recovery_loss="squared",
            recovery_seeds=2,
            noise_seeds=2,
        ),
        "standard": GateConfig(),
        "full": GateConfig(
            homogeneous_seeds=500,
            separations=(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5),
            power_seeds=500,
            both_seeds=500,
            recovery_seeds=50,
            noise_seeds=50,
        ),
    },
    run=run_study,
    claims=(
        "size-100-series",
        "size-24-series",
        "same-val-adopts",
        "same-val-harms",
        "power-at-5-percent",
        "harm-at-worst",
        "better-than-features",
        "both-size",
        "both-better-than-val",
        "both-better-than-features",
        "strong-regimes",
        "strong-gain",
        "medium-gain",
        "anomalies-gain",
        "noise-shape-by-pinball",
        "noise-shape-by-huber",
        "better-than-features-on-noise",
        "noise-control",
    ),
    paired_on=(
        "loss",
        "homogeneous_seeds",
        "separations",
        "power_seeds",
        "both_seeds",
        "recovery_loss",
        "recovery_seeds",
        "noise_seeds",
        "n_test",
    ),
)
