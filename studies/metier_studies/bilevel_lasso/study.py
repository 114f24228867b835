"""Study `bilevel-lasso`: many instruments, a first stage by the lasso, and what its shrinkage does to w."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from metier.runs import Claim, Column, Figure, Lines, Progress, Result, Run, Section, Series, Study, Table

TITLE = "Bilevel gradients: many instruments and a first stage by the lasso"
QUESTION = (
    "The lasso shrinks its first stage. Does the plug-in root keep that bias, does the orthogonal one lose "
    "it as data grow, and what do the intervals cover?"
)
N_INSTRUMENTS = 100
DECAY = 0.7
MISSPECIFICATION = 0.6
ESTIMATORS = {
    "plugin": "plug-in",
    "separate": "OBiGrad, h and m apart",
    "direct": "OBiGrad, direct residual",
    "instrument": "instrument form",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LassoConfig:
    """What the study simulates.

    Args:
        sizes: rows.
        seeds: replicates per size and design.
        folds: of cross-fitting.
    """

    sizes: tuple[int, ...] = (250, 500, 1000, 2000)
    seeds: int = 100
    folds: int = 5


def replicate(n: int, folds: int, *, misspecified: bool, seed: int) -> dict[str, Any]:
    """Errors and coverage of one draw: T = Z'b + u, Y = 2 T - u + e / 2 (+ 0.6 (Z_2 - Z_3))."""
    import numpy as np

    from metier.bilevel import AffineTarget, BilevelProblem, OBiGrad, Squared
    from metier.bilevel.designs import TheoryLasso

    rng = np.random.default_rng(seed)
    b = DECAY ** np.arange(1, N_INSTRUMENTS + 1)
    b /= np.linalg.norm(b)
    Z, u, e = rng.normal(size=(n, N_INSTRUMENTS)), rng.normal(size=n), rng.normal(size=n)
    T = Z @ b + u
    Y = 2.0 * T - u + 0.5 * e + misspecified * MISSPECIFICATION * (Z[:, 1] - Z[:, 2])
    target = 2.0 + misspecified * MISSPECIFICATION * float(b[1] - b[2])
    problem = BilevelProblem(Squared(AffineTarget(None, "T")), Squared("Y"))
    settings: dict[str, dict[str, Any]] = {
        "plugin": {"estimator": "plugin"},
        "separate": {"residual": "separate"},
        "direct": {},
        "instrument": {"estimator": "adjoint_instrument"},
    }
    found: dict[str, Any] = {}
    for name, options in settings.items():
        model = OBiGrad(problem, learner=TheoryLasso(), folds=folds, rng=seed, diagnose=False, **options)
        solution = model.fit(Z, {"T": T, "Y": Y}).solve()
        low, high = solution.interval(0.95)[0]
        found[name] = float(solution.w[0] - target)
        found[f"{name}_stderr"] = float(solution.stderr[0])
        found[f"{name}_covered"] = bool(low <= target <= high)
    return found


def run_study(config: LassoConfig, run: Run, progress: Progress) -> Result:
    """Run every size with and without misspecification."""
    found: dict[str, list[dict[str, Any]]] = {}
    for misspecified in (False, True):
        for n in config.sizes:
            key = f"{'misspecified' if misspecified else 'specified'}/{n}"
            seeds = progress.track(range(config.seeds), key, total=config.seeds)
            found[key] = [
                run.cell(f"{key}/{k}", partial(_cell, n, misspecified, k, config, run)) for k in seeds
            ]
    return findings(config, found, run)


def _cell(n: int, misspecified: bool, k: int, config: LassoConfig, run: Run) -> dict[str, Any]:
    from metier.core import derive_seed

    seed = derive_seed(run.seed, run.study, str(misspecified), n, k)
    return replicate(n, config.folds, misspecified=misspecified, seed=seed)


def findings(config: LassoConfig, found: Mapping[str, Sequence[Mapping[str, Any]]], run: Run) -> Result:
    """Claims, a table per design, and the curve of the scaled bias."""
    return run.result(
        family="bilevel",
        title=TITLE,
        question=QUESTION,
        claims=tuple(_claims(config, found, run.command)),
        sections=(
            Section(
                title="The model holds",
                text="The bias times the square root of the rows is what an interval feels. The root mean "
                "squared errors are close all the same: what debiasing buys here is coverage, not accuracy.",
                tables=(_table(config, found, "specified"),),
                figures=(_curve(config, found),),
            ),
            Section(
                title="The model does not hold",
                text="An instrument acts on the outcome directly. The target is the projection, 2.09; the "
                "instrument form's standard error ignores what it leaves out.",
                tables=(_table(config, found, "misspecified"),),
            ),
        ),
        notes=("Coverage is below nominal at moderate sizes; it is reported as measured.",),
    )


def _scaled(cells: Sequence[Mapping[str, Any]], name: str, n: int) -> list[float]:
    return [cell[name] * n**0.5 for cell in cells]


