"""Study `bilevel-sources`: weights of data sources with intervals, simulated and on the flights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from metier.runs import Claim, Column, DataUsed, Measured, Progress, Result, Run, Section, Study, Table
from metier_studies.lib.claims import all_hold, claim

TITLE = "Weights of data sources: how much should each count, and does it pay?"
QUESTION = (
    "Do intervals of a gradient and of a weight cover the truth, and do clusters of airports gain from each "
    "other's data, weighed, over one model for all and over their own data alone?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcesConfig:
    """What the study runs.

    Args:
        gradient_sizes: rows of the logistic design.
        gradient_seeds: replicates of each.
        weight_n, weight_seeds: rows and replicates of the design with a known weight.
        n_airports, n_clusters, n_weeks: of the flights.
    """

    gradient_sizes: tuple[int, ...] = (1000, 4000)
    gradient_seeds: int = 60
    weight_n: int = 900
    weight_seeds: int = 40
    n_airports: int = 60
    n_clusters: int = 3
    n_weeks: int = 12


LEARNERS = {"over-smoothed": (4, 1000.0), "rich": (4, 1.0)}
"""Degree and penalty: shrunk too much, and rich enough."""


def run_study(config: SourcesConfig, run: Run, progress: Progress) -> Result:
    """Run the gradients, the weights and the flights."""
    gradients: dict[tuple[str, int], list[Any]] = {}
    for name in LEARNERS:
        for n in config.gradient_sizes:
            seeds = progress.track(range(config.gradient_seeds), f"{name} {n}", total=config.gradient_seeds)
            gradients[name, n] = [
                run.cell(f"gradient/{name}/{n}/{k}", partial(_gradient, name, n, k, run)) for k in seeds
            ]
    seeds = progress.track(range(config.weight_seeds), "known weight", total=config.weight_seeds)
    weights = [run.cell(f"weight/{k}", partial(_weight, config.weight_n, k, run)) for k in seeds]
    progress.stage("flights: each cluster weighs the others' data")
    flights = run.cell("flights", partial(_flights, config, run))
    return findings(config, gradients, weights, flights, run)


def _gradient(name: str, n: int, k: int, run: Run) -> dict[str, Any]:
    from metier.core import derive_seed
    from metier_studies.bilevel_sources.designs import gradient_replicate

    degree, penalty = LEARNERS[name]
    seed = derive_seed(run.seed, run.study, "gradient", n, k)
    return gradient_replicate(n, degree=degree, penalty=penalty, seed=seed)


def _weight(n: int, k: int, run: Run) -> dict[str, Any]:
    from metier.core import derive_seed
    from metier_studies.bilevel_sources.designs import weight_replicate

    return weight_replicate(n, seed=derive_seed(run.seed, run.study, "weight", k))


def _flights(config: SourcesConfig, run: Run) -> dict[str, Any]:
    from metier.core import derive_seed
    from metier_studies.bilevel_sources.designs import flight_sources

    seed = derive_seed(run.seed, run.study, "flights")
    return flight_sources(config.n_airports, config.n_clusters, config.n_weeks, seed=seed)


def findings(
    config: SourcesConfig,
    gradients: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]],
    weights: Sequence[Mapping[str, Any]],
    flights: Mapping[str, Any],
    run: Run,
) -> Result:
    """Claims and tables."""
    from metier.data import registry

    sha = registry["flights_hourly"].files["flights_hourly.npy.xz"]
    return run.result(
        family="bilevel",
        title=TITLE,
        question=QUESTION,
        claims=tuple(_claims(config, gradients, weights, flights, run.command)),
        sections=(
            Section(
                title="A gradient in the weights, with known truth",
                text="Three sources share inputs and differ in labels; the trusted one's loss is asked for.",
                tables=(_gradient_table(gradients),),
            ),
            Section(
                title="Clusters of airports as sources",
                text="Each cluster's newest weeks judge. Its own past has weight 1, the other clusters' "
                "pasts are weighed; equal weights are one model for all, weight 0 elsewhere its own model.",
                tables=(_flight_table(flights),),
            ),
        ),
        data=(DataUsed(name="flights_hourly", sha256=sha, description=registry["flights_hourly"].title),),
        notes=(
            "Weights are chosen on other days than the gain is measured on.",
            "With unlimited data of one's own, other sources are not needed unless they agree; a weight is "
            "about the data at hand and the model's class.",
        ),
    )


def _claims(
    config: SourcesConfig,
    gradients: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]],
    weights: Sequence[Mapping[str, Any]],
    flights: Mapping[str, Any],
    command: str,
) -> list[Claim]:
    from metier_studies.lib.shares import ratio, share
    from metier_studies.lib.statements import Statement

    n = config.gradient_sizes[-1]
    rich = [cell["obigrad_covered"][0] for cell in gradients["rich", n]]
    smooth = gradients["over-smoothed", n]
    squares = {k: [sum(e * e for e in cell[k]) for cell in smooth] for k in ("obigrad", "plugin")}
    claims = [
        Statement(
            id="less-error-where-smoothed",
            text=f"Where the learner smooths too much ({n} rows), the orthogonal gradient has less error.",
            effect="at most 80 % of the plug-in's mean squared error",
            measured=ratio(squares["obigrad"], squares["plugin"], unit="replicates"),
            limit=0.8,
            below=True,
        ).judged(command),
        Statement(
            id="gradient-covers",
            text=f"With a rich enough learner and {n} rows the gradient's 95 % intervals cover.",
            effect="in at least 85 % of the replicates, first entry",
            measured=share(rich, unit="replicates"),
            limit=0.85,
        ).judged(command),
        Statement(
            id="weight-covers",
            text="The 95 % interval of a known weight covers it.",
            effect="in at least 85 % of the replicates",
            measured=share([cell["covered"] for cell in weights], unit="replicates"),
            limit=0.85,
        ).judged(command),
        Statement(
            id="weights-pay",
            text="There the held-out verdict is that re-weighting pays.",
            effect="in at least 80 % of the replicates",
            measured=share([cell["verdict"] == "pays" for cell in weights], unit="replicates"),
            limit=0.8,
        ).judged(command),
    ]
    for name, what in (("against_equal", "one model for all"), ("against_own", "a model of its own")):
        verdicts = [cluster[name]["verdict"] for cluster in flights["clusters"]]
        parts = [
            {"pays": "holds", "hurts": "does not hold"}.get(verdict, "undecided") for verdict in verdicts
        ]
        claims.append(
            claim(
                all_hold(parts),
                at_least=1.0,
                shown=Measured(value=verdicts.count("pays"), unit=f"of {len(verdicts)} clusters"),
                reason="" if set(parts) == {"holds"} else "verdicts: " + ", ".join(verdicts),
                id=f"flights-{name.replace('_', '-')}",
                statement=f"On the flights weighed pasts forecast better than {what}, in every cluster.",
                source="metier",
                minimum_effect="the held-out verdict is `pays` in every cluster",
                command=command,
            ).model_copy(update={"minimum_effect_value": None})
        )
    return claims


def _gradient_table(gradients: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]) -> Table:
    from metier_studies.lib.shares import mean, share

    rows = []
    for (name, n), cells in gradients.items():
        for kind in ("plugin", "obigrad"):
            errors = [cell[kind][0] for cell in cells]
            rms = (sum(sum(e * e for e in cell[kind]) for cell in cells) / len(cells)) ** 0.5
            covered = share([cell[f"{kind}_covered"][0] for cell in cells], unit="replicates")
            label = "orthogonal" if kind == "obigrad" else "plug-in"
            rows.append((name, n, label, mean(errors, unit="replicates"), rms, covered))
    return Table(
        id="gradients",
        title="Gradient of the trusted loss in two log weights",
        columns=(
            Column(name="learner"),
            Column(name="rows", kind="integer"),
            Column(name="gradient"),
            Column(name="bias, first entry", kind="estimate"),
            Column(name="root mean squared error", kind="number", digits=4),
            Column(name="95 % interval covers, first entry", kind="estimate"),
        ),
        rows=tuple(rows),
        emphasis=tuple(i for i, row in enumerate(rows) if row[2] == "orthogonal"),
        caption="Ridge on polynomials of degree 4, with penalties 1000 and 1.",
    )


def _flight_table(flights: Mapping[str, Any]) -> Table:
    rows = []
    for cluster in flights["clusters"]:
        scale = 1.0 / cluster["equal_loss"]
        for j, source in enumerate(cluster["sources"]):
            low, high = cluster["interval"][j]
            interval = "at the bound" if cluster["at_bound"][j] else f"{low:.2g} to {high:.2g}"
            first = j == 0
            rows.append(
                (
                    f"{cluster['cluster']} ({flights['sizes'][cluster['cluster']]} airports)",
                    str(source),
                    2.718281828459045 ** cluster["log_weights"][j],
                    interval,
                    _gain(cluster["against_equal"], scale) if first else None,
                    _gain(cluster["against_own"], scale) if first else None,
                )
            )
    return Table(
        id="flights",
        title="What other clusters' pasts are worth",
        columns=(
            Column(name="cluster"),
            Column(name="source"),
            Column(name="weight", kind="number", digits=2),
            Column(name="95 % interval"),
            Column(name="gain over equal weights", kind="estimate"),
            Column(name="gain over own past", kind="estimate"),
        ),
        rows=tuple(rows),
        caption="Gains on held-out days, in percent of the loss with equal weights, with 90 % intervals "
        "clustered by day.",
    )


def _gain(decision: Mapping[str, Any], scale: float) -> Measured:
    low, high = (end * scale for end in decision["interval"])
    return Measured(
        value=decision["gain"] * scale,
        low=low,
        high=high,
        level=0.9,
        n=decision["n"],
        unit="days",
        method="clustered",
        percent=True,
    )


STUDY = Study(
    name="bilevel-sources",
    family="bilevel",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": SourcesConfig(
            gradient_sizes=(1000,), gradient_seeds=8, weight_seeds=6, n_airports=30, n_clusters=2, n_weeks=8
        ),
        "standard": SourcesConfig(),
        "full": SourcesConfig(
            gradient_sizes=(1000, 4000, 16000),
            gradient_seeds=500,
            weight_seeds=500,
            n_airports=120,
            n_clusters=4,
        ),
    },
    run=run_study,
    claims=(
        "less-error-where-smoothed",
        "gradient-covers",
        "weight-covers",
        "weights-pay",
        "flights-against-equal",
        "flights-against-own",
    ),
    paired_on=("gradient_sizes", "gradient_seeds", "weight_n", "weight_seeds", "n_airports", "n_weeks"),
)
