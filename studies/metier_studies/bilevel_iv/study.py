"""Study `iv`: what do instruments say in real data, and can the standard error be believed?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from metier.runs import Progress, Result, Run, Study

TITLE = "Instrumental variables: a gradient with a standard error, on real data"
QUESTION = (
    "Does the orthogonal score agree with two-stage least squares where instruments are strong, beat the "
    "plug-in where learning the first stage hurts, and say so where instruments are weak?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IVConfig:
    """What the study runs.

    Args:
        cases: real data sets; meps and thornton need the bench extra.
        repeats: divisions into folds per real data set.
        plugin_seeds: replicates of the paper's root experiment.
        plugin_n: rows of each.
        weak_seeds: replicates of the weak design.
        weak_n: rows of each.
        weak_strength: its first-stage coefficient; the expected effective F is about weak_n x its square.
        rivals: whether to run the rivals that are installed.
        rival: Python file with estimate(y, t, z, x) -> (coefficient, standard error), or none; an estimate
            of None says that the rival cannot do that data set.
    """

    cases: tuple[str, ...] = ("labsup", "401ksubs", "card")
    repeats: int = 5
    plugin_seeds: int = 200
    plugin_n: int = 100
    weak_seeds: int = 200
    weak_n: int = 400
    weak_strength: float = 0.1
    rivals: bool = False
    rival: str | None = None


def run_study(config: IVConfig, run: Run, progress: Progress) -> Result:
    """Fit the real data sets, then the replicates, then say what they show."""
    from metier_studies.bilevel_iv.findings import findings

    real: dict[str, Any] = {}
    rivals: dict[str, Any] = {}
    progress.stage("real data: the orthogonal score beside two-stage least squares")
    for name in progress.track(config.cases, "data sets", total=len(config.cases)):
        real[name] = run.cell(f"real/{name}", partial(_fit, name, config, run))
        if config.rivals or config.rival:
            progress.stage(f"{name}: the same rows by other libraries")
            rivals[name] = run.cell(f"rivals/{name}", partial(_rivals, name, config, run))
    progress.stage(f"{config.plugin_n} rows, a first stage to learn: does plugging it in bias the answer?")
    plugin = [
        run.cell(f"plugin/{k}", partial(_plugin, k, config, run))
        for k in progress.track(range(config.plugin_seeds), "plug-in", total=config.plugin_seeds)
    ]
    progress.stage("a weak instrument: which intervals still cover the truth?")
    weak = [
        run.cell(f"weak/{k}", partial(_weak, k, config, run))
        for k in progress.track(range(config.weak_seeds), "weak", total=config.weak_seeds)
    ]
    return findings(config, real, rivals, plugin, weak, run, title=TITLE, question=QUESTION)


def _fit(name: str, config: IVConfig, run: Run) -> dict[str, Any]:
    from metier.core import derive_seed
    from metier_studies.bilevel_iv.work import fit_case

    return fit_case(name, repeats=config.repeats, seed=derive_seed(run.seed, run.study, name))


def _rivals(name: str, config: IVConfig, run: Run) -> dict[str, Any]:
    from metier.core import derive_seed
    from metier_studies.bilevel_iv.work import rival_estimates

    return rival_estimates(name, seed=derive_seed(run.seed, run.study, "rival", name), path=config.rival)


def _plugin(k: int, config: IVConfig, run: Run) -> dict[str, Any]:
    from metier.core import derive_seed
    from metier_studies.bilevel_iv.work import biased_plugin

    return biased_plugin(config.plugin_n, seed=derive_seed(run.seed, run.study, "plugin", k))


def _weak(k: int, config: IVConfig, run: Run) -> dict[str, Any]:
    from metier.core import derive_seed
    from metier_studies.bilevel_iv.work import weak_design

    seed = derive_seed(run.seed, run.study, "weak", k)
    return weak_design(config.weak_n, config.weak_strength, seed=seed)


STUDY = Study(
    name="iv",
    family="bilevel",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": IVConfig(),
        "standard": IVConfig(
            cases=("labsup", "401ksubs", "card", "meps", "thornton"),
            repeats=9,
            plugin_seeds=1000,
            weak_seeds=1000,
            rivals=True,
        ),
        "full": IVConfig(
            cases=("labsup", "401ksubs", "card", "meps", "thornton"),
            repeats=25,
            plugin_seeds=10_000,
            weak_seeds=10_000,
            rivals=True,
        ),
    },
    run=run_study,
    claims=(
        "agrees-with-2sls",
        "instrument-form-as-good",
        "plugin-bias",
        "root-coverage",
        "weak-warning",
        "weak-wald",
        "weak-set-covers",
        "card-warned",
    ),
    paired_on=("cases", "plugin_seeds", "plugin_n", "weak_seeds", "weak_n", "weak_strength"),
)