def _claims(
    config: LassoConfig, found: Mapping[str, Sequence[Mapping[str, Any]]], command: str
) -> list[Claim]:
    from metier_studies.lib.shares import mean, share
    from metier_studies.lib.statements import Statement

    first, last = config.sizes[0], config.sizes[-1]
    small, large = found[f"specified/{first}"], found[f"specified/{last}"]
    sign = 1.0 if sum(cell["plugin"] for cell in large) > 0 else -1.0

    def gap(a: str, b: str) -> list[float]:
        return [sign * (x - y) for x, y in zip(_scaled(large, a, last), _scaled(large, b, last), strict=True)]

    sign_ours = 1.0 if sum(cell["separate"] for cell in small) > 0 else -1.0
    statements = (
        Statement(
            id="bias-falls",
            text=f"The scaled bias of the orthogonal root falls from {first} to {last} rows.",
            effect="a mean fall above zero",
            measured=mean(
                [
                    sign_ours * (a - b)
                    for a, b in zip(
                        _scaled(small, "separate", first), _scaled(large, "separate", last), strict=True
                    )
                ],
                unit="replicates",
            ),
            limit=0.0,
        ),
        Statement(
            id="below-plugin",
            text=f"With {last} rows it is below the plug-in's.",
            effect="a mean difference above zero",
            measured=mean(gap("plugin", "separate"), unit="replicates"),
            limit=0.0,
        ),
        Statement(
            id="direct-below-separate",
            text="Regressing the residual once leaves less bias than regressing its two parts.",
            effect=f"a mean difference above zero with {last} rows",
            measured=mean(gap("separate", "direct"), unit="replicates"),
            limit=0.0,
        ),
        Statement(
            id="direct-covers",
            text=f"With {last} rows the direct residual's 95 % interval covers.",
            effect="in at least 90 % of the replicates",
            measured=share([cell["direct_covered"] for cell in large], unit="replicates"),
            limit=0.9,
        ),
        Statement(
            id="plugin-fails",
            text=f"With {last} rows the plug-in's does not.",
            effect="in less than 50 % of the replicates",
            measured=share([cell["plugin_covered"] for cell in large], unit="replicates"),
            limit=0.5,
            below=True,
        ),
    )
    return [statement.judged(command) for statement in statements]


def _table(config: LassoConfig, found: Mapping[str, Sequence[Mapping[str, Any]]], design: str) -> Table:
    from metier_studies.lib.shares import mean, share

    rows = []
    for n in config.sizes:
        cells = found[f"{design}/{n}"]
        for key, name in ESTIMATORS.items():
            errors = [cell[key] for cell in cells]
            rms = (sum(e * e for e in errors) / len(errors)) ** 0.5
            stderr = sum(cell[f"{key}_stderr"] for cell in cells) / len(cells)
            covered = share([cell[f"{key}_covered"] for cell in cells], unit="replicates")
            rows.append((n, name, mean(_scaled(cells, key, n), unit="replicates"), rms, stderr, covered))
    return Table(
        id=f"lasso-{design}",
        title=f"{N_INSTRUMENTS} instruments, the model {'holds' if design == 'specified' else 'fails'}",
        columns=(
            Column(name="rows", kind="integer"),
            Column(name="estimator"),
            Column(name="bias x sqrt(rows)", kind="estimate"),
            Column(name="root mean squared error", kind="number", digits=4),
            Column(name="mean standard error", kind="number", digits=4),
            Column(name="95 % interval covers", kind="estimate"),
        ),
        rows=tuple(rows),
        emphasis=tuple(i for i, row in enumerate(rows) if row[1] == ESTIMATORS["direct"]),
        caption="Means and shares over replicates with 95 % intervals.",
    )


def _curve(config: LassoConfig, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    from metier_studies.lib.shares import mean

    series = []
    for key, name in ESTIMATORS.items():
        measured = [mean(_scaled(found[f"specified/{n}"], key, n)) for n in config.sizes]
        series.append(
            Series(
                name=name,
                x=list(map(float, config.sizes)),
                y=[m.value for m in measured],
                low=[m.value if m.low is None else m.low for m in measured],
                high=[m.value if m.high is None else m.high for m in measured],
                style="line+points",
            )
        )
    return Figure(
        id="lasso-bias",
        title="Bias on the scale of the standard error",
        caption="Mean error of the root times the square root of the rows, with 95 % intervals.",
        alt="Scaled bias by rows: "
        + "; ".join(f"{s.name} from {s.y[0]:.2f} to {s.y[-1]:.2f}" for s in series),
        data=Lines(x_label="rows", y_label="bias x sqrt(rows)", series=tuple(series), x_scale="log"),
    )


STUDY = Study(
    name="bilevel-lasso",
    family="bilevel",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": LassoConfig(sizes=(250, 1000), seeds=20),
        "standard": LassoConfig(),
        "full": LassoConfig(sizes=(250, 500, 1000, 2000, 4000, 8000), seeds=1000),
    },
    run=run_study,
    claims=("bias-falls", "below-plugin", "direct-below-separate", "direct-covers", "plugin-fails"),
    paired_on=("sizes", "seeds"),
)
